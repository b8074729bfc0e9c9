// The table of kernels one instruction set provides. Plain pointers and sizes; no threads (the
// caller splits ranges), no Python. Nothing here checks bounds: bindings/module.cpp does.
#pragma once

#include <cstdint>

namespace freehold {

enum class Format : int { kFloat32 = 0, kBf16 = 1, kInt8 = 2, kInt4 = 3 };

constexpr int kPanel = 16;  // output columns that share a vector

// A packed [n, k] matrix; layouts in pack.cpp.
struct Weight {
  Format format;
  int64_t n, k;        // as given
  int64_t padded_k;    // multiple of 8 (integers), 2 (bf16), 1 (float32)
  int64_t group_size;  // of INT4; INT8: padded_k
  const uint8_t* data;
  const uint16_t* half_scales;  // INT4: [panel][group][16] float16
  const float* scales;          // INT8: [padded n]
};

// m activation rows in the form a Weight's format wants; `stride` is in elements of that form.
struct Rows {
  int64_t m, stride;
  const float* f32;
  const uint16_t* bf16;
  const int8_t* int8;    // zero-padded to padded_k
  const float* scale;    // [m] of int8
  const int32_t* sums;   // [m][groups] sums of int8 over each group
};

struct Cache {  // bfloat16
  uint16_t *keys, *values;  // [slot][num_kv_heads][dim]; latent: values == nullptr
  int64_t num_kv_heads, dim, value_dim;
};

struct Attention {
  const float* q;  // [n][num_heads][dim]
  float* out;      // [n][num_heads][value_dim]
  Cache cache;
  int64_t num_heads;
  const int32_t* positions;   // [n]
  const int32_t* row_request; // [n]
  const int32_t* block_tables;
  int64_t max_blocks, block_size;
  float scale;
};

struct Kernels {
  const char* name;
  // y[r, column] for panels [begin, end); y has stride `ldy`, columns beyond n are not written.
  void (*linear)(const Weight&, const Rows&, const float* bias, float* y, int64_t ldy,
                 int64_t panel_begin, int64_t panel_end);
  void (*quantize_row)(const float* x, int64_t k, int64_t padded_k, int64_t group_size, int8_t* q,
                       float* scale, int32_t* sums);
  void (*round_row)(const float* x, int64_t k, int64_t padded_k, uint16_t* out);
  void (*rms_norm)(const float* x, const float* weight, float eps, int64_t dim, float* y);
  void (*silu_and_mul)(const float* gate_up, int64_t inner, float* y);
  // One token's heads; cos and sin are its position's rows of the tables, [dim / 2].
  void (*rope)(const float* x, const float* cos, const float* sin, int64_t num_heads, int64_t dim,
               bool interleaved, float* y);
  void (*matvec_float32)(const float* x, const float* matrix, int64_t n, int64_t k, float* y);
  // e[i] = exp((logits[i] - greatest) / temperature), 0 for a NaN; returns their sum in a fixed order.
  double (*exp_row)(const float* logits, int64_t n, double greatest, double temperature, double* e);
  // One (row, kv head); scratch holds group * context floats.
  void (*attend)(const Attention&, int64_t row, int64_t kv_head, float* scratch);
};

}  // namespace freehold
