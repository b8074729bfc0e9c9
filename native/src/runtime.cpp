// Row-wise operations over threads. Products are in runtime_linear.cpp, attention in
// runtime_attention.cpp.

#include "runtime.h"

#include <algorithm>
#include <atomic>
#include <chrono>

#include "for_rows.h"

namespace freehold {

void Runtime::pack(const Source& source, const Weight& weight) {
  const int64_t panels = (weight.n + kPanel - 1) / kPanel;
  pool_.run(panels, [&](int64_t panel) { pack_panel(kernels_, source, weight, panel); });
}

uint64_t Runtime::read(const uint64_t* words, int64_t count) {
  std::atomic<uint64_t> checksum{0};
  constexpr int64_t kWordsPerTask = 1 << 17;
  pool_.run((count + kWordsPerTask - 1) / kWordsPerTask, [&](int64_t task) {
    const int64_t end = std::min(count, (task + 1) * kWordsPerTask);
    checksum ^= kernels_.fold(words + task * kWordsPerTask, end - task * kWordsPerTask);
  });
  return checksum;
}

double Runtime::peak(Format format) {
  constexpr int64_t kRounds = 200'000, kTasksPerThread = 4;
  double best = 0;
  for (int repeat = 0; repeat < 8; ++repeat) {
    std::atomic<int64_t> operations{0};
    const auto start = std::chrono::steady_clock::now();
    pool_.run(pool_.num_threads() * kTasksPerThread, [&](int64_t) {
      operations += kernels_.multiply_rounds(format, kRounds / kTasksPerThread);
    });
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    best = std::max(best, double(operations) / seconds.count());
  }
  return best;
}

void Runtime::embedding(const Source& table, int64_t dim, const int32_t* ids, int64_t m, float* y) {
  for_rows(m, dim, [&](int64_t row) { widen(table, ids[row] * dim, dim, y + row * dim); });
}

void Runtime::rms_norm(const float* x, int64_t m, int64_t dim, const float* weight, float eps,
                       float* y) {
  for_rows(m, dim,
           [&](int64_t row) { kernels_.rms_norm(x + row * dim, weight, eps, dim, y + row * dim); });
}

void Runtime::silu_and_mul(const float* gate_up, int64_t m, int64_t inner, float* y) {
  for_rows(m, 4 * inner, [&](int64_t row) {
    kernels_.silu_and_mul(gate_up + row * 2 * inner, inner, y + row * inner);
  });
}

void Runtime::rope(const float* x, const int32_t* positions, const float* cos, const float* sin,
                   int64_t m, int64_t num_heads, int64_t dim, bool interleaved, float* y) {
  for_rows(m, num_heads * dim, [&](int64_t row) {
    const int64_t table_row = positions[row] * (dim / 2), start = row * num_heads * dim;
    kernels_.rope(x + start, cos + table_row, sin + table_row, num_heads, dim, interleaved,
                  y + start);
  });
}

void Runtime::sample(const float* logits, int64_t m, int64_t vocab, const Sampling* how,
                     int32_t* ids) {
  for_rows(m, 4 * vocab, [&](int64_t row) {
    ids[row] = sample_row(kernels_, logits + row * vocab, vocab, how[row]);
  });
}

void Runtime::logprobs(const float* logits, int64_t m, int64_t vocab, const int64_t* tokens,
                       int64_t num_top, float* chosen, int32_t* top_ids, float* top) {
  for_rows(m, 4 * vocab, [&](int64_t row) {
    logprobs_row(kernels_, logits + row * vocab, vocab, tokens[row], num_top, chosen + row,
                 top_ids + row * num_top, top + row * num_top);
  });
}

void Runtime::route(const float* scores, const float* correction_bias, int64_t m,
                    const Routing& how, int32_t* ids, float* weights) {
  for_rows(m, 32 * how.num_experts, [&](int64_t row) {
    route_row(scores + row * how.num_experts, correction_bias, how, ids + row * how.num_chosen,
              weights + row * how.num_chosen);
  });
}

}  // namespace freehold
