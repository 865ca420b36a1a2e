#include "pool.h"

#include <chrono>
#include <exception>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace {

using Clock = std::chrono::steady_clock;

// Passes follow each other within a fraction of a millisecond; then the workers sleep.
constexpr auto kAwake = std::chrono::microseconds(300);
// Some 100 microseconds. Whoever waits longer waits for a thread that the system has set aside:
// asleep, it leaves its core to that thread.
constexpr int kSpins = 8000;
// Before threads are asked for again that the system did not have.
constexpr auto kShortage = std::chrono::seconds(1);

void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Only the workers that a run takes are woken: each has a number of its own to wait on.
struct alignas(64) Worker {
  std::atomic<uint32_t> num_runs{0};
};

std::atomic<int> for_all{1};
thread_local int for_this_thread = 0;  // 0: as all

}  // namespace

// All workers there are. They are never ended: a run takes as many as it wants.
class Pool {
 public:
  static Pool& shared();

  // As many threads as there are, up to `wanted`; whoever asks holds `busy`.
  int hire(int wanted);
  void run(int size, Crew::Function function, void* context);

  std::mutex busy;

 private:
  void start_worker();
  void work(Worker& worker, int thread);

  std::vector<std::unique_ptr<Worker>> workers_;
  Clock::time_point short_until_{};
  Crew::Function function_ = nullptr;
  void* context_ = nullptr;
  Team* team_ = nullptr;
  std::atomic<int> num_running_{0};
};

namespace {

// Never destroyed: its threads outlive whatever unloads the library.
Pool* const pool = new Pool;

#if !defined(_WIN32)
// Of a parent's threads a child has only the one that forked: no worker, and nobody who would give
// back what another thread had locked. It begins anew, in place, without allocating.
const int forks = pthread_atfork(nullptr, nullptr, [] { new (pool) Pool; });
#endif

}  // namespace

Pool& Pool::shared() { return *pool; }

int Pool::hire(int wanted) {
  const auto have = [this] { return static_cast<int>(workers_.size()) + 1; };
  if (have() < wanted && Clock::now() >= short_until_) {
    try {
      workers_.reserve(static_cast<size_t>(wanted));
      while (have() < wanted) start_worker();
    } catch (const std::exception&) {  // too many threads, or too little memory for their stacks
      short_until_ = Clock::now() + kShortage;
    }
  }
  return have() < wanted ? have() : wanted;
}

void Pool::start_worker() {
  auto worker = std::make_unique<Worker>();
  const int thread = static_cast<int>(workers_.size()) + 1;
  std::thread([this, &one = *worker, thread] { work(one, thread); }).detach();
  workers_.push_back(std::move(worker));
}

void Pool::run(int size, Crew::Function function, void* context) {
  Team team(size);
  function_ = function;
  context_ = context;
  team_ = &team;
  num_running_.store(size - 1, std::memory_order_relaxed);
  for (int i = 0; i < size - 1; ++i) {
    std::atomic<uint32_t>& runs = workers_[static_cast<size_t>(i)]->num_runs;
    runs.fetch_add(1, std::memory_order_release);
    runs.notify_one();
  }
  function(context, team, 0);
  for (int spins = 0;; ++spins) {
    const int running = num_running_.load(std::memory_order_acquire);
    if (running == 0) break;
    if (spins < kSpins) relax();
    else num_running_.wait(running, std::memory_order_acquire);
  }
}

void Pool::work(Worker& worker, int thread) {
  for (uint32_t seen = 0;; ++seen) {
    const auto start = Clock::now();
    for (int spins = 0; worker.num_runs.load(std::memory_order_acquire) == seen; ++spins) {
      relax();
      if (spins % 256 == 255 && Clock::now() - start > kAwake)
        worker.num_runs.wait(seen, std::memory_order_acquire);
    }
    function_(context_, *team_, thread);
    num_running_.fetch_sub(1, std::memory_order_release);
    num_running_.notify_one();
  }
}

Crew::Crew(int wanted) {
  if (wanted <= 1) return;
  alone_ = std::unique_lock<std::mutex>(Pool::shared().busy);
  size_ = Pool::shared().hire(wanted);
}

void Crew::run_erased(Function function, void* context) {
  if (size_ > 1) return Pool::shared().run(size_, function, context);
  Team team(1);
  function(context, team, 0);
}

void Team::barrier() {
  if (size_ == 1) {
    next_.store(0, std::memory_order_relaxed);
    return;
  }
  const uint32_t phase = phase_.load(std::memory_order_acquire);
  if (num_waiting_.fetch_add(1, std::memory_order_acq_rel) == size_ - 1) {
    num_waiting_.store(0, std::memory_order_relaxed);
    next_.store(0, std::memory_order_relaxed);
    phase_.store(phase + 1, std::memory_order_release);
    phase_.notify_all();
    return;
  }
  for (int spins = 0; phase_.load(std::memory_order_acquire) == phase; ++spins) {
    if (spins < kSpins) relax();
    else phase_.wait(phase, std::memory_order_acquire);
  }
}

int default_num_threads() {
  return for_this_thread > 0 ? for_this_thread : for_all.load(std::memory_order_relaxed);
}

#pragma GCC visibility push(default)
extern "C" {

void ds_set_num_threads(int count) { for_all = count < 1 ? 1 : count; }

// For calls from this thread, until it says otherwise; 0 is as all.
void ds_use_threads(int count) { for_this_thread = count; }

int ds_num_threads() { return default_num_threads(); }

}  // extern "C"
#pragma GCC visibility pop
