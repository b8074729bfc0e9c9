// y = x Wᵀ with 8-bit weights and activations: one exact integer dot product, rescaled once.
// Weights are stored as w + 128, so an accumulator starts at -128 times the activations' sum.

#include "matmul.h"

namespace freehold::ISA {
namespace {

template <int R, int P>
inline void multiply(const Tile& tile) {
  const int64_t stride = tile.stride<R>(), end = tile.panel_bytes;
  const uint8_t *weights[P], *next[P];
  I32 dots[P][R];
  for (int p = 0; p < P; ++p) {
    weights[p] = tile.weights(p), next[p] = tile.next(p, P);
    for (int r = 0; r < R; ++r) dots[p][r] = splat_int(tile.offsets()[r]);
  }
  const uint32_t* a = tile.units();
  for (int64_t at = 0; at < end; at += 64, a += stride) {
    Bytes four[P];
    for (int p = 0; p < P; ++p) {
      __builtin_prefetch(next[p]);
      next[p] += tile.ahead_step;
      four[p] = load_bytes(weights[p] + at);
    }
    for (int r = 0; r < R; ++r)
      for (int p = 0; p < P; ++p) dots[p][r] = dot_u8s8(dots[p][r], four[p], a[r]);
  }
  F32 totals[P][R];
  for (int p = 0; p < P; ++p) {
    const F32 scale = load(tile.t.weight.scales + tile.panel_of(p) * kPanel);
    for (int r = 0; r < R; ++r) totals[p][r] = (scale * tile.scale(r)) * to_float(dots[p][r]);
  }
  tile.finish(totals);
}

}  // namespace

void matmul_int8(const Product& t, int64_t panel_begin, int64_t panel_end) {
  for_tiles(t, t.weight.padded_k * kPanel, panel_begin, panel_end,
            []<int R, int P>(const Tile& tile) { multiply<R, P>(tile); });
}

}  // namespace freehold::ISA
