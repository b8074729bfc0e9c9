// What grouped and latent attention share: mixing values by softmax weights, and folding runs.
#pragma once

#include "kernels.h"
#include "simd.h"
#include "tiles.h"

namespace freehold::ISA {

struct Mixing {
  const Attention& t;
  int64_t row_stride;  // between the values of neighbouring keys
  // Of query q and key (block, offset) at q * query_stride + block * block_stride +
  // offset * key_stride.
  const float* weights;
  int64_t query_stride, key_stride, block_stride;
  float* mix;

  const uint16_t* value(int64_t block, int64_t offset) const {
    return t.values + t.blocks[block] * t.value_stride + offset * row_stride;
  }
};

constexpr int kMixRegisters = kHas32Registers ? 16 : 4;

// C vectors of R queries, over the keys all of them see.
template <int R, int C>
inline void mix_tile(const Mixing& m, int64_t query, int64_t column, int64_t num_keys) {
  F32 total[R][C];
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) total[r][c] = splat(0);
  const float* weights = m.weights + query * m.query_stride;
  for (int64_t block = 0, left = num_keys; left > 0; ++block, left -= m.t.block_size) {
    const uint16_t* value = m.value(block, 0) + column;
    const float* w = weights + block * m.block_stride;
    const int64_t count = left < m.t.block_size ? left : m.t.block_size;
    for (int64_t i = 0; i < count; ++i, value += m.row_stride, w += m.key_stride)
      for (int c = 0; c < C; ++c) {
        const F32 v = load_bf16(value + 16 * c);
        for (int r = 0; r < R; ++r) total[r][c] = fma(splat(w[r * m.query_stride]), v, total[r][c]);
      }
  }
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c)
      store(m.mix + (query + r) * m.t.value_dim + column + 16 * c, total[r][c]);
}

template <int R, int C>
inline void mix_columns(const Mixing& m, int64_t query, int64_t column, int64_t num_keys) {
  for (; column + 16 * C <= m.t.value_dim; column += 16 * C)
    mix_tile<R, C>(m, query, column, num_keys);
  if constexpr (C > 1)
    if (column < m.t.value_dim) mix_columns<R, C / 2>(m, query, column, num_keys);
}

// Keys [begin, end) that this query sees and the first of its tile does not.
inline void mix_rest(const Mixing& m, int64_t query, int64_t begin, int64_t end) {
  float* mix = m.mix + query * m.t.value_dim;
  for (int64_t key = begin; key < end; ++key) {
    const int64_t block = key / m.t.block_size, offset = key % m.t.block_size;
    const F32 w =
        splat(m.weights[query * m.query_stride + block * m.block_stride + offset * m.key_stride]);
    const uint16_t* value = m.value(block, offset);
    for (int64_t d = 0; d < m.t.value_dim; d += 16)
      store(mix + d, fma(w, load_bf16(value + d), load(mix + d)));
  }
}

// Every query from `first` on. Per query and column the order is that of the keys, alone or not.
inline void mix_values(const Mixing& m, int64_t first) {
  const int32_t* visible = m.t.visible;
  for_rows_of_block(m.t.num_queries - first, [&]<int R>(int64_t row) {
    const int64_t query = first + row;
    constexpr int kColumns = R > 4   ? kMixRegisters / 8
                             : R > 2 ? kMixRegisters / 4
                                     : kMixRegisters / 2;
    mix_columns<R, kColumns>(m, query, 0, visible[query]);
    for (int r = 1; r < R; ++r)
      if (visible[query + r] > visible[query])
        mix_rest(m, query + r, visible[query], visible[query + r]);
  });
}

}  // namespace freehold::ISA
