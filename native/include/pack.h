// From a checkpoint's matrix to a kernel's: rounds and lays out 16 rows (a panel) at a time.
// Knows no threads; the caller splits panels. The rounding is ops/quantize.py's, to the bit.
#pragma once

#include "kernels.h"

namespace freehold {

enum class Stored : int { kFloat32 = 0, kBf16 = 1, kFloat16 = 2 };

// Counts changes of the packed bytes' layout (pack.cpp): packed weights kept on disk carry it.
constexpr int kPackLayoutVersion = 1;

struct Source {  // row-major [n, k]
  const void* data;
  Stored dtype;
};

int64_t padded_k(Format format, int64_t k);
int64_t weight_bytes(Format format, int64_t n, int64_t k);
int64_t scale_bytes(Format format, int64_t n, int64_t k, int64_t group_size);

// Writes panel `panel` into the buffers `weight` points at (which are not const here by right of
// whoever allocated them).
void pack_panel(const Kernels& kernels, const Source& source, const Weight& weight, int64_t panel);

void widen(const Source& source, int64_t begin, int64_t count, float* out);

}  // namespace freehold
