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
        F32 total[P][R];
        for (int p = 0; p < P; ++p)
          for (int r = 0; r < R; ++r) total[p][r] = splat(0);
        for (int64_t g = 0; g < num_groups; ++g, offsets += R, scales += kPanel) {
          I32 first[P][R], second[P][R];  // two chains hide the dot product's latency
          for (int p = 0; p < P; ++p)
            for (int r = 0; r < R; ++r)
              first[p][r] = splat_int(offsets[r]), second[p][r] = splat_int(0);
          for (int64_t k = 0; k < t.w.group_size; k += 8, weights += 64, a += 2 * R) {
            for (int p = 0; p < P; ++p) __builtin_prefetch(ahead + p * 64);
            ahead += t.ahead_step;
            for (int p = 0; p < P; ++p) {
              const Bytes both = load_bytes(weights + p * t.panel_bytes);
              const Bytes low = low_nibbles(both), high = high_nibbles(both);
              I32* rest = kHas32Registers ? second[p] : first[p];
              for (int r = 0; r < R; ++r) {
                first[p][r] = dot_u4s8(first[p][r], low, a[r]);
                rest[r] = dot_u4s8(rest[r], high, a[R + r]);
              }
            }
          }
          for (int p = 0; p < P; ++p) {
            const F32 scale = load_f16(scales + p * num_groups * kPanel);
            for (int r = 0; r < R; ++r) {
              const I32 dot = kHas32Registers ? first[p][r] + second[p][r] : first[p][r];
              total[p][r] = fma(to_float(dot), scale, total[p][r]);
            }
          }
        }
        for (int p = 0; p < P; ++p)
          for (int r = 0; r < R; ++r) t.finish(p, r, total[p][r] * splat(t.x.scales[t.row + r]));
      });
}

}  // namespace freehold::ISA
