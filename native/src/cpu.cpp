// Which kernel table this CPU can run; FREEHOLD_ISA forces one.

#include <cstdlib>
#include <stdexcept>
#include <string>

#include "cpu.h"

#ifdef HAS_X86
#include <cpuid.h>
#endif
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace freehold {

extern const Kernels kernels_scalar, kernels_amx_emulated;
#ifdef HAS_X86
extern const Kernels kernels_avx2, kernels_avx512, kernels_avx512_bf16, kernels_amx;
#endif

namespace {

struct Entry {
  const Kernels* kernels;
  bool (*is_supported)();
};

bool always() { return true; }
#ifdef HAS_X86
// The compiler's check covers the operating system's part (XCR0) too.
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c");
}
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni");
}
bool has_avx512_bf16() { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }

// Tiles and INT8 on them, saved by the operating system, and allowed to this process (Linux gives
// the state, eight kilobytes a thread, only to who asks).
bool has_amx() {
  unsigned a, b, c, d;
  if (!has_avx512_bf16() || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  constexpr unsigned kTile = 1u << 24, kInt8 = 1u << 25;
  if ((d & (kTile | kInt8)) != (kTile | kInt8)) return false;
  unsigned low, high;
  asm("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  constexpr unsigned kTileConfig = 1u << 17, kTileData = 1u << 18;
  if ((low & (kTileConfig | kTileData)) != (kTileConfig | kTileData)) return false;
#ifdef __linux__
  constexpr long kRequestPermission = 0x1023, kTileDataFeature = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileDataFeature) == 0;
#else
  return true;
#endif
}
#endif

const Entry kEntries[] = {
// best first
#ifdef HAS_X86
    {&kernels_amx, has_amx},
    {&kernels_avx512_bf16, has_avx512_bf16},
    {&kernels_avx512, has_avx512},
    {&kernels_avx2, has_avx2},
#endif
    {&kernels_scalar, always},
    {&kernels_amx_emulated, always},  // last: for tests, by name only
};

}  // namespace

std::string available_isas() {
  std::string all;
  for (const Entry& entry : kEntries)
    if (entry.kernels != &kernels_amx_emulated && entry.is_supported())
      all += (all.empty() ? "" : ", ") + std::string(entry.kernels->name);
  return all;
}

const Kernels& choose_kernels(const std::string& isa) {
  const char* forced = std::getenv("FREEHOLD_ISA");
  const std::string wanted = isa.empty() && forced ? forced : isa;
  for (const Entry& entry : kEntries)
    if ((wanted.empty() || wanted == entry.kernels->name) && entry.is_supported())
      return *entry.kernels;
  throw std::invalid_argument("Instruction set '" + wanted +
                              "' is not to be had here: this CPU runs " + available_isas() + ".");
}

}  // namespace freehold
