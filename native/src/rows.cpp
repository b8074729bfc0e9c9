// What happens to one row of activations beside products: RMS norm, gated SiLU, rope, exponentials.

#include "kernels.h"
#include "simd.h"

namespace freehold::ISA {

void rms_norm(const float* x, const float* weight, float eps, int64_t dim, float* y) {
  F32 squares = splat(0);
  int64_t i = 0;
  for (; i + 16 <= dim; i += 16) squares = fma(load(x + i), load(x + i), squares);
  if (i < dim) squares = fma(load_n(x + i, dim - i), load_n(x + i, dim - i), squares);
  const float root = __builtin_sqrtf(sum(squares) / float(dim) + eps);
  for (i = 0; i < dim; ++i) y[i] = x[i] / root * weight[i];
}

void silu_and_mul(const float* gate_up, int64_t inner, float* y) {
  const float *gate = gate_up, *up = gate_up + inner;
  int64_t i = 0;
  for (; i + 16 <= inner; i += 16) store(y + i, silu_times(load(gate + i), load(up + i)));
  if (i < inner)
    store_n(y + i, silu_times(load_n(gate + i, inner - i), load_n(up + i, inner - i)), inner - i);
}

void add_scaled(const float* x, float factor, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] += factor * x[i];
}

void rope(const float* x, const float* cos, const float* sin, int64_t num_heads, int64_t dim,
          bool interleaved, float* y) {
  const int64_t half = dim / 2;
  for (int64_t head = 0; head < num_heads; ++head, x += dim, y += dim) {
    if (interleaved) {
      for (int64_t i = 0; i < half; ++i) {
        const float a = x[2 * i], b = x[2 * i + 1];
        y[2 * i] = a * cos[i] - b * sin[i];
        y[2 * i + 1] = b * cos[i] + a * sin[i];
      }
    } else {
      for (int64_t i = 0; i < half; ++i) {
        const float a = x[i], b = x[half + i];
        y[i] = a * cos[i] - b * sin[i];
        y[half + i] = b * cos[i] + a * sin[i];
      }
    }
  }
}

// e^x in double for x <= 0 (a degree-13 Taylor polynomial after reduction by ln 2).
inline double exp_double(double x) {
  const double magic = 6755399441055744.0;  // adding it rounds to the nearest integer
  const double clamped = x > -700.0 ? x : -700.0;
  const double shifted = clamped * 1.4426950408889634 + magic;
  const double n = shifted - magic;
  double r = clamped - n * 6.93147180369123816490e-01;
  r = r - n * 1.90821492927058770002e-10;
  double p = 1.0 / 6227020800.0;
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  int64_t bits;
  std::memcpy(&bits, &shifted, 8);
  bits = (bits + 1023) << 52;
  double power;
  std::memcpy(&power, &bits, 8);
  return x > -700.0 ? p * power : 0.0;
}

double exp_row(const float* logits, int64_t n, double greatest, double temperature, double* e) {
  double lanes[16] = {};
  int64_t i = 0;
  for (; i + 16 <= n; i += 16)
    for (int j = 0; j < 16; ++j) {
      const double v = exp_double((double(logits[i + j]) - greatest) / temperature);
      e[i + j] = v;
      lanes[j] += v;
    }
  for (; i < n; ++i)
    lanes[i % 16] += e[i] = exp_double((double(logits[i]) - greatest) / temperature);
  double total = 0;
  for (int j = 0; j < 16; ++j) total += lanes[j];
  return total;
}

uint64_t fold(const uint64_t* words, int64_t count) {
  typedef uint64_t Lanes __attribute__((vector_size(64)));
  Lanes lanes[8] = {};
  int64_t i = 0;
  for (; i + 64 <= count; i += 64)
    for (int j = 0; j < 8; ++j) {
      Lanes v;
      std::memcpy(&v, words + i + 8 * j, sizeof v);
      lanes[j] ^= v;
    }
  uint64_t all = 0;
  for (int j = 0; j < 8; ++j)
    for (int l = 0; l < 8; ++l) all ^= lanes[j][l];
  for (; i < count; ++i) all ^= words[i];
  return all;
}

}  // namespace freehold::ISA
