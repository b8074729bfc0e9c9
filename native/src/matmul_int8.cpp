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
                       I32 first[P][R], second[P][R];
                       for (int p = 0; p < P; ++p)
                         for (int r = 0; r < R; ++r)
                           first[p][r] = splat_int(t.offsets()[r]), second[p][r] = splat_int(0);
                       for (int64_t k = 0; k < t.w.padded_k; k += 8, weights += 128, a += 2 * R) {
                         for (int p = 0; p < 2 * P; ++p) __builtin_prefetch(ahead + p * 64);
                         ahead += 2 * t.ahead_step;
                         for (int p = 0; p < P; ++p) {
                           const uint8_t* panel = weights + p * t.panel_bytes;
                           const Bytes even = load_bytes(panel), odd = load_bytes(panel + 64);
                           I32* rest = kHas32Registers ? second[p] : first[p];
                           for (int r = 0; r < R; ++r) {
                             first[p][r] = dot_u8s8(first[p][r], even, a[r]);
                             rest[r] = dot_u8s8(rest[r], odd, a[R + r]);
                           }
                         }
                       }
                       for (int p = 0; p < P; ++p) {
                         const F32 scale = load(t.w.scales + (t.panel + p) * kPanel);
                         for (int r = 0; r < R; ++r) {
                           const I32 dot =
                               kHas32Registers ? first[p][r] + second[p][r] : first[p][r];
                           t.finish(p, r, (scale * splat(t.x.scales[t.row + r])) * to_float(dot));
                         }
                       }
                     });
}

}  // namespace freehold::ISA
