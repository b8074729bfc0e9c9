// Array types of the Python face and the checks that keep kernels inside their memory.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <initializer_list>
#include <optional>
#include <string>

namespace freehold {

namespace nb = nanobind;

template <class T, int N>
using In = nb::ndarray<const T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
template <class T, int N>
using Out = nb::ndarray<T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
template <class T, int N>
using MaybeIn = std::optional<In<T, N>>;

inline void require(bool holds, const char* what) {
  if (!holds) throw nb::value_error(what);
}

// `name` must have exactly this shape; says what it has instead.
template <class Array>
void require_shape(const Array& array, std::initializer_list<int64_t> shape, const char* name) {
  size_t i = 0;
  bool holds = array.ndim() == shape.size();
  for (int64_t extent : shape) holds = holds && int64_t(array.shape(i++)) == extent;
  if (holds) return;
  const auto text = [](auto begin, auto end) {
    std::string all = "[";
    for (auto it = begin; it != end; ++it) all += (it == begin ? "" : ", ") + std::to_string(*it);
    return all + "]";
  };
  std::string found = "[";
  for (size_t d = 0; d < array.ndim(); ++d)
    found += (d ? ", " : "") + std::to_string(array.shape(d));
  throw nb::value_error((std::string(name) + " has shape " + found + "], expected " +
                         text(shape.begin(), shape.end()) + ".")
                            .c_str());
}

template <class T>
void require_below(const T* values, int64_t count, int64_t bound, const char* name) {
  for (int64_t i = 0; i < count; ++i)
    if (values[i] < 0 || int64_t(values[i]) >= bound)
      throw nb::index_error((std::string(name) + " " + std::to_string(values[i]) +
                             " is outside 0 to " + std::to_string(bound - 1) + ".")
                                .c_str());
}

}  // namespace freehold
