// Memory for the length of one call, kept for the next: fresh pages cost more to clear than most
// products cost to compute. One a thread.
#pragma once

#include <cstdint>
#include <vector>

#include "buffer.h"

namespace freehold {

class Arena {
 public:
  // This thread's, with nothing taken from it.
  static Arena& start() {
    thread_local Arena arena;
    arena.reset();
    return arena;
  }

  // Room for `count` values of T, on a cache line, not cleared, until the next start().
  template <class T>
  T* take(int64_t count) {
    return reinterpret_cast<T*>(take_bytes((count * int64_t(sizeof(T)) + 63) / 64 * 64));
  }

 private:
  struct Chunk {
    Buffer memory;
    int64_t size;
  };

  uint8_t* take_bytes(int64_t bytes) {
    if (chunks_.empty() || used_ + bytes > chunks_.back().size) {
      const int64_t size = bytes < kLeast ? kLeast : bytes;
      chunks_.push_back({allocate(size), size});
      used_ = 0;
    }
    used_ += bytes;
    return chunks_.back().memory.get() + used_ - bytes;
  }

  // Many chunks become one of their size, so that the next call like the last takes a single one.
  void reset() {
    used_ = 0;
    if (chunks_.size() < 2) return;
    int64_t total = 0;
    for (const Chunk& chunk : chunks_) total += chunk.size;
    chunks_.clear();
    chunks_.push_back({allocate(total), total});
  }

  static constexpr int64_t kLeast = 1 << 16;
  std::vector<Chunk> chunks_;
  int64_t used_ = 0;  // of the last chunk
};

}  // namespace freehold
