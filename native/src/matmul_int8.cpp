// y = x Wᵀ with 8-bit weights and activations: one exact integer dot product, rescaled once.
// Weights are stored as w + 128, so an accumulator starts at -128 times the activations' sum.

#include "matmul.h"

namespace freehold::ISA {

void matmul_int8(const Weight& w, const Rows& x, const float* bias, float* y, int64_t ldy,
                 int64_t panel_begin, int64_t panel_end) {
  constexpr int kPanels = kHas32Registers ? 2 : 1;
  for_tiles<kPanels>(w, x, w.padded_k * kPanel, bias, y, ldy, panel_begin, panel_end,
                     []<int R, int P>(const Tile& t) {
                       const uint8_t *weights = t.weights(), *ahead = t.ahead;
                       const uint32_t* a = t.units();
                       const int64_t stride = t.stride<R>();
                       I32 dot[P][R];
                       for (int p = 0; p < P; ++p)
                         for (int r = 0; r < R; ++r) dot[p][r] = splat_int(t.offsets()[r]);
                       for (int64_t k = 0; k < t.w.padded_k; k += 4, weights += 64, a += stride) {
                         for (int p = 0; p < P; ++p) __builtin_prefetch(ahead + p * 64);
                         ahead += t.ahead_step;
                         Bytes four[P];
                         for (int p = 0; p < P; ++p)
                           four[p] = load_bytes(weights + p * t.panel_bytes);
                         for (int r = 0; r < R; ++r)
                           for (int p = 0; p < P; ++p)
                             dot[p][r] = dot_u8s8(dot[p][r], four[p], a[r]);
                       }
                       for (int p = 0; p < P; ++p) {
                         const F32 scale = load(t.w.scales + (t.panel + p) * kPanel);
                         for (int r = 0; r < R; ++r)
                           t.finish(p, r, (scale * t.scale(r)) * to_float(dot[p][r]));
                       }
                     });
}

}  // namespace freehold::ISA
