// Layouts, for panels of 16 output columns (16 rows of the checkpoint's matrix):
//   INT4     [panel][k / 8][16][4] bytes: the low nibble is w[8 b + i] + 8, the high w[8 b + 4 + i]
//   + 8 INT8     [panel][k / 4][16][4] bytes: w[4 b + i] + 128 BF16     [panel][k / 2][16][2]
//   float32  [panel][k][16]
// so one vector holds the same few k of all 16 columns, and the sum along k needs no reduction.

#include "pack.h"

#include <cmath>
#include <cstring>
#include <vector>

namespace freehold {
namespace {

float half_to_float(uint16_t h) {
  const uint32_t sign = uint32_t(h & 0x8000) << 16, exponent = (h >> 10) & 31, mantissa = h & 1023;
  uint32_t bits;
  if (exponent == 31) {
    bits = sign | 0x7f800000 | (mantissa << 13);
  } else if (exponent) {
    bits = sign | ((exponent + 112) << 23) | (mantissa << 13);
  } else {
    const float magnitude = float(mantissa) * 0x1p-24f;
    std::memcpy(&bits, &magnitude, 4);
    bits |= sign;
  }
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

// Of a value >= 0, nearest, ties to even.
uint16_t float_to_half(float f) {
  if (!(f < 65520.0f)) return f != f ? 0x7e00 : 0x7c00;
  uint32_t bits;
  if (f < 0x1p-14f) return uint16_t(std::nearbyint(f * 0x1p24f));
  std::memcpy(&bits, &f, 4);
  bits += 0xfff + ((bits >> 13) & 1);
  return uint16_t((bits >> 13) - (112 << 10));
}

uint32_t four(const int8_t* q) {
  uint32_t v;
  std::memcpy(&v, q, 4);
  return v;
}

// A byte b holds the integer q; b ^ 0x80 is q + 128, which no addition below lets overflow.
constexpr uint32_t kFlip = 0x80808080, kAdd8 = 0x08080808;

uint32_t add_8(uint32_t bytes) { return ((bytes ^ kFlip) + kAdd8) ^ kFlip; }

void pack_int4(const Kernels& kernels, const float* w, const Weight& weight, int64_t panel,
               int8_t* q) {
  const int64_t k = weight.padded_k, group = weight.group_size, num_groups = k / group;
  auto* scales = const_cast<uint16_t*>(weight.half_scales) + panel * num_groups * kPanel;
  for (int64_t c = 0; c < kPanel; ++c)
    for (int64_t g = 0; g < num_groups; ++g) {
      const float* from = w + c * k + g * group;
      const uint16_t half = float_to_half(kernels.greatest_magnitude(from, group) / 7.0f);
      scales[g * kPanel + c] = half;
      kernels.quantize(from, group, half_to_float(half), -8, 7, q + c * k + g * group);
    }
  auto* out = reinterpret_cast<uint32_t*>(const_cast<uint8_t*>(weight.data) + panel * k * 8);
  for (int64_t b = 0; b < k / 8; ++b)
    for (int64_t c = 0; c < kPanel; ++c) {
      const int8_t* from = q + c * k + 8 * b;
      out[b * kPanel + c] = add_8(four(from)) | add_8(four(from + 4)) << 4;
    }
}

void pack_int8(const Kernels& kernels, const float* w, const Weight& weight, int64_t panel,
               int8_t* q) {
  const int64_t k = weight.padded_k;
  auto* scales = const_cast<float*>(weight.scales) + panel * kPanel;
  for (int64_t c = 0; c < kPanel; ++c) {
    scales[c] = kernels.greatest_magnitude(w + c * k, k) / 127.0f;
    kernels.quantize(w + c * k, k, scales[c], -127, 127, q + c * k);
  }
  auto* out = reinterpret_cast<uint32_t*>(const_cast<uint8_t*>(weight.data) + panel * k * 16);
  for (int64_t b = 0; b < k / 4; ++b)
    for (int64_t c = 0; c < kPanel; ++c) out[b * kPanel + c] = four(q + c * k + 4 * b) ^ kFlip;
}

uint32_t bf16_bits(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >> 16) | 0x40;
  return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

void pack_bf16(const float* w, const Weight& weight, int64_t panel) {
  const int64_t k = weight.padded_k;
  auto* out = reinterpret_cast<uint32_t*>(const_cast<uint8_t*>(weight.data)) + panel * k * 8;
  for (int64_t b = 0; b < k / 2; ++b)
    for (int64_t c = 0; c < kPanel; ++c)
      out[b * kPanel + c] = bf16_bits(w[c * k + 2 * b]) | bf16_bits(w[c * k + 2 * b + 1]) << 16;
}

void pack_float32(const float* w, const Weight& weight, int64_t panel) {
  const int64_t k = weight.padded_k;
  auto* out = reinterpret_cast<float*>(const_cast<uint8_t*>(weight.data)) + panel * k * kPanel;
  for (int64_t i = 0; i < k; ++i)
    for (int64_t c = 0; c < kPanel; ++c) out[i * kPanel + c] = w[c * k + i];
}

}  // namespace

int64_t padded_k(Format format, int64_t k) {
  const int64_t unit = format == Format::kFloat32 ? 1 : format == Format::kBf16 ? 2 : 8;
  return (k + unit - 1) / unit * unit;
}

int64_t weight_bytes(Format format, int64_t n, int64_t k) {
  const int64_t values = (n + kPanel - 1) / kPanel * kPanel * padded_k(format, k);
  switch (format) {
    case Format::kFloat32:
      return values * 4;
    case Format::kBf16:
      return values * 2;
    case Format::kInt8:
      return values;
    case Format::kInt4:
      return values / 2;
  }
  return 0;
}

int64_t scale_bytes(Format format, int64_t n, int64_t k, int64_t group_size) {
  const int64_t columns = (n + kPanel - 1) / kPanel * kPanel;
  if (format == Format::kInt4) return columns * (k / group_size) * 2;
  return format == Format::kInt8 ? columns * 4 : 0;
}

void widen(const Source& source, int64_t begin, int64_t count, float* out) {
  if (source.dtype == Stored::kFloat32) {
    std::memcpy(out, static_cast<const float*>(source.data) + begin, size_t(count) * 4);
    return;
  }
  const auto* from = static_cast<const uint16_t*>(source.data) + begin;
  if (source.dtype == Stored::kFloat16) {
    for (int64_t i = 0; i < count; ++i) out[i] = half_to_float(from[i]);
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t bits = uint32_t(from[i]) << 16;
    std::memcpy(out + i, &bits, 4);
  }
}

void pack_panel(const Kernels& kernels, const Source& source, const Weight& weight, int64_t panel) {
  thread_local std::vector<float> rows;  // this panel's 16 rows, zero-padded
  thread_local std::vector<int8_t> q;
  const int64_t first = panel * kPanel, k = weight.padded_k;
  rows.assign(size_t(kPanel * k), 0.0f);
  q.resize(size_t(kPanel * k + 16));
  for (int64_t c = 0; c < kPanel && first + c < weight.n; ++c)
    widen(source, (first + c) * weight.k, weight.k, rows.data() + c * k);
  switch (weight.format) {
    case Format::kInt4:
      return pack_int4(kernels, rows.data(), weight, panel, q.data());
    case Format::kInt8:
      return pack_int8(kernels, rows.data(), weight, panel, q.data());
    case Format::kBf16:
      return pack_bf16(rows.data(), weight, panel);
    case Format::kFloat32:
      return pack_float32(rows.data(), weight, panel);
  }
}

}  // namespace freehold
