// Kernels over many rows and threads: splits work into tasks over output columns, rows or heads,
// never along a sum. Knows no Python; bindings/module.cpp checks shapes before it calls.
#pragma once

#include <vector>

#include "choose.h"
#include "kernels.h"
#include "pack.h"
#include "paged_cache.h"
#include "thread_pool.h"

namespace freehold {

struct ExpertWeights {  // one a routed expert
  std::vector<Weight> gate_up, down;
};

struct Layout {  // BatchLayout's arrays, checked
  int64_t num_tokens, num_requests, max_blocks;
  const int32_t *positions, *query_starts, *block_tables;
  const int64_t* slots;
};

class Runtime {
 public:
  Runtime(const Kernels& kernels, int num_threads) : kernels_(kernels), pool_(num_threads) {}

  const Kernels& kernels() const { return kernels_; }
  int num_threads() const { return pool_.num_threads(); }

  void pack(const Source& source, const Weight& weight);

  // Reads it all, over all threads, and returns a checksum: what benchmarks measure memory by.
  uint64_t read(const uint64_t* words, int64_t count);

  // Operations a second that the inner step of this format's products can reach, over all threads:
  // what benchmarks take fractions of. The matrix unit, where there is one, does more.
  double peak(Format format);

  void linear(const Weight& weight, const float* x, int64_t m, const float* bias, float* y);
  // With weight [gate; up]: silu(x gateᵀ) * (x upᵀ), [m, n / 2]; n / 2 is a multiple of 16.
  void gated_linear(const Weight& weight, const float* x, int64_t m, const float* bias, float* y);
  // x [m, heads, k] → y [m, heads, n], one matrix a head.
  void per_head_linear(const std::vector<Weight>& heads, const float* x, int64_t m, float* y);
  void matmul_float32(const float* x, int64_t m, const float* matrix, int64_t n, int64_t k,
                      float* y);
  void routed_experts(const ExpertWeights& experts, const float* x, int64_t m, const int32_t* ids,
                      const float* weights, int64_t num_chosen, float* y);

  void embedding(const Source& table, int64_t dim, const int32_t* ids, int64_t m, float* y);
  void rms_norm(const float* x, int64_t m, int64_t dim, const float* weight, float eps, float* y);
  void silu_and_mul(const float* gate_up, int64_t m, int64_t inner, float* y);
  void rope(const float* x, const int32_t* positions, const float* cos, const float* sin, int64_t m,
            int64_t num_heads, int64_t dim, bool interleaved, float* y);

  // q [n, num_heads, dim], k and v [n, num_kv_heads, dim] (v: nullptr for a latent cache) → out
  // [n, num_heads, value_dim].
  void attention(const float* q, const float* k, const float* v, const PagedCache& cache,
                 int64_t num_heads, int64_t value_dim, const Layout& layout, float scale,
                 float* out);

  void sample(const float* logits, int64_t m, int64_t vocab, const Sampling* how, int32_t* ids);
  void logprobs(const float* logits, int64_t m, int64_t vocab, const int64_t* tokens,
                int64_t num_top, float* chosen, int32_t* top_ids, float* top);
  void route(const float* scores, const float* correction_bias, int64_t m, const Routing& how,
             int32_t* ids, float* weights);

 private:
  void product(const Weight& weight, const float* x, int64_t m, const float* bias, bool is_gated,
               float* y);
  // body(row) for every row; on one thread where all of it is little work.
  template <class Body>
  void for_rows(int64_t m, int64_t work_per_row, Body&& body);

  const Kernels& kernels_;
  ThreadPool pool_;
};

}  // namespace freehold
