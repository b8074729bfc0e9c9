// Keys and values into their place in a cache. Read runtime_attention.cpp for who reads them.

#include "paged_cache.h"

#include <vector>

namespace freehold {
namespace {

// Writes keys or values of one head: `count` numbers in units of `unit` neighbours that stay
// together, `stride` numbers from unit to unit.
template <class T>
void scatter(const T* from, int64_t count, int64_t unit, int64_t stride, T* to) {
  for (int64_t d = 0; d < count; d += unit)
    for (int64_t i = 0; i < unit; ++i) to[d / unit * stride + i] = from[d + i];
}

struct Place {
  uint8_t* block;
  float* scale;                 // of INT8
  int64_t first, unit, stride;  // numbers
};

void write(const Kernels& kernels, const PagedCache& c, const float* x, const Place& to) {
  thread_local std::vector<uint16_t> rounded;
  rounded.resize(size_t(c.dim + 16));
  if (c.is_int8) {
    *to.scale = kernels.greatest_magnitude(x, c.dim) / 127.0f;
    auto* q = reinterpret_cast<int8_t*>(rounded.data());
    kernels.quantize(x, c.dim, *to.scale, -127, 127, q);
    scatter(q, c.dim, to.unit, to.stride, reinterpret_cast<int8_t*>(to.block) + to.first);
  } else {
    kernels.to_bf16(x, c.dim, rounded.data());
    scatter(rounded.data(), c.dim, to.unit, to.stride,
            reinterpret_cast<uint16_t*>(to.block) + to.first);
  }
}

}  // namespace

void write_token(const Kernels& kernels, const PagedCache& c, int64_t slot, const float* k,
                 const float* v) {
  const int64_t block = slot / c.block_size, offset = slot % c.block_size;
  for (int64_t head = 0; head < c.num_kv_heads; ++head) {
    uint8_t* keys = c.key_block(block, head);
    float* scale = c.key_scales(block, head) + offset;
    if (c.is_latent) return write(kernels, c, k, {keys, scale, offset * c.value_size, 1, 1});
    const int64_t panel = offset / kKeyPanel * kKeyPanel * c.dim;
    write(kernels, c, k + head * c.dim,
          {keys, scale, panel + offset % kKeyPanel * 2, 2, 2 * kKeyPanel});
    write(kernels, c, v + head * c.dim,
          {c.value_block(block, head), c.value_scales(block, head) + offset,
           offset / 2 * 2 * c.value_size + offset % 2, 1, 2});
  }
}

}  // namespace freehold
