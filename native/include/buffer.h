// Zeroed memory on cache-line borders, in huge pages where it is large.
#pragma once

#include <cstdint>
#include <memory>

namespace freehold {

struct FreeBuffer {
  void operator()(uint8_t* p) const;
};
using Buffer = std::unique_ptr<uint8_t[], FreeBuffer>;

Buffer allocate(int64_t bytes);  // throws std::bad_alloc

// Has malloc keep what is freed for the next step's arrays (up to 64 MiB) instead of giving it
// back: clearing fresh pages was 3 to 4 % of a prompt of 512 tokens.
void keep_freed_memory();

}  // namespace freehold
