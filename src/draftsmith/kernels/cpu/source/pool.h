// Threads that run one function together, and sleep when there is none.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

class Team;

// What a call runs on that brings no number of its own: the calling thread's, or the process's.
int default_num_threads();

// Threads for one call, which has them alone from here to its end. So what it lays out for each of
// them fits, whatever other calls ask for meanwhile. Whoever has a crew must not ask for another.
class Crew {
 public:
  // At least the calling thread; fewer than wanted where the system has no more.
  explicit Crew(int wanted = default_num_threads());
  int size() const { return size_; }

  // Runs `task(team, thread)` once in every thread; the caller is thread 0.
  template <class Task> void run(Task&& task) {
    run_erased([](void* context, Team& team, int thread) { (*static_cast<Task*>(context))(team, thread); },
               const_cast<void*>(static_cast<const void*>(&task)));
  }

 private:
  using Function = void (*)(void*, Team&, int);
  friend class Pool;

  void run_erased(Function function, void* context);

  std::unique_lock<std::mutex> alone_;  // a crew of one shares nothing, and waits for nobody
  int size_ = 1;
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

// body(i) for every i < count, on as many threads as there are chunks for.
template <class Body> void parallel(int64_t count, int64_t chunk, Body&& body) {
  const int64_t chunks = (count + chunk - 1) / chunk, threads = default_num_threads();
  Crew crew(static_cast<int>(chunks < threads ? chunks : threads));
  crew.run([&](Team& team, int) { team.loop(count, chunk, body); });
}
