// What grouped and latent attention share: tiles of queries, and folding runs.
#pragma once

#include "kernels.h"
#include "simd.h"
#include "tiles.h"

namespace freehold::ISA {

constexpr int kMostQueries = kHas32Registers ? 6 : 4;  // of a tile

// kernel.template operator()<R>(first) for tiles of queries, of like sizes, that cover [0, count).
template <int Most, class Kernel>
inline void for_query_tiles(int64_t count, Kernel&& kernel) {
  const int64_t num_tiles = (count + Most - 1) / Most;
  for (int64_t i = 0, first = 0; i < num_tiles; ++i) {
    const int64_t rows = (count - first) / (num_tiles - i);
    with_constant<Most>(rows, [&]<int R>() { kernel.template operator()<R>(first); });
    first += rows;
  }
}

// Queries [first, first + count) see nothing of the run.
inline void see_nothing(const Partial& out, int64_t first, int64_t count, int64_t value_dim) {
  for (int64_t query = first; query < first + count; ++query)
    out.greatest[query] = -__builtin_inff(), out.sum[query] = 0;
  std::memset(out.mix + first * value_dim, 0, size_t(count * value_dim) * sizeof(float));
}

}  // namespace freehold::ISA
