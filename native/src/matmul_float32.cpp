// y = x Wᵀ in float32, sums in order of k: packed weights, and a row-major matrix (routers).

#include "matmul.h"

namespace freehold::ISA {

void matmul_float32(const Weight& w, const Rows& x, const float* bias, float* y, int64_t ldy,
                    int64_t panel_begin, int64_t panel_end) {
  for_tiles(w, x, bias, y, ldy, panel_begin, panel_end, []<int R>(const Tile& t) {
    const auto* weights = reinterpret_cast<const float*>(t.w.data) + t.panel * t.w.padded_k * kPanel;
    const auto* a = reinterpret_cast<const float*>(t.units());
    F32 total[R];
    for (int r = 0; r < R; ++r) total[r] = splat(0);
    for (int64_t k = 0; k < t.w.padded_k; ++k, weights += kPanel, a += t.stride) {
      const F32 column = load(weights);
      for (int r = 0; r < R; ++r) total[r] = fma(column, splat(a[r]), total[r]);
    }
    for (int r = 0; r < R; ++r) t.finish(r, total[r]);
  });
}

void matvec_float32(const float* x, const float* matrix, int64_t n, int64_t k, float* y) {
  for (int64_t row = 0; row < n; ++row, matrix += k) {
    F32 even = splat(0), odd = splat(0);
    int64_t i = 0;
    for (; i + 32 <= k; i += 32) {
      even = fma(load(x + i), load(matrix + i), even);
      odd = fma(load(x + i + 16), load(matrix + i + 16), odd);
    }
    float total = sum(even + odd);
    for (; i < k; ++i) total = __builtin_fmaf(x[i], matrix[i], total);
    y[row] = total;
  }
}

}  // namespace freehold::ISA
