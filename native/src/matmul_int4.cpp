// y = x Wᵀ with 4-bit weights and 8-bit activations. Per group of inputs the integer dot product
// is exact; groups are rescaled and added in ascending order with one fused multiply-add each.
// Weights are stored as q + 8, so an accumulator starts at -8 times the group's activation sum.

#include "matmul.h"

namespace freehold::ISA {
namespace {

// dots[p][r] += the group's weights from `at` of each panel * the rows' units from `a`.
template <int R, int P>
inline void add_group(const Tile& tile, const uint8_t* const (&weights)[P],
                      const uint8_t* (&next)[P], int64_t& at, const uint32_t*& a,
                      I32 (&dots)[P][R]) {
  const int64_t stride = tile.stride<R>(), end = at + tile.t.weight.group_size * (kPanel / 2);
  for (; at < end; at += 64, a += 2 * stride) {
    Bytes low[P], high[P];
    for (int p = 0; p < P; ++p) {
      __builtin_prefetch(next[p]);
      next[p] += tile.ahead_step;
      const Bytes both = load_bytes(weights[p] + at);
      low[p] = low_nibbles(both), high[p] = high_nibbles(both);
    }
    for (int r = 0; r < R; ++r)
      for (int p = 0; p < P; ++p) dots[p][r] = dot_u4s8(dots[p][r], low[p], a[r]);
    for (int r = 0; r < R; ++r)
      for (int p = 0; p < P; ++p) dots[p][r] = dot_u4s8(dots[p][r], high[p], a[stride + r]);
  }
}

template <int R, int P>
inline void multiply(const Tile& tile) {
  const int64_t num_groups = tile.num_groups(), stride = tile.stride<R>();
  const uint8_t *weights[P], *next[P];
  const uint16_t* scales[P];
  F32 totals[P][R];
  for (int p = 0; p < P; ++p) {
    weights[p] = tile.weights(p), next[p] = tile.next(p, P);
    scales[p] = tile.t.weight.half_scales + tile.panel_of(p) * num_groups * kPanel;
    for (int r = 0; r < R; ++r) totals[p][r] = splat(0);
  }
  const uint32_t* a = tile.units();
  const int32_t* offsets = tile.offsets();
  int64_t at = 0;
  for (int64_t g = 0; g < num_groups; ++g, offsets += stride) {
    I32 dots[P][R];
    for (int p = 0; p < P; ++p)
      for (int r = 0; r < R; ++r) dots[p][r] = splat_int(offsets[r]);
    add_group(tile, weights, next, at, a, dots);
    for (int p = 0; p < P; ++p) {
      const F32 scale = load_f16(scales[p] + g * kPanel);
      for (int r = 0; r < R; ++r) totals[p][r] = fma(to_float(dots[p][r]), scale, totals[p][r]);
    }
  }
  for (int p = 0; p < P; ++p)
    for (int r = 0; r < R; ++r) totals[p][r] = totals[p][r] * tile.scale(r);
  tile.finish(totals);
}

}  // namespace

void matmul_int4(const Product& t, int64_t panel_begin, int64_t panel_end) {
  for_tiles(t, t.weight.padded_k * kPanel / 2, panel_begin, panel_end,
            []<int R, int P>(const Tile& tile) { multiply<R, P>(tile); });
}

}  // namespace freehold::ISA
