// See buffer.h. Buffers lie behind each other in slabs of huge pages, so that one of a megabyte has
// them too (a row reads such weights 1.4 times as fast) and one of fourteen wastes no part of a
// page. Fresh anonymous pages are zero already, so nothing is touched before it is used. What is
// freed is given back, not used again, and a slab goes when the last of its buffers does.

#include "buffer.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <new>
#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace freehold {
namespace {

constexpr size_t kHugePage = size_t(2) << 20, kSlab = size_t(64) << 20, kLine = 64;

struct Slab {  // at its own beginning
  size_t size, used;
  std::atomic<size_t> num_holders;  // its buffers, and the thread that still takes from it
};

struct Header {  // a line in front of each buffer
  Slab* slab;
  size_t size;  // with the line
};

void release(Slab* slab) {
  if (slab->num_holders.fetch_sub(1) == 1) munmap(slab, slab->size);
}

// Where this thread's next buffer goes, if it has room. One a thread: no lock that a fork could
// leave closed.
struct Current {
  Slab* slab = nullptr;

  void hold(Slab* next) {
    if (slab) release(slab);
    slab = next;
  }
  ~Current() { hold(nullptr); }
};
thread_local Current current;

size_t round_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

Slab* map_slab(size_t size) {
  const size_t mapped = size + kHugePage;  // room to align to a huge page
  void* p = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  auto* begin = static_cast<uint8_t*>(p);
  auto* start = reinterpret_cast<uint8_t*>(round_up(uintptr_t(begin), kHugePage));
  const size_t before = size_t(start - begin), after = kHugePage - before;
  if (before) munmap(begin, before);
  if (after) munmap(start + size, after);
#ifdef MADV_HUGEPAGE
  madvise(start, size, MADV_HUGEPAGE);  // advice: where it is refused, small pages do
#endif
  return new (start) Slab{size, kLine, 1};
}

}  // namespace

Buffer allocate(int64_t bytes) {
  const size_t size = round_up(size_t(bytes), kLine) + kLine;
  Slab* slab = current.slab;
  if (size > kSlab / 2) {
    slab = map_slab(round_up(size + kLine, kHugePage));
  } else {
    if (!slab || slab->used + size > slab->size) current.hold(slab = map_slab(kSlab));
    slab->num_holders.fetch_add(1);
  }
  uint8_t* start = reinterpret_cast<uint8_t*>(slab) + slab->used;
  slab->used += size;
  new (start) Header{slab, size};
  return Buffer(start + kLine);
}

void FreeBuffer::operator()(uint8_t* p) const {
  const auto [slab, size] = *reinterpret_cast<Header*>(p - kLine);
  const bool is_last = slab->num_holders.load() == (slab == current.slab ? 2 : 1);
  if (is_last && slab == current.slab) current.hold(nullptr);
  if (!is_last) {  // whole pages of it go at once, whoever still holds the slab
    const auto page = size_t(getpagesize());
    auto* begin = reinterpret_cast<uint8_t*>(round_up(uintptr_t(p - kLine), page));
    auto* end = reinterpret_cast<uint8_t*>(uintptr_t(p - kLine + size) / page * page);
    if (begin < end) madvise(begin, size_t(end - begin), MADV_DONTNEED);
  }
  release(slab);
}

void keep_freed_memory() {
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 64 << 20);
#endif
}

}  // namespace freehold
