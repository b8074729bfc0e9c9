// Sixteen lanes on any CPU. Every kernel is written once over these types and functions; CMake
// compiles it once an instruction set, with ISA naming the namespace. Read matmul_int4.cpp next.
//
//   F32  16 floats · I32  16 int32 · Bytes  64 bytes, four to a lane
//   load_*, store_*, splat, fma, dot_*: one backend each below; sums are fixed trees, so that a
//   result has the same bits whatever runs it (but dot_bf16, whose rounding is the hardware's).
#pragma once

#include <cstdint>
#include <cstring>

#if defined(ISA_HAS_AVX512)
#include "simd_avx512.h"
#elif defined(ISA_HAS_AVX2)
#include "simd_avx2.h"
#else
#include "simd_scalar.h"
#endif

namespace freehold::ISA {

#if !defined(ISA_HAS_AVX512)
// out[8 u + r] = unit `unit` + u of rows[r], for 8 rows and 16 units of 4 bytes.
inline void interleave8(const uint8_t* const* rows, int64_t unit, uint32_t* out) {
  for (int u = 0; u < 16; ++u)
    for (int r = 0; r < 8; ++r) std::memcpy(out + 8 * u + r, rows[r] + 4 * (unit + u), 4);
}
#endif

inline F32 load_n(const float* p, int64_t count) {  // count < 16 lanes, the others 0
  float lanes[16] = {};
  std::memcpy(lanes, p, size_t(count) * 4);
  return load(lanes);
}

inline void store_n(float* p, F32 v, int64_t count) {
  float lanes[16];
  store(lanes, v);
  std::memcpy(p, lanes, size_t(count) * 4);
}

inline float bf16_to_float(uint32_t bits) {
  bits <<= 16;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

// Nearest, ties to even; a NaN keeps being one.
inline uint16_t float_to_bf16(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  if ((bits & 0x7fffffff) > 0x7f800000) return uint16_t((bits >> 16) | 0x40);
  return uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// e^x: 2^n times a degree-6 polynomial on [-ln2/2, ln2/2] (Cephes expf), relative error < 2e-7;
// 0 below -87.
inline F32 exp(F32 x) {
  const F32 clamped = min(max(x, splat(-87.0f)), splat(88.0f));
  const I32 n = to_int(clamped * splat(1.44269504f));
  const F32 whole = to_float(n);
  F32 r = fma(whole, splat(-0.693359375f), clamped);
  r = fma(whole, splat(2.12194440e-4f), r);
  F32 p = splat(1.9875691500e-4f);
  p = fma(p, r, splat(1.3981999507e-3f));
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(5.0000001201e-1f));
  p = fma(p, r * r, r) + splat(1.0f);
  return zero_where_less(x, splat(-87.0f), p * power_of_two(n));
}

// gate / (1 + e^-gate) * up, with the exponent never positive so that nothing overflows.
inline F32 silu_times(F32 gate, F32 up) {
  const F32 zero = splat(0), e = exp(zero - magnitude(gate));
  return (max(gate, zero) + min(gate, zero) * e) / (splat(1) + e) * up;
}

}  // namespace freehold::ISA
