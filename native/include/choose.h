// Choices made from a row of scores: the next token, the best logprobs, a token's experts.
// Pure functions of their row; no threads. Read src/sample.cpp and src/route.cpp next.
#pragma once

#include "kernels.h"

namespace freehold {

struct Sampling {
  double temperature;
  int64_t top_k;  // 0: all
  double top_p, min_p, uniform;
};

int32_t sample_row(const Kernels& kernels, const float* logits, int64_t vocab, const Sampling& how);

// Writes log-softmax at `token`, and the `num_top` greatest, descending, ties to the lower id.
void logprobs_row(const Kernels& kernels, const float* logits, int64_t vocab, int64_t token,
                  int64_t num_top, float* chosen, int32_t* top_ids, float* top);

struct Routing {
  int64_t num_experts, num_chosen, num_groups, num_groups_chosen;
  bool is_sigmoid, is_top2_sum, is_normalized;
  float scaling_factor;
};

void route_row(const float* scores, const float* correction_bias, const Routing& how, int32_t* ids,
               float* weights);

}  // namespace freehold
