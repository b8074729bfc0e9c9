// A fixed set of threads that share out numbered tasks. Which thread takes a task never matters:
// tasks write to disjoint places and each computes its result alone. Knows no kernels.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

namespace freehold {

class ThreadPool {
 public:
  explicit ThreadPool(int num_threads);  // the caller is one of them
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return num_threads_; }

  // Calls body(task) once for each task in [0, num_tasks), returns when all are done. `body` must
  // not throw. Safe from several threads (they take turns) and in a child after fork().
  template <class Body>
  void run(int64_t num_tasks, Body&& body) {
    using Plain = std::remove_reference_t<Body>;
    run_erased(num_tasks, &body, [](void* b, int64_t task) { (*static_cast<Plain*>(b))(task); });
  }

 private:
  using Call = void (*)(void* body, int64_t task);
  struct Team;
  void replace_team();  // after a fork
  void run_erased(int64_t num_tasks, void* body, Call call);

  int num_threads_;
  std::unique_ptr<Team> team_;
};

}  // namespace freehold
