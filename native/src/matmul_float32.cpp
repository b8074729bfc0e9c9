// y = x Wᵀ in float32, sums in order of k: packed weights, and a row-major matrix (routers).

#include "matmul.h"

namespace freehold::ISA {

void matmul_float32(const Weight& w, const Rows& x, const float* bias, float* y, int64_t ldy,
                    int64_t panel_begin, int64_t panel_end) {
  constexpr int kPanels = kHas32Registers ? 2 : 1;
  for_tiles<kPanels>(w, x, w.padded_k * kPanel * 4, bias, y, ldy, panel_begin, panel_end,
                     []<int R, int P>(const Tile& t) {
                       const uint8_t* weights = t.weights();
                       const auto* a = reinterpret_cast<const float*>(t.units());
                       const int64_t stride = t.stride<R>();
                       F32 total[P][R];
                       for (int p = 0; p < P; ++p)
                         for (int r = 0; r < R; ++r) total[p][r] = splat(0);
                       for (int64_t k = 0; k < t.w.padded_k; ++k, weights += 64, a += stride)
                         for (int p = 0; p < P; ++p) {
                           const F32 column =
                               load(reinterpret_cast<const float*>(weights + p * t.panel_bytes));
                           for (int r = 0; r < R; ++r)
                             total[p][r] = fma(column, splat(a[r]), total[p][r]);
                         }
                       for (int p = 0; p < P; ++p)
                         for (int r = 0; r < R; ++r) t.finish(p, r, total[p][r]);
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
