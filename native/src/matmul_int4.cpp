// y = x Wᵀ with 4-bit weights and 8-bit activations. Per group of inputs the integer dot product
// is exact; groups are rescaled and added in ascending order with one fused multiply-add each.
// Weights are stored as q + 8, so an accumulator starts at -8 times the group's activation sum.

#include "matmul.h"

namespace freehold::ISA {

void matmul_int4(const Weight& w, const Rows& x, const float* bias, float* y, int64_t ldy,
                 int64_t panel_begin, int64_t panel_end) {
  constexpr int kPanels = kHas32Registers ? 2 : 1;
  const int64_t panel_bytes = w.padded_k * kPanel / 2;
  for_tiles<kPanels>(
      w, x, panel_bytes, bias, y, ldy, panel_begin, panel_end, []<int R, int P>(const Tile& t) {
        const uint8_t *weights = t.weights(), *ahead = t.ahead;
        const int64_t num_groups = t.num_groups();
        const uint16_t* scales = t.w.half_scales + t.panel * num_groups * kPanel;
        const uint32_t* a = t.units();
        const int32_t* offsets = t.offsets();
        const int64_t stride = t.stride<R>();
        F32 total[P][R];
        for (int p = 0; p < P; ++p)
          for (int r = 0; r < R; ++r) total[p][r] = splat(0);
        for (int64_t g = 0; g < num_groups; ++g, offsets += stride, scales += kPanel) {
          I32 dot[P][R];
          for (int p = 0; p < P; ++p)
            for (int r = 0; r < R; ++r) dot[p][r] = splat_int(offsets[r]);
          for (int64_t k = 0; k < t.w.group_size; k += 8, weights += 64, a += 2 * stride) {
            for (int p = 0; p < P; ++p) __builtin_prefetch(ahead + p * 64);
            ahead += t.ahead_step;
            Bytes low[P], high[P];
            for (int p = 0; p < P; ++p) {
              const Bytes both = load_bytes(weights + p * t.panel_bytes);
              low[p] = low_nibbles(both), high[p] = high_nibbles(both);
            }
            for (int r = 0; r < R; ++r)
              for (int p = 0; p < P; ++p) dot[p][r] = dot_u4s8(dot[p][r], low[p], a[r]);
            for (int r = 0; r < R; ++r)
              for (int p = 0; p < P; ++p) dot[p][r] = dot_u4s8(dot[p][r], high[p], a[stride + r]);
          }
          for (int p = 0; p < P; ++p) {
            const F32 scale = load_f16(scales + p * num_groups * kPanel);
            for (int r = 0; r < R; ++r) total[p][r] = fma(to_float(dot[p][r]), scale, total[p][r]);
          }
        }
        for (int p = 0; p < P; ++p)
          for (int r = 0; r < R; ++r) t.finish(p, r, total[p][r] * t.scale(r));
      });
}

}  // namespace freehold::ISA
