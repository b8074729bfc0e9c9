// See buffer.h. Fresh anonymous pages are zero already, so nothing is touched before it is used.

#include "buffer.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <new>
#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace freehold {
namespace {

constexpr size_t kHugePage = size_t(2) << 20;
constexpr size_t kHeader = 64;  // in front of the pointer we hand out: the mapping's size

}  // namespace

Buffer allocate(int64_t bytes) {
  size_t size = size_t(bytes) + kHeader;
  const bool is_large = size >= 2 * kHugePage;
  const size_t unit = is_large ? kHugePage : 4096;
  size = (size + unit - 1) / unit * unit;
  const size_t mapped = is_large ? size + kHugePage : size;  // room to align to a huge page
  void* p = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  auto* start = static_cast<uint8_t*>(p);
  if (is_large) {
    auto* aligned =
        reinterpret_cast<uint8_t*>((uintptr_t(start) + kHugePage - 1) & ~(kHugePage - 1));
    const size_t before = size_t(aligned - start), after = mapped - before - size;
    if (before) munmap(start, before);
    if (after) munmap(aligned + size, after);
    start = aligned;
#ifdef MADV_HUGEPAGE
    madvise(start, size, MADV_HUGEPAGE);  // advice: where it is refused, small pages do
#endif
  }
  std::memcpy(start, &size, sizeof size);
  return Buffer(start + kHeader);
}

void keep_freed_memory() {
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 64 << 20);
#endif
}

void FreeBuffer::operator()(uint8_t* p) const {
  size_t size;
  std::memcpy(&size, p - kHeader, sizeof size);
  munmap(p - kHeader, size);
}

}  // namespace freehold
