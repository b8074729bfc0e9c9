// simd.h in GCC's own vector types: what runs where we have no intrinsics. The compiler lowers
// them to what the baseline of its target has (SSE2, NEON, …).
#pragma once

namespace freehold::ISA {

typedef float F32 __attribute__((vector_size(64)));
typedef int32_t I32 __attribute__((vector_size(64)));
typedef uint8_t Bytes __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));

constexpr bool kHas32Registers = false;  // of one vector each

template <class V>
inline V load_as(const void* p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

inline F32 splat(float x) { return F32{} + x; }
inline I32 splat_int(int32_t x) { return I32{} + x; }
inline F32 load(const float* p) { return load_as<F32>(p); }
inline void store(float* p, F32 v) { std::memcpy(p, &v, sizeof v); }
inline Bytes load_bytes(const void* p) { return load_as<Bytes>(p); }
inline I32 load_int(const int32_t* p) { return load_as<I32>(p); }
inline void store_bytes(void* p, Bytes v) { std::memcpy(p, &v, sizeof v); }

inline F32 fma(F32 a, F32 b, F32 c) {  // libm's where the target has none: slow, exact
  for (int i = 0; i < 16; ++i) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return c;
}
inline F32 max(F32 a, F32 b) { return a > b ? a : b; }
inline F32 min(F32 a, F32 b) { return a < b ? a : b; }
inline F32 magnitude(F32 a) { return (F32)((Words)a & 0x7fffffffu); }
inline F32 to_float(I32 v) { return __builtin_convertvector(v, F32); }
inline I32 to_int(F32 v) {  // adding 1.5 * 2^23 rounds to the nearest, ties to even
  return __builtin_convertvector((v + 12582912.0f) - 12582912.0f, I32);
}
inline F32 power_of_two(I32 n) { return (F32)((n + 127) << 23); }
inline F32 zero_where_less(F32 x, F32 bound, F32 v) { return x < bound ? F32{} : v; }
inline void store_int8(int8_t* p, I32 v) {
  for (int i = 0; i < 16; ++i) p[i] = int8_t(v[i] > 127 ? 127 : v[i] < -128 ? -128 : v[i]);
}

inline F32 load_int8(const int8_t* p) {
  F32 v;
  for (int i = 0; i < 16; ++i) v[i] = float(p[i]);
  return v;
}
inline F32 even_bf16(Bytes pairs) { return (F32)((Words)pairs << 16); }
inline F32 odd_bf16(Bytes pairs) { return (F32)((Words)pairs & 0xffff0000u); }
inline Bytes low_bf16(Bytes pairs) { return (Bytes)((Words)pairs & 0xffffu); }
// To the nearest bfloat16, ties to even, still as floats; not for NaN.
inline F32 round_bf16(F32 v) {
  const Words bits = (Words)v;
  return (F32)((bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u);
}
inline void store_bf16(uint16_t* p, F32 v) {  // rounded in the same way
  const Words bits = (Words)round_bf16(v) >> 16;
  for (int i = 0; i < 16; ++i) p[i] = uint16_t(bits[i]);
}
inline Bytes round_to_bf16(F32 first, F32 second) {  // side by side
  uint16_t both[32];
  store_bf16(both, first), store_bf16(both + 16, second);
  return load_bytes(both);
}
inline Bytes join_bf16(F32 even, F32 odd) {  // both rounded
  return (Bytes)(((Words)even >> 16) | (Words)odd);
}
// Of rows a and b of 32 bfloat16 values, the pairs (a[i], b[i]): the first 16 and the others.
inline void interleave_bf16(Bytes a, Bytes b, Bytes& first, Bytes& second) {
  uint16_t rows[2][32], pairs[64];
  std::memcpy(rows[0], &a, 64), std::memcpy(rows[1], &b, 64);
  for (int i = 0; i < 64; ++i) pairs[i] = rows[i % 2][i / 2];
  std::memcpy(&first, pairs, 64), std::memcpy(&second, pairs + 32, 64);
}
inline F32 load_f16(const uint16_t* p) {  // scales: not negative
  F32 v;
  for (int i = 0; i < 16; ++i) {
    const uint32_t half = p[i];
    const uint32_t normal =
        half >= 0x7c00 ? 0x7f800000u | (half << 13) : (half << 13) + (112u << 23);
    const float subnormal = float(half) * 0x1p-24f;
    uint32_t bits;
    std::memcpy(&bits, &subnormal, 4);
    if (half >= 0x400) bits = normal;
    float f;
    std::memcpy(&f, &bits, 4);
    v[i] = f;
  }
  return v;
}

inline Bytes low_nibbles(Bytes v) { return v & 15; }
inline Bytes high_nibbles(Bytes v) { return v >> 4; }
inline I32 dot_u8s8(I32 acc, Bytes w, uint32_t a) {
  const Words words = (Words)w;
  for (int j = 0; j < 4; ++j)
    acc += (I32)((words >> (8 * j)) & 255) * int32_t(int8_t(a >> (8 * j)));
  return acc;
}
inline I32 dot_u4s8(I32 acc, Bytes w, uint32_t a) { return dot_u8s8(acc, w, a); }
inline F32 dot_bf16(F32 acc, Bytes w, uint32_t a) {
  const uint32_t halves[2] = {a << 16, a & 0xffff0000u};
  float even, odd;
  std::memcpy(&even, halves, 4), std::memcpy(&odd, halves + 1, 4);
  acc = fma(even_bf16(w), splat(even), acc);
  return fma(odd_bf16(w), splat(odd), acc);
}

inline float sum(F32 v) {  // lanes i and i + 8, then + 4, + 2, + 1
  for (int width = 8; width; width /= 2)
    for (int i = 0; i < width; ++i) v[i] += v[i + width];
  return v[0];
}
inline float greatest(F32 v) {
  float best = v[0];
  for (int i = 1; i < 16; ++i) best = v[i] > best ? v[i] : best;
  return best;
}

}  // namespace freehold::ISA
