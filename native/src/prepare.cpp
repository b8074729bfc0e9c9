// One row of activations into the form a product reads (kernels.h, Rows): quantised to INT8 as
// ops/quantize.py does, or rounded to bfloat16, or as it is; and back.

#include "kernels.h"
#include "simd.h"

namespace freehold::ISA {

float greatest_magnitude(const float* x, int64_t k) {
  F32 best = splat(0);
  int64_t i = 0;
  for (; i + 16 <= k; i += 16) best = max(magnitude(load(x + i)), best);
  if (i < k) best = max(magnitude(load_n(x + i, k - i)), best);
  return greatest(best);
}

// q[i] = round(clip(x[i] / scale)), ties to even; writes up to 15 more than count. A scale of 0
// gives zeros.
void quantize(const float* x, int64_t count, float scale, float bottom, float top, int8_t* q) {
  if (scale == 0) {
    std::memset(q, 0, size_t(count));
    return;
  }
  const F32 step = splat(scale), low = splat(bottom), high = splat(top);
  int64_t i = 0;
  for (; i + 16 <= count; i += 16)
    store_int8(q + i, to_int(max(min(load(x + i) / step, high), low)));
  if (i < count) store_int8(q + i, to_int(max(min(load_n(x + i, count - i) / step, high), low)));
}

namespace {

void prepare_int8(const float* x, const Weight& w, const RowTarget& to) {
  const float scale = greatest_magnitude(x, w.k) / 127.0f;
  *to.scale = scale;
  quantize(x, w.k, scale, -127, 127, to.scratch);
  std::memset(to.scratch + w.k, 0, size_t(w.padded_k - w.k));
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

void to_bf16(const float* __restrict x, int64_t n, uint16_t* __restrict y) {
  for (int64_t i = 0; i < n; ++i) y[i] = float_to_bf16(x[i]);
}

void int8_to_bf16(const int8_t* x, const int8_t* ahead, int64_t n, uint16_t* y) {
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) {
    __builtin_prefetch(ahead + i);
    for (int64_t j = i; j < i + 64; j += 32)
      store_bytes(y + j, round_to_bf16(load_int8(x + j), load_int8(x + j + 16)));
  }
  for (; i < n; i += 16) store_bf16(y + i, load_int8(x + i));
}

}  // namespace freehold::ISA
