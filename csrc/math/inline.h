// How functions of math/ are declared, on the CPU and in CUDA. SCDR_UNROLL_KNOWN stands before
// loops whose arrays must come to lie in registers where the count is known, up to 16.
#pragma once

#if defined(__CUDACC__)
#define SCDR_INLINE __device__ __forceinline__
#define SCDR_SHARED __host__ __device__ __forceinline__
#define SCDR_UNROLL _Pragma("unroll")
#define SCDR_UNROLL_KNOWN _Pragma("unroll 16")
#else
#define SCDR_INLINE inline __attribute__((always_inline))
#define SCDR_SHARED SCDR_INLINE
#define SCDR_UNROLL _Pragma("GCC unroll 8")
#define SCDR_UNROLL_KNOWN _Pragma("GCC unroll 16")
#endif
