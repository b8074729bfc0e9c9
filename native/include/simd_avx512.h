// simd.h over AVX-512 F, BW, VL, DQ and VNNI; BF16 where ISA_HAS_BF16.
#pragma once

#include <immintrin.h>

namespace freehold::ISA {

using F32 = __m512;
typedef int32_t I32 __attribute__((vector_size(64)));
using Bytes = __m512i;

constexpr bool kHas32Registers = true;  // of one vector each

inline F32 splat(float x) { return _mm512_set1_ps(x); }
inline I32 splat_int(int32_t x) { return (I32)_mm512_set1_epi32(x); }
inline F32 load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, F32 v) { _mm512_storeu_ps(p, v); }
inline Bytes load_bytes(const void* p) { return _mm512_loadu_si512(p); }
inline I32 load_int(const int32_t* p) { return (I32)_mm512_loadu_si512(p); }
inline void store_bytes(void* p, Bytes v) { _mm512_storeu_si512(p, v); }

inline F32 fma(F32 a, F32 b, F32 c) { return _mm512_fmadd_ps(a, b, c); }
inline F32 max(F32 a, F32 b) { return _mm512_max_ps(a, b); }
inline F32 min(F32 a, F32 b) { return _mm512_min_ps(a, b); }
inline F32 magnitude(F32 a) { return _mm512_abs_ps(a); }
inline F32 to_float(I32 v) { return _mm512_cvtepi32_ps((__m512i)v); }
inline I32 to_int(F32 v) { return (I32)_mm512_cvtps_epi32(v); }  // nearest, ties to even
inline F32 power_of_two(I32 n) { return (F32)((n + 127) << 23); }
inline F32 zero_where_less(F32 x, F32 bound, F32 v) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, bound, _CMP_NLT_UQ), v);
}
inline void store_int8(int8_t* p, I32 v) {
  _mm_storeu_si128((__m128i*)p, _mm512_cvtsepi32_epi8((__m512i)v));
}

inline F32 load_int8(const int8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)));
}
inline F32 even_bf16(Bytes pairs) { return (F32)_mm512_slli_epi32(pairs, 16); }
inline F32 odd_bf16(Bytes pairs) {
  return (F32)_mm512_and_si512(pairs, _mm512_set1_epi32(int(0xffff0000u)));
}
inline Bytes low_bf16(Bytes pairs) { return _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff)); }
// To the nearest bfloat16, ties to even, still as floats; not for NaN.
inline F32 round_bf16(F32 v) {
  const __m512i bits = (__m512i)v;
  const __m512i is_odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), is_odd);
  return (F32)_mm512_and_si512(up, _mm512_set1_epi32(int(0xffff0000u)));
}
inline void store_bf16(uint16_t* p, F32 v) {  // rounded in the same way
#if defined(ISA_HAS_BF16)
  _mm256_storeu_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh(v));
#else
  const __m512i high = _mm512_srli_epi32((__m512i)round_bf16(v), 16);
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16(high));
#endif
}
inline Bytes round_to_bf16(F32 first, F32 second) {  // side by side
#if defined(ISA_HAS_BF16)
  return (Bytes)_mm512_cvtne2ps_pbh(second, first);
#else
  uint16_t both[32];
  store_bf16(both, first), store_bf16(both + 16, second);
  return load_bytes(both);
#endif
}
inline Bytes join_bf16(F32 even, F32 odd) {  // both rounded
  return _mm512_or_si512(_mm512_srli_epi32((__m512i)even, 16), (__m512i)odd);
}
// Of rows a and b of 32 bfloat16 values, the pairs (a[i], b[i]): the first 16 and the others.
inline void interleave_bf16(Bytes a, Bytes b, Bytes& first, Bytes& second) {
  const __m512i low = _mm512_unpacklo_epi16(a, b), high = _mm512_unpackhi_epi16(a, b);
  const __m512i indices = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
  const __m512i others = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  first = _mm512_permutex2var_epi64(low, indices, high);
  second = _mm512_permutex2var_epi64(low, others, high);
}
inline F32 load_f16(const uint16_t* p) {
  return _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256((const __m256i*)p));
}

inline Bytes low_nibbles(Bytes v) { return _mm512_and_si512(v, _mm512_set1_epi8(15)); }
inline Bytes high_nibbles(Bytes v) {
  return _mm512_and_si512(_mm512_srli_epi16(v, 4), _mm512_set1_epi8(15));
}
// acc[i] += the sum over j < 4 of w[4 i + j] (unsigned) * byte j of a (signed). Exact.
inline I32 dot_u8s8(I32 acc, Bytes w, uint32_t a) {
  return (I32)_mm512_dpbusd_epi32((__m512i)acc, w, _mm512_set1_epi32(int(a)));
}
inline I32 dot_u4s8(I32 acc, Bytes w, uint32_t a) { return dot_u8s8(acc, w, a); }

// acc[i] += w[2 i] * low half of a + w[2 i + 1] * high half, all bfloat16.
inline F32 dot_bf16(F32 acc, Bytes w, uint32_t a) {
#if defined(ISA_HAS_BF16)
  return _mm512_dpbf16_ps(acc, (__m512bh)w, (__m512bh)_mm512_set1_epi32(int(a)));
#else
  acc = fma(even_bf16(w), (F32)_mm512_set1_epi32(int(a << 16)), acc);
  return fma(odd_bf16(w), (F32)_mm512_set1_epi32(int(a & 0xffff0000u)), acc);
#endif
}

// out[8 u + r] = unit `unit` + u of rows[r], for 8 rows and 16 units of 4 bytes.
inline void interleave8(const uint8_t* const* rows, int64_t unit, uint32_t* out) {
  __m512i a[8], b[8];
  for (int r = 0; r < 8; ++r) a[r] = _mm512_loadu_si512(rows[r] + 4 * unit);
  for (int r = 0; r < 8; r += 2) {
    b[r] = _mm512_unpacklo_epi32(a[r], a[r + 1]);
    b[r + 1] = _mm512_unpackhi_epi32(a[r], a[r + 1]);
  }
  // Of half h: unit 4 l + j of its four rows in lane l of a[4 h + j].
  for (int h = 0; h < 8; h += 4)
    for (int j = 0; j < 2; ++j) {
      a[h + 2 * j] = _mm512_unpacklo_epi64(b[h + j], b[h + 2 + j]);
      a[h + 2 * j + 1] = _mm512_unpackhi_epi64(b[h + j], b[h + 2 + j]);
    }
  const __m512i even = _mm512_setr_epi64(0, 1, 4, 5, 8, 9, 12, 13);
  const __m512i odd = _mm512_setr_epi64(2, 3, 6, 7, 10, 11, 14, 15);
  for (int j = 0; j < 4; j += 2)
    for (int l = 0; l < 2; ++l) {
      // Lanes l' and l' + 2 of the low rows, then of the high ones: units j and j + 1.
      const __m512i first = l ? _mm512_shuffle_i32x4(a[j], a[4 + j], 0xdd)
                              : _mm512_shuffle_i32x4(a[j], a[4 + j], 0x88);
      const __m512i second = l ? _mm512_shuffle_i32x4(a[j + 1], a[5 + j], 0xdd)
                               : _mm512_shuffle_i32x4(a[j + 1], a[5 + j], 0x88);
      _mm512_storeu_si512(out + 8 * (4 * l + j), _mm512_permutex2var_epi64(first, even, second));
      _mm512_storeu_si512(out + 8 * (4 * l + 8 + j), _mm512_permutex2var_epi64(first, odd, second));
    }
}

inline float sum(F32 v) {  // lanes i and i + 8, then + 4, + 2, + 1
  const __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps(c, c, 1)));
}
inline float greatest(F32 v) { return _mm512_reduce_max_ps(v); }

}  // namespace freehold::ISA
