// Absorbed multi-head latent attention (DeepSeek-V2 §2.1.3): every head scores the same latent
// and mixes its first components. Here a lane of scores is a query, so softmax needs no reductions;
// pairs of keys are interleaved on the way to be mixed.

#include "attention.h"

namespace freehold::ISA {
namespace {

// Keys [begin, end) of a run, seen by up to 16 G queries. Scores are [key][16 G]; weights, in the
// same place, [pair of keys][16 G][2].
struct Span {
  const Attention& t;
  int64_t begin, end, first_query, lanes;
  float* scores(int64_t key) const { return t.scratch + (key - begin) * lanes; }
  float key_scale(int64_t key) const { return t.key_scales ? t.key_scales[key] : 1; }
};

void fetch(const uint16_t* latent, int64_t dim) {
  for (int64_t d = 0; d < dim; d += 32) __builtin_prefetch(latent + d);
}

// Scores of 16 G queries against K keys.
template <int K, int G>
void score_tile(const Span& s, int64_t key) {
  const Attention& t = s.t;
  const int64_t padded = (t.dim + 1) / 2 * 2;
  const uint16_t *queries = t.queries + s.first_query * padded, *keys[K];
  F32 total[K][G];
  for (int k = 0; k < K; ++k) {
    keys[k] = t.keys[key + k];
    for (int g = 0; g < G; ++g) total[k][g] = splat(0);
    if (key + K + k < s.end) fetch(t.keys[key + K + k], t.dim);
  }
  for (int64_t d = 0; d < t.dim; d += 2) {
    Bytes pairs[G];
    for (int g = 0; g < G; ++g) pairs[g] = load_bytes(queries + (g * padded + d) * kLatentQueries);
    for (int k = 0; k < K; ++k) {
      const uint32_t both = load_pair(keys[k] + d);
      for (int g = 0; g < G; ++g) total[k][g] = dot_bf16(total[k][g], pairs[g], both);
    }
  }
  for (int k = 0; k < K; ++k) {
    const F32 scale = splat(t.scale) * splat(s.key_scale(key + k));
    for (int g = 0; g < G; ++g) store(s.scores(key + k) + 16 * g, total[k][g] * scale);
  }
}

template <int G>
void score(const Span& s) {
  constexpr int K = (kHas32Registers ? 16 : 4) / G;
  for (int64_t key = s.begin; key < s.end; key += K)
    with_constant<K>(s.end - key, [&]<int Count>() { score_tile<Count, G>(s, key); });
}

void mask(const Span& s) {
  for (int64_t i = 0; i < s.lanes && s.first_query + i < s.t.num_queries; ++i) {
    const int64_t query = s.first_query + i;
    for (int64_t key = s.begin; key < s.t.begin[query]; ++key) s.scores(key)[i] = -__builtin_inff();
    for (int64_t key = s.t.end[query]; key < s.end; ++key) s.scores(key)[i] = -__builtin_inff();
  }
}

// Scores of 16 queries become weights; a last key without a partner is paired with nothing.
void softmax(const Span& s, int64_t lane, const Partial& out) {
  F32 best = splat(-__builtin_inff()), total = splat(0);
  for (int64_t key = s.begin; key < s.end; ++key) best = max(load(s.scores(key) + lane), best);
  for (int64_t key = s.begin; key < s.end; key += 2) {
    F32 even = exp2_negative(load(s.scores(key) + lane) - best), odd = splat(0);
    total = total + even;
    even = even * splat(s.key_scale(key));
    if (key + 1 < s.end) {
      odd = exp2_negative(load(s.scores(key + 1) + lane) - best);
      total = total + odd;
      odd = odd * splat(s.key_scale(key + 1));
    }
    store_bytes(s.scores(s.begin) + (key - s.begin) / 2 * s.lanes + lane,
                join_bf16(round_bf16(even), round_bf16(odd)));
  }
  float greatest_scores[16], sums[16];
  store(greatest_scores, best), store(sums, total);
  for (int64_t i = 0; i < 16 && s.first_query + lane + i < s.t.num_queries; ++i) {
    out.greatest[s.first_query + lane + i] = greatest_scores[i];
    out.sum[s.first_query + lane + i] = sums[i];
  }
}

// 32 columns of R queries' mixed values, of the first at `lane`.
template <int R>
void mix_tile(const Span& s, int64_t lane, int64_t column, float* mix) {
  F32 first[R], second[R];
  for (int r = 0; r < R; ++r) first[r] = second[r] = splat(0);
  const auto* weights = reinterpret_cast<const uint16_t*>(s.scores(s.begin) + lane);
  for (int64_t key = s.begin; key < s.end; key += 2, weights += 2 * s.lanes) {
    const uint16_t *even = s.t.keys[key], *odd = key + 1 < s.end ? s.t.keys[key + 1] : even;
    Bytes low, high;
    interleave_bf16(load_bytes(even + column), load_bytes(odd + column), low, high);
    for (int r = 0; r < R; ++r) {
      const uint32_t both = load_pair(weights + 2 * r);
      first[r] = dot_bf16(first[r], low, both), second[r] = dot_bf16(second[r], high, both);
    }
  }
  for (int r = 0; r < R; ++r) {
    float* to = mix + (s.first_query + lane + r) * s.t.value_dim + column;
    store(to, first[r]), store(to + 16, second[r]);
  }
}

template <int G>
void attend(const Attention& t, int64_t query, const Partial& out) {
  const int64_t left = t.num_queries - query, count = left < 16 * G ? left : 16 * G;
  // Pairs of keys are the same for every query, whatever its window.
  const Span span{t, t.begin[query] / 2 * 2, t.end[query + count - 1], query, 16 * G};
  if (span.begin >= span.end) return see_nothing(out, query, count, t.value_dim);
  score<G>(span);
  mask(span);
  for (int64_t lane = 0; lane < count; lane += 16) softmax(span, lane, out);
  constexpr int kMost = kHas32Registers ? 8 : 2;
  for (int64_t column = 0; column < t.value_dim; column += 32)
    for_query_tiles<kMost>(
        count, [&]<int R>(int64_t lane) { mix_tile<R>(span, lane, column, out.mix); });
}

}  // namespace

void latent_attention(const Attention& t, const Partial& out) {
  int64_t query = 0;
  for (; query + 16 < t.num_queries; query += 32) attend<2>(t, query, out);
  if (query < t.num_queries) attend<1>(t, query, out);
}

void merge(const Partial& total, const Partial& next, int64_t num_queries, int64_t value_dim) {
  for (int64_t q = 0; q < num_queries; ++q) {
    if (next.sum[q] == 0) continue;
    const float a = total.greatest[q], b = next.greatest[q], top = a > b ? a : b;
    const F32 old = exp2_negative(splat(a - top)), added = exp2_negative(splat(b - top));
    float old_factor[16], added_factor[16];
    store(old_factor, old), store(added_factor, added);
    total.greatest[q] = top;
    total.sum[q] =
        __builtin_fmaf(next.sum[q], added_factor[0], total.sum[q] * old_factor[0]);
    float *to = total.mix + q * value_dim, *from = next.mix + q * value_dim;
    for (int64_t d = 0; d < value_dim; d += 16)
      store(to + d, fma(load(from + d), added, load(to + d) * old));
  }
}

}  // namespace freehold::ISA
