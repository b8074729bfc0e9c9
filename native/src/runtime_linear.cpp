// Matrix products over threads, for one weight and for routed experts (grouped products: rows
// sorted by expert, experts nobody chose untouched). Tasks are runs of output panels.

#include <algorithm>
#include <cstring>

#include "for_rows.h"

namespace freehold {
namespace {

int64_t num_panels(const Weight& weight) { return (weight.n + kPanel - 1) / kPanel; }

// Activations in the form a weight's format wants; the memory is reused between calls.
class PreparedRows {
 public:
  PreparedRows(const Weight& weight, int64_t m) : weight_(weight) {
    rows_.m = m;
    rows_.stride = weight.padded_k;
    const auto values = size_t(m * weight.padded_k);
    switch (weight.format) {
      case Format::kFloat32: break;
      case Format::kBf16: bf16_.resize(values); break;
      default:
        int8_.resize(values);
        scale_.resize(size_t(m));
        num_groups_ = weight.padded_k / weight.group_size;
        sums_.resize(size_t(m * num_groups_));
    }
    rows_.bf16 = bf16_.data();
    rows_.int8 = int8_.data();
    rows_.scale = scale_.data();
    rows_.sums = sums_.data();
  }

  void use_float32(const float* x, int64_t ldx) { rows_.f32 = x, rows_.stride = ldx; }

  void set(const Kernels& kernels, int64_t row, const float* x) {
    const int64_t start = row * weight_.padded_k;
    if (weight_.format == Format::kBf16)
      kernels.round_row(x, weight_.k, weight_.padded_k, bf16_.data() + start);
    else
      kernels.quantize_row(x, weight_.k, weight_.padded_k, weight_.group_size, int8_.data() + start,
                           scale_.data() + row, sums_.data() + row * num_groups_);
  }

  // Rows [begin, end) as a batch of their own.
  Rows slice(int64_t begin, int64_t end) const {
    Rows s = rows_;
    s.m = end - begin;
    if (s.f32) s.f32 += begin * s.stride;
    if (s.bf16) s.bf16 += begin * s.stride;
    if (s.int8) s.int8 += begin * s.stride, s.scale += begin, s.sums += begin * num_groups_;
    return s;
  }

 private:
  const Weight& weight_;
  Rows rows_{};
  int64_t num_groups_ = 0;
  std::vector<uint16_t> bf16_;
  std::vector<int8_t> int8_;
  std::vector<float> scale_;
  std::vector<int32_t> sums_;
};

}  // namespace

void Runtime::linear(const Weight& weight, const float* x, int64_t m, int64_t ldx,
                     const float* bias, float* y, int64_t ldy) {
  PreparedRows rows(weight, m);
  if (weight.format == Format::kFloat32)
    rows.use_float32(x, ldx);
  else
    for_rows(m, weight.k, [&](int64_t row) { rows.set(kernels_, row, x + row * ldx); });
  const int64_t panels = num_panels(weight);
  const int64_t bytes_per_panel = weight_bytes(weight.format, kPanel, weight.k);
  const int64_t work_per_panel = bytes_per_panel * std::max<int64_t>(1, m / 4);
  const int64_t most_tasks = std::max<int64_t>(1, panels * work_per_panel / kWorkWorthATask);
  const int64_t num_tasks = std::min({panels, most_tasks, int64_t(pool_.num_threads()) * 4});
  const Rows all = rows.slice(0, m);
  pool_.run(num_tasks, [&](int64_t task) {
    kernels_.linear(weight, all, bias, y, ldy, panels * task / num_tasks,
                    panels * (task + 1) / num_tasks);
  });
}

void Runtime::per_head_linear(const std::vector<Weight>& heads, const float* x, int64_t m,
                              float* y) {
  const Weight& first = heads[0];
  const auto num_heads = int64_t(heads.size());
  PreparedRows rows(first, m * num_heads);  // BF16 or float32: no scales, so heads may interleave
  if (first.format == Format::kFloat32)
    rows.use_float32(x, first.k);
  else
    for_rows(m * num_heads, first.k,
             [&](int64_t row) { rows.set(kernels_, row, x + row * first.k); });
  pool_.run(num_heads, [&](int64_t head) {
    Rows mine = rows.slice(head, num_heads * m);
    mine.m = m;
    mine.stride *= num_heads;
    kernels_.linear(heads[size_t(head)], mine, nullptr, y + head * first.n, num_heads * first.n, 0,
                    num_panels(first));
  });
}

void Runtime::matmul_float32(const float* x, int64_t m, const float* matrix, int64_t n, int64_t k,
                             float* y) {
  constexpr int64_t kRowsPerTask = 16;  // of the matrix
  const int64_t blocks = (n + kRowsPerTask - 1) / kRowsPerTask;
  pool_.run(m * k * n < kWorkWorthATask ? 1 : blocks, [&](int64_t task) {
    const bool is_all = m * k * n < kWorkWorthATask;
    const int64_t begin = is_all ? 0 : task * kRowsPerTask;
    const int64_t end = is_all ? n : std::min(n, begin + kRowsPerTask);
    for (int64_t row = 0; row < m; ++row)
      kernels_.matvec_float32(x + row * k, matrix + begin * k, end - begin, k, y + row * n + begin);
  });
}

namespace {

// Which (token, choice) pairs each expert works on, expert by expert.
struct Grouping {
  std::vector<int64_t> pairs;    // index token * num_chosen + j, sorted by expert, then index
  std::vector<int64_t> experts;  // those with work
  std::vector<int64_t> starts;   // of each in `pairs`; one more than experts

  Grouping(const int32_t* ids, int64_t num_pairs, int64_t num_experts) {
    std::vector<int64_t> ends(size_t(num_experts) + 1);
    for (int64_t i = 0; i < num_pairs; ++i) ends[size_t(ids[i]) + 1] += 1;
    for (size_t e = 0; e < size_t(num_experts); ++e) {
      if (ends[e + 1]) experts.push_back(int64_t(e)), starts.push_back(ends[e]);
      ends[e + 1] += ends[e];
    }
    starts.push_back(num_pairs);
    pairs.resize(size_t(num_pairs));
    for (int64_t i = 0; i < num_pairs; ++i) pairs[size_t(ends[size_t(ids[i])]++)] = i;
  }
};

}  // namespace

void Runtime::routed_experts(const ExpertWeights& experts, const float* x, int64_t m,
                             const int32_t* ids, const float* weights, int64_t num_chosen,
                             float* y) {
  const int64_t num_pairs = m * num_chosen, hidden = experts.gate_up[0].k;
  const int64_t inner = experts.down[0].k;
  const Grouping grouping(ids, num_pairs, int64_t(experts.gate_up.size()));
  std::vector<float> x_sorted, gate_up(size_t(num_pairs * 2 * inner)),
      activated(size_t(num_pairs * inner)), outputs(size_t(num_pairs * hidden));

  // One product a chosen expert, all of them split evenly into runs of panels.
  const auto product = [&](const std::vector<Weight>& all, const PreparedRows& rows, float* out) {
    const int64_t n = all[0].n, panels = num_panels(all[0]);
    const int64_t total = panels * int64_t(grouping.experts.size());
    const int64_t num_tasks = std::min<int64_t>(total, pool_.num_threads() * 8);
    pool_.run(num_tasks, [&](int64_t task) {
      const int64_t stop = total * (task + 1) / num_tasks;
      for (int64_t at = total * task / num_tasks; at < stop;) {
        const auto e = size_t(at / panels);
        const int64_t end = std::min<int64_t>(panels, at % panels + stop - at);
        const int64_t begin_row = grouping.starts[e], end_row = grouping.starts[e + 1];
        kernels_.linear(all[size_t(grouping.experts[e])], rows.slice(begin_row, end_row), nullptr,
                        out + begin_row * n, n, at % panels, end);
        at += end - at % panels;
      }
    });
  };

  PreparedRows first(experts.gate_up[0], num_pairs);
  const bool is_float32 = experts.gate_up[0].format == Format::kFloat32;
  if (is_float32) x_sorted.resize(size_t(num_pairs * hidden)), first.use_float32(x_sorted.data(), hidden);
  for_rows(num_pairs, hidden, [&](int64_t i) {
    const float* row = x + grouping.pairs[size_t(i)] / num_chosen * hidden;
    if (is_float32)
      std::memcpy(x_sorted.data() + i * hidden, row, size_t(hidden) * sizeof(float));
    else
      first.set(kernels_, i, row);
  });
  product(experts.gate_up, first, gate_up.data());

  PreparedRows second(experts.down[0], num_pairs);
  if (experts.down[0].format == Format::kFloat32) second.use_float32(activated.data(), inner);
  for_rows(num_pairs, 4 * inner, [&](int64_t i) {
    kernels_.silu_and_mul(gate_up.data() + i * 2 * inner, inner, activated.data() + i * inner);
    if (experts.down[0].format != Format::kFloat32)
      second.set(kernels_, i, activated.data() + i * inner);
  });
  product(experts.down, second, outputs.data());

  std::vector<int64_t> place(static_cast<size_t>(num_pairs));
  for (int64_t i = 0; i < num_pairs; ++i) place[size_t(grouping.pairs[size_t(i)])] = i;
  for_rows(m, num_chosen * hidden, [&](int64_t row) {
    float* to = y + row * hidden;
    std::memset(to, 0, size_t(hidden) * sizeof(float));
    for (int64_t j = 0; j < num_chosen; ++j) {
      const float weight = weights[row * num_chosen + j];
      const float* from = outputs.data() + place[size_t(row * num_chosen + j)] * hidden;
      for (int64_t i = 0; i < hidden; ++i) to[i] += weight * from[i];
    }
  });
}

}  // namespace freehold
