// Absorbed multi-head latent attention (DeepSeek-V2 §2.1.3): every head scores the same latent
// and mixes its first components. Here a lane is a query, so softmax needs no reductions either.

#include "attention.h"

namespace freehold::ISA {
namespace {

constexpr int kKeysATile = 8;

// Scores of 16 queries against R keys, widened to float32 at `keys`.
template <int R>
void score_tile(const Attention& t, const float* keys, float* scores) {
  const float* key[R];
  F32 total[R];
  for (int r = 0; r < R; ++r) key[r] = keys + r * t.dim, total[r] = splat(0);
  for (int64_t d = 0; d < t.dim; ++d) {
    const F32 q = load(t.queries + d * kLatentQueries);
    for (int r = 0; r < R; ++r) total[r] = fma(q, splat(key[r][d]), total[r]);
  }
  for (int r = 0; r < R; ++r) store(scores + r * kLatentQueries, total[r] * splat(t.scale));
}

void fetch(const uint16_t* latent, int64_t dim) {
  for (int64_t d = 0; d < dim; d += 32) __builtin_prefetch(latent + d);
}

void widen(const uint16_t* latent, int64_t dim, float* out) {
  int64_t d = 0;
  for (; d + 16 <= dim; d += 16) store(out + d, load_bf16(latent + d));
  if (d < dim) store_n(out + d, load_bf16(latent + d), dim - d);  // rows are padded to 16
}

void score_all(const Attention& t, int64_t num_keys, float* keys, float* scores) {
  const auto latent = [&](int64_t key) {
    return t.keys + t.blocks[key / t.block_size] * t.key_stride +
           key % t.block_size * t.latent_size;
  };
  for (int64_t first = 0; first < num_keys; first += kKeysATile) {
    const int64_t count = num_keys - first < kKeysATile ? num_keys - first : kKeysATile;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t key = first + i;
      if (key + kKeysATile < num_keys) fetch(latent(key + kKeysATile), t.dim);
      widen(latent(key), t.dim, keys + i * t.dim);
    }
    for_rows_of_block(count, [&]<int R>(int64_t key) {
      score_tile<R>(t, keys + key * t.dim, scores + (first + key) * kLatentQueries);
    });
  }
}

}  // namespace

void latent_attention(const Attention& t, const Partial& out) {
  const int64_t num_keys = t.visible[t.num_queries - 1];
  float* scores = t.scratch;  // [key][16 queries]
  score_all(t, num_keys, scores + num_keys * kLatentQueries, scores);
  int64_t first = 0;
  for (; first < t.num_queries && t.visible[first] == 0; ++first) out.sum[first] = 0;
  for (int64_t query = first; query < t.num_queries; ++query)
    for (int64_t key = t.visible[query]; key < num_keys; ++key)
      scores[key * kLatentQueries + query] = -__builtin_inff();

  F32 best = splat(-__builtin_inff()), total = splat(0);
  for (int64_t key = 0; key < num_keys; ++key) best = max(load(scores + key * 16), best);
  for (int64_t key = 0; key < num_keys; ++key) {
    const F32 weight = exp(load(scores + key * 16) - best);
    store(scores + key * 16, weight);
    total = total + weight;
  }
  float greatest_scores[kLatentQueries], sums[kLatentQueries];
  store(greatest_scores, best), store(sums, total);
  for (int64_t query = first; query < t.num_queries; ++query)
    out.greatest[query] = greatest_scores[query], out.sum[query] = sums[query];
  mix_values({t, t.latent_size, scores, 1, kLatentQueries, t.block_size * kLatentQueries, out.mix},
             first);
}

void merge(const Partial& total, const Partial& next, int64_t num_queries, int64_t value_dim) {
  for (int64_t q = 0; q < num_queries; ++q) {
    if (next.sum[q] == 0) continue;
    const float a = total.greatest[q], b = next.greatest[q], top = a > b ? a : b;
    float factors[16];
    const float differences[16] = {a - top, b - top};
    store(factors, exp(load(differences)));
    total.greatest[q] = top;
    total.sum[q] = __builtin_fmaf(next.sum[q], factors[1], total.sum[q] * factors[0]);
    float *to = total.mix + q * value_dim, *from = next.mix + q * value_dim;
    for (int64_t d = 0; d < value_dim; d += 16)
      store(to + d, fma(load(from + d), splat(factors[1]), load(to + d) * splat(factors[0])));
  }
}

}  // namespace freehold::ISA
