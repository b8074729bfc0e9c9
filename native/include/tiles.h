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

}  // namespace freehold::ISA
