// y = x Wᵀ with 4-bit weights and 8-bit activations. Per group of inputs the integer dot product
// is exact; groups are rescaled and added in ascending order with one fused multiply-add each.
// Weights are stored as q + 8, so an accumulator starts at -8 times the group's activation sum.

#include "matmul.h"

namespace freehold::ISA {

void matmul_int4(const Weight& w, const Rows& x, const float* bias, float* y, int64_t ldy,
                 int64_t panel_begin, int64_t panel_end) {
  for_tiles(w, x, bias, y, ldy, panel_begin, panel_end, []<int R>(const Tile& t) {
    const int64_t num_groups = t.w.padded_k / t.w.group_size;
    const uint8_t* weights = t.w.data + t.panel * t.w.padded_k * kPanel / 2;
    const uint16_t* scales = t.w.half_scales + t.panel * num_groups * kPanel;
    const uint32_t* a = t.units();
    const int32_t* offsets = t.offsets();
    F32 total[R];
    for (int r = 0; r < R; ++r) total[r] = splat(0);
    for (int64_t g = 0; g < num_groups; ++g, offsets += t.stride, scales += kPanel) {
      I32 first[R], second[R];
      for (int r = 0; r < R; ++r) first[r] = splat_int(offsets[r]), second[r] = splat_int(0);
      for (int64_t k = 0; k < t.w.group_size; k += 8, weights += 64, a += 2 * t.stride) {
        const Bytes both = load_bytes(weights), low = low_nibbles(both);
        for (int r = 0; r < R; ++r) first[r] = dot_u4s8(first[r], low, a[r]);
        const Bytes high = high_nibbles(both);
        I32* rest = kSplitChains ? second : first;
        for (int r = 0; r < R; ++r) rest[r] = dot_u4s8(rest[r], high, a[t.stride + r]);
      }
      const F32 scale = load_f16(scales);
      for (int r = 0; r < R; ++r) {
        const I32 dot = kSplitChains ? first[r] + second[r] : first[r];
        total[r] = fma(to_float(dot), scale, total[r]);
      }
    }
    for (int r = 0; r < R; ++r) t.finish(r, total[r] * splat(t.scale(r)));
  });
}

}  // namespace freehold::ISA
