// Attention over threads: writes the step's keys, then one task a (row, key head).

#include <algorithm>
#include <cstring>

#include "for_rows.h"

namespace freehold {

void Runtime::attention(const float* q, const float* k, const float* v, const Cache& cache,
                        int64_t num_heads, const Layout& layout, float scale, float* out) {
  const int64_t n = layout.num_tokens, kv_heads = cache.num_kv_heads;
  const int64_t key_size = kv_heads * cache.dim, value_size = kv_heads * cache.value_dim;
  for_rows(n, key_size, [&](int64_t row) {
    kernels_.round_row(k + row * key_size, key_size, key_size,
                       cache.keys + layout.slots[row] * key_size);
    if (v)
      kernels_.round_row(v + row * value_size, value_size, value_size,
                         cache.values + layout.slots[row] * value_size);
  });
  std::vector<int32_t> row_request(static_cast<size_t>(n));
  for (int64_t r = 0; r < layout.num_requests; ++r)
    for (int32_t row = layout.query_starts[r]; row < layout.query_starts[r + 1]; ++row)
      row_request[size_t(row)] = int32_t(r);
  const Attention task{q, out, cache, num_heads, layout.positions, row_request.data(),
                       layout.block_tables, layout.max_blocks, layout.block_size, scale};
  pool_.run(n * kv_heads, [&](int64_t i) {
    thread_local std::vector<float> scratch;
    const int64_t row = i / kv_heads;
    scratch.resize(size_t(num_heads / kv_heads * ((layout.positions[row] + 16) / 16 * 16)));
    kernels_.attend(task, row, i % kv_heads, scratch.data());
  });
}

}  // namespace freehold
