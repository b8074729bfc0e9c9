// y = x Wᵀ with bfloat16 weights and activations (rounded to it), float32 sums in order of k.

#include "matmul.h"

namespace freehold::ISA {

void matmul_bf16(const Weight& w, const Rows& x, const float* bias, float* y, int64_t ldy,
                 int64_t panel_begin, int64_t panel_end) {
  constexpr int kPanels = kHas32Registers ? 2 : 1;
  for_tiles<kPanels>(w, x, w.padded_k * kPanel * 2, bias, y, ldy, panel_begin, panel_end,
                     []<int R, int P>(const Tile& t) {
                       const uint8_t *weights = t.weights(), *ahead = t.ahead;
                       const uint32_t* a = t.units();
                       const int64_t stride = t.stride<R>();
                       F32 total[P][R];
                       for (int p = 0; p < P; ++p)
                         for (int r = 0; r < R; ++r) total[p][r] = splat(0);
                       for (int64_t k = 0; k < t.w.padded_k; k += 2, weights += 64, a += stride) {
                         for (int p = 0; p < P; ++p) __builtin_prefetch(ahead + p * 64);
                         ahead += t.ahead_step;
                         Bytes pairs[P];
                         for (int p = 0; p < P; ++p)
                           pairs[p] = load_bytes(weights + p * t.panel_bytes);
                         for (int r = 0; r < R; ++r)
                           for (int p = 0; p < P; ++p)
                             total[p][r] = dot_bf16(total[p][r], pairs[p], a[r]);
                       }
                       for (int p = 0; p < P; ++p)
                         for (int r = 0; r < R; ++r) t.finish(p, r, total[p][r]);
                     });
}

}  // namespace freehold::ISA
