// y = x Wᵀ in float32, sums in order of k: packed weights, and a row-major matrix (routers).

#include "matmul.h"

namespace freehold::ISA {
namespace {

template <int R, int P>
inline void multiply(const Tile& tile) {
  const int64_t stride = tile.stride<R>();
  const float* weights[P];
  F32 totals[P][R];
  for (int p = 0; p < P; ++p) {
    weights[p] = reinterpret_cast<const float*>(tile.weights(p));
    for (int r = 0; r < R; ++r) totals[p][r] = splat(0);
  }
  const auto* a = reinterpret_cast<const float*>(tile.units());
  for (int64_t k = 0; k < tile.t.weight.padded_k; ++k, a += stride)
    for (int p = 0; p < P; ++p) {
      const F32 column = load(weights[p] + k * kPanel);
      for (int r = 0; r < R; ++r) totals[p][r] = fma(column, splat(a[r]), totals[p][r]);
    }
  tile.finish(totals);
}

}  // namespace

void matmul_float32(const Product& t, int64_t panel_begin, int64_t panel_end) {
  for_tiles(t, t.weight.padded_k * kPanel * 4, panel_begin, panel_end,
            []<int R, int P>(const Tile& tile) { multiply<R, P>(tile); });
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
