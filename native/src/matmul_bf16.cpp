// y = x Wᵀ with bfloat16 weights and activations (rounded to it), float32 sums in order of k.

#include "matmul.h"

namespace freehold::ISA {
namespace {

template <int R, int P>
inline void multiply(const Tile& tile) {
  const int64_t stride = tile.stride<R>(), end = tile.panel_bytes;
  const uint8_t *weights[P], *next[P];
  F32 totals[P][R];
  for (int p = 0; p < P; ++p) {
    weights[p] = tile.weights(p), next[p] = tile.next(p, P);
    for (int r = 0; r < R; ++r) totals[p][r] = splat(0);
  }
  const uint32_t* a = tile.units();
  for (int64_t at = 0; at < end; at += 64, a += stride) {
    Bytes pairs[P];
    for (int p = 0; p < P; ++p) {
      __builtin_prefetch(next[p]);
      next[p] += tile.ahead_step;
      pairs[p] = load_bytes(weights[p] + at);
    }
    for (int r = 0; r < R; ++r)
      for (int p = 0; p < P; ++p) totals[p][r] = dot_bf16(totals[p][r], pairs[p], a[r]);
  }
  tile.finish(totals);
}

}  // namespace

void matmul_bf16(const Product& t, int64_t panel_begin, int64_t panel_end) {
  for_tiles(t, t.weight.padded_k * kPanel * 2, panel_begin, panel_end,
            []<int R, int P>(const Tile& tile) { multiply<R, P>(tile); });
}

}  // namespace freehold::ISA
