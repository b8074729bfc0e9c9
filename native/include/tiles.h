// Calls a kernel with the number of its rows as a constant, so that they stay in registers.
#pragma once

#include "simd.h"

namespace freehold::ISA {

// kernel.template operator()<R>() for R = count, which is at most Most.
template <int Most, class Kernel>
inline void with_constant(int64_t count, Kernel&& kernel) {
  if constexpr (Most > 1)
    if (count < Most) return with_constant<Most - 1>(count, kernel);
  kernel.template operator()<Most>();
}

constexpr int kMostRows = kHas32Registers ? 8 : 4;  // that a tile takes

// kernel.template operator()<R>(first) for runs of R <= Most rows, in order, that cover [0, count).
template <int Most = kMostRows, class Kernel>
inline void for_rows_of_block(int64_t count, Kernel&& kernel) {
  for (int64_t first = 0; first < count; first += Most)
    with_constant<Most>(count - first, [&]<int R>() { kernel.template operator()<R>(first); });
}

}  // namespace freehold::ISA
