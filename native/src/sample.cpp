// One token from a row of logits. The order that top-k, top-p and the draw walk is descending
// (logit, then ascending id); only the few buckets where a border falls are ever sorted.

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "choose.h"

namespace freehold {
namespace {

constexpr int kNumBuckets = 1024;
constexpr double kBucketsPerNat = 16;  // the last bucket holds all below e^-64 of the greatest

int64_t greatest_index(const float* logits, int64_t vocab) {
  int64_t best = 0;
  float greatest = -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < vocab; ++i)
    if (logits[i] > greatest) greatest = logits[i], best = i;
  return best;
}

struct Position {
  int64_t count;  // how many tokens stand before and at it
  double mass;    // of them
  int32_t id;
};

// The tokens of a row in descending order, walked without sorting all of them.
class Ranking {
 public:
  Ranking(const float* logits, const double* e, int64_t vocab, double greatest, double temperature)
      : logits_(logits), e_(e), vocab_(vocab), counts_(kNumBuckets), masses_(kNumBuckets) {
    thread_local std::vector<uint16_t> bucket_of;
    bucket_of.resize(size_t(vocab));
    bucket_of_ = bucket_of.data();
    for (int64_t i = 0; i < vocab; ++i) {
      const double depth = (greatest - double(logits[i])) / temperature * kBucketsPerNat;
      const int bucket = depth < kNumBuckets - 1 ? int(depth) : kNumBuckets - 1;  // NaN: the last
      bucket_of_[i] = uint16_t(bucket);
      counts_[size_t(bucket)] += 1;
      masses_[size_t(bucket)] += e[i];
    }
  }

  // The first token at which the cumulative mass reaches `target` (passes it, if `is_strict`),
  // or the last of the first `limit`.
  Position find(double target, bool is_strict, int64_t limit) const {
    Position at{0, 0, 0};
    const auto reaches = [&](double mass) { return is_strict ? mass > target : mass >= target; };
    for (int b = 0; b < kNumBuckets && at.count < limit; ++b) {
      const size_t bucket = size_t(b);
      if (counts_[bucket] == 0) continue;
      const double after = at.mass + masses_[bucket];
      if (at.count + counts_[bucket] < limit && !reaches(after)) {
        at = {at.count + counts_[bucket], after, at.id};
        continue;
      }
      const bool ends_here = reaches(after);
      for (int32_t id : sorted(b)) {
        if (at.count == limit) break;
        at.count += 1;
        at.mass += e_[id];
        if (e_[id] > 0 || at.count == 1) at.id = id;
        if (reaches(at.mass)) return at;
      }
      if (ends_here) return at;  // rounding alone kept the bucket's last token from reaching
    }
    return at;
  }

 private:
  std::vector<int32_t> sorted(int bucket) const {
    std::vector<int32_t> ids;
    ids.reserve(size_t(counts_[size_t(bucket)]));
    for (int64_t i = 0; i < vocab_; ++i)
      if (bucket_of_[i] == bucket) ids.push_back(int32_t(i));
    const auto key = [&](int32_t id) {  // a NaN orders last
      return logits_[id] == logits_[id] ? logits_[id] : -std::numeric_limits<float>::infinity();
    };
    std::sort(ids.begin(), ids.end(),
              [&](int32_t a, int32_t b) { return key(a) != key(b) ? key(a) > key(b) : a < b; });
    return ids;
  }

  const float* logits_;
  const double* e_;
  int64_t vocab_;
  uint16_t* bucket_of_;
  std::vector<int64_t> counts_;
  std::vector<double> masses_;
};

}  // namespace

int32_t sample_row(const Kernels& kernels, const float* logits, int64_t vocab,
                   const Sampling& how) {
  const int64_t best = greatest_index(logits, vocab);
  const double greatest = logits[best];
  if (how.temperature == 0 || !std::isfinite(greatest)) return int32_t(best);
  thread_local std::vector<double> e;
  e.resize(size_t(vocab));
  kernels.exp_row(logits, vocab, greatest, how.temperature, e.data());
  const Ranking ranking(logits, e.data(), vocab, greatest, how.temperature);
  constexpr double kInfinity = std::numeric_limits<double>::infinity();

  int64_t limit = how.top_k > 0 ? std::min(how.top_k, vocab) : vocab;
  if (how.min_p > 0) {
    int64_t num_likely = 0;
    for (int64_t i = 0; i < vocab; ++i) num_likely += e[size_t(i)] >= how.min_p;
    limit = std::min(limit, std::max<int64_t>(num_likely, 1));
  }
  Position kept = ranking.find(kInfinity, false, limit);
  if (how.top_p < 1) kept = ranking.find(how.top_p * kept.mass, false, limit);
  return ranking.find(how.uniform * kept.mass, true, kept.count).id;
}

void logprobs_row(const Kernels& kernels, const float* logits, int64_t vocab, int64_t token,
                  int64_t num_top, float* chosen, int32_t* top_ids, float* top) {
  thread_local std::vector<double> e;
  e.resize(size_t(vocab));
  const double greatest = logits[greatest_index(logits, vocab)];
  const double log_total = std::log(kernels.exp_row(logits, vocab, greatest, 1.0, e.data()));
  const auto logprob = [&](int64_t id) { return float(double(logits[id]) - greatest - log_total); };
  *chosen = logprob(token);
  int64_t count = 0;  // top_ids[0, count) is sorted; an equal logit of a higher id stays behind
  for (int64_t i = 0; i < vocab && num_top > 0; ++i) {
    if (count == num_top && !(logits[i] > logits[top_ids[num_top - 1]])) continue;
    int64_t place = count < num_top ? count++ : num_top - 1;
    for (; place > 0 && logits[i] > logits[top_ids[place - 1]]; --place)
      top_ids[place] = top_ids[place - 1];
    top_ids[place] = int32_t(i);
  }
  for (int64_t j = 0; j < num_top; ++j) top[j] = logprob(top_ids[j]);
}

}  // namespace freehold
