// How fast this instruction set multiplies and adds when nothing else has to be done: independent
// chains of the products' inner step, all in registers. What benchmarks take fractions of.

#include "kernels.h"
#include "simd.h"

namespace freehold::ISA {
namespace {

constexpr int kChains = kHas32Registers ? 16 : 6;

// `first(i)` begins chain i: each differs, or the compiler would keep a single one.
template <class First, class Add>
int64_t run(int64_t rounds, int64_t operations, First first, Add add) {
  decltype(first(0)) sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = first(i);
  uint32_t a = 0x01010101;
  for (int64_t round = 0; round < rounds; ++round) {
    for (int i = 0; i < kChains; ++i) sums[i] = add(sums[i], a);
    asm volatile("" : "+r"(a));  // not known to stay as it is, so that no round is left out
  }
  char bytes[sizeof sums];
  std::memcpy(bytes, sums, sizeof sums);
  asm volatile("" ::"r"(bytes) : "memory");
  return rounds * kChains * operations;
}

}  // namespace

int64_t multiply_rounds(Format format, int64_t rounds) {
  Bytes w;
  std::memset(&w, 1, sizeof w);
  const auto whole = [](int i) { return splat_int(i); };
  const auto real = [](int i) { return splat(float(i)); };
  if (format == Format::kFloat32)
    return run(rounds, 32, real, [&](F32 sum, uint32_t a) {
      return fma(splat(1.5f), splat(float(a & 1)), sum);
    });
  if (format == Format::kBf16)
    return run(rounds, 64, real, [&](F32 sum, uint32_t a) { return dot_bf16(sum, w, a); });
  if (format == Format::kInt4)
    return run(rounds, 128, whole, [&](I32 sum, uint32_t a) { return dot_u4s8(sum, w, a); });
  return run(rounds, 128, whole, [&](I32 sum, uint32_t a) { return dot_u8s8(sum, w, a); });
}

}  // namespace freehold::ISA
