// The caches attention reads. A block holds block_size consecutive keys.
//   grouped keys    [block][kv_head][panel of 16 keys][dim / 2][16][2]: a vector is two components
//                   of 16 keys
//   grouped values  [block][kv_head][pair of keys][value_size][2]: a vector is 16 components of
//                   two keys
//   latents         [block][key][value_size]
// in bfloat16, or in INT8 with a float32 scale a key behind each [block][kv_head] (x = q * scale,
// scale = max|x| / 127). Blocks are padded to whole panels and pairs; value_size is dim rounded up
// to 16, of latents to 32.
#pragma once

#include "buffer.h"
#include "kernels.h"

namespace freehold {

// Raised with every change of a layout: blocks are kept on disk under this number.
constexpr int kCacheLayoutVersion = 2;

inline int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

struct PagedCache {
  int64_t num_blocks, block_size, num_kv_heads, dim;
  bool is_latent, is_int8;
  int64_t value_size = round_up(dim, is_latent ? 32 : 16);
  int64_t key_count =  // numbers in a block of one head
      is_latent ? block_size * value_size : round_up(block_size, kKeyPanel) * dim;
  int64_t value_count = is_latent ? 0 : round_up(block_size, 2) * value_size;
  Buffer keys, values;  // a latent cache has keys only

  PagedCache(int64_t num_blocks, int64_t block_size, int64_t num_kv_heads, int64_t dim,
             bool is_latent, bool is_int8)
      : num_blocks(num_blocks),
        block_size(block_size),
        num_kv_heads(num_kv_heads),
        dim(dim),
        is_latent(is_latent),
        is_int8(is_int8),
        keys(allocate(key_bytes())),
        values(allocate(value_bytes())) {}

  int64_t num_slots() const { return num_blocks * block_size; }
  int64_t key_bytes() const { return num_blocks * num_kv_heads * block_bytes(key_count); }
  int64_t value_bytes() const { return num_blocks * num_kv_heads * block_bytes(value_count); }
  int64_t num_bytes() const { return key_bytes() + value_bytes(); }

  uint8_t* key_block(int64_t block, int64_t head) const {
    return keys.get() + (block * num_kv_heads + head) * block_bytes(key_count);
  }
  uint8_t* value_block(int64_t block, int64_t head) const {
    return values.get() + (block * num_kv_heads + head) * block_bytes(value_count);
  }
  float* key_scales(int64_t block, int64_t head) const {
    return reinterpret_cast<float*>(key_block(block, head) + round_up(key_count, 4));
  }
  float* value_scales(int64_t block, int64_t head) const {
    return reinterpret_cast<float*>(value_block(block, head) + round_up(value_count, 4));
  }

 private:
  int64_t block_bytes(int64_t count) const {
    if (!is_int8) return 2 * count;
    return count == 0 ? 0 : round_up(count, 4) + 4 * block_size;
  }
};

// Rounds one token's keys and values (v: nullptr of a latent) into its slot.
void write_token(const Kernels& kernels, const PagedCache& cache, int64_t slot, const float* k,
                 const float* v);

}  // namespace freehold
