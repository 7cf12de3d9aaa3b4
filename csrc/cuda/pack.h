// The pack (see math/) of a group of threads, a warp or an aligned part of one: each thread holds
// one factor. All threads of the group take part in every operation.
#pragma once

namespace scdr::cuda {

template <int threads>
struct GroupPack {
  static constexpr int width = threads;
  float x;

  static __device__ __forceinline__ int lane() {
    return static_cast<int>(threadIdx.x) & (threads - 1);
  }
  // The lanes of the group in its warp.
  static __device__ __forceinline__ unsigned mask() {
    return (0xffffffffu >> (32 - threads)) << (threadIdx.x & 31u & ~(threads - 1u));
  }
  static __device__ __forceinline__ float root(float s) { return sqrtf(s); }
  static __device__ __forceinline__ float copysign(float s, float t) { return copysignf(s, t); }
  static __device__ __forceinline__ GroupPack all(float s) { return {s}; }
  static __device__ __forceinline__ GroupPack load(const float* p, int n) {
    return {lane() < n ? p[lane()] : 0.0f};
  }
  static __device__ __forceinline__ GroupPack load_padded(const float* p, int n) {
    return load(p, n);
  }
};
using WarpPack = GroupPack<32>;

#define SCDR_PACK_OP \
  template <int W>   \
  __device__ __forceinline__
SCDR_PACK_OP void store(float* p, int n, GroupPack<W> a) {
  if (GroupPack<W>::lane() < n) p[GroupPack<W>::lane()] = a.x;
}
SCDR_PACK_OP void store_padded(float* p, int n, GroupPack<W> a) { store(p, n, a); }
SCDR_PACK_OP GroupPack<W> operator+(GroupPack<W> a, GroupPack<W> b) { return {a.x + b.x}; }
SCDR_PACK_OP GroupPack<W> operator-(GroupPack<W> a, GroupPack<W> b) { return {a.x - b.x}; }
SCDR_PACK_OP GroupPack<W> operator*(GroupPack<W> a, GroupPack<W> b) { return {a.x * b.x}; }
SCDR_PACK_OP GroupPack<W> operator/(GroupPack<W> a, GroupPack<W> b) { return {a.x / b.x}; }
SCDR_PACK_OP GroupPack<W> fma(GroupPack<W> a, GroupPack<W> b, GroupPack<W> c) {
  return {fmaf(a.x, b.x, c.x)};
}
SCDR_PACK_OP GroupPack<W> root(GroupPack<W> a) { return {sqrtf(a.x)}; }
SCDR_PACK_OP GroupPack<W> abs(GroupPack<W> a) { return {fabsf(a.x)}; }
SCDR_PACK_OP GroupPack<W> sign(GroupPack<W> a) {
  return {static_cast<float>((a.x > 0.0f) - (a.x < 0.0f))};
}
SCDR_PACK_OP int nonzero(GroupPack<W> a) {
  return __popc(__ballot_sync(GroupPack<W>::mask(), a.x != 0.0f));
}
SCDR_PACK_OP float sum(GroupPack<W> a) {
  for (int distance = W / 2; distance > 0; distance /= 2)
    a.x += __shfl_xor_sync(GroupPack<W>::mask(), a.x, distance);
  return a.x;
}
#undef SCDR_PACK_OP

}  // namespace scdr::cuda
