// Packed weights as Python objects: they own their memory or hold on to a mapped file's, kernels
// see them as `Weight`.
#pragma once

#include <vector>

#include "arrays.h"
#include "buffer.h"
#include "runtime.h"

namespace freehold {

using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// One [n, k] matrix, or several of one shape ([heads, n, k]) packed one behind the other; all
// scales follow, from the next cache line on.
struct PackedWeight {
  int64_t count;
  std::vector<Weight> views;  // one a matrix
  int64_t num_bytes;
  const uint8_t* bytes;

  // In zeroed memory of its own, to be packed into.
  PackedWeight(Format format, int64_t count, int64_t n, int64_t k, int64_t group_size);
  // Packed before, with these same arguments. Throws ValueError if the bytes cannot be that.
  PackedWeight(Format format, int64_t count, int64_t n, int64_t k, int64_t group_size, Bytes bytes);

 private:
  Buffer owned_;
  std::optional<Bytes> mapped_;

  void set_views(Format format, int64_t n, int64_t k, int64_t group_size);
};

struct PackedExperts {
  ExpertWeights views;
  int64_t num_bytes;
};

// The limits of every packed matrix; throws ValueError.
void require_packable(int format, int64_t count, int64_t n, int64_t k, int64_t group_size);

}  // namespace freehold
