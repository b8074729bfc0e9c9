// A router's scores to experts: softmax or sigmoid, the best groups, the best experts in them
// (DeepSeek-V2 §2.1, DeepSeek-V3 §2.1.2). Ties go to the lower id.

#include <cmath>
#include <limits>
#include <vector>

#include "choose.h"

namespace freehold {
namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();

// Index of the greatest not yet taken; marks it taken.
int64_t take_best(const float* scores, int64_t count, std::vector<char>& is_taken) {
  int64_t best = -1;
  for (int64_t i = 0; i < count; ++i)
    if (!is_taken[size_t(i)] && (best < 0 || scores[i] > scores[best])) best = i;
  is_taken[size_t(best)] = 1;
  return best;
}

void probabilities(const float* scores, int64_t n, bool is_sigmoid, float* p) {
  if (is_sigmoid) {
    for (int64_t i = 0; i < n; ++i) p[i] = 1.0f / (1.0f + std::exp(-scores[i]));
    return;
  }
  float greatest = kNone, total = 0;
  for (int64_t i = 0; i < n; ++i) greatest = scores[i] > greatest ? scores[i] : greatest;
  for (int64_t i = 0; i < n; ++i) total += p[i] = std::exp(scores[i] - greatest);
  for (int64_t i = 0; i < n; ++i) p[i] /= total;
}

float group_score(const float* choice, int64_t size, bool is_top2_sum) {
  float first = kNone, second = kNone;
  for (int64_t i = 0; i < size; ++i) {
    if (choice[i] > first)
      second = first, first = choice[i];
    else if (choice[i] > second)
      second = choice[i];
  }
  return is_top2_sum && size > 1 ? first + second : first;
}

// Experts outside the best groups count as taken.
void drop_other_groups(const float* choice, const Routing& how, std::vector<char>& is_taken) {
  const int64_t size = how.num_experts / how.num_groups;
  std::vector<float> scores(size_t(how.num_groups));
  for (int64_t g = 0; g < how.num_groups; ++g)
    scores[size_t(g)] = group_score(choice + g * size, size, how.is_top2_sum);
  std::vector<char> is_kept(size_t(how.num_groups));
  for (int64_t j = 0; j < how.num_groups_chosen; ++j)
    take_best(scores.data(), how.num_groups, is_kept);
  for (int64_t e = 0; e < how.num_experts; ++e) is_taken[size_t(e)] = !is_kept[size_t(e / size)];
}

}  // namespace

void route_row(const float* scores, const float* correction_bias, const Routing& how, int32_t* ids,
               float* weights) {
  const int64_t n = how.num_experts;
  std::vector<float> p(static_cast<size_t>(n)), choice(static_cast<size_t>(n));
  probabilities(scores, n, how.is_sigmoid, p.data());
  for (int64_t e = 0; e < n; ++e)
    choice[size_t(e)] = correction_bias ? p[size_t(e)] + correction_bias[e] : p[size_t(e)];
  std::vector<char> is_taken(static_cast<size_t>(n));
  if (how.num_groups_chosen < how.num_groups) drop_other_groups(choice.data(), how, is_taken);
  float total = 0;
  for (int64_t j = 0; j < how.num_chosen; ++j) {
    ids[j] = int32_t(take_best(choice.data(), n, is_taken));
    weights[j] = p[size_t(ids[j])];
    total += weights[j];
  }
  for (int64_t j = 0; j < how.num_chosen; ++j) {
    if (how.is_normalized) weights[j] /= total + 1e-20f;
    weights[j] *= how.scaling_factor;
  }
}

}  // namespace freehold
