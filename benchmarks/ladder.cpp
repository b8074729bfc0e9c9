// The steps from the textbook's product to a fast one, and the machine's peaks: compiled by
// `machine.py` for the CPU at hand, called through ctypes. Not part of the package: native/ is.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define PLAIN __attribute__((optimize("no-tree-vectorize"), noinline))

constexpr int64_t kPieceK = 128, kPieceN = 256;

extern "C" {

// y[m, n] = x[m, k] @ w[k, n], as the textbook writes it: w is read down its columns.
PLAIN void textbook(const float* x, const float* w, float* y, int64_t m, int64_t n, int64_t k) {
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) {
      float sum = 0;
      for (int64_t l = 0; l < k; ++l) sum += x[i * k + l] * w[l * n + j];
      y[i * n + j] = sum;
    }
}

// The same loops in another order: w is read along its rows.
PLAIN void reordered(const float* x, const float* w, float* y, int64_t m, int64_t n, int64_t k) {
  std::memset(y, 0, size_t(m * n) * sizeof(float));
  for (int64_t i = 0; i < m; ++i)
    for (int64_t l = 0; l < k; ++l) {
      const float a = x[i * k + l];
      for (int64_t j = 0; j < n; ++j) y[i * n + j] += a * w[l * n + j];
    }
}

// In pieces of w that stay in L1 and L2 while all rows of x pass over them.
PLAIN void blocked(const float* x, const float* w, float* y, int64_t m, int64_t n, int64_t k) {
  std::memset(y, 0, size_t(m * n) * sizeof(float));
  for (int64_t j0 = 0; j0 < n; j0 += kPieceN)
    for (int64_t l0 = 0; l0 < k; l0 += kPieceK)
      for (int64_t i = 0; i < m; ++i)
        for (int64_t l = l0; l < std::min(l0 + kPieceK, k); ++l) {
          const float a = x[i * k + l];
          for (int64_t j = j0; j < std::min(j0 + kPieceN, n); ++j)
            y[i * n + j] += a * w[l * n + j];
        }
}

// The same pieces with vector registers, four rows of w a pass (k is a multiple of 4).
static void simd_part(const float* x, const float* w, float* y, int64_t m, int64_t n, int64_t k,
                      int64_t from, int64_t to) {
  for (int64_t i = 0; i < m; ++i)
    std::memset(y + i * n + from, 0, size_t(to - from) * sizeof(float));
  for (int64_t j0 = from; j0 < to; j0 += kPieceN)
    for (int64_t l0 = 0; l0 < k; l0 += kPieceK)
      for (int64_t i = 0; i < m; ++i)
        for (int64_t l = l0; l < std::min(l0 + kPieceK, k); l += 4) {
          const float *a = x + i * k + l, *b = w + l * n;
          float* c = y + i * n;
#pragma GCC ivdep
          for (int64_t j = j0; j < std::min(j0 + kPieceN, to); ++j)
            c[j] += a[0] * b[j] + a[1] * b[n + j] + a[2] * b[2 * n + j] + a[3] * b[3 * n + j];
        }
}

void simd(const float* x, const float* w, float* y, int64_t m, int64_t n, int64_t k, int threads) {
  std::vector<std::thread> pool;
  const int64_t pieces = (n + kPieceN - 1) / kPieceN;
  for (int t = 0; t < threads; ++t) {
    const int64_t from = pieces * t / threads * kPieceN, end = pieces * (t + 1) / threads * kPieceN;
    pool.emplace_back(simd_part, x, w, y, m, n, k, from, end < n ? end : n);
  }
  for (auto& thread : pool) thread.join();
}

// Peaks of one core: twelve independent chains of one instruction, in registers by name (an array
// of them would live in memory). Return the operations done (a multiplication and an addition are
// two), or 0 where this CPU has no such instruction.
#define CHAINS(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#define ZERO(i) c##i = zero,
#define KEEP(i) asm volatile("" : "+v"(c##i));

#define PEAK(NAME, VECTOR, ZEROS, ONES, STEP, LANES)                \
  int64_t NAME(int64_t rounds) {                                    \
    const VECTOR zero = ZEROS;                                      \
    VECTOR CHAINS(ZERO) unused = zero;                              \
    const auto a = ONES;                                            \
    for (int64_t r = 0; r < rounds; ++r) { CHAINS(STEP) CHAINS(KEEP) } \
    (void)unused;                                                   \
    return rounds * 12 * LANES * 2;                                 \
  }
#define NO_PEAK(NAME) \
  int64_t NAME(int64_t) { return 0; }

#if defined(__AVX512VNNI__)
#define INT8_STEP(i) c##i = _mm512_dpbusd_epi32(c##i, a, a);
PEAK(peak_int8, __m512i, _mm512_setzero_si512(), _mm512_set1_epi8(1), INT8_STEP, 64)
#elif defined(__AVX2__)
#define INT8_STEP(i)                       \
  c##i = _mm256_add_epi32(                 \
      c##i, _mm256_madd_epi16(_mm256_maddubs_epi16(a, c##i), _mm256_set1_epi16(1)));
PEAK(peak_int8, __m256i, _mm256_setzero_si256(), _mm256_set1_epi8(1), INT8_STEP, 32)
#else
NO_PEAK(peak_int8)
#endif

#if defined(__AVX512BF16__)
#define BF16_STEP(i) c##i = _mm512_dpbf16_ps(c##i, a, a);
PEAK(peak_bf16, __m512, _mm512_setzero_ps(),
     _mm512_cvtne2ps_pbh(_mm512_set1_ps(1), _mm512_set1_ps(1)), BF16_STEP, 32)
#else
NO_PEAK(peak_bf16)
#endif

#if defined(__AVX512F__)
#define FLOAT_STEP(i) c##i = _mm512_fmadd_ps(a, a, c##i);
PEAK(peak_float32, __m512, _mm512_setzero_ps(), _mm512_set1_ps(0.5f), FLOAT_STEP, 16)
#elif defined(__AVX2__)
#define FLOAT_STEP(i) c##i = _mm256_fmadd_ps(a, a, c##i);
PEAK(peak_float32, __m256, _mm256_setzero_ps(), _mm256_set1_ps(0.5f), FLOAT_STEP, 8)
#else
NO_PEAK(peak_float32)
#endif
}
