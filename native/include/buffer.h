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

}  // namespace freehold
