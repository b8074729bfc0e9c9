// The table of kernels one instruction set provides. Plain pointers and sizes; no threads (the
// caller splits ranges), no Python. Nothing here checks bounds: bindings/ does.
#pragma once

#include <cstdint>

namespace freehold {

enum class Format : int { kFloat32 = 0, kBf16 = 1, kInt8 = 2, kInt4 = 3 };

constexpr int kPanel = 16;          // output columns that share a vector
constexpr int kRowBlock = 8;        // activation rows that lie interleaved
constexpr int kKeyPanel = 16;       // keys of a grouped cache that share a vector
constexpr int kLatentQueries = 16;  // queries that share a vector in latent attention

// A packed [n, k] matrix; layouts in pack.cpp.
struct Weight {
  Format format;
  int64_t n, k;        // as given
  int64_t padded_k;    // multiple of 8 (integers), 2 (BF16), 1 (float32)
  int64_t group_size;  // of INT4; else padded_k
  const uint8_t* data;
  const uint16_t* half_scales;  // INT4: [panel][group][16] float16
  const float* scales;          // INT8: [panel][16]
};

// Activations as a product reads them: units of 4 bytes (4 INT8, 2 BF16 or 1 float32 of a row),
// blocks of up to 8 rows, [block][unit][rows in block].
struct Rows {
  int64_t num_rows, units;  // units a row
  const uint32_t* data;
  const float* scales;     // [row], of INT8 activations
  const int32_t* offsets;  // [block][group][rows in block]: -offset of the weights * sum of a group
};

// y = x Wᵀ + bias. Or, gated, with W = [gate; up]: y = silu(x gateᵀ + bias) * (x upᵀ + bias), half
// as many columns, which must then be whole panels.
struct Product {
  const Weight& weight;
  const Rows& rows;
  const float* bias;  // [weight.n], or nullptr
  bool is_gated;
  float* y;
  int64_t ldy;

  int64_t num_columns() const { return is_gated ? weight.n / 2 : weight.n; }
};

// Where item `index` of `count` lies when `block` of them are interleaved: its value u is at
// (data + first * values an item + lane)[u * stride].
struct Interleaved {
  int64_t first, stride, lane;
  Interleaved(int64_t index, int64_t count, int64_t block)
      : first(index / block * block),
        stride(count - first < block ? count - first : block),
        lane(index - first) {}
};

inline int64_t units_a_row(const Weight& w) {
  return w.format == Format::kFloat32 ? w.padded_k : w.padded_k / (w.format == Format::kBf16 ? 2 : 4);
}

// Bytes that preparing a row needs beside its target.
inline int64_t row_scratch(const Weight& w) {
  return w.format == Format::kFloat32 ? 0 : 4 * units_a_row(w) + 64;
}

// Where one block of rows is prepared to. `scratch` holds count * row_scratch(weight) bytes.
struct BlockTarget {
  uint32_t* data;
  float* scales;     // of INT8 activations, as offsets
  int32_t* offsets;
  uint8_t* scratch;
};

// Attention of some queries over one run of keys: a stretch of the context that begins and ends at
// the same positions whoever asks, so that its result is the same alone and in a batch.
struct Attention {
  // bfloat16. Grouped: [num_queries][dim]. Latent: [block of 16 queries][dim / 2][16][2].
  const uint16_t* queries;
  const int32_t *begin, *end;  // [num_queries], ascending: which keys of this run each sees
  int64_t num_queries, dim;
  int64_t value_dim;             // a multiple of 16; of latents: of 32
  const uint16_t* const* keys;    // grouped: of each block; latent: of each key
  const uint16_t* const* values;  // grouped: of each block. Layouts in paged_cache.h
  // What each key and value is to be multiplied by; nullptr: 1. Grouped: of blocks padded to
  // panels; latent: key_scales are of both.
  const float *key_scales, *value_scales;
  int64_t num_blocks, block_size;  // num_blocks: this run's and the next one's, to be fetched
  float scale;                     // of scores, times log2 of e
  float* scratch;  // scores: queries, rounded up to 16, times the run's padded keys
};

// Softmax over a run: of each query its greatest score (as a power of two), the sum of
// 2^(score - greatest), and the values mixed by that. A sum of 0: the query sees nothing of it.
struct Partial {
  float *greatest, *sum, *mix;  // [num_queries], [num_queries], [num_queries][value_dim]
};

struct Kernels {
  const char* name;
  float (*greatest_magnitude)(const float* x, int64_t n);
  void (*quantize)(const float* x, int64_t n, float scale, float bottom, float top, int8_t* q);
  // Rows x[0] to x[count - 1], a whole block, into the form a product with `weight` reads.
  void (*prepare)(const float* const* x, int64_t count, const Weight& weight,
                  const BlockTarget& target);
  // The columns of y's panels [begin, end); those beyond num_columns are not written.
  void (*matmul[4])(const Product&, int64_t panel_begin, int64_t panel_end);
  void (*matvec_float32)(const float* x, const float* matrix, int64_t n, int64_t k, float* y);
  void (*add_scaled)(const float* x, float factor, int64_t n, float* y);  // y += factor * x
  void (*rms_norm)(const float* x, const float* weight, float eps, int64_t dim, float* y);
  void (*silu_and_mul)(const float* gate_up, int64_t inner, float* y);
  // One token's heads; cos and sin are its position's rows of the tables, [dim / 2].
  void (*rope)(const float* x, const float* cos, const float* sin, int64_t num_heads, int64_t dim,
               bool interleaved, float* y);
  void (*to_bf16)(const float* x, int64_t n, uint16_t* y);
  // n, a multiple of 16, small integers as bfloat16, which holds them exactly; fetches as many
  // bytes at `ahead`.
  void (*int8_to_bf16)(const int8_t* x, const int8_t* ahead, int64_t n, uint16_t* y);
  void (*grouped_attention)(const Attention&, const Partial&);
  void (*latent_attention)(const Attention&, const Partial&);
  // Folds `next` into `total`, in this order and no other.
  void (*merge)(const Partial& total, const Partial& next, int64_t num_queries, int64_t value_dim);
  // e[i] = exp((logits[i] - greatest) / temperature), 0 for a NaN; returns their sum.
  double (*exp_row)(const float* logits, int64_t n, double greatest, double temperature, double* e);
  // Multiplies and adds of this format's inner step, in registers; returns how many it did.
  int64_t (*multiply_rounds)(Format format, int64_t rounds);
  uint64_t (*fold)(const uint64_t* words, int64_t count);  // their exclusive or
};

}  // namespace freehold
