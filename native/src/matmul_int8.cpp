// y = x Wᵀ with 8-bit weights and activations: one exact integer dot product, rescaled once.
// Weights are stored as w + 128, so an accumulator starts at -128 times the activations' sum.

#include "matmul.h"

namespace freehold::ISA {

void matmul_int8(const Weight& w, const Rows& x, const float* bias, float* y, int64_t ldy,
                 int64_t panel_begin, int64_t panel_end) {
  for_tiles(w, x, bias, y, ldy, panel_begin, panel_end, []<int R>(const Tile& t) {
    const uint8_t* weights = t.w.data + t.panel * t.w.padded_k * kPanel;
    const uint32_t* a = t.units();
    I32 first[R], second[R];
    for (int r = 0; r < R; ++r) first[r] = splat_int(t.offsets()[r]), second[r] = splat_int(0);
    for (int64_t k = 0; k < t.w.padded_k; k += 8, weights += 128, a += 2 * t.stride) {
      const Bytes even = load_bytes(weights);
      for (int r = 0; r < R; ++r) first[r] = dot_u8s8(first[r], even, a[r]);
      const Bytes odd = load_bytes(weights + 64);
      I32* rest = kSplitChains ? second : first;
      for (int r = 0; r < R; ++r) rest[r] = dot_u8s8(rest[r], odd, a[t.stride + r]);
    }
    const F32 scale = load(t.w.scales + t.panel * kPanel);
    for (int r = 0; r < R; ++r) {
      const I32 dot = kSplitChains ? first[r] + second[r] : first[r];
      t.finish(r, (scale * splat(t.scale(r))) * to_float(dot));
    }
  });
}

}  // namespace freehold::ISA
