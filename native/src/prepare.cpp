// A block of rows of activations into the form a product reads (kernels.h, Rows): quantised to INT8
// as ops/quantize.py does, or rounded to bfloat16, or as it is.

#include "kernels.h"
#include "simd.h"

namespace freehold::ISA {

float greatest_magnitude(const float* x, int64_t k) {
  F32 best[4] = {splat(0), splat(0), splat(0), splat(0)};
  int64_t i = 0;
  for (; i + 64 <= k; i += 64)
    for (int j = 0; j < 4; ++j) best[j] = max(magnitude(load(x + i + 16 * j)), best[j]);
  for (; i + 16 <= k; i += 16) best[0] = max(magnitude(load(x + i)), best[0]);
  if (i < k) best[0] = max(magnitude(load_n(x + i, k - i)), best[0]);
  return greatest(max(max(best[0], best[1]), max(best[2], best[3])));
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

void to_bf16(const float* x, int64_t n, uint16_t* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = float_to_bf16(x[i]);
}

namespace {

void prepare_int8(const float* x, int64_t row, int64_t count, const Weight& w,
                  const BlockTarget& to, int8_t* q) {
  const float scale = greatest_magnitude(x, w.k) / 127.0f;
  to.scales[row] = scale;
  quantize(x, w.k, scale, -127, 127, q);
  std::memset(q + w.k, 0, size_t(w.padded_k - w.k));
  const int32_t offset = w.format == Format::kInt4 ? 8 : 128;
  for (int64_t g = 0; g < w.padded_k / w.group_size; ++g) {
    int32_t total = 0;
    for (int64_t i = 0; i < w.group_size; ++i) total += q[g * w.group_size + i];
    to.offsets[g * count + row] = -offset * total;
  }
}

// out[unit u of row r at u * count + r], units of 4 bytes.
void interleave(const uint8_t* const* rows, int64_t count, int64_t num_units, uint32_t* out) {
  int64_t u = 0;
  if (count == kRowBlock)
    for (; u + 16 <= num_units; u += 16) interleave8(rows, u, out + kRowBlock * u);
  for (; u < num_units; ++u)
    for (int64_t r = 0; r < count; ++r) std::memcpy(out + u * count + r, rows[r] + 4 * u, 4);
}

}  // namespace

void prepare(const float* const* x, int64_t count, const Weight& w, const BlockTarget& to) {
  const uint8_t* rows[kRowBlock];
  for (int64_t r = 0; r < count; ++r) {
    uint8_t* scratch = to.scratch + r * row_scratch(w);
    rows[r] = scratch;
    if (w.format == Format::kFloat32) {
      rows[r] = reinterpret_cast<const uint8_t*>(x[r]);
    } else if (w.format == Format::kBf16) {
      auto* halves = reinterpret_cast<uint16_t*>(scratch);
      to_bf16(x[r], w.k, halves);
      if (w.padded_k > w.k) halves[w.k] = 0;
    } else {
      prepare_int8(x[r], r, count, w, to, reinterpret_cast<int8_t*>(scratch));
    }
  }
  interleave(rows, count, units_a_row(w), to.data);
}

}  // namespace freehold::ISA
