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
constexpr double kHeadNats = 10;       // below the greatest: a real model's draws end in here
constexpr int64_t kBlock = 256;

// The lowest index of the greatest value; 0 if there is none but NaN and -infinity.
int64_t greatest_index(const float* logits, int64_t vocab) {
  float greatest = -std::numeric_limits<float>::infinity();
  int64_t first = 0;  // of the block where it stands
  for (int64_t begin = 0; begin < vocab; begin += kBlock) {
    const int64_t end = std::min(begin + kBlock, vocab);
    float lanes[16];  // independent maxima, which the compiler makes vectors of
    std::fill_n(lanes, 16, greatest);
    int64_t i = begin;
    for (; i + 16 <= end; i += 16)
      for (int j = 0; j < 16; ++j) lanes[j] = logits[i + j] > lanes[j] ? logits[i + j] : lanes[j];
    for (; i < end; ++i) lanes[0] = logits[i] > lanes[0] ? logits[i] : lanes[0];
    const float found = *std::max_element(lanes, lanes + 16);
    if (found > greatest) greatest = found, first = begin;
  }
  for (int64_t i = first; i < vocab; ++i)
    if (logits[i] == greatest) return i;
  return 0;
}

struct Position {
  int64_t count;  // how many tokens stand before and at it
  double mass;    // of them
  int32_t id;
};

// The tokens of a row whose logit is at least `lowest`, in descending order, walked without
// sorting all of them.
class Ranking {
 public:
  Ranking(const float* logits, const double* e, int64_t vocab, double greatest, double temperature,
          float lowest)
      : logits_(logits), e_(e), counts_(kNumBuckets), masses_(kNumBuckets) {
    thread_local std::vector<int32_t> ids;
    thread_local std::vector<uint16_t> bucket_of;
    ids.resize(size_t(vocab));
    bucket_of.resize(size_t(vocab));
    for (int64_t i = 0; i < vocab; ++i) {
      ids[size_t(num_ids_)] = int32_t(i);
      num_ids_ += !(logits[i] < lowest);  // a NaN is among them
    }
    ids_ = ids.data();
    bucket_of_ = bucket_of.data();
    for (int64_t i = 0; i < num_ids_; ++i) {
      const double depth = (greatest - double(logits[ids_[i]])) / temperature * kBucketsPerNat;
      const int bucket = depth < kNumBuckets - 1 ? int(depth) : kNumBuckets - 1;  // NaN: the last
      bucket_of_[i] = uint16_t(bucket);
      counts_[size_t(bucket)] += 1;
      masses_[size_t(bucket)] += e[ids_[i]];
    }
  }

  // The first token at which the cumulative mass reaches `target` (passes it, if `is_strict`),
  // or the last of the first `limit`. Where `has_ended`, these tokens ended before either.
  Position find(double target, bool is_strict, int64_t limit, bool& has_ended) const {
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
    has_ended |= at.count < limit;
    return at;
  }

 private:
  std::vector<int32_t> sorted(int bucket) const {
    std::vector<int32_t> ids;
    ids.reserve(size_t(counts_[size_t(bucket)]));
    for (int64_t i = 0; i < num_ids_; ++i)
      if (bucket_of_[i] == bucket) ids.push_back(ids_[i]);
    const auto key = [&](int32_t id) {  // a NaN orders last
      return logits_[id] == logits_[id] ? logits_[id] : -std::numeric_limits<float>::infinity();
    };
    std::sort(ids.begin(), ids.end(),
              [&](int32_t a, int32_t b) { return key(a) != key(b) ? key(a) > key(b) : a < b; });
    return ids;
  }

  const float* logits_;
  const double* e_;
  int64_t num_ids_ = 0;
  const int32_t* ids_;    // in ascending order
  uint16_t* bucket_of_;  // of ids_[i]
  std::vector<int64_t> counts_;
  std::vector<double> masses_;
};

struct Kept {
  int64_t limit;  // at most so many tokens
  double mass;    // of all, where nothing else limits them
};

// As in Ops.sample; `has_ended` where the ranked tokens did not suffice to tell.
int32_t draw(const Ranking& ranking, const Kept& all, const Sampling& how, bool& has_ended) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  Position kept{all.limit, all.mass, 0};
  if (all.mass < 0) kept = ranking.find(kInfinity, false, all.limit, has_ended);
  if (how.top_p < 1) kept = ranking.find(how.top_p * kept.mass, false, all.limit, has_ended);
  return ranking.find(how.uniform * kept.mass, true, kept.count, has_ended).id;
}

}  // namespace

int32_t sample_row(const Kernels& kernels, const float* logits, int64_t vocab,
                   const Sampling& how) {
  const int64_t best = greatest_index(logits, vocab);
  const double greatest = logits[best];
  if (how.temperature == 0 || !std::isfinite(greatest)) return int32_t(best);
  thread_local std::vector<double> e;
  e.resize(size_t(vocab));
  const double mass = kernels.exp_row(logits, vocab, greatest, how.temperature, e.data());

  Kept all{vocab, mass};
  if (how.top_k > 0) all.limit = std::min(how.top_k, vocab);
  if (how.min_p > 0) {
    int64_t num_likely = 0;
    for (int64_t i = 0; i < vocab; ++i) num_likely += e[size_t(i)] >= how.min_p;
    all.limit = std::min(all.limit, std::max<int64_t>(num_likely, 1));
  }
  if (all.limit < vocab) all.mass = -1;  // to be added up

  const auto drawn_from = [&](float lowest, bool& has_ended) {
    const Ranking ranking(logits, e.data(), vocab, greatest, how.temperature, lowest);
    return draw(ranking, all, how, has_ended);
  };
  bool has_ended = false;
  const int32_t id = drawn_from(float(greatest - kHeadNats * how.temperature), has_ended);
  if (!has_ended) return id;
  return drawn_from(-std::numeric_limits<float>::infinity(), has_ended);
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
