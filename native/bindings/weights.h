// Packed weights as Python objects: they own their memory, kernels see them as `Weight`.
#pragma once

#include <vector>

#include "buffer.h"
#include "runtime.h"

namespace freehold {

// One [n, k] matrix, or several of one shape ([heads, n, k]) packed one behind the other.
struct PackedWeight {
  int64_t count;
  std::vector<Weight> views;  // one a matrix
  Buffer data, scales;
  int64_t num_bytes;

  PackedWeight(Format format, int64_t count, int64_t n, int64_t k, int64_t group_size);
};

struct PackedExperts {
  ExpertWeights views;
  int64_t num_bytes;
};

}  // namespace freehold
