// What the matmul_*.cpp share: how row blocks and panels are walked, and how a tile is finished.
// A lane is an output column and sums run along k in one order whatever the number of rows, so a
// row's bits do not depend on the rows beside it.
#pragma once

#include "kernels.h"
#include "simd.h"
#include "tiles.h"

namespace freehold::ISA {

struct Tile {  // some rows of one row block against one panel
  const Weight& w;
  const Rows& x;
  int64_t panel, row;      // of the block's first row
  int64_t stride, lane;    // of the block; the tile's first row in it
  const float* bias;
  float* y;
  int64_t ldy;

  const uint32_t* units() const { return x.data + row * x.units + lane; }
  const int32_t* offsets() const {
    return x.offsets + row * (w.padded_k / w.group_size) + lane;
  }
  float scale(int r) const { return x.scales[row + lane + r]; }

  void finish(int r, F32 v) const {
    const int64_t column = panel * kPanel, width = w.n - column;
    float* out = y + (row + lane + r) * ldy + column;
    if (width >= kPanel)
      store(out, bias ? v + load(bias + column) : v);
    else
      store_n(out, bias ? v + load_n(bias + column, width) : v, width);
  }
};

// Rows that stay in the second-level cache while panels stream past them.
inline int64_t rows_a_chunk(const Rows& x) {
  constexpr int64_t kBytes = 384 * 1024;
  const int64_t rows = kBytes / (4 * x.units) / kRowBlock * kRowBlock;
  return rows < kRowBlock ? kRowBlock : rows;
}

// kernel.template operator()<R>(tile) for every tile of R rows.
template <class Kernel>
void for_tiles(const Weight& w, const Rows& x, const float* bias, float* y, int64_t ldy,
               int64_t panel_begin, int64_t panel_end, Kernel kernel) {
  const int64_t chunk = rows_a_chunk(x);
  for (int64_t begin = 0; begin < x.num_rows; begin += chunk) {
    const int64_t end = begin + chunk < x.num_rows ? begin + chunk : x.num_rows;
    for (int64_t panel = panel_begin; panel < panel_end; ++panel)
      for (int64_t row = begin; row < end; row += kRowBlock) {
        const int64_t in_block = end - row < kRowBlock ? end - row : kRowBlock;
        for_rows_of_block(in_block, [&]<int R>(int64_t lane) {
          kernel.template operator()<R>(Tile{w, x, panel, row, in_block, lane, bias, y, ldy});
        });
      }
  }
}

}  // namespace freehold::ISA
