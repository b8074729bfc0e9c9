// One row of activations into the form a product reads (kernels.h, Rows): quantised to INT8 as
// ops/quantize.py does, or rounded to bfloat16, or as it is.

#include "kernels.h"
#include "simd.h"

namespace freehold::ISA {
namespace {

float greatest_magnitude(const float* x, int64_t k) {
  F32 best = splat(0);
  int64_t i = 0;
  for (; i + 16 <= k; i += 16) best = max(magnitude(load(x + i)), best);
  if (i < k) best = max(magnitude(load_n(x + i, k - i)), best);
  return greatest(best);
}

// Returns the scale; q is padded with zeros to a multiple of 16.
float quantize(const float* x, int64_t k, int64_t padded_k, int8_t* q) {
  const float scale = greatest_magnitude(x, k) / 127.0f;
  if (scale == 0) {
    std::memset(q, 0, size_t(padded_k));
    return scale;
  }
  const F32 step = splat(scale), top = splat(127), bottom = splat(-127);
  int64_t i = 0;
  for (; i + 16 <= k; i += 16)
    store_int8(q + i, to_int(max(min(load(x + i) / step, top), bottom)));
  if (i < k) store_int8(q + i, to_int(max(min(load_n(x + i, k - i) / step, top), bottom))), i += 16;
  if (i < padded_k) std::memset(q + i, 0, size_t(padded_k - i));
  return scale;
}

void prepare_int8(const float* x, const Weight& w, const RowTarget& to) {
  *to.scale = quantize(x, w.k, w.padded_k, to.scratch);
  const int32_t offset = w.format == Format::kInt4 ? 8 : 128;
  for (int64_t g = 0; g < w.padded_k / w.group_size; ++g) {
    int32_t total = 0;
    for (int64_t i = 0; i < w.group_size; ++i) total += to.scratch[g * w.group_size + i];
    to.offsets[g * to.stride] = -offset * total;
  }
  for (int64_t u = 0; u < w.padded_k / 4; ++u)
    std::memcpy(to.data + u * to.stride, to.scratch + 4 * u, 4);
}

void prepare_bf16(const float* x, const Weight& w, const RowTarget& to) {
  for (int64_t u = 0; u < w.padded_k / 2; ++u) {
    const uint32_t low = float_to_bf16(x[2 * u]);
    const uint32_t high = 2 * u + 1 < w.k ? float_to_bf16(x[2 * u + 1]) : 0;
    to.data[u * to.stride] = low | high << 16;
  }
}

}  // namespace

void prepare_row(const float* x, const Weight& w, const RowTarget& to) {
  if (w.format == Format::kInt4 || w.format == Format::kInt8) return prepare_int8(x, w, to);
  if (w.format == Format::kBf16) return prepare_bf16(x, w, to);
  for (int64_t i = 0; i < w.k; ++i) std::memcpy(to.data + i * to.stride, x + i, 4);
}

void to_bf16(const float* x, int64_t n, uint16_t* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = float_to_bf16(x[i]);
}

}  // namespace freehold::ISA
