// Matrix products over threads, for one weight and for routed experts (grouped products: rows
// sorted by expert, experts nobody chose untouched). Tasks are runs of output panels.

#include <algorithm>
#include <cstring>

#include "arena.h"
#include "for_rows.h"

namespace freehold {
namespace {

int64_t num_panels(int64_t columns) { return (columns + kPanel - 1) / kPanel; }
int64_t num_blocks(int64_t rows) { return (rows + kRowBlock - 1) / kRowBlock; }

// Activations in the form a weight's format wants: batches of rows, blocks of which are prepared
// one by one, by any thread.
class PreparedRows {
 public:
  PreparedRows(Arena& arena, const Weight& weight, int64_t num_rows)
      : weight_(weight),
        units_(units_a_row(weight)),
        data_(arena.take<uint32_t>(num_rows * units_)) {
    if (weight.format != Format::kInt8 && weight.format != Format::kInt4) return;
    num_groups_ = weight.padded_k / weight.group_size;
    scales_ = arena.take<float>(num_rows);
    offsets_ = arena.take<int32_t>(num_rows * num_groups_);
  }

  // Rows [begin, begin + count), a block of their batch; row(i) is where row i lies.
  template <class Row>
  void set(const Kernels& kernels, int64_t begin, int64_t count, Row row) {
    thread_local std::vector<uint8_t> scratch;
    scratch.resize(size_t(kRowBlock * row_scratch(weight_)));
    const float* x[kRowBlock];
    for (int64_t r = 0; r < count; ++r) x[r] = row(begin + r);
    kernels.prepare(x, count, weight_,
                    {data_ + begin * units_, scales_ + begin, offsets_ + begin * num_groups_,
                     scratch.data()});
  }

  Rows slice(int64_t begin, int64_t end) const {
    return {end - begin, units_, data_ + begin * units_, scales_ + begin,
            offsets_ + begin * num_groups_};
  }

 private:
  const Weight& weight_;
  int64_t units_, num_groups_ = 0;
  uint32_t* data_;
  float* scales_ = nullptr;
  int32_t* offsets_ = nullptr;
};

void multiply(const Kernels& kernels, const Product& product, int64_t panel_begin,
              int64_t panel_end) {
  kernels.matmul[int(product.weight.format)](product, panel_begin, panel_end);
}

}  // namespace

// One product: its rows prepared, then its panels over the threads.
void Runtime::product(const Weight& weight, const float* x, int64_t m, const float* bias,
                      bool is_gated, float* y) {
  PreparedRows rows(Arena::start(), weight, m);
  for_rows(num_blocks(m), kRowBlock * weight.k, [&](int64_t block) {
    const int64_t begin = block * kRowBlock;
    rows.set(kernels_, begin, std::min<int64_t>(kRowBlock, m - begin),
             [&](int64_t row) { return x + row * weight.k; });
  });
  const Rows all = rows.slice(0, m);
  const int64_t columns = is_gated ? weight.n / 2 : weight.n;
  const Product product{weight, all, bias, is_gated, y, columns};
  const int64_t panels = num_panels(columns);
  const int64_t bytes_per_panel = weight_bytes(weight.format, kPanel, weight.k);
  const int64_t work_per_panel = bytes_per_panel * std::max<int64_t>(1, m / 4);
  const int64_t most_tasks = std::max<int64_t>(1, panels * work_per_panel / kWorkWorthATask);
  const int64_t quads = (panels + 3) / 4;  // kernels take up to four panels at once
  const int64_t num_tasks = std::min({quads, most_tasks, int64_t(pool_.num_threads()) * 4});
  pool_.run(num_tasks, [&](int64_t task) {
    multiply(kernels_, product, quads * task / num_tasks * 4,
             std::min(panels, quads * (task + 1) / num_tasks * 4));
  });
}

void Runtime::linear(const Weight& weight, const float* x, int64_t m, const float* bias, float* y) {
  product(weight, x, m, bias, false, y);
}

void Runtime::gated_linear(const Weight& weight, const float* x, int64_t m, const float* bias,
                           float* y) {
  product(weight, x, m, bias, true, y);
}

void Runtime::per_head_linear(const std::vector<Weight>& heads, const float* x, int64_t m,
                              float* y) {
  const Weight& first = heads[0];
  const auto num_heads = int64_t(heads.size()), blocks = num_blocks(m);
  PreparedRows rows(Arena::start(), first, m * num_heads);  // of head h: [h * m, (h + 1) * m)
  for_rows(num_heads * blocks, kRowBlock * first.k, [&](int64_t i) {
    const int64_t head = i / blocks, begin = i % blocks * kRowBlock;
    rows.set(kernels_, head * m + begin, std::min<int64_t>(kRowBlock, m - begin),
             [&](int64_t row) { return x + ((row - head * m) * num_heads + head) * first.k; });
  });
  pool_.run(num_heads, [&](int64_t head) {
    const Rows slice = rows.slice(head * m, (head + 1) * m);
    multiply(kernels_,
             {heads[size_t(head)], slice, nullptr, false, y + head * first.n, num_heads * first.n},
             0, num_panels(first.n));
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
  struct Block {
    int64_t begin, count;
  };
  std::vector<Block> blocks;  // of each expert's run of pairs, up to 8

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
    for (size_t e = 0; e < experts.size(); ++e)
      for (int64_t begin = starts[e]; begin < starts[e + 1]; begin += kRowBlock)
        blocks.push_back({begin, std::min<int64_t>(kRowBlock, starts[e + 1] - begin)});
  }
};

}  // namespace

void Runtime::routed_experts(const ExpertWeights& experts, const float* x, int64_t m,
                             const int32_t* ids, const float* weights, int64_t num_chosen,
                             float* y) {
  const int64_t num_pairs = m * num_chosen, hidden = experts.gate_up[0].k;
  const int64_t inner = experts.down[0].k;
  const Grouping grouping(ids, num_pairs, int64_t(experts.gate_up.size()));
  const auto num_runs = int64_t(grouping.experts.size());
  Arena& arena = Arena::start();
  PreparedRows first(arena, experts.gate_up[0], num_pairs);
  PreparedRows second(arena, experts.down[0], num_pairs);
  auto* activated = arena.take<float>(num_pairs * inner);
  auto* outputs = arena.take<float>(num_pairs * hidden);

  // The rows of each chosen expert are a batch of their own.
  const auto prepare = [&](PreparedRows& rows, int64_t width, auto row) {
    for_rows(int64_t(grouping.blocks.size()), kRowBlock * width, [&](int64_t i) {
      const auto [begin, count] = grouping.blocks[size_t(i)];
      rows.set(kernels_, begin, count, row);
    });
  };
  // One product a chosen expert, all of them split evenly into runs of panels.
  const auto product = [&](const std::vector<Weight>& all, const PreparedRows& rows, bool is_gated,
                           int64_t columns, float* out) {
    const int64_t panels = num_panels(columns), total = panels * num_runs;
    const int64_t num_tasks = std::min<int64_t>(total, pool_.num_threads() * 8);
    pool_.run(num_tasks, [&](int64_t task) {
      const int64_t stop = total * (task + 1) / num_tasks;
      for (int64_t at = total * task / num_tasks; at < stop;) {
        const auto e = size_t(at / panels);
        const int64_t end = std::min<int64_t>(panels, at % panels + stop - at);
        const Rows slice = rows.slice(grouping.starts[e], grouping.starts[e + 1]);
        multiply(kernels_,
                 {all[size_t(grouping.experts[e])], slice, nullptr, is_gated,
                  out + grouping.starts[e] * columns, columns},
                 at % panels, end);
        at += end - at % panels;
      }
    });
  };

  prepare(first, hidden, [&](int64_t i) {
    return x + grouping.pairs[size_t(i)] / num_chosen * hidden;
  });
  product(experts.gate_up, first, true, inner, activated);
  prepare(second, inner, [&](int64_t i) { return activated + i * inner; });
  product(experts.down, second, false, hidden, outputs);

  std::vector<int64_t> place(static_cast<size_t>(num_pairs));
  for (int64_t i = 0; i < num_pairs; ++i) place[size_t(grouping.pairs[size_t(i)])] = i;
  for_rows(m, num_chosen * hidden, [&](int64_t row) {
    float* to = y + row * hidden;
    std::memset(to, 0, size_t(hidden) * sizeof(float));
    for (int64_t j = 0; j < num_chosen; ++j) {
      const float* from = outputs + place[size_t(row * num_chosen + j)] * hidden;
      kernels_.add_scaled(from, weights[row * num_chosen + j], hidden, to);
    }
  });
}

}  // namespace freehold
