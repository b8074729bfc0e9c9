// Calls a kernel with the number of its rows as a constant, so that they stay in registers.
#pragma once

#include "simd.h"

namespace freehold::ISA {

// kernel.template operator()<R>(first) for consecutive runs of R that cover [0, count).
template <class Kernel>
inline void for_rows_of_block(int64_t count, Kernel&& kernel) {
  for (int64_t first = 0; first < count;) {
    const int64_t left = count - first;
    if constexpr (kHas32Registers) {
      if (left >= 8) { kernel.template operator()<8>(first), first += 8; continue; }
      if (left == 7) { kernel.template operator()<7>(first), first += 7; continue; }
      if (left == 6) { kernel.template operator()<6>(first), first += 6; continue; }
      if (left == 5) { kernel.template operator()<5>(first), first += 5; continue; }
    }
    if (left >= 4) kernel.template operator()<4>(first), first += 4;
    else if (left == 3) kernel.template operator()<3>(first), first += 3;
    else if (left == 2) kernel.template operator()<2>(first), first += 2;
    else kernel.template operator()<1>(first), first += 1;
  }
}

}  // namespace freehold::ISA
