// The bfloat16 caches attention reads. A block holds block_size consecutive keys.
//   grouped keys    [block][kv_head][panel of 16 keys][dim / 2][16][2]: a vector is two components
//                   of 16 keys
//   grouped values  [block][kv_head][pair of keys][value_size][2]: a vector is 16 components of
//                   two keys
//   latents         [block][key][value_size]
// Blocks are padded to whole panels and pairs; value_size is dim rounded up to 16, of latents to 32.
#pragma once

#include "buffer.h"
#include "kernels.h"

namespace freehold {

inline int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

struct PagedCache {
  int64_t num_blocks, block_size, num_kv_heads, dim;
  bool is_latent;
  int64_t value_size = round_up(dim, is_latent ? 32 : 16);
  int64_t key_block_size =
      is_latent ? block_size * value_size : round_up(block_size, kKeyPanel) * dim;
  int64_t value_block_size = is_latent ? 0 : round_up(block_size, 2) * value_size;
  Buffer keys, values;  // 2-byte values; a latent cache has keys only

  PagedCache(int64_t num_blocks, int64_t block_size, int64_t num_kv_heads, int64_t dim,
             bool is_latent)
      : num_blocks(num_blocks),
        block_size(block_size),
        num_kv_heads(num_kv_heads),
        dim(dim),
        is_latent(is_latent),
        keys(allocate(key_bytes())),
        values(allocate(value_bytes())) {}

  int64_t num_slots() const { return num_blocks * block_size; }
  int64_t num_bytes() const { return key_bytes() + value_bytes(); }
  int64_t key_bytes() const { return 2 * num_blocks * num_kv_heads * key_block_size; }
  int64_t value_bytes() const { return 2 * num_blocks * num_kv_heads * value_block_size; }

  uint16_t* key_block(int64_t block, int64_t head) const {
    return reinterpret_cast<uint16_t*>(keys.get()) +
           (block * num_kv_heads + head) * key_block_size;
  }
  uint16_t* value_block(int64_t block, int64_t head) const {
    return reinterpret_cast<uint16_t*>(values.get()) +
           (block * num_kv_heads + head) * value_block_size;
  }
};

}  // namespace freehold
