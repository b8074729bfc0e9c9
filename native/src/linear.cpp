// y = x Wᵀ for every weight format. A lane is an output column and sums run along k in one order
// whatever the number of rows, so a row's bits do not depend on the rows beside it.
// Integer weights are stored unsigned (w + offset), as vpdpbusd wants; offset * sum(a) is taken off.

#include "kernels.h"
#include "simd.h"

namespace freehold::ISA {
namespace {

struct Task {
  const Weight& w;
  const Rows& x;
  const float* bias;
  float* y;
  int64_t ldy;
};

void finish(const Task& t, int64_t panel, int64_t row, f32x16 v) {
  const int64_t column = panel * kPanel;
  const int64_t width = t.w.n - column < kPanel ? t.w.n - column : kPanel;
  float* y = t.y + row * t.ldy + column;
  if (width == kPanel) {
    if (t.bias) v += load<f32x16>(t.bias + column);
    store(y, v);
    return;
  }
  for (int64_t i = 0; i < width; ++i) y[i] = t.bias ? v[i] + t.bias[column + i] : v[i];
}

inline int32_t four(const int8_t* a) {
  int32_t v;
  std::memcpy(&v, a, 4);
  return v;
}

template <int R>
void int4_panel(const Task& t, int64_t panel, int64_t row) {
  const int64_t groups = t.w.padded_k / t.w.group_size;
  const uint8_t* w = t.w.data + panel * t.w.padded_k * kPanel / 2;
  const uint16_t* scales = t.w.half_scales + panel * groups * kPanel;
  f32x16 total[R] = {};
  for (int64_t g = 0; g < groups; ++g) {
    i32x16 low[R] = {}, high[R] = {};
    const int8_t* a = t.x.int8 + row * t.x.stride + g * t.w.group_size;
    for (int64_t k = 0; k < t.w.group_size; k += 8, w += 64) {
      __builtin_prefetch(w + 2048);
      const u8x64 both = load<u8x64>(w);
      const u8x64 first = both & 15, second = (u8x64)(((u32x16)both >> 4) & 0x0f0f0f0fu);
      for (int r = 0; r < R; ++r) {
        low[r] = dot4(low[r], first, four(a + r * t.x.stride + k));
        high[r] = dot4(high[r], second, four(a + r * t.x.stride + k + 4));
      }
    }
    const f32x16 scale = load_f16(scales + g * kPanel);
    for (int r = 0; r < R; ++r) {
      const i32x16 dot = low[r] + high[r] - 8 * t.x.sums[(row + r) * groups + g];
      total[r] = fma(to_float(dot), scale, total[r]);
    }
  }
  for (int r = 0; r < R; ++r) finish(t, panel, row + r, total[r] * t.x.scale[row + r]);
}

template <int R>
void int8_panel(const Task& t, int64_t panel, int64_t row) {
  const uint8_t* w = t.w.data + panel * t.w.padded_k * kPanel;
  i32x16 even[R] = {}, odd[R] = {};
  const int8_t* a = t.x.int8 + row * t.x.stride;
  for (int64_t k = 0; k < t.w.padded_k; k += 8, w += 128) {
    __builtin_prefetch(w + 2048);
    __builtin_prefetch(w + 2112);
    const u8x64 first = load<u8x64>(w), second = load<u8x64>(w + 64);
    for (int r = 0; r < R; ++r) {
      even[r] = dot4(even[r], first, four(a + r * t.x.stride + k));
      odd[r] = dot4(odd[r], second, four(a + r * t.x.stride + k + 4));
    }
  }
  const f32x16 scale = load<f32x16>(t.w.scales + panel * kPanel);
  for (int r = 0; r < R; ++r) {
    const i32x16 dot = even[r] + odd[r] - 128 * t.x.sums[row + r];
    finish(t, panel, row + r, (scale * t.x.scale[row + r]) * to_float(dot));
  }
}

template <int R>
void bf16_panel(const Task& t, int64_t panel, int64_t row) {
  const uint16_t* w = (const uint16_t*)t.w.data + panel * t.w.padded_k * kPanel;
  const uint16_t* a = t.x.bf16 + row * t.x.stride;
  f32x16 total[R] = {};
  for (int64_t k = 0; k < t.w.padded_k; k += 2, w += 2 * kPanel) {
    __builtin_prefetch(w + 1024);
    for (int r = 0; r < R; ++r) {
      uint32_t pair;
      std::memcpy(&pair, a + r * t.x.stride + k, 4);
      total[r] = dot2(total[r], w, pair);
    }
  }
  for (int r = 0; r < R; ++r) finish(t, panel, row + r, total[r]);
}

template <int R>
void float_panel(const Task& t, int64_t panel, int64_t row) {
  const float* w = (const float*)t.w.data + panel * t.w.padded_k * kPanel;
  const float* a = t.x.f32 + row * t.x.stride;
  f32x16 total[R] = {};
  for (int64_t k = 0; k < t.w.padded_k; ++k, w += kPanel)
    for (int r = 0; r < R; ++r)
      total[r] = fma(load<f32x16>(w), splat(a[r * t.x.stride + k]), total[r]);
  for (int r = 0; r < R; ++r) finish(t, panel, row + r, total[r]);
}

template <int R>
void one(const Task& t, int64_t panel, int64_t row) {
  switch (t.w.format) {
    case Format::kInt4: return int4_panel<R>(t, panel, row);
    case Format::kInt8: return int8_panel<R>(t, panel, row);
    case Format::kBf16: return bf16_panel<R>(t, panel, row);
    case Format::kFloat32: return float_panel<R>(t, panel, row);
  }
}

}  // namespace

void linear(const Weight& w, const Rows& x, const float* bias, float* y, int64_t ldy,
            int64_t panel_begin, int64_t panel_end) {
  const Task t{w, x, bias, y, ldy};
  for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
    int64_t row = 0;
    for (; row + kMaxRows <= x.m; row += kMaxRows) one<kMaxRows>(t, panel, row);
    if constexpr (kMaxRows == 8)
      if (row + 4 <= x.m) one<4>(t, panel, row), row += 4;
    if (row + 2 <= x.m) one<2>(t, panel, row), row += 2;
    if (row < x.m) one<1>(t, panel, row);
  }
}

}  // namespace freehold::ISA
