// Paged attention of one token over one key head's cache, grouped or latent. Two passes over the
// context in order of position: the result depends on the row alone, not on how it was batched.

#include "kernels.h"
#include "simd.h"

namespace freehold::ISA {
namespace {

float dot(const float* q, const uint16_t* key, int64_t dim) {
  f32x16 total = {};
  int64_t d = 0;
  for (; d + 16 <= dim; d += 16) total = fma(load<f32x16>(q + d), load_bf16(key + d), total);
  float result = sum(total);
  for (; d < dim; ++d) result += q[d] * bf16_to_float(key[d]);
  return result;
}

// scores → e^(score - greatest), returns 1 / their sum.
float softmax(float* scores, int64_t length) {
  float greatest = scores[0];
  for (int64_t j = 1; j < length; ++j) greatest = scores[j] > greatest ? scores[j] : greatest;
  f32x16 totals = {};
  for (int64_t j = 0; j < length; j += 16) {  // scratch is padded to 16 with what adds nothing
    f32x16 v = exp(load<f32x16>(scores + j) - greatest);
    if (j + 16 > length)
      for (int64_t i = length - j; i < 16; ++i) v[i] = 0;
    store(scores + j, v);
    totals += v;
  }
  return 1.0f / sum(totals);
}

template <int V>
void mix(const Attention& t, const int32_t* table, const float* p, int64_t length,
         const uint16_t* values, int64_t slot_stride, float inverse, float* out) {
  f32x16 total[V] = {};
  for (int64_t j = 0; j < length; ++j) {
    const int64_t slot = int64_t(table[j / t.block_size]) * t.block_size + j % t.block_size;
    const f32x16 weight = splat(p[j]);
    for (int v = 0; v < V; ++v)
      total[v] = fma(weight, load_bf16(values + slot * slot_stride + 16 * v), total[v]);
  }
  for (int v = 0; v < V; ++v) store(out + 16 * v, total[v] * inverse);
}

}  // namespace

void attend(const Attention& t, int64_t row, int64_t kv_head, float* scratch) {
  const Cache& c = t.cache;
  const int64_t group = t.num_heads / c.num_kv_heads;
  const int64_t length = t.positions[row] + 1, padded = (length + 15) / 16 * 16;
  const int32_t* table = t.block_tables + t.row_request[row] * t.max_blocks;
  const int64_t key_stride = c.num_kv_heads * c.dim;
  const float* q = t.q + (row * t.num_heads + kv_head * group) * c.dim;
  for (int64_t j = 0; j < length; ++j) {
    const int64_t slot = int64_t(table[j / t.block_size]) * t.block_size + j % t.block_size;
    const uint16_t* key = c.keys + slot * key_stride + kv_head * c.dim;
    for (int64_t g = 0; g < group; ++g)
      scratch[g * padded + j] = dot(q + g * c.dim, key, c.dim) * t.scale;
  }
  const bool is_latent = c.values == nullptr;
  const int64_t stride = is_latent ? key_stride : c.num_kv_heads * c.value_dim;
  const uint16_t* values = is_latent ? c.keys : c.values + kv_head * c.value_dim;
  for (int64_t g = 0; g < group; ++g) {
    float* p = scratch + g * padded;
    for (int64_t j = length; j < padded; ++j) p[j] = p[0];
    const float inverse = softmax(p, length);
    float* out = t.out + (row * t.num_heads + kv_head * group + g) * c.value_dim;
    int64_t d = 0;
    for (; d + 64 <= c.value_dim; d += 64)
      mix<4>(t, table, p, length, values + d, stride, inverse, out + d);
    for (; d + 16 <= c.value_dim; d += 16)
      mix<1>(t, table, p, length, values + d, stride, inverse, out + d);
    for (; d < c.value_dim; ++d) {
      float total = 0;
      for (int64_t j = 0; j < length; ++j) {
        const int64_t slot = int64_t(table[j / t.block_size]) * t.block_size + j % t.block_size;
        total += p[j] * bf16_to_float(values[slot * stride + d]);
      }
      out[d] = total * inverse;
    }
  }
}

}  // namespace freehold::ISA
