// Attention over threads. The step's keys are written first. Then each task takes some queries of
// one request that share a key head through the context, run by run; a run's borders depend on
// positions alone and runs are folded in ascending order, so a query's result has the same bits
// in any batch, however its prompt was cut, and whether one thread or several took its runs.

#include <algorithm>
#include <cstring>

#include "for_rows.h"

namespace freehold {
namespace {

constexpr int64_t kRunKeys = 256;
constexpr int64_t kTaskQueries = 96;  // that share what a run brings into cache
constexpr int64_t kMostPartialBytes = int64_t(64)
                                      << 20;  // for runs of one query on several threads

struct Step {
  const float *q, *k, *v;
  const PagedCache& cache;
  const Layout& layout;
  int64_t num_heads, group, value_dim, value_size;  // value_size: value_dim, padded
  float scale;
  int64_t window;  // keys a row sees: itself and those before it
  float* out;

  int64_t run_blocks() const { return std::max<int64_t>(1, kRunKeys / cache.block_size); }
  int64_t run_keys() const { return run_blocks() * cache.block_size; }
};

// Consecutive (row, head of the group) pairs of one request.
struct Task {
  int64_t request, kv_head, first, count;

  int64_t row(const Step& s, int64_t i) const {
    return s.layout.query_starts[request] + (first + i) / s.group;
  }
  int64_t head(const Step& s, int64_t i) const { return kv_head * s.group + (first + i) % s.group; }
  int64_t context(const Step& s) const { return s.layout.positions[row(s, count - 1)] + 1; }
  // Of the row of query i: the first key it sees.
  int64_t begin(const Step& s, int64_t i) const {
    return std::max<int64_t>(0, s.layout.positions[row(s, i)] + 1 - s.window);
  }
  int64_t first_run(const Step& s) const { return begin(s, 0) / s.run_keys(); }
  int64_t end_run(const Step& s) const { return (context(s) + s.run_keys() - 1) / s.run_keys(); }
  int64_t num_runs(const Step& s) const { return end_run(s) - first_run(s); }
};

std::vector<Task> tasks_of(const Step& s) {
  std::vector<Task> tasks;
  const int64_t most = std::max<int64_t>(1, kTaskQueries / s.group) * s.group;
  for (int64_t r = 0; r < s.layout.num_requests; ++r) {
    const int64_t rows = s.layout.query_starts[r + 1] - s.layout.query_starts[r];
    for (int64_t head = 0; head < s.cache.num_kv_heads; ++head)
      for (int64_t first = 0; first < rows * s.group; first += most)
        tasks.push_back({r, head, first, std::min(most, rows * s.group - first)});
  }
  return tasks;
}

// Scratch of one thread: a task's queries in the kernel's order, and what the kernel needs.
struct Workspace {
  std::vector<uint16_t> queries, rounded, widened;
  std::vector<float> scratch, key_scales, value_scales;
  std::vector<int32_t> begin, end;
  std::vector<const uint16_t*> keys, values;
  const Task* task = nullptr;

  void gather(const Kernels& kernels, const Step& s, const Task& t) {
    task = &t;
    const int64_t dim = s.cache.dim, padded = round_up(dim, 2);
    const bool is_latent = s.cache.is_latent;
    const int64_t lanes = round_up(t.count, kLatentQueries);
    rounded.resize(size_t(padded));
    rounded.back() = 0;  // beyond an odd dim
    queries.resize(size_t(lanes * padded));
    if (is_latent) std::fill(queries.end() - kLatentQueries * padded, queries.end(), uint16_t(0));
    for (int64_t i = 0; i < t.count; ++i) {
      const float* from = s.q + (t.row(s, i) * s.num_heads + t.head(s, i)) * dim;
      if (!is_latent) {
        kernels.to_bf16(from, dim, queries.data() + i * dim);
        continue;
      }
      kernels.to_bf16(from, dim, rounded.data());
      const int64_t lane = i % kLatentQueries;
      uint16_t* to = queries.data() + (i - lane) * padded + 2 * lane;
      for (int64_t d = 0; d < padded; d += 2)
        std::memcpy(to + d * kLatentQueries, &rounded[size_t(d)], 4);
    }
    begin.resize(size_t(t.count)), end.resize(size_t(t.count));
    scratch.resize(size_t(lanes * s.run_blocks() * round_up(s.cache.block_size, kKeyPanel)));
  }

  // Where `num_keys` keys from the run's first on lie.
  void find(const Step& s, const int32_t* blocks, int64_t num_keys) {
    const PagedCache& c = s.cache;
    keys.clear(), values.clear();
    for (int64_t first = 0; first < num_keys; first += c.block_size, ++blocks) {
      add(c, reinterpret_cast<uint16_t*>(c.key_block(*blocks, task->kv_head)),
          reinterpret_cast<uint16_t*>(c.value_block(*blocks, task->kv_head)), num_keys - first);
    }
  }

  void add(const PagedCache& c, const uint16_t* key_block, const uint16_t* value_block,
           int64_t num_left) {
    if (!c.is_latent) return keys.push_back(key_block), values.push_back(value_block);
    for (int64_t i = 0; i < std::min(c.block_size, num_left); ++i)
      keys.push_back(key_block + i * c.value_size);
  }

  // A run of an INT8 cache as bfloat16, which holds its integers exactly, and its scales.
  void widen(const Kernels& kernels, const Step& s, const int32_t* blocks, int64_t num_keys) {
    const PagedCache& c = s.cache;
    const int64_t head = task->kv_head, count = c.key_count + c.value_count;
    const int64_t lanes = c.is_latent ? c.block_size : round_up(c.block_size, kKeyPanel);
    widened.resize(size_t(s.run_blocks() * count));
    key_scales.assign(size_t(s.run_blocks() * lanes), 0);  // nothing is multiplied by what is stale
    value_scales.assign(key_scales.size(), 0);
    keys.clear(), values.clear();
    uint16_t* to = widened.data();
    for (int64_t first = 0; first < num_keys; first += c.block_size, ++blocks, to += count) {
      const int64_t here = std::min(c.block_size, num_keys - first);
      const int64_t next = here < num_keys - first ? blocks[1] : *blocks;
      const auto block = [&](uint8_t* p) { return reinterpret_cast<const int8_t*>(p); };
      kernels.int8_to_bf16(block(c.key_block(*blocks, head)), block(c.key_block(next, head)),
                           c.is_latent ? here * c.value_size : c.key_count, to);
      std::copy_n(c.key_scales(*blocks, head), here,
                  key_scales.data() + first / c.block_size * lanes);
      if (!c.is_latent) {
        kernels.int8_to_bf16(block(c.value_block(*blocks, head)),
                             block(c.value_block(next, head)), c.value_count, to + c.key_count);
        std::copy_n(c.value_scales(*blocks, head), here,
                    value_scales.data() + first / c.block_size * lanes);
      }
      add(c, to, to + c.key_count, here);
    }
  }

  void attend(const Kernels& kernels, const Step& s, int64_t run, const Partial& out) {
    const PagedCache& c = s.cache;
    for (int64_t i = 0; i < task->count; ++i) {
      const int64_t seen = s.layout.positions[task->row(s, i)] + 1 - run * s.run_keys();
      const int64_t from = task->begin(s, i) - run * s.run_keys();
      begin[size_t(i)] = int32_t(std::clamp<int64_t>(from, 0, s.run_keys()));
      end[size_t(i)] = int32_t(std::clamp<int64_t>(seen, 0, s.run_keys()));
    }
    const int32_t* blocks =
        s.layout.block_tables + task->request * s.layout.max_blocks + run * s.run_blocks();
    const int64_t left = task->context(s) - run * s.run_keys();
    if (c.is_int8)
      widen(kernels, s, blocks, std::min(s.run_keys(), left));
    else
      find(s, blocks, std::min(2 * s.run_keys(), left));
    const Attention attention{
        .queries = queries.data(),
        .begin = begin.data(),
        .end = end.data(),
        .num_queries = task->count,
        .dim = c.dim,
        .value_dim = s.value_size,
        .keys = keys.data(),
        .values = values.data(),
        .key_scales = c.is_int8 ? key_scales.data() : nullptr,
        .value_scales = c.is_int8 && !c.is_latent ? value_scales.data() : nullptr,
        .num_blocks = int64_t(keys.size()),
        .block_size = c.block_size,
        .scale = s.scale * 1.44269504f,
        .scratch = scratch.data(),
    };
    (c.is_latent ? kernels.latent_attention : kernels.grouped_attention)(attention, out);
  }
};

Workspace& workspace() {
  thread_local Workspace mine;
  return mine;
}

Partial partial_at(float* memory, int64_t count) {
  return {memory, memory + count, memory + 2 * count};
}

void write_out(const Step& s, const Task& t, const Partial& total) {
  for (int64_t i = 0; i < t.count; ++i) {
    const float inverse = 1.0f / total.sum[i];
    const float* __restrict mix = total.mix + i * s.value_size;
    float* __restrict out = s.out + (t.row(s, i) * s.num_heads + t.head(s, i)) * s.value_dim;
    const int64_t size = s.value_dim;
    for (int64_t d = 0; d < size; ++d) out[d] = mix[d] * inverse;
  }
}

// A task's runs one after the other, on the thread that took it.
void attend_whole(const Kernels& kernels, const Step& s, const Task& t) {
  thread_local std::vector<float> memory;
  const int64_t size = t.count * (s.value_size + 2);
  memory.resize(size_t(2 * size));
  const Partial total = partial_at(memory.data(), t.count);
  const Partial next = partial_at(memory.data() + size, t.count);
  Workspace& mine = workspace();
  mine.gather(kernels, s, t);
  mine.attend(kernels, s, t.first_run(s), total);
  for (int64_t run = t.first_run(s) + 1; run < t.end_run(s); ++run) {
    mine.attend(kernels, s, run, next);
    kernels.merge(total, next, t.count, s.value_size);
  }
  write_out(s, t, total);
}

}  // namespace

void Runtime::attention(const float* q, const float* k, const float* v, const PagedCache& cache,
                        int64_t num_heads, int64_t value_dim, const Layout& layout, float scale,
                        int64_t window, float* out) {
  const Step step{q,
                  k,
                  v,
                  cache,
                  layout,
                  num_heads,
                  num_heads / cache.num_kv_heads,
                  value_dim,
                  round_up(value_dim, cache.is_latent ? 32 : 16),
                  scale,
                  window,
                  out};
  for_rows(layout.num_tokens, 4 * cache.num_kv_heads * cache.dim,
           [&](int64_t row) {
             const int64_t first = row * cache.num_kv_heads * cache.dim;
             write_token(kernels_, cache, layout.slots[row], k + first, v ? v + first : nullptr);
           });
  const std::vector<Task> tasks = tasks_of(step);

  struct Run {
    const Task* task;
    int64_t run;
    float* memory;
  };
  std::vector<Run> runs;
  int64_t floats = 0;
  for (const Task& t : tasks) floats += t.num_runs(step) * t.count * (step.value_size + 2);
  const bool is_split = int64_t(tasks.size()) < 2 * pool_.num_threads() &&
                        pool_.num_threads() > 1 &&
                        floats * int64_t(sizeof(float)) <= kMostPartialBytes;
  if (!is_split) {
    pool_.run(int64_t(tasks.size()), [&](int64_t i) {  // the longest contexts come last
      attend_whole(kernels_, step, tasks[tasks.size() - 1 - size_t(i)]);
    });
    return;
  }
  thread_local std::vector<float> partials;
  partials.resize(size_t(floats));
  float* memory = partials.data();
  for (const Task& t : tasks)
    for (int64_t run = t.first_run(step); run < t.end_run(step); ++run) {
      runs.push_back({&t, run, memory});
      memory += t.count * (step.value_size + 2);
    }
  pool_.run(int64_t(runs.size()), [&](int64_t i) {
    const Run& r = runs[size_t(i)];
    Workspace& mine = workspace();
    mine.gather(kernels_, step, *r.task);
    mine.attend(kernels_, step, r.run, partial_at(r.memory, r.task->count));
  });
  for (size_t i = 0; i < runs.size();) {
    const Task& t = *runs[i].task;
    const Partial total = partial_at(runs[i].memory, t.count);
    for (++i; i < runs.size() && runs[i].task == &t; ++i)
      kernels_.merge(total, partial_at(runs[i].memory, t.count), t.count, step.value_size);
    write_out(step, t, total);
  }
}

}  // namespace freehold
