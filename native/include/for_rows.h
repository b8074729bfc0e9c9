// Runtime::for_rows, for the files that implement Runtime.
#pragma once

#include <algorithm>

#include "runtime.h"

namespace freehold {

constexpr int64_t kWorkWorthATask = 1 << 14;  // values touched; about what waking a thread costs

template <class Body>
void Runtime::for_rows(int64_t m, int64_t work_per_row, Body&& body) {
  const int64_t rows_per_task =
      std::max<int64_t>(1, kWorkWorthATask / std::max<int64_t>(1, work_per_row));
  pool_.run((m + rows_per_task - 1) / rows_per_task, [&](int64_t task) {
    const int64_t end = std::min(m, (task + 1) * rows_per_task);
    for (int64_t row = task * rows_per_task; row < end; ++row) body(row);
  });
}

}  // namespace freehold
