// INT4 and INT8 products of many rows on a matrix unit: 32 rows by 32 columns at a time. The
// integers are exact and the floats take the steps of matmul_int4.cpp and matmul_int8.cpp in their
// order, so a row has the bits it would have there; few rows, and odd sizes, go there.

#include <cstdlib>

#include "matmul.h"
#include "tile_unit.h"

namespace freehold::ISA {

void matmul_int4(const Product&, int64_t, int64_t);
void matmul_int8(const Product&, int64_t, int64_t);

namespace {

constexpr int64_t kTileRows = 16, kChunkRows = 64, kFewRows = 8;

// Some rows of activations, as tiles: [tile of 16 rows][step of inputs][16][inputs] bytes.
struct Chunk {
  const Rows& x;
  int64_t begin, num_rows, inputs;  // inputs a tile takes: 64 or 32
  int8_t* data;

  int64_t num_tiles() const { return (num_rows + kTileRows - 1) / kTileRows; }
  int64_t steps() const { return 4 * x.units / inputs; }
  const int8_t* tile(int64_t tile, int64_t step) const {
    return data + (tile * steps() + step) * kTileRows * inputs;
  }

  void pack() const {
    std::memset(data, 0, size_t(num_tiles() * kTileRows * 4 * x.units));
    for (int64_t i = 0; i < num_rows; ++i) {
      const Interleaved place(begin + i, x.num_rows, kRowBlock);
      const uint32_t* from = x.data + place.first * x.units + place.lane;
      int8_t* to = data + i / kTileRows * kTileRows * 4 * x.units + i % kTileRows * inputs;
      for (int64_t u = 0; u < x.units; ++u)
        std::memcpy(to + 4 * u / inputs * kTileRows * inputs + 4 * u % inputs,
                    from + u * place.stride, 4);
    }
  }

  int32_t offset(int64_t i, int64_t group, int64_t num_groups) const {
    const Interleaved place(begin + i, x.num_rows, kRowBlock);
    return x.offsets[place.first * num_groups + group * place.stride + place.lane];
  }
};

// sums[row tile][panel][16][16] of up to two row tiles and two panels, over `steps` steps from
// `step`; weights(panel, step) is a tile's 16 columns.
struct Sums {
  alignas(64) int32_t values[2][2][16][16];
};

template <int M, int N, class Weights>
void multiply(const Chunk& chunk, int64_t tile, int64_t step, int64_t steps, Weights weights,
              Sums& sums) {
  TileUnit::zero<0>(), TileUnit::zero<1>(), TileUnit::zero<2>(), TileUnit::zero<3>();
  for (int64_t s = step; s < step + steps; ++s) {
    TileUnit::load<4>(chunk.tile(tile, s), chunk.inputs);
    TileUnit::load<6>(weights(0, s), 64);
    TileUnit::dot<0, 4, 6>();
    if constexpr (N == 2) TileUnit::load<7>(weights(1, s), 64), TileUnit::dot<1, 4, 7>();
    if constexpr (M == 2)
      TileUnit::load<5>(chunk.tile(tile + 1, s), chunk.inputs), TileUnit::dot<2, 5, 6>();
    if constexpr (M == 2 && N == 2) TileUnit::dot<3, 5, 7>();
  }
  TileUnit::store<0>(sums.values[0][0], 64);
  if constexpr (N == 2) TileUnit::store<1>(sums.values[0][1], 64);
  if constexpr (M == 2) TileUnit::store<2>(sums.values[1][0], 64);
  if constexpr (M == 2 && N == 2) TileUnit::store<3>(sums.values[1][1], 64);
}

// each(row of the chunk, panel, sums of its 16 columns) for all rows against one or two panels.
template <class Weights, class Each>
void for_sums(const Chunk& chunk, int64_t num_panels, int64_t step, int64_t steps, Weights weights,
              Each each) {
  Sums sums;
  for (int64_t tile = 0; tile < chunk.num_tiles(); tile += 2) {
    const int64_t tiles = chunk.num_tiles() - tile < 2 ? 1 : 2;
    if (tiles == 2 && num_panels == 2)
      multiply<2, 2>(chunk, tile, step, steps, weights, sums);
    else if (tiles == 2)
      multiply<2, 1>(chunk, tile, step, steps, weights, sums);
    else if (num_panels == 2)
      multiply<1, 2>(chunk, tile, step, steps, weights, sums);
    else
      multiply<1, 1>(chunk, tile, step, steps, weights, sums);
    const int64_t first = tile * kTileRows, end = first + tiles * kTileRows;
    for (int64_t i = first; i < end && i < chunk.num_rows; ++i)
      for (int64_t p = 0; p < num_panels; ++p)
        each(i, p, sums.values[(i - first) / kTileRows][p][i % kTileRows]);
  }
}

// Up to two panels of the weight: behind each other, or a gate's and the up's.
struct Panels {
  const Product& t;
  int64_t panel, count;

  int64_t operator[](int64_t p) const { return weight_panel(t, panel, int(p)); }
  void finish(int64_t row, F32 (&v)[2][1]) const {
    F32 one[1][1] = {{v[0][0]}};
    count == 2 ? write_sums(t, row, panel, v) : write_sums(t, row, panel, one);
  }
};

void int8_panels(const Chunk& chunk, const Panels& panels) {
  const Weight& w = panels.t.weight;
  const auto weights = [&](int64_t p, int64_t step) {
    return w.data + (panels[p] * w.padded_k + step * chunk.inputs) * kPanel;
  };
  F32 v[2][1];
  for_sums(chunk, panels.count, 0, chunk.steps(), weights,
           [&](int64_t i, int64_t p, const int32_t* sums) {
             const int64_t row = chunk.begin + i;
             const F32 scale = load(w.scales + panels[p] * kPanel);
             const I32 dot = load_int(sums) + splat_int(chunk.offset(i, 0, 1));
             v[p][0] = (scale * splat(chunk.x.scales[row])) * to_float(dot);
             if (p + 1 == panels.count) panels.finish(row, v);
           });
}

void int4_panels(const Chunk& chunk, const Panels& panels, float* totals, uint8_t* unpacked) {
  const Weight& w = panels.t.weight;
  const int64_t num_groups = w.padded_k / w.group_size, steps = w.group_size / chunk.inputs;
  const auto total = [&](int64_t i, int64_t p) { return totals + (i * 2 + p) * kPanel; };
  std::memset(totals, 0, size_t(chunk.num_rows * 2 * kPanel) * sizeof(float));
  for (int64_t g = 0; g < num_groups; ++g) {
    for (int64_t p = 0; p < panels.count; ++p) {
      const uint8_t* from = w.data + (panels[p] * w.padded_k + g * w.group_size) * kPanel / 2;
      uint8_t* to = unpacked + p * w.group_size * kPanel;
      for (int64_t k = 0; k < w.group_size; k += 8, from += 64, to += 128) {
        const Bytes both = load_bytes(from);
        store_bytes(to, low_nibbles(both)), store_bytes(to + 64, high_nibbles(both));
      }
    }
    const auto weights = [&](int64_t p, int64_t step) {
      return unpacked + (p * w.group_size + (step - g * steps) * chunk.inputs) * kPanel;
    };
    for_sums(chunk, panels.count, g * steps, steps, weights,
             [&](int64_t i, int64_t p, const int32_t* sums) {
               const F32 scale = load_f16(w.half_scales + (panels[p] * num_groups + g) * kPanel);
               const I32 dot = load_int(sums) + splat_int(chunk.offset(i, g, num_groups));
               store(total(i, p), fma(to_float(dot), scale, load(total(i, p))));
             });
  }
  for (int64_t i = 0; i < chunk.num_rows; ++i) {
    const F32 scale = splat(chunk.x.scales[chunk.begin + i]);
    F32 v[2][1] = {{load(total(i, 0)) * scale}, {load(total(i, 1)) * scale}};
    panels.finish(chunk.begin + i, v);
  }
}

// each(chunk, one or two panels) for all rows and the output panels [panel_begin, panel_end).
template <class Each>
void for_chunks(const Product& t, int64_t inputs, int64_t panel_begin, int64_t panel_end,
                Each each) {
  const Rows& x = t.rows;
  auto* memory = static_cast<int8_t*>(std::aligned_alloc(64, size_t(kChunkRows * 4 * x.units)));
  if (!memory) std::abort();
  TileUnit::configure(int(inputs));
  for (int64_t begin = 0; begin < x.num_rows; begin += kChunkRows) {
    const int64_t left = x.num_rows - begin;
    const Chunk chunk{x, begin, left < kChunkRows ? left : kChunkRows, inputs, memory};
    chunk.pack();
    for (int64_t panel = panel_begin; panel < panel_end; panel += t.is_gated ? 1 : 2)
      each(chunk, Panels{t, panel, t.is_gated || panel_end - panel >= 2 ? 2 : 1});
  }
  TileUnit::release();
  std::free(memory);
}

}  // namespace

void matmul_int8_tiles(const Product& t, int64_t panel_begin, int64_t panel_end) {
  if (t.rows.num_rows < kFewRows || t.weight.padded_k % 64)
    return matmul_int8(t, panel_begin, panel_end);
  for_chunks(t, 64, panel_begin, panel_end,
             [](const Chunk& chunk, const Panels& panels) { int8_panels(chunk, panels); });
}

void matmul_int4_tiles(const Product& t, int64_t panel_begin, int64_t panel_end) {
  constexpr int64_t kMostGroup = 256;
  const int64_t group_size = t.weight.group_size, inputs = group_size % 64 ? 32 : 64;
  if (t.rows.num_rows < kFewRows || group_size % inputs || group_size > kMostGroup)
    return matmul_int4(t, panel_begin, panel_end);
  alignas(64) float totals[kChunkRows * 2 * kPanel];
  alignas(64) uint8_t unpacked[2 * kMostGroup * kPanel];
  for_chunks(t, inputs, panel_begin, panel_end, [&](const Chunk& chunk, const Panels& panels) {
    int4_panels(chunk, panels, totals, unpacked);
  });
}

}  // namespace freehold::ISA
