// What the matmul_*.cpp share: how row blocks and panels are walked, and how a tile is finished.
// A lane is an output column and sums run along k in one order whatever the number of rows, so a
// row's bits do not depend on the rows beside it.
#pragma once

#include "kernels.h"
#include "simd.h"
#include "tiles.h"

namespace freehold::ISA {

// Panel `p` of the weight among those of a tile that begins at output panel `panel`: the ones
// behind each other or, of a gated product, pairs of a gate's panel and the up's.
inline int64_t weight_panel(const Product& t, int64_t panel, int p) {
  return t.is_gated ? panel + p / 2 + p % 2 * (t.num_columns() / kPanel) : panel + p;
}

// What a tile has summed, v[p][r] of row `row` + r against weight_panel(p), into y.
template <int R, int P>
inline void write_sums(const Product& t, int64_t row, int64_t panel, F32 (&v)[P][R]) {
  if (t.bias)
    for (int p = 0; p < P; ++p) {
      const int64_t column = weight_panel(t, panel, p) * kPanel, width = t.weight.n - column;
      const F32 bias = width < kPanel ? load_n(t.bias + column, width) : load(t.bias + column);
      for (int r = 0; r < R; ++r) v[p][r] = v[p][r] + bias;
    }
  float* y = t.y + row * t.ldy + panel * kPanel;
  if constexpr (P % 2 == 0)
    if (t.is_gated) {
      for (int r = 0; r < R; ++r, y += t.ldy)
        for (int p = 0; p < P; p += 2) store(y + p / 2 * kPanel, silu_times(v[p][r], v[p + 1][r]));
      return;
    }
  const int64_t last = t.num_columns() - (panel + P - 1) * kPanel;  // columns of the last panel
  for (int r = 0; r < R; ++r, y += t.ldy) {
    for (int p = 0; p < P - 1; ++p) store(y + p * kPanel, v[p][r]);
    if (last >= kPanel)
      store(y + (P - 1) * kPanel, v[P - 1][r]);
    else
      store_n(y + (P - 1) * kPanel, v[P - 1][r], last);
  }
}

// R rows from `first` of the block that begins at `row`, against P panels of the weight.
struct Tile {
  const Product& t;
  int64_t panel, row, first, rows_in_block, panel_bytes;
  // The share of the next tile's weights that this one fetches into cache while it computes: from
  // next(p, P) and then `ahead_step` bytes on for each of its own vectors.
  int64_t ahead, ahead_step;

  int64_t panel_of(int p) const { return weight_panel(t, panel, p); }
  const uint8_t* weights(int p) const { return t.weight.data + panel_of(p) * panel_bytes; }
  const uint8_t* next(int p, int num_panels) const {
    return t.is_gated ? weights(p % 2) + num_panels / 2 * panel_bytes + ahead + p / 2 * 64
                      : weights(num_panels) + ahead + p * 64;
  }
  const uint32_t* units() const { return t.rows.data + row * t.rows.units + first; }
  int64_t num_groups() const { return t.weight.padded_k / t.weight.group_size; }
  const int32_t* offsets() const { return t.rows.offsets + row * num_groups() + first; }
  F32 scale(int r) const { return splat(t.rows.scales[row + first + r]); }

  // From a row's unit or offset to its next: a constant where a tile takes whole blocks.
  template <int R>
  int64_t stride() const {
    return kMostRows == kRowBlock ? R : rows_in_block;
  }

  template <int R, int P>
  void finish(F32 (&v)[P][R]) const {
    write_sums(t, row + first, panel, v);
  }
};

// Rows that stay in the second-level cache while panels stream past them.
inline int64_t rows_a_chunk(const Rows& x) {
  constexpr int64_t kBytes = 768 * 1024;
  const int64_t rows = kBytes / (4 * x.units) / kRowBlock * kRowBlock;
  return rows < kRowBlock ? kRowBlock : rows;
}

// The rows [begin, end) against the P panels of a tile.
template <int P, class Kernel>
inline void for_row_blocks(Tile tile, int64_t begin, int64_t end, Kernel kernel) {
  constexpr int kMost = kHas32Registers || P == 1 ? kMostRows : kMostRows / 2;
  const int64_t num_blocks = (end - begin + kRowBlock - 1) / kRowBlock;
  const int64_t streams = tile.t.is_gated ? P / 2 : P;  // panels fetched one behind the other
  tile.ahead_step = streams * 64 / num_blocks;
  for (int64_t block = 0; block < num_blocks; ++block) {
    tile.row = begin + block * kRowBlock;
    tile.rows_in_block = end - tile.row < kRowBlock ? end - tile.row : kRowBlock;
    tile.ahead = block * streams * tile.panel_bytes / num_blocks;
    for_rows_of_block<kMost>(tile.rows_in_block, [&]<int R>(int64_t first) {
      tile.first = first;
      kernel.template operator()<R, P>(tile);
    });
  }
}

// kernel.template operator()<R, P>(tile) over all rows and the output panels [panel_begin,
// panel_end).
template <class Kernel>
void for_tiles(const Product& t, int64_t panel_bytes, int64_t panel_begin, int64_t panel_end,
               Kernel kernel) {
  const int64_t chunk = rows_a_chunk(t.rows);
  for (int64_t begin = 0; begin < t.rows.num_rows; begin += chunk) {
    const int64_t end = begin + chunk < t.rows.num_rows ? begin + chunk : t.rows.num_rows;
    int64_t panel = panel_begin;
    const auto take = [&]<int P>(int64_t panels) {
      for (; panel + panels <= panel_end; panel += panels)
        for_row_blocks<P>(Tile{t, panel, begin, 0, 0, panel_bytes, 0, 0}, begin, end, kernel);
    };
    if (t.is_gated) {
      take.template operator()<2>(1);
    } else {
      if constexpr (kHas32Registers) take.template operator()<2>(2);
      take.template operator()<1>(1);
    }
  }
}

}  // namespace freehold::ISA
