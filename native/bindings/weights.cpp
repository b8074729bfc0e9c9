#include "weights.h"

namespace freehold {
namespace {

constexpr int64_t kCacheLine = 64;
constexpr int64_t kMaxInputs = 65536;     // 2^16 * 255 * 127 < 2^31: integer sums stay exact
constexpr int64_t kMaxOutputs = 1 << 28;  // so that sizes in bytes cannot overflow

int64_t scales_offset(Format format, int64_t count, int64_t n, int64_t k) {
  const int64_t bytes = count * weight_bytes(format, n, k);
  return (bytes + kCacheLine - 1) / kCacheLine * kCacheLine;
}

int64_t packed_bytes(Format format, int64_t count, int64_t n, int64_t k, int64_t group_size) {
  return scales_offset(format, count, n, k) + count * scale_bytes(format, n, k, group_size);
}

}  // namespace

void require_packable(int format, int64_t count, int64_t n, int64_t k, int64_t group_size) {
  require(format >= 0 && format <= 3, "Unknown format.");
  require(count > 0 && n > 0 && k > 0 && k <= kMaxInputs, "A weight has 1 to 65,536 inputs.");
  require(n <= kMaxOutputs && count <= kMaxOutputs / n, "A weight has at most 2^28 outputs.");
  if (Format(format) == Format::kInt4)
    require(group_size > 0 && group_size % 8 == 0 && k % group_size == 0,
            "An INT4 group size is a multiple of 8 that divides the inputs.");
}

PackedWeight::PackedWeight(Format format, int64_t count, int64_t n, int64_t k, int64_t group_size)
    : count(count), num_bytes(packed_bytes(format, count, n, k, group_size)) {
  owned_ = allocate(num_bytes);
  bytes = owned_.get();
  set_views(format, n, k, group_size);
}

PackedWeight::PackedWeight(Format format, int64_t count, int64_t n, int64_t k, int64_t group_size,
                           Bytes mapped)
    : count(count), num_bytes(packed_bytes(format, count, n, k, group_size)), bytes(mapped.data()) {
  require(int64_t(mapped.shape(0)) == num_bytes, "Packed bytes of another size.");
  require(reinterpret_cast<uintptr_t>(bytes) % kCacheLine == 0,
          "Packed bytes start on a cache line.");
  mapped_ = std::move(mapped);
  set_views(format, n, k, group_size);
}

void PackedWeight::set_views(Format format, int64_t n, int64_t k, int64_t group_size) {
  const int64_t each = weight_bytes(format, n, k), padded = padded_k(format, k);
  const int64_t scales_each = scale_bytes(format, n, k, group_size);
  const uint8_t* scales = bytes + scales_offset(format, count, n, k);
  for (int64_t i = 0; i < count; ++i) {
    const uint8_t* its_scales = scales + i * scales_each;
    views.push_back(Weight{
        .format = format,
        .n = n,
        .k = k,
        .padded_k = padded,
        .group_size = format == Format::kInt4 ? group_size : padded,
        .data = bytes + i * each,
        .half_scales =
            format == Format::kInt4 ? reinterpret_cast<const uint16_t*>(its_scales) : nullptr,
        .scales = format == Format::kInt8 ? reinterpret_cast<const float*>(its_scales) : nullptr,
    });
  }
}

}  // namespace freehold
