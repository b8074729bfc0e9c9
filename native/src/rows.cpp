// What happens to one row of activations: rounding for a product, RMS norm, gated SiLU.

#include <cmath>

#include "kernels.h"
#include "simd.h"

namespace freehold::ISA {

void quantize_row(const float* x, int64_t k, int64_t padded_k, int64_t group_size, int8_t* q,
                  float* scale, int32_t* sums) {
  float greatest = 0;
  for (int64_t i = 0; i < k; ++i) greatest = std::fabs(x[i]) > greatest ? std::fabs(x[i]) : greatest;
  *scale = greatest / 127.0f;
  const float step = *scale == 0 ? 1.0f : *scale;
  for (int64_t i = 0; i < k; ++i) {
    float v = x[i] / step;
    v = v > 127.0f ? 127.0f : v < -127.0f ? -127.0f : v;
    v = (v + 12582912.0f) - 12582912.0f;  // rounds half to even
    q[i] = *scale == 0 ? 0 : int8_t(v);
  }
  for (int64_t i = k; i < padded_k; ++i) q[i] = 0;
  for (int64_t g = 0; g * group_size < padded_k; ++g) {
    int32_t total = 0;
    for (int64_t i = 0; i < group_size; ++i) total += q[g * group_size + i];
    sums[g] = total;
  }
}

void round_row(const float* x, int64_t k, int64_t padded_k, uint16_t* out) {
  for (int64_t i = 0; i < k; ++i) out[i] = float_to_bf16(x[i]);
  for (int64_t i = k; i < padded_k; ++i) out[i] = 0;
}

void rms_norm(const float* x, const float* weight, float eps, int64_t dim, float* y) {
  f32x16 squares = {};
  int64_t i = 0;
  for (; i + 16 <= dim; i += 16) {
    const f32x16 v = load<f32x16>(x + i);
    squares = fma(v, v, squares);
  }
  float total = sum(squares);
  for (; i < dim; ++i) total += x[i] * x[i];
  const float inverse = 1.0f / std::sqrt(total / float(dim) + eps);
  for (i = 0; i < dim; ++i) y[i] = x[i] * inverse * weight[i];
}

void silu_and_mul(const float* gate_up, int64_t inner, float* y) {
  const float *gate = gate_up, *up = gate_up + inner;
  int64_t i = 0;
  for (; i + 16 <= inner; i += 16) {
    const f32x16 g = load<f32x16>(gate + i);
    store(y + i, g / (1.0f + exp(-g)) * load<f32x16>(up + i));
  }
  for (; i < inner; ++i) {  // the same polynomial, so a tail lane equals a full one
    const f32x16 g = splat(gate[i]);
    y[i] = (g / (1.0f + exp(-g)))[0] * up[i];
  }
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

// y = matrix x for a row-major float32 matrix (routers): 16 partial sums a row, in order of k.
void matvec_float32(const float* x, const float* matrix, int64_t n, int64_t k, float* y) {
  for (int64_t row = 0; row < n; ++row, matrix += k) {
    f32x16 even = {}, odd = {};
    int64_t i = 0;
    for (; i + 32 <= k; i += 32) {
      even = fma(load<f32x16>(x + i), load<f32x16>(matrix + i), even);
      odd = fma(load<f32x16>(x + i + 16), load<f32x16>(matrix + i + 16), odd);
    }
    float total = sum(even + odd);
    for (; i < k; ++i) total = __builtin_fmaf(x[i], matrix[i], total);
    y[row] = total;
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
  for (; i < n; ++i) lanes[i % 16] += e[i] = exp_double((double(logits[i]) - greatest) / temperature);
  double total = 0;
  for (int j = 0; j < 16; ++j) total += lanes[j];
  return total;
}

}  // namespace freehold::ISA
