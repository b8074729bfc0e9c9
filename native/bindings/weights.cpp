#include "weights.h"

namespace freehold {

PackedWeight::PackedWeight(Format format, int64_t count, int64_t n, int64_t k, int64_t group_size)
    : count(count) {
  const int64_t each = weight_bytes(format, n, k);
  const int64_t scales_each = scale_bytes(format, n, k, group_size);
  num_bytes = count * (each + scales_each);
  data = allocate(count * each);
  if (scales_each) scales = allocate(count * scales_each);
  for (int64_t i = 0; i < count; ++i) {
    const uint8_t* its_scales = scales ? scales.get() + i * scales_each : nullptr;
    const int64_t padded = padded_k(format, k);
    views.push_back(Weight{
        .format = format,
        .n = n,
        .k = k,
        .padded_k = padded,
        .group_size = format == Format::kInt4 ? group_size : padded,
        .data = data.get() + i * each,
        .half_scales =
            format == Format::kInt4 ? reinterpret_cast<const uint16_t*>(its_scales) : nullptr,
        .scales = format == Format::kInt8 ? reinterpret_cast<const float*>(its_scales) : nullptr,
    });
  }
}

}  // namespace freehold
