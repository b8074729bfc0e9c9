// Matrix products over threads, for one weight and for routed experts (grouped products: rows
// sorted by expert, experts nobody chose untouched). Tasks are runs of output panels.

#include <algorithm>
#include <cstring>

#include "for_rows.h"

namespace freehold {
namespace {

int64_t num_panels(const Weight& weight) { return (weight.n + kPanel - 1) / kPanel; }

int64_t units_of(const Weight& weight) {
  switch (weight.format) {
    case Format::kFloat32:
      return weight.padded_k;
    case Format::kBf16:
      return weight.padded_k / 2;
    default:
      return weight.padded_k / 4;
  }
}

// Activations in the form a weight's format wants.
class PreparedRows {
 public:
  PreparedRows(const Weight& weight, int64_t num_rows)
      : weight_(weight), units_(units_of(weight)), data_(size_t(num_rows * units_)) {
    if (weight.format != Format::kInt8 && weight.format != Format::kInt4) return;
    num_groups_ = weight.padded_k / weight.group_size;
    scales_.resize(size_t(num_rows));
    offsets_.resize(size_t(num_rows * num_groups_));
  }

  // Row `row` of the batch of its own that rows [begin, end) form.
  void set(const Kernels& kernels, int64_t row, int64_t begin, int64_t end, const float* x) {
    thread_local std::vector<int8_t> scratch;
    scratch.resize(size_t(weight_.padded_k + 16));
    const Interleaved place(row - begin, end - begin, kRowBlock);
    const int64_t block = begin + place.first;
    kernels.prepare_row(
        x, weight_,
        {data_.data() + block * units_ + place.lane, place.stride, scales_.data() + row,
         offsets_.data() + block * num_groups_ + place.lane, scratch.data()});
  }

  Rows slice(int64_t begin, int64_t end) const {
    return {end - begin, units_, data_.data() + begin * units_, scales_.data() + begin,
            offsets_.data() + begin * num_groups_};
  }

 private:
  const Weight& weight_;
  int64_t units_, num_groups_ = 0;
  std::vector<uint32_t> data_;
  std::vector<float> scales_;
  std::vector<int32_t> offsets_;
};

void multiply(const Kernels& kernels, const Weight& weight, const Rows& rows, const float* bias,
              float* y, int64_t ldy, int64_t panel_begin, int64_t panel_end) {
  kernels.matmul[int(weight.format)](weight, rows, bias, y, ldy, panel_begin, panel_end);
}

}  // namespace

void Runtime::linear(const Weight& weight, const float* x, int64_t m, const float* bias, float* y) {
  PreparedRows rows(weight, m);
  for_rows(m, weight.k, [&](int64_t row) { rows.set(kernels_, row, 0, m, x + row * weight.k); });
  const int64_t panels = num_panels(weight);
  const int64_t bytes_per_panel = weight_bytes(weight.format, kPanel, weight.k);
  const int64_t work_per_panel = bytes_per_panel * std::max<int64_t>(1, m / 4);
  const int64_t most_tasks = std::max<int64_t>(1, panels * work_per_panel / kWorkWorthATask);
  const int64_t quads = (panels + 3) / 4;  // kernels take up to four panels at once
  const int64_t num_tasks = std::min({quads, most_tasks, int64_t(pool_.num_threads()) * 4});
  const Rows all = rows.slice(0, m);
  pool_.run(num_tasks, [&](int64_t task) {
    multiply(kernels_, weight, all, bias, y, weight.n, quads * task / num_tasks * 4,
             std::min(panels, quads * (task + 1) / num_tasks * 4));
  });
}

void Runtime::per_head_linear(const std::vector<Weight>& heads, const float* x, int64_t m,
                              float* y) {
  const Weight& first = heads[0];
  const auto num_heads = int64_t(heads.size());
  PreparedRows rows(first, m * num_heads);  // of head h: [h * m, (h + 1) * m)
  for_rows(m * num_heads, first.k, [&](int64_t i) {
    const int64_t head = i / m, row = i % m;
    rows.set(kernels_, i, head * m, (head + 1) * m, x + (row * num_heads + head) * first.k);
  });
  pool_.run(num_heads, [&](int64_t head) {
    multiply(kernels_, heads[size_t(head)], rows.slice(head * m, (head + 1) * m), nullptr,
             y + head * first.n, num_heads * first.n, 0, num_panels(first));
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
  std::vector<float> gate_up(size_t(num_pairs * 2 * inner)), activated(size_t(num_pairs * inner)),
      outputs(size_t(num_pairs * hidden));

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
        multiply(kernels_, all[size_t(grouping.experts[e])], rows.slice(begin_row, end_row),
                 nullptr, out + begin_row * n, n, at % panels, end);
        at += end - at % panels;
      }
    });
  };

  std::vector<size_t> run_of(static_cast<size_t>(num_pairs));  // which of grouping.experts
  for (size_t e = 0; e < grouping.experts.size(); ++e)
    std::fill(run_of.begin() + grouping.starts[e], run_of.begin() + grouping.starts[e + 1], e);
  const auto prepare = [&](PreparedRows& rows, int64_t i, const float* row) {
    const size_t e = run_of[size_t(i)];
    rows.set(kernels_, i, grouping.starts[e], grouping.starts[e + 1], row);
  };

  PreparedRows first(experts.gate_up[0], num_pairs);
  for_rows(num_pairs, hidden, [&](int64_t i) {
    prepare(first, i, x + grouping.pairs[size_t(i)] / num_chosen * hidden);
  });
  product(experts.gate_up, first, gate_up.data());

  PreparedRows second(experts.down[0], num_pairs);
  for_rows(num_pairs, 4 * inner, [&](int64_t i) {
    kernels_.silu_and_mul(gate_up.data() + i * 2 * inner, inner, activated.data() + i * inner);
    prepare(second, i, activated.data() + i * inner);
  });
  product(experts.down, second, outputs.data());

  std::vector<int64_t> place(static_cast<size_t>(num_pairs));
  for (int64_t i = 0; i < num_pairs; ++i) place[size_t(grouping.pairs[size_t(i)])] = i;
  for_rows(m, num_chosen * hidden, [&](int64_t row) {
    float* to = y + row * hidden;
    std::memset(to, 0, size_t(hidden) * sizeof(float));
    for (int64_t j = 0; j < num_chosen; ++j) {
      const float* from = outputs.data() + place[size_t(row * num_chosen + j)] * hidden;
      kernels_.add_scaled(from, weights[row * num_chosen + j], hidden, to);
    }
  });
}

}  // namespace freehold
