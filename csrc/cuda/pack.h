// The pack (see math/) of a warp: each of its 32 threads holds one factor. All threads of the warp
// take part in every operation.
#pragma once

namespace scdr::cuda {

struct WarpPack {
  static constexpr int width = 32;
  float x;

  static __device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) & 31; }
  static __device__ __forceinline__ float root(float s) { return sqrtf(s); }
  static __device__ __forceinline__ float copysign(float s, float t) { return copysignf(s, t); }
  static __device__ __forceinline__ WarpPack all(float s) { return {s}; }
  static __device__ __forceinline__ WarpPack load(const float* p, int n) {
    return {lane() < n ? p[lane()] : 0.0f};
  }
  static __device__ __forceinline__ WarpPack load_padded(const float* p, int n) {
    return load(p, n);
  }
};

#define SCDR_PACK_OP __device__ __forceinline__
SCDR_PACK_OP void store(float* p, int n, WarpPack a) {
  if (WarpPack::lane() < n) p[WarpPack::lane()] = a.x;
}
SCDR_PACK_OP void store_padded(float* p, int n, WarpPack a) { store(p, n, a); }
SCDR_PACK_OP WarpPack operator+(WarpPack a, WarpPack b) { return {a.x + b.x}; }
SCDR_PACK_OP WarpPack operator-(WarpPack a, WarpPack b) { return {a.x - b.x}; }
SCDR_PACK_OP WarpPack operator*(WarpPack a, WarpPack b) { return {a.x * b.x}; }
SCDR_PACK_OP WarpPack fma(WarpPack a, WarpPack b, WarpPack c) { return {fmaf(a.x, b.x, c.x)}; }
SCDR_PACK_OP WarpPack abs(WarpPack a) { return {fabsf(a.x)}; }
SCDR_PACK_OP WarpPack sign(WarpPack a) { return {static_cast<float>((a.x > 0.0f) - (a.x < 0.0f))}; }
SCDR_PACK_OP int nonzero(WarpPack a) { return __popc(__ballot_sync(0xffffffffu, a.x != 0.0f)); }
SCDR_PACK_OP float sum(WarpPack a) {
  for (int distance = 16; distance > 0; distance /= 2)
    a.x += __shfl_xor_sync(0xffffffffu, a.x, distance);
  return a.x;
}

}  // namespace scdr::cuda
