// simd.h over AVX2, FMA and F16C: two halves of eight lanes.
#pragma once

#include <immintrin.h>

namespace freehold::ISA {

struct F32 {
  __m256 lo, hi;
};
struct I32 {
  __m256i lo, hi;
};
struct Bytes {
  __m256i lo, hi;
};

constexpr bool kHas32Registers = false;  // of one vector each

inline F32 operator+(F32 a, F32 b) {
  return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
inline F32 operator-(F32 a, F32 b) {
  return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
inline F32 operator*(F32 a, F32 b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
inline F32 operator/(F32 a, F32 b) {
  return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
inline I32 operator+(I32 a, I32 b) {
  return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)};
}

inline F32 splat(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline I32 splat_int(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
inline F32 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, F32 v) { _mm256_storeu_ps(p, v.lo), _mm256_storeu_ps(p + 8, v.hi); }
inline Bytes load_bytes(const void* p) {
  return {_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)p + 1)};
}
inline I32 load_int(const int32_t* p) {
  return {_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)p + 1)};
}
inline void store_bytes(void* p, Bytes v) {
  _mm256_storeu_si256((__m256i*)p, v.lo), _mm256_storeu_si256((__m256i*)p + 1, v.hi);
}

inline F32 fma(F32 a, F32 b, F32 c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline F32 max(F32 a, F32 b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
inline F32 min(F32 a, F32 b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
inline F32 magnitude(F32 a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
}
inline F32 to_float(I32 v) { return {_mm256_cvtepi32_ps(v.lo), _mm256_cvtepi32_ps(v.hi)}; }
inline I32 to_int(F32 v) { return {_mm256_cvtps_epi32(v.lo), _mm256_cvtps_epi32(v.hi)}; }
inline F32 power_of_two(I32 n) {
  const __m256i bias = _mm256_set1_epi32(127);
  return {(__m256)_mm256_slli_epi32(_mm256_add_epi32(n.lo, bias), 23),
          (__m256)_mm256_slli_epi32(_mm256_add_epi32(n.hi, bias), 23)};
}
inline F32 zero_where_less(F32 x, F32 bound, F32 v) {
  return {_mm256_and_ps(_mm256_cmp_ps(x.lo, bound.lo, _CMP_NLT_UQ), v.lo),
          _mm256_and_ps(_mm256_cmp_ps(x.hi, bound.hi, _CMP_NLT_UQ), v.hi)};
}
inline void store_int8(int8_t* p, I32 v) {
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(v.lo, v.hi), 0xd8);
  _mm_storeu_si128((__m128i*)p, _mm_packs_epi16(_mm256_castsi256_si128(words),
                                                _mm256_extracti128_si256(words, 1)));
}

inline F32 load_int8(const int8_t* p) {
  const __m128i v = _mm_loadu_si128((const __m128i*)p);
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(v)),
          _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(v, 8)))};
}
inline F32 even_bf16(Bytes pairs) {
  return {(__m256)_mm256_slli_epi32(pairs.lo, 16), (__m256)_mm256_slli_epi32(pairs.hi, 16)};
}
inline F32 odd_bf16(Bytes pairs) {
  const __m256i mask = _mm256_set1_epi32(int(0xffff0000u));
  return {(__m256)_mm256_and_si256(pairs.lo, mask), (__m256)_mm256_and_si256(pairs.hi, mask)};
}
inline Bytes low_bf16(Bytes pairs) {
  const __m256i mask = _mm256_set1_epi32(0xffff);
  return {_mm256_and_si256(pairs.lo, mask), _mm256_and_si256(pairs.hi, mask)};
}
inline __m256i half_round_bf16(__m256 v) {
  const __m256i bits = (__m256i)v;
  const __m256i is_odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), is_odd);
  return _mm256_and_si256(up, _mm256_set1_epi32(int(0xffff0000u)));
}
// To the nearest bfloat16, ties to even, still as floats; not for NaN.
inline F32 round_bf16(F32 v) {
  return {(__m256)half_round_bf16(v.lo), (__m256)half_round_bf16(v.hi)};
}
inline void store_bf16(uint16_t* p, F32 v) {  // rounded in the same way
  const F32 rounded = round_bf16(v);
  const __m256i lo = _mm256_srli_epi32((__m256i)rounded.lo, 16);
  const __m256i hi = _mm256_srli_epi32((__m256i)rounded.hi, 16);
  _mm256_storeu_si256((__m256i*)p, _mm256_permute4x64_epi64(_mm256_packus_epi32(lo, hi), 0xd8));
}
inline Bytes round_to_bf16(F32 first, F32 second) {  // side by side
  uint16_t both[32];
  store_bf16(both, first), store_bf16(both + 16, second);
  return load_bytes(both);
}
inline Bytes join_bf16(F32 even, F32 odd) {  // both rounded
  return {_mm256_or_si256(_mm256_srli_epi32((__m256i)even.lo, 16), (__m256i)odd.lo),
          _mm256_or_si256(_mm256_srli_epi32((__m256i)even.hi, 16), (__m256i)odd.hi)};
}
// Of rows a and b of 32 bfloat16 values, the pairs (a[i], b[i]): the first 16 and the others.
inline Bytes half_interleave_bf16(__m256i a, __m256i b) {
  const __m256i low = _mm256_unpacklo_epi16(a, b), high = _mm256_unpackhi_epi16(a, b);
  return {_mm256_permute2x128_si256(low, high, 0x20), _mm256_permute2x128_si256(low, high, 0x31)};
}
inline void interleave_bf16(Bytes a, Bytes b, Bytes& first, Bytes& second) {
  first = half_interleave_bf16(a.lo, b.lo), second = half_interleave_bf16(a.hi, b.hi);
}
inline F32 load_f16(const uint16_t* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)),
          _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(p + 8)))};
}

inline Bytes low_nibbles(Bytes v) {
  const __m256i mask = _mm256_set1_epi8(15);
  return {_mm256_and_si256(v.lo, mask), _mm256_and_si256(v.hi, mask)};
}
inline Bytes high_nibbles(Bytes v) {
  return low_nibbles({_mm256_srli_epi16(v.lo, 4), _mm256_srli_epi16(v.hi, 4)});
}

// vpmaddubsw saturates at 16 bits, so even and odd bytes are widened apart and vpmaddwd adds.
inline __m256i half_dot_u8s8(__m256i acc, __m256i w, __m256i a_even, __m256i a_odd) {
  const __m256i even = _mm256_madd_epi16(_mm256_and_si256(w, _mm256_set1_epi16(255)), a_even);
  const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(w, 8), a_odd);
  return _mm256_add_epi32(acc, _mm256_add_epi32(even, odd));
}
inline I32 dot_u8s8(I32 acc, Bytes w, uint32_t a) {
  const __m256i a4 = _mm256_set1_epi32(int(a));
  const __m256i a_even = _mm256_srai_epi16(_mm256_slli_epi16(a4, 8), 8);
  const __m256i a_odd = _mm256_srai_epi16(a4, 8);
  return {half_dot_u8s8(acc.lo, w.lo, a_even, a_odd), half_dot_u8s8(acc.hi, w.hi, a_even, a_odd)};
}
// With w <= 15 it cannot: 2 * 15 * 127 < 2^15.
inline __m256i half_dot_u4s8(__m256i acc, __m256i w, __m256i a) {
  const __m256i pairs = _mm256_maddubs_epi16(w, a);
  return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
inline I32 dot_u4s8(I32 acc, Bytes w, uint32_t a) {
  const __m256i a4 = _mm256_set1_epi32(int(a));
  return {half_dot_u4s8(acc.lo, w.lo, a4), half_dot_u4s8(acc.hi, w.hi, a4)};
}
inline F32 dot_bf16(F32 acc, Bytes w, uint32_t a) {
  const __m256 even = (__m256)_mm256_set1_epi32(int(a << 16));
  const __m256 odd = (__m256)_mm256_set1_epi32(int(a & 0xffff0000u));
  acc = fma(even_bf16(w), {even, even}, acc);
  return fma(odd_bf16(w), {odd, odd}, acc);
}

inline float sum(F32 v) {  // lanes i and i + 8, then + 4, + 2, + 1
  const __m256 a = _mm256_add_ps(v.lo, v.hi);
  const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps(c, c, 1)));
}
inline float greatest(F32 v) {
  const __m256 a = _mm256_max_ps(v.lo, v.hi);
  const __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 c = _mm_max_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_max_ss(c, _mm_shuffle_ps(c, c, 1)));
}

}  // namespace freehold::ISA
