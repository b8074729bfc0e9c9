// What the matmul_*.cpp share: how row blocks and panels are walked, and how a tile is finished.
// A lane is an output column and sums run along k in one order whatever the number of rows, so a
// row's bits do not depend on the rows beside it.
#pragma once

#include "kernels.h"
#include "simd.h"
#include "tiles.h"

namespace freehold::ISA {

// The 16 columns of one row and panel, or as many as there are, with the bias added.
inline void write_panel(const Weight& w, const float* bias, float* y, int64_t ldy, int64_t row,
                        int64_t panel, F32 v) {
  const int64_t column = panel * kPanel, width = w.n - column;
  float* out = y + row * ldy + column;
  if (width >= kPanel)
    store(out, bias ? v + load(bias + column) : v);
  else
    store_n(out, bias ? v + load_n(bias + column, width) : v, width);
}

// R rows from `first` of the block that begins at `row`, against panels [panel, panel + P).
struct Tile {
  const Weight& w;
  const Rows& x;
  int64_t panel, row, first, rows_in_block, panel_bytes;
  const float* bias;
  float* y;
  int64_t ldy;
  // What the next panels' weights this tile has to fetch into cache while it computes: a line at
  // `ahead`, then `ahead_step` bytes on, for each vector of its own.
  const uint8_t* ahead;
  int64_t ahead_step;

  const uint8_t* weights() const { return w.data + panel * panel_bytes; }
  const uint32_t* units() const { return x.data + row * x.units + first; }
  int64_t num_groups() const { return w.padded_k / w.group_size; }
  const int32_t* offsets() const { return x.offsets + row * num_groups() + first; }
  F32 scale(int r) const { return splat(x.scales[row + first + r]); }

  // From a row's unit or offset to its next: a constant where a tile takes whole blocks.
  template <int R>
  int64_t stride() const {
    return kMostRows == kRowBlock ? R : rows_in_block;
  }

  void finish(int p, int r, F32 v) const {
    write_panel(w, bias, y, ldy, row + first + r, panel + p, v);
  }
};

// Rows that stay in the second-level cache while panels stream past them.
inline int64_t rows_a_chunk(const Rows& x) {
  constexpr int64_t kBytes = 384 * 1024;
  const int64_t rows = kBytes / (4 * x.units) / kRowBlock * kRowBlock;
  return rows < kRowBlock ? kRowBlock : rows;
}

template <int P, class Kernel>
inline void for_row_blocks(Tile tile, int64_t begin, int64_t end, Kernel kernel) {
  const int64_t num_blocks = (end - begin + kRowBlock - 1) / kRowBlock;
  const uint8_t* next = tile.weights() + P * tile.panel_bytes;
  const int64_t share = P * tile.panel_bytes / num_blocks;
  tile.ahead_step = P * 64 / num_blocks;
  for (int64_t block = 0; block < num_blocks; ++block) {
    tile.row = begin + block * kRowBlock;
    tile.rows_in_block = end - tile.row < kRowBlock ? end - tile.row : kRowBlock;
    tile.ahead = next + block * share;
    for_rows_of_block(tile.rows_in_block, [&]<int R>(int64_t first) {
      tile.first = first;
      kernel.template operator()<R, P>(tile);
    });
  }
}

// kernel.template operator()<R, P>(tile) over all rows and the panels [panel_begin, panel_end).
template <int P, class Kernel>
void for_tiles(const Weight& w, const Rows& x, int64_t panel_bytes, const float* bias, float* y,
               int64_t ldy, int64_t panel_begin, int64_t panel_end, Kernel kernel) {
  const int64_t chunk = rows_a_chunk(x);
  for (int64_t begin = 0; begin < x.num_rows; begin += chunk) {
    const int64_t end = begin + chunk < x.num_rows ? begin + chunk : x.num_rows;
    int64_t panel = panel_begin;
    const auto tile = [&] {
      return Tile{w, x, panel, begin, 0, 0, panel_bytes, bias, y, ldy, nullptr, 0};
    };
    for (; panel + P <= panel_end; panel += P) for_row_blocks<P>(tile(), begin, end, kernel);
    if constexpr (P > 1)
      for (; panel < panel_end; ++panel) for_row_blocks<1>(tile(), begin, end, kernel);
  }
}

}  // namespace freehold::ISA
