// y = x Wᵀ with bfloat16 weights and activations (rounded to it), float32 sums in order of k.

#include "matmul.h"

namespace freehold::ISA {

void matmul_bf16(const Weight& w, const Rows& x, const float* bias, float* y, int64_t ldy,
                 int64_t panel_begin, int64_t panel_end) {
  for_tiles(w, x, bias, y, ldy, panel_begin, panel_end, []<int R>(const Tile& t) {
    const uint8_t* weights = t.w.data + t.panel * t.w.padded_k * kPanel * 2;
    const uint32_t* a = t.units();
    F32 total[R];
    for (int r = 0; r < R; ++r) total[r] = splat(0);
    for (int64_t k = 0; k < t.w.padded_k; k += 2, weights += 64, a += t.stride) {
      const Bytes pairs = load_bytes(weights);
      for (int r = 0; r < R; ++r) total[r] = dot_bf16(total[r], pairs, a[r]);
    }
    for (int r = 0; r < R; ++r) t.finish(r, total[r]);
  });
}

}  // namespace freehold::ISA
