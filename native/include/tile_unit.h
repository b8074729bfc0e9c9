// A matrix unit of eight tiles of 16 rows by 64 bytes: Intel AMX, or the same in plain C++ where
// there is none, so that packing and loops are tested everywhere. The AMX instructions themselves
// have been compiled but not yet run: the machines this was written on have none.
#pragma once

#include <cstdint>
#include <cstring>

namespace freehold::ISA {

#if defined(ISA_HAS_AMX)

// gcc 12's intrinsics lack memory clobbers, so stores to what a tile reads may be moved past it.
struct TileUnit {
  // Tiles 0 to 3: sums [16][16] int32; 4, 5: activations [16][inputs]; 6, 7: weights
  // [inputs / 4][16][4].
  static void configure(int inputs) {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } config;
    static_assert(sizeof config == 64);
    for (int t = 0; t < 8; ++t) {
      config.row_bytes[t] = uint16_t(t == 4 || t == 5 ? inputs : 64);
      config.rows[t] = uint8_t(t >= 6 ? inputs / 4 : 16);
    }
    asm volatile("ldtilecfg %0" ::"m"(config) : "memory");
  }
  static void release() { asm volatile("tilerelease" ::: "memory"); }

  template <int T>
  static void zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(T));
  }
  template <int T>
  static void load(const void* p, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(p), "r"(stride), "i"(T) : "memory");
  }
  template <int T>
  static void store(void* p, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(p), "r"(stride), "i"(T) : "memory");
  }
  // sums += activations (signed) * weights (unsigned)
  template <int Sums, int A, int W>
  static void dot() {
    asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(Sums), "i"(A), "i"(W));
  }
};

#else

struct TileUnit {
  struct State {
    int inputs;
    uint8_t tiles[8][16][64];
  };
  static State& state() {
    thread_local State mine;
    return mine;
  }
  static void configure(int inputs) { state().inputs = inputs; }
  static void release() { state().inputs = 0; }

  static int rows(int t) { return t >= 6 ? state().inputs / 4 : 16; }
  static size_t row_bytes(int t) { return t == 4 || t == 5 ? size_t(state().inputs) : 64; }

  template <int T>
  static void zero() {
    std::memset(state().tiles[T], 0, sizeof state().tiles[T]);
  }
  template <int T>
  static void load(const void* p, int64_t stride) {
    for (int r = 0; r < rows(T); ++r)
      std::memcpy(state().tiles[T][r], static_cast<const uint8_t*>(p) + r * stride, row_bytes(T));
  }
  template <int T>
  static void store(void* p, int64_t stride) {
    for (int r = 0; r < rows(T); ++r)
      std::memcpy(static_cast<uint8_t*>(p) + r * stride, state().tiles[T][r], row_bytes(T));
  }
  template <int Sums, int A, int W>
  static void dot() {
    State& s = state();
    for (int m = 0; m < 16; ++m) {
      int32_t sums[16];
      std::memcpy(sums, s.tiles[Sums][m], 64);
      for (int k = 0; k < s.inputs; ++k)
        for (int n = 0; n < 16; ++n)
          sums[n] += int32_t(int8_t(s.tiles[A][m][k])) * s.tiles[W][k / 4][4 * n + k % 4];
      std::memcpy(s.tiles[Sums][m], sums, 64);
    }
  }
};

#endif

}  // namespace freehold::ISA
