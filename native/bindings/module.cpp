// The Python face of the kernels, used by ops/native.py alone. Checks every size and index that
// could send a kernel past its memory; the GIL is released around the work.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <optional>

#include "arrays.h"
#include "cpu.h"
#include "weights.h"

using namespace freehold;

namespace {

using Matrices = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;

std::unique_ptr<PackedWeight> pack(Runtime& runtime, Matrices tensor, int dtype, int format,
                                   int64_t group_size) {
  require(dtype >= 0 && dtype <= 2, "Unknown dtype.");
  require(tensor.itemsize() == (dtype == 0 ? 4 : 2), "The tensor does not hold its stated dtype.");
  require(tensor.ndim() == 2 || tensor.ndim() == 3, "A weight is [out, in] or [heads, out, in].");
  const bool is_stack = tensor.ndim() == 3;
  const int64_t count = is_stack ? int64_t(tensor.shape(0)) : 1;
  const auto n = int64_t(tensor.shape(is_stack)), k = int64_t(tensor.shape(is_stack + 1));
  require_packable(format, count, n, k, group_size);
  nb::gil_scoped_release release;
  auto weight = std::make_unique<PackedWeight>(Format(format), count, n, k, group_size);
  const auto* bytes = static_cast<const uint8_t*>(tensor.data());
  const int64_t matrix_bytes = n * k * int64_t(tensor.itemsize());
  for (int64_t i = 0; i < count; ++i)
    runtime.pack({bytes + i * matrix_bytes, Stored(dtype)}, weight->views[size_t(i)]);
  return weight;
}

std::unique_ptr<PackedExperts> stack_experts(const std::vector<const PackedWeight*>& gate_up,
                                             const std::vector<const PackedWeight*>& down) {
  require(!gate_up.empty() && gate_up.size() == down.size(), "Each expert has gate_up and down.");
  auto experts = std::make_unique<PackedExperts>();
  experts->num_bytes = 0;
  for (size_t e = 0; e < gate_up.size(); ++e) {
    const Weight &up = gate_up[e]->views[0], &back = down[e]->views[0];
    const Weight &first_up = gate_up[0]->views[0], &first_back = down[0]->views[0];
    require(up.n == 2 * back.k && up.k == back.n,
            "gate_up is [2 * inner, hidden], down [hidden, inner].");
    require(up.k == first_up.k && up.n == first_up.n && up.format == first_up.format &&
                back.format == first_back.format && up.group_size == first_up.group_size &&
                back.group_size == first_back.group_size,
            "All experts of a layer have one shape and format.");
    experts->views.gate_up.push_back(up);
    experts->views.down.push_back(back);
    experts->num_bytes += gate_up[e]->num_bytes + down[e]->num_bytes;
  }
  return experts;
}

void linear(Runtime& runtime, In<float, 2> x, const PackedWeight& weight, MaybeIn<float, 1> bias,
            Out<float, 2> y) {
  const Weight& w = weight.views[0];
  const auto m = int64_t(x.shape(0));
  require(weight.count == 1, "A per-head weight needs per_head_linear.");
  require_shape(x, {m, w.k}, "x");
  require_shape(y, {m, w.n}, "y");
  if (bias) require_shape(*bias, {w.n}, "bias");
  nb::gil_scoped_release release;
  runtime.linear(w, x.data(), m, bias ? bias->data() : nullptr, y.data());
}

void gated_linear(Runtime& runtime, In<float, 2> x, const PackedWeight& weight,
                  MaybeIn<float, 1> bias, Out<float, 2> y) {
  const Weight& w = weight.views[0];
  const auto m = int64_t(x.shape(0));
  require(weight.count == 1 && w.n % (2 * kPanel) == 0,
          "A gated weight is [gate; up], each a multiple of 16 outputs.");
  require_shape(x, {m, w.k}, "x");
  require_shape(y, {m, w.n / 2}, "y");
  if (bias) require_shape(*bias, {w.n}, "bias");
  nb::gil_scoped_release release;
  runtime.gated_linear(w, x.data(), m, bias ? bias->data() : nullptr, y.data());
}

void per_head_linear(Runtime& runtime, In<float, 3> x, const PackedWeight& weight,
                     Out<float, 3> y) {
  const Weight& w = weight.views[0];
  const auto m = int64_t(x.shape(0)), heads = weight.count;
  require(w.format == Format::kBf16 || w.format == Format::kFloat32,
          "per_head_linear takes a weight of per_head_weight.");
  require_shape(x, {m, heads, w.k}, "x");
  require_shape(y, {m, heads, w.n}, "y");
  nb::gil_scoped_release release;
  runtime.per_head_linear(weight.views, x.data(), m, y.data());
}

void matmul_float32(Runtime& runtime, In<float, 2> x, In<float, 2> matrix, Out<float, 2> y) {
  const auto m = int64_t(x.shape(0)), n = int64_t(matrix.shape(0)), k = int64_t(matrix.shape(1));
  require_shape(x, {m, k}, "x");
  require_shape(y, {m, n}, "y");
  nb::gil_scoped_release release;
  runtime.matmul_float32(x.data(), m, matrix.data(), n, k, y.data());
}

void routed_experts(Runtime& runtime, In<float, 2> x, In<int32_t, 2> ids, In<float, 2> weights,
                    const PackedExperts& experts, Out<float, 2> y) {
  const auto m = int64_t(x.shape(0)), hidden = experts.views.gate_up[0].k;
  const auto num_chosen = int64_t(ids.shape(1));
  require_shape(x, {m, hidden}, "x");
  require_shape(y, {m, hidden}, "y");
  require_shape(ids, {m, num_chosen}, "expert_ids");
  require_shape(weights, {m, num_chosen}, "expert_weights");
  require_below(ids.data(), m * num_chosen, int64_t(experts.views.down.size()), "Expert id");
  nb::gil_scoped_release release;
  runtime.routed_experts(experts.views, x.data(), m, ids.data(), weights.data(), num_chosen,
                         y.data());
}

void embedding(Runtime& runtime, In<int32_t, 1> ids,
               nb::ndarray<nb::ro, nb::ndim<2>, nb::c_contig> table, int dtype, Out<float, 2> y) {
  const auto m = int64_t(ids.shape(0)), dim = int64_t(table.shape(1));
  require(dtype >= 0 && dtype <= 2 && table.itemsize() == (dtype == 0 ? 4 : 2),
          "The table does not hold its stated dtype.");
  require_shape(y, {m, dim}, "y");
  require_below(ids.data(), m, int64_t(table.shape(0)), "Token id");
  nb::gil_scoped_release release;
  runtime.embedding({table.data(), Stored(dtype)}, dim, ids.data(), m, y.data());
}

void rms_norm(Runtime& runtime, In<float, 2> x, In<float, 1> weight, float eps, Out<float, 2> y) {
  const auto m = int64_t(x.shape(0)), dim = int64_t(x.shape(1));
  require_shape(weight, {dim}, "weight");
  require_shape(y, {m, dim}, "y");
  nb::gil_scoped_release release;
  runtime.rms_norm(x.data(), m, dim, weight.data(), eps, y.data());
}

void silu_and_mul(Runtime& runtime, In<float, 2> gate_up, Out<float, 2> y) {
  const auto m = int64_t(y.shape(0)), inner = int64_t(y.shape(1));
  require_shape(gate_up, {m, 2 * inner}, "gate_up");
  nb::gil_scoped_release release;
  runtime.silu_and_mul(gate_up.data(), m, inner, y.data());
}

void rope(Runtime& runtime, In<float, 3> x, In<int32_t, 1> positions, In<float, 2> cos,
          In<float, 2> sin, bool interleaved, Out<float, 3> y) {
  const auto m = int64_t(x.shape(0)), heads = int64_t(x.shape(1)), dim = int64_t(x.shape(2));
  require(dim % 2 == 0, "rope needs an even dim.");
  require_shape(positions, {m}, "positions");
  require_shape(cos, {int64_t(cos.shape(0)), dim / 2}, "cos");
  require_shape(sin, {int64_t(cos.shape(0)), dim / 2}, "sin");
  require_shape(y, {m, heads, dim}, "y");
  require_below(positions.data(), m, int64_t(cos.shape(0)), "Position");
  nb::gil_scoped_release release;
  runtime.rope(x.data(), positions.data(), cos.data(), sin.data(), m, heads, dim, interleaved,
               y.data());
}

Layout check_layout(int64_t n, const PagedCache& cache, const In<int32_t, 1>& positions,
                    const In<int64_t, 1>& slots, const In<int32_t, 1>& query_starts,
                    const In<int32_t, 2>& block_tables, int64_t block_size) {
  const auto requests = int64_t(block_tables.shape(0)), width = int64_t(block_tables.shape(1));
  require(block_size == cache.block_size, "The layout has another block size than the cache.");
  require_shape(positions, {n}, "positions");
  require_shape(slots, {n}, "slots");
  require_shape(query_starts, {requests + 1}, "query_starts");
  require_below(slots.data(), n, cache.num_slots(), "Slot");
  const int32_t* starts = query_starts.data();
  require(starts[0] == 0 && starts[requests] == n,
          "query_starts runs from 0 to the number of tokens.");
  for (int64_t r = 0; r < requests; ++r) {
    require(starts[r] <= starts[r + 1], "query_starts must ascend.");
    if (starts[r] == starts[r + 1]) continue;
    for (int32_t row = starts[r]; row < starts[r + 1]; ++row)
      require(positions.data()[row] >= 0 &&
                  (row == starts[r] || positions.data()[row] > positions.data()[row - 1]),
              "The positions of a request must ascend from 0 or more.");
    const int64_t used = int64_t(positions.data()[starts[r + 1] - 1]) / block_size + 1;
    require(used <= width, "A position lies beyond its request's block table.");
    require_below(block_tables.data() + r * width, used, cache.num_blocks, "Block");
  }
  return {n,           requests, width, positions.data(), query_starts.data(), block_tables.data(),
          slots.data()};
}

void grouped_attention(Runtime& runtime, In<float, 3> q, In<float, 3> k, In<float, 3> v,
                       const PagedCache& cache, In<int32_t, 1> positions, In<int64_t, 1> slots,
                       In<int32_t, 1> query_starts, In<int32_t, 2> block_tables, int64_t block_size,
                       float scale, Out<float, 3> out) {
  const auto n = int64_t(q.shape(0)), heads = int64_t(q.shape(1));
  require(!cache.is_latent, "A latent cache needs latent_attention.");
  require(heads % cache.num_kv_heads == 0, "Query heads must be a multiple of key heads.");
  require_shape(q, {n, heads, cache.dim}, "q");
  require_shape(k, {n, cache.num_kv_heads, cache.dim}, "k");
  require_shape(v, {n, cache.num_kv_heads, cache.dim}, "v");
  require_shape(out, {n, heads, cache.dim}, "out");
  const Layout layout =
      check_layout(n, cache, positions, slots, query_starts, block_tables, block_size);
  nb::gil_scoped_release release;
  runtime.attention(q.data(), k.data(), v.data(), cache, heads, cache.dim, layout, scale,
                    out.data());
}

void latent_attention(Runtime& runtime, In<float, 3> q, In<float, 2> latent,
                      const PagedCache& cache, In<int32_t, 1> positions, In<int64_t, 1> slots,
                      In<int32_t, 1> query_starts, In<int32_t, 2> block_tables, int64_t block_size,
                      float scale, Out<float, 3> out) {
  const auto n = int64_t(q.shape(0)), heads = int64_t(q.shape(1)),
             value_dim = int64_t(out.shape(2));
  require(cache.is_latent, "A grouped cache needs grouped_attention.");
  require(value_dim > 0 && value_dim <= cache.dim, "value_dim is at most the latent's size.");
  require_shape(q, {n, heads, cache.dim}, "q");
  require_shape(latent, {n, cache.dim}, "latent");
  require_shape(out, {n, heads, value_dim}, "out");
  const Layout layout =
      check_layout(n, cache, positions, slots, query_starts, block_tables, block_size);
  nb::gil_scoped_release release;
  runtime.attention(q.data(), latent.data(), nullptr, cache, heads, value_dim, layout, scale,
                    out.data());
}

void route(Runtime& runtime, In<float, 2> scores, MaybeIn<float, 1> bias, int64_t num_groups,
           int64_t num_groups_chosen, bool is_sigmoid, bool is_top2_sum, bool is_normalized,
           float scaling_factor, Out<int32_t, 2> ids, Out<float, 2> weights) {
  const auto m = int64_t(scores.shape(0)), experts = int64_t(scores.shape(1));
  const auto chosen = int64_t(ids.shape(1));
  require(num_groups > 0 && experts % num_groups == 0 && num_groups_chosen > 0 &&
              num_groups_chosen <= num_groups && chosen <= experts / num_groups * num_groups_chosen,
          "The chosen groups hold fewer experts than a token needs.");
  if (bias) require_shape(*bias, {experts}, "correction_bias");
  require_shape(ids, {m, chosen}, "ids");
  require_shape(weights, {m, chosen}, "weights");
  const Routing how{experts,    chosen,      num_groups,    num_groups_chosen,
                    is_sigmoid, is_top2_sum, is_normalized, scaling_factor};
  nb::gil_scoped_release release;
  runtime.route(scores.data(), bias ? bias->data() : nullptr, m, how, ids.data(), weights.data());
}

void sample(Runtime& runtime, In<float, 2> logits, In<float, 1> temperature, In<int32_t, 1> top_k,
            In<float, 1> top_p, In<float, 1> min_p, In<double, 1> uniforms, Out<int32_t, 1> ids) {
  const auto m = int64_t(logits.shape(0)), vocab = int64_t(logits.shape(1));
  require(vocab > 0, "The vocabulary is empty.");
  require_shape(temperature, {m}, "temperature");
  require_shape(top_k, {m}, "top_k");
  require_shape(top_p, {m}, "top_p");
  require_shape(min_p, {m}, "min_p");
  require_shape(uniforms, {m}, "uniforms");
  require_shape(ids, {m}, "ids");
  nb::gil_scoped_release release;
  std::vector<Sampling> how;
  how.reserve(size_t(m));
  for (int64_t i = 0; i < m; ++i)
    how.push_back({temperature.data()[i], top_k.data()[i], top_p.data()[i], min_p.data()[i],
                   uniforms.data()[i]});
  runtime.sample(logits.data(), m, vocab, how.data(), ids.data());
}

void logprobs(Runtime& runtime, In<float, 2> logits, In<int64_t, 1> token_ids, Out<float, 1> chosen,
              Out<int32_t, 2> top_ids, Out<float, 2> top) {
  const auto m = int64_t(logits.shape(0)), vocab = int64_t(logits.shape(1));
  const auto num_top = int64_t(top.shape(1));
  require(num_top <= vocab, "More top logprobs than tokens.");
  require_shape(token_ids, {m}, "token_ids");
  require_shape(chosen, {m}, "chosen");
  require_shape(top_ids, {m, num_top}, "top_ids");
  require_shape(top, {m, num_top}, "top");
  require_below(token_ids.data(), m, vocab, "Token id");
  nb::gil_scoped_release release;
  runtime.logprobs(logits.data(), m, vocab, token_ids.data(), num_top, chosen.data(),
                   top_ids.data(), top.data());
}

// Keys and values as writable views [num_blocks, bytes].
nb::list cache_memory(nb::handle self) {
  const auto& cache = nb::cast<const PagedCache&>(self);
  nb::list parts;
  const auto add = [&](const Buffer& buffer, int64_t bytes) {
    if (cache.num_blocks == 0 || bytes == 0) return;
    parts.append(nb::ndarray<nb::numpy, uint8_t, nb::ndim<2>>(
        buffer.get(), {size_t(cache.num_blocks), size_t(bytes / cache.num_blocks)}, self));
  };
  add(cache.keys, cache.key_bytes());
  add(cache.values, cache.value_bytes());
  return parts;
}

uint64_t read_all(Runtime& runtime, In<uint64_t, 1> words) {
  nb::gil_scoped_release release;
  return runtime.read(words.data(), int64_t(words.shape(0)));
}

}  // namespace

NB_MODULE(_native, m) {
  keep_freed_memory();
  m.def("available_isas", [] { return std::string(available_isas()); });
  // The views point into the matrices, which live as long as what holds them.
  m.def("stack_experts", &stack_experts, nb::keep_alive<0, 1>(), nb::keep_alive<0, 2>());
  m.attr("PACK_LAYOUT_VERSION") = kPackLayoutVersion;
  m.attr("CACHE_LAYOUT_VERSION") = kCacheLayoutVersion;
  nb::class_<PackedWeight>(m, "PackedWeight")
      .def("__init__",
           [](PackedWeight* self, int format, int64_t count, int64_t n, int64_t k,
              int64_t group_size, Bytes bytes) {
             require_packable(format, count, n, k, group_size);
             new (self) PackedWeight(Format(format), count, n, k, group_size, std::move(bytes));
           })
      .def_prop_ro("bytes",
                   [](nb::object self) {
                     const auto& w = nb::cast<const PackedWeight&>(self);
                     return nb::ndarray<nb::numpy, const uint8_t, nb::ndim<1>>(
                         w.bytes, {size_t(w.num_bytes)}, self);
                   })
      .def_prop_ro("group_size", [](const PackedWeight& w) { return w.views[0].group_size; })
      .def_prop_ro("shape",
                   [](const PackedWeight& w) {
                     const Weight& view = w.views[0];
                     return w.count == 1 ? nb::make_tuple(view.n, view.k)
                                         : nb::make_tuple(w.count, view.n, view.k);
                   })
      .def_prop_ro("format", [](const PackedWeight& w) { return int(w.views[0].format); })
      .def_prop_ro("num_bytes", [](const PackedWeight& w) { return w.num_bytes; });
  nb::class_<PackedExperts>(m, "PackedExperts")
      .def_prop_ro("num_bytes", [](const PackedExperts& e) { return e.num_bytes; });
  nb::class_<PagedCache>(m, "PagedCache")
      .def("__init__",
           [](PagedCache* self, int64_t num_blocks, int64_t block_size, int64_t num_kv_heads,
              int64_t dim, bool is_latent) {
             require(num_blocks >= 0 && block_size > 0 && num_kv_heads > 0 && dim > 0,
                     "A cache has blocks, keys in them, heads and dimensions.");
             require(is_latent || dim % 2 == 0, "head_dim must be even.");
             new (self) PagedCache(num_blocks, block_size, num_kv_heads, dim, is_latent);
           })
      .def_prop_ro("num_bytes", &PagedCache::num_bytes)
      .def("memory", &cache_memory);
  nb::class_<Runtime>(m, "Runtime")
      .def("__init__",
           [](Runtime* self, const std::string& isa, int num_threads) {
             new (self) Runtime(choose_kernels(isa), num_threads);
           })
      .def_prop_ro("isa", [](const Runtime& r) { return std::string(r.kernels().name); })
      .def_prop_ro("num_threads", &Runtime::num_threads)
      .def("read", &read_all)
      .def("peak",
           [](Runtime& runtime, int format) {
             require(format >= 0 && format <= 3, "Unknown format.");
             nb::gil_scoped_release release;
             return runtime.peak(Format(format));
           })
      .def("pack", &pack)
      .def("linear", &linear, nb::arg(), nb::arg(), nb::arg().none(), nb::arg())
      .def("gated_linear", &gated_linear, nb::arg(), nb::arg(), nb::arg().none(), nb::arg())
      .def("per_head_linear", &per_head_linear)
      .def("matmul_float32", &matmul_float32)
      .def("routed_experts", &routed_experts)
      .def("embedding", &embedding)
      .def("rms_norm", &rms_norm)
      .def("silu_and_mul", &silu_and_mul)
      .def("rope", &rope)
      .def("grouped_attention", &grouped_attention)
      .def("latent_attention", &latent_attention)
      .def("route", &route)
      .def("sample", &sample)
      .def("logprobs", &logprobs);
}
