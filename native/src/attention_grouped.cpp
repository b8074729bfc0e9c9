// Attention of queries that share a key head. Sixteen keys lie side by side in the cache, so a
// vector of scores needs no reduction; each key vector is read once for up to eight queries.

#include "attention.h"

namespace freehold::ISA {
namespace {

struct Scoring {
  const Attention& t;
  int64_t panels_a_block, num_panels, stride;  // stride: of a query's scores
  const uint16_t* keys(int64_t panel) const {
    return t.keys + t.blocks[panel / panels_a_block] * t.key_stride +
           panel % panels_a_block * t.dim * kKeyPanel;
  }
  const uint16_t* values(int64_t panel) const {
    return t.values + t.blocks[panel / panels_a_block] * t.value_stride +
           panel % panels_a_block * t.value_dim * kKeyPanel;
  }
};

// Scores of R queries against P panels of keys. Meanwhile the panels after them are fetched, and
// these keys' values, which are as many: mixing will want them.
template <int R, int P>
void score_tile(const Scoring& s, int64_t query, int64_t lanes, int64_t lane, int64_t panel) {
  const float* q = s.t.queries + query * s.t.dim + lane;
  const uint16_t *keys[P], *ahead[P], *values[P];
  F32 total[P][R];
  for (int p = 0; p < P; ++p) {
    const int64_t next = panel + P + p < s.num_panels ? panel + P + p : panel;
    keys[p] = s.keys(panel + p), ahead[p] = s.keys(next), values[p] = s.values(panel + p);
    for (int r = 0; r < R; ++r) total[p][r] = splat(0);
  }
  for (int64_t d = 0; d < s.t.dim; d += 2, q += 2 * lanes)
    for (int p = 0; p < P; ++p) {
      const Bytes pairs = load_bytes(keys[p] + d * kKeyPanel);
      __builtin_prefetch(ahead[p] + d * kKeyPanel);
      __builtin_prefetch(values[p] + d * kKeyPanel, 0, 2);
      const F32 even = even_bf16(pairs), odd = odd_bf16(pairs);
      for (int r = 0; r < R; ++r) total[p][r] = fma(even, splat(q[r]), total[p][r]);
      for (int r = 0; r < R; ++r) total[p][r] = fma(odd, splat(q[lanes + r]), total[p][r]);
    }
  const F32 scale = splat(s.t.scale);
  for (int p = 0; p < P; ++p)
    for (int r = 0; r < R; ++r)
      store(s.t.scratch + (query + lane + r) * s.stride + (panel + p) * kKeyPanel,
            total[p][r] * scale);
}

void score_block(const Scoring& s, int64_t query, int64_t lanes, int64_t num_panels) {
  for_rows_of_block(lanes, [&]<int R>(int64_t lane) {
    constexpr int P = kHas32Registers && R <= 4 ? 2 : 1;
    int64_t panel = 0;
    for (; panel + P <= num_panels; panel += P) score_tile<R, P>(s, query, lanes, lane, panel);
    for (; panel < num_panels; ++panel) score_tile<R, 1>(s, query, lanes, lane, panel);
  });
}

// One query's scores become weights; keys it does not see, and the padding of blocks, weigh 0.
void softmax(const Scoring& s, int64_t query, const Partial& out) {
  float* scores = s.t.scratch + query * s.stride;
  int64_t end = 0;
  for (int64_t left = s.t.visible[query]; left > 0; left -= s.t.block_size) {
    const int64_t valid = left < s.t.block_size ? left : s.t.block_size;
    for (int64_t i = valid; i % kKeyPanel; ++i) scores[end + i] = -__builtin_inff();
    end += (valid + kKeyPanel - 1) / kKeyPanel * kKeyPanel;
  }
  F32 best = splat(-__builtin_inff());
  for (int64_t i = 0; i < end; i += 16) best = max(load(scores + i), best);
  const float top = greatest(best);
  F32 total = splat(0);
  for (int64_t i = 0; i < end; i += 16) {
    const F32 weight = exp(load(scores + i) - splat(top));
    store(scores + i, weight);
    total = total + weight;
  }
  out.greatest[query] = top;
  out.sum[query] = sum(total);
}

}  // namespace

void grouped_attention(const Attention& t, const Partial& out) {
  const int64_t panels_a_block = (t.block_size + kKeyPanel - 1) / kKeyPanel;
  const auto panels_for = [&](int64_t keys) {
    return keys / t.block_size * panels_a_block + (keys % t.block_size + kKeyPanel - 1) / kKeyPanel;
  };
  const int64_t last = t.num_queries - 1;
  const int64_t num_panels = panels_for(t.visible[last]);
  const Scoring scoring{t, panels_a_block, num_panels, num_panels * kKeyPanel};
  int64_t first = 0;
  for (; first < last && t.visible[first] == 0; ++first) out.sum[first] = 0;
  for (int64_t query = 0; query < t.num_queries; query += kQueryBlock) {
    const Interleaved place(query, t.num_queries, kQueryBlock);
    const int64_t most = t.visible[query + place.stride - 1];
    if (most) score_block(scoring, query, place.stride, panels_for(most));
  }
  for (int64_t query = first; query < t.num_queries; ++query) softmax(scoring, query, out);
  mix_values({t, t.value_dim, t.scratch, scoring.stride, 1, panels_a_block * kKeyPanel, out.mix},
             first);
}

}  // namespace freehold::ISA
