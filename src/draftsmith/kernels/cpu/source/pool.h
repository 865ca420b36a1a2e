// Threads that run one function together, and sleep when there is none.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

class Team;

class Pool {
 public:
  static Pool& shared();

  // Takes effect at the next `run`. At least 1.
  void set_num_threads(int count);
  int num_threads() const { return num_threads_; }

  // Runs `task(team, thread)` once in every thread; the caller is thread 0. One run at a time.
  template <class Task> void run(Task&& task) {
    run_erased([](void* context, Team& team, int thread) { (*static_cast<Task*>(context))(team, thread); },
               const_cast<void*>(static_cast<const void*>(&task)));
  }

  ~Pool();

 private:
  friend class Team;
  using Function = void (*)(void*, Team&, int);

  void run_erased(Function function, void* context);
  void start_workers();
  void stop_workers();
  void work(int thread, uint32_t seen);

  std::mutex one_run_;
  int num_threads_ = 1;
  std::vector<std::thread> workers_;
  int owner_process_ = 0;
  std::atomic<uint32_t> run_number_{0};
  std::atomic<bool> stopping_{false};
  Function function_ = nullptr;
  void* context_ = nullptr;
  Team* team_ = nullptr;
  std::atomic<int> num_running_{0};
};

// The threads of one run: barriers, and loops whose pieces go to whoever is free.
class Team {
 public:
  explicit Team(int size) : size_(size) {}
  int size() const { return size_; }

  // Everyone waits for everyone.
  void barrier();

  // Calls body(i) once for every i < count, in all threads together, and ends with a barrier.
  template <class Body> void loop(int64_t count, int64_t chunk, Body&& body) {
    for (;;) {
      const int64_t first = next_.fetch_add(chunk, std::memory_order_relaxed);
      if (first >= count) break;
      const int64_t last = first + chunk < count ? first + chunk : count;
      for (int64_t i = first; i < last; ++i) body(i);
    }
    barrier();
  }

 private:
  int size_;
  alignas(64) std::atomic<int64_t> next_{0};
  alignas(64) std::atomic<int> num_waiting_{0};
  alignas(64) std::atomic<uint32_t> phase_{0};
};

// body(i) for every i < count, on the shared pool.
template <class Body> void parallel(int64_t count, int64_t chunk, Body&& body) {
  Pool::shared().run([&](Team& team, int) { team.loop(count, chunk, body); });
}
