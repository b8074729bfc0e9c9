// Attention of queries that share a key head. A vector holds two components of sixteen keys, or of
// sixteen columns of two keys: bfloat16 products meet in their lane, and no sum needs a reduction.

#include "attention.h"

namespace freehold::ISA {
namespace {

// The keys [begin, end) of a run that a tile of queries sees, in panels: each block of the cache
// fills whole panels, so a score's place is its block's first panel and its offset there.
struct Span {
  const Attention& t;
  int64_t begin, end;
  int64_t panels_a_block = (t.block_size + kKeyPanel - 1) / kKeyPanel;

  int64_t panel(int64_t key) const {
    return key / t.block_size * panels_a_block + key % t.block_size / kKeyPanel;
  }
  int64_t first_panel() const { return panel(begin); }
  int64_t end_panel() const { return panel(end - 1) + 1; }
  int64_t stride() const { return end_panel() * kKeyPanel; }  // of a query's scores

  const uint16_t* keys(int64_t panel) const {
    return t.keys[panel / panels_a_block] + panel % panels_a_block * t.dim * kKeyPanel;
  }
  const uint16_t* values(int64_t panel) const {
    return t.values[panel / panels_a_block] + panel % panels_a_block * t.value_dim * kKeyPanel;
  }
};

// Scores of R queries against P panels of keys. The first queries to see a run fetch what comes
// next, at the pace they read: further keys, then values.
template <int R, int P, bool kFetches>
void score_tile(const Span& s, const uint16_t* queries, int64_t panel) {
  const uint16_t *keys[P], *ahead[P];
  F32 total[P][R];
  for (int p = 0; p < P; ++p) {
    keys[p] = s.keys(panel + p);
    const int64_t next = panel + P + p, beyond = next - s.end_panel();
    ahead[p] = beyond < 0 ? s.keys(next) : s.values(s.first_panel() + beyond);
    for (int r = 0; r < R; ++r) total[p][r] = splat(0);
  }
  for (int64_t d = 0; d < s.t.dim; d += 2) {
    Bytes pairs[P];
    for (int p = 0; p < P; ++p) {
      pairs[p] = load_bytes(keys[p] + d * kKeyPanel);
      if constexpr (kFetches) __builtin_prefetch(ahead[p] + d * kKeyPanel);
    }
    for (int r = 0; r < R; ++r) {
      const uint32_t q = load_pair(queries + r * s.t.dim + d);
      for (int p = 0; p < P; ++p) total[p][r] = dot_bf16(total[p][r], pairs[p], q);
    }
  }
  for (int p = 0; p < P; ++p) {
    F32 scale = splat(s.t.scale);
    if (s.t.key_scales) scale = scale * load(s.t.key_scales + (panel + p) * kKeyPanel);
    for (int r = 0; r < R; ++r)
      store(s.t.scratch + r * s.stride() + (panel + p) * kKeyPanel, total[p][r] * scale);
  }
}

template <int R, int P, bool kFetches>
void score_panels(const Span& s, const uint16_t* queries, int64_t panel, int64_t end) {
  for (; panel + P <= end; panel += P) score_tile<R, P, kFetches>(s, queries, panel);
  if constexpr (P > 1)
    if (panel < end) score_panels<R, P / 2, kFetches>(s, queries, panel, end);
}

// Scores outside [begin, end), and of the padding of blocks, become -infinity.
void mask(const Span& s, float* scores, int64_t begin, int64_t end) {
  const int64_t size = s.t.block_size;
  if (begin <= s.begin && end >= s.end && size % kKeyPanel == 0 && begin % kKeyPanel == 0 &&
      end % kKeyPanel == 0)
    return;
  for (int64_t panel = s.first_panel(); panel < s.end_panel(); ++panel) {
    const int64_t offset = panel % s.panels_a_block * kKeyPanel;
    const int64_t key = panel / s.panels_a_block * size + offset;  // of the panel's first lane
    const int64_t in_block = size - offset < kKeyPanel ? size - offset : kKeyPanel;
    if (in_block == kKeyPanel && key >= begin && key + kKeyPanel <= end) continue;
    for (int64_t i = 0; i < kKeyPanel; ++i)
      if (i >= in_block || key + i < begin || key + i >= end)
        scores[panel * kKeyPanel + i] = -__builtin_inff();
  }
}

// One query's scores become bfloat16 weights, in the same place, times the scales of values.
void softmax(const Span& s, float* scores, float* greatest_score, float* weight_sum) {
  const int64_t begin = s.first_panel() * kKeyPanel, end = s.stride();
  auto* weights = reinterpret_cast<uint16_t*>(scores);
  const float* scales = s.t.value_scales;
  F32 best = splat(-__builtin_inff());
  for (int64_t i = begin; i < end; i += 16) best = max(load(scores + i), best);
  *greatest_score = greatest(best);
  const F32 top = splat(*greatest_score);
  F32 total = splat(0);
  for (int64_t i = begin; i < end; i += 16) {
    const F32 weight = exp2_negative(load(scores + i) - top);
    total = total + weight;
    store_bf16(weights + i, scales ? weight * load(scales + i) : weight);
  }
  *weight_sum = sum(total);
}

// What a tile of C columns reads after its values of `block`.
template <int C>
const uint16_t* after(const Span& s, int64_t block, int64_t column) {
  const int64_t size = s.t.block_size;
  if ((block + 1) * size < s.end) return s.t.values[block + 1] + 2 * column;
  if (column + 16 * C < s.t.value_dim) return s.t.values[s.begin / size] + 2 * (column + 16 * C);
  return s.t.keys[block + 1 < s.t.num_blocks ? block + 1 : block];
}

// C vectors of R queries' mixed values.
template <int R, int C, bool kFetches>
void mix_tile(const Span& s, int64_t column, float* mix) {
  const Attention& t = s.t;
  const auto* weights = reinterpret_cast<const uint16_t*>(t.scratch);
  const int64_t stride = 2 * s.stride(), step = 2 * t.value_dim, size = t.block_size;
  F32 total[R][C];
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) total[r][c] = splat(0);
  const auto add = [&](const uint16_t* values, const uint16_t* w, auto keep) {
    Bytes pairs[C];
    for (int c = 0; c < C; ++c) pairs[c] = keep(load_bytes(values + 32 * c));
    for (int r = 0; r < R; ++r) {
      const uint32_t both = load_pair(w + r * stride);
      for (int c = 0; c < C; ++c) total[r][c] = dot_bf16(total[r][c], pairs[c], both);
    }
  };
  for (int64_t block = s.begin / size; block * size < s.end; ++block) {
    const int64_t first = block * size, from = s.begin > first ? (s.begin - first) / 2 * 2 : 0,
                  to = s.end - first < size ? s.end - first : size;
    const uint16_t* w = weights + block * s.panels_a_block * kKeyPanel + from;
    const uint16_t* values = t.values[block] + from * t.value_dim + 2 * column;
    const uint16_t* ahead = after<C>(s, block, column);
    int64_t i = from;
    for (; i + 2 <= to; i += 2, values += step, ahead += step, w += 2) {
      if constexpr (kFetches)
        for (int c = 0; c < C; ++c) __builtin_prefetch(ahead + 32 * c);
      add(values, w, [](Bytes v) { return v; });
    }
    if (i < to) add(values, w, low_bf16);  // its other half may be anything
  }
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) store(mix + r * t.value_dim + column + 16 * c, total[r][c]);
}

template <int R, int C, bool kFetches>
void mix_columns(const Span& s, int64_t column, float* mix) {
  for (; column + 16 * C <= s.t.value_dim; column += 16 * C)
    mix_tile<R, C, kFetches>(s, column, mix);
  if constexpr (C > 1)
    if (column < s.t.value_dim) mix_columns<R, C / 2, kFetches>(s, column, mix);
}

// R queries against the whole run.
template <int R, bool kFetches>
void attend(const Attention& t, int64_t query, const Partial& out) {
  const Span span{t, t.begin[query], t.end[query + R - 1]};
  if (span.begin >= span.end) return see_nothing(out, query, R, t.value_dim);
  constexpr int P = !kHas32Registers ? 1 : (R > 3 ? 4 : 8) / (kFetches ? 2 : 1);
  score_panels<R, P, kFetches>(span, t.queries + query * t.dim, span.first_panel(),
                               span.end_panel());
  for (int r = 0; r < R; ++r) {
    float* scores = t.scratch + r * span.stride();
    mask(span, scores, t.begin[query + r], t.end[query + r]);
    softmax(span, scores, out.greatest + query + r, out.sum + query + r);
  }
  constexpr int C = !kHas32Registers ? (R > 2 ? 1 : 2) : R > 3 ? 4 : 8;
  mix_columns<R, C, kFetches>(span, 0, out.mix + query * t.value_dim);
}

}  // namespace

void grouped_attention(const Attention& t, const Partial& out) {
  for_query_tiles<kMostQueries>(t.num_queries, [&]<int R>(int64_t query) {
    query == 0 ? attend<R, true>(t, query, out) : attend<R, false>(t, query, out);
  });
}

}  // namespace freehold::ISA
