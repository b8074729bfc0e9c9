// Sixteen lanes on any CPU: GCC vector types, and the few operations that need intrinsics.
// Every kernel is written once over these; CMake compiles it once an instruction set (ISA=…).
#pragma once

#include <cstdint>
#include <cstring>

#if defined(ISA_IS_avx2) || defined(ISA_IS_avx512)
#include <immintrin.h>
#endif

namespace freehold::ISA {

typedef float f32x16 __attribute__((vector_size(64)));
typedef int32_t i32x16 __attribute__((vector_size(64)));
typedef uint32_t u32x16 __attribute__((vector_size(64)));
typedef uint16_t u16x16 __attribute__((vector_size(32)));
typedef int8_t i8x16 __attribute__((vector_size(16)));
typedef uint8_t u8x64 __attribute__((vector_size(64)));
static_assert(sizeof(f32x16) == 64 && sizeof(u8x64) == 64);

template <class V>
inline V load(const void* p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

template <class V>
inline void store(void* p, V v) {
  std::memcpy(p, &v, sizeof v);
}

inline f32x16 splat(float x) { return f32x16{} + x; }

inline f32x16 to_float(i32x16 v) { return __builtin_convertvector(v, f32x16); }

// Sixteen bfloat16 → float.
inline f32x16 load_bf16(const uint16_t* p) {
  return reinterpret_cast<f32x16>(__builtin_convertvector(load<u16x16>(p), u32x16) << 16);
}

inline float bf16_to_float(uint16_t bits) {
  uint32_t wide = uint32_t(bits) << 16;
  float f;
  std::memcpy(&f, &wide, 4);
  return f;
}

// Nearest, ties to even; a NaN keeps being one.
inline uint16_t float_to_bf16(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  if ((bits & 0x7fffffff) > 0x7f800000) return uint16_t((bits >> 16) | 0x40);
  return uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline float sum(f32x16 v) {  // a fixed tree, the same on every path
  float lanes[16];
  store(lanes, v);
  for (int width = 8; width; width /= 2)
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  return lanes[0];
}

#if defined(ISA_IS_avx512)

inline f32x16 fma(f32x16 a, f32x16 b, f32x16 c) {
  return reinterpret_cast<f32x16>(_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c));
}
// acc[i] += sum over j of w[4 i + j] (unsigned) * a's signed byte j. Exact.
inline i32x16 dot4(i32x16 acc, u8x64 w, int32_t a) {
  return (i32x16)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)w, _mm512_set1_epi32(a));
}
// acc[i] += w[2 i] * a.low + w[2 i + 1] * a.high over bfloat16 pairs.
inline f32x16 dot2(f32x16 acc, const uint16_t* w, uint32_t a) {
  return (f32x16)_mm512_dpbf16_ps((__m512)acc, (__m512bh)_mm512_loadu_si512(w),
                                  (__m512bh)_mm512_set1_epi32(int(a)));
}
inline f32x16 load_f16(const uint16_t* p) {
  return (f32x16)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
}
constexpr int kMaxRows = 8;

#else

inline f32x16 dot2(f32x16 acc, const uint16_t* w, uint32_t a);

#if defined(ISA_IS_avx2)

inline f32x16 fma(f32x16 a, f32x16 b, f32x16 c) {
  __m256 x[2], y[2], z[2];
  std::memcpy(x, &a, 64), std::memcpy(y, &b, 64), std::memcpy(z, &c, 64);
  for (int h = 0; h < 2; ++h) z[h] = _mm256_fmadd_ps(x[h], y[h], z[h]);
  std::memcpy(&c, z, 64);
  return c;
}
inline i32x16 dot4(i32x16 acc, u8x64 w, int32_t a) {
  // vpmaddubsw would saturate at 16 bits; even and odd bytes apart fit vpmaddwd exactly.
  const __m256i a4 = _mm256_set1_epi32(a), low = _mm256_set1_epi16(0xff);
  const __m256i a_even = _mm256_srai_epi16(_mm256_slli_epi16(a4, 8), 8);
  const __m256i a_odd = _mm256_srai_epi16(a4, 8);
  __m256i x[2], z[2];
  std::memcpy(x, &w, 64), std::memcpy(z, &acc, 64);
  for (int h = 0; h < 2; ++h) {
    __m256i even = _mm256_madd_epi16(_mm256_and_si256(x[h], low), a_even);
    __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(x[h], 8), a_odd);
    z[h] = _mm256_add_epi32(z[h], _mm256_add_epi32(even, odd));
  }
  std::memcpy(&acc, z, 64);
  return acc;
}
inline f32x16 load_f16(const uint16_t* p) {
  __m256 z[2];
  for (int h = 0; h < 2; ++h) z[h] = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(p + 8 * h)));
  f32x16 v;
  std::memcpy(&v, z, 64);
  return v;
}
constexpr int kMaxRows = 4;

#else  // plain C++

inline f32x16 fma(f32x16 a, f32x16 b, f32x16 c) {  // libm where the CPU has none: slow, exact
  for (int i = 0; i < 16; ++i) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return c;
}
inline i32x16 dot4(i32x16 acc, u8x64 w, int32_t a) {
  int8_t bytes[4];
  std::memcpy(bytes, &a, 4);
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 4; ++j) acc[i] += int32_t(w[4 * i + j]) * bytes[j];
  return acc;
}
inline f32x16 load_f16(const uint16_t* p) {  // finite halves only: scales
  f32x16 v;
  for (int i = 0; i < 16; ++i) {
    uint32_t h = p[i], exponent = (h >> 10) & 31, mantissa = h & 1023;
    float m = exponent ? float(1024 + mantissa) : float(mantissa);
    uint32_t scale_bits = (127 - 25 + (exponent ? exponent : 1)) << 23;
    float scale;
    std::memcpy(&scale, &scale_bits, 4);
    v[i] = (h & 0x8000 ? -m : m) * scale;
  }
  return v;
}
constexpr int kMaxRows = 4;

#endif

inline f32x16 dot2(f32x16 acc, const uint16_t* w, uint32_t a) {
  u32x16 pair = load<u32x16>(w);
  acc = fma(reinterpret_cast<f32x16>(pair << 16), splat(bf16_to_float(uint16_t(a))), acc);
  return fma(reinterpret_cast<f32x16>(pair & 0xffff0000u), splat(bf16_to_float(a >> 16)), acc);
}

#endif

// e^x: 2^n times a degree-6 polynomial on [-ln2/2, ln2/2] (Cephes expf), relative error < 3e-7.
inline f32x16 exp(f32x16 x) {
  x = x < -87.0f ? splat(-87.0f) : x;
  x = x > 88.0f ? splat(88.0f) : x;
  const f32x16 magic = splat(12582912.0f);  // adding it rounds to the nearest integer
  const f32x16 n = (x * 1.44269504f + magic) - magic;
  f32x16 r = fma(n, splat(-0.693359375f), x);
  r = fma(n, splat(2.12194440e-4f), r);
  f32x16 p = splat(1.9875691500e-4f);
  p = fma(p, r, splat(1.3981999507e-3f));
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(5.0000001201e-1f));
  p = fma(p, r * r, r) + 1.0f;
  const i32x16 power = (__builtin_convertvector(n, i32x16) + 127) << 23;
  return p * reinterpret_cast<f32x16>(power);
}

}  // namespace freehold::ISA
