#include "pool.h"

#include <chrono>

#if !defined(_WIN32)
#include <unistd.h>
#endif

namespace {

// Passes follow each other within a fraction of a millisecond; then the workers sleep.
constexpr auto kAwake = std::chrono::microseconds(300);
// Some 100 microseconds. Whoever waits longer waits for a thread that the system has set aside:
// asleep, it leaves its core to that thread.
constexpr int kSpins = 8000;

void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

int process_id() {
#if defined(_WIN32)
  return 1;
#else
  return static_cast<int>(getpid());
#endif
}

}  // namespace

Pool& Pool::shared() {
  // Never destroyed: threads must not be joined while a library is unloaded.
  static Pool* pool = new Pool;
  return *pool;
}

Pool::~Pool() { stop_workers(); }

void Pool::set_num_threads(int count) {
  const std::lock_guard<std::mutex> lock(one_run_);
  if (count == num_threads_) return;
  stop_workers();
  num_threads_ = count < 1 ? 1 : count;
}

void Pool::start_workers() {
  owner_process_ = process_id();
  stopping_ = false;
  for (int thread = 1; thread < num_threads_; ++thread)
    workers_.emplace_back([this, thread, seen = run_number_.load()] { work(thread, seen); });
}

void Pool::stop_workers() {
  if (workers_.empty()) return;
  if (owner_process_ == process_id()) {
    stopping_ = true;
    run_number_.fetch_add(1, std::memory_order_release);
    run_number_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  } else {  // after a fork only the calling thread is left
    for (std::thread& worker : workers_) worker.detach();
  }
  workers_.clear();
}

void Pool::run_erased(Function function, void* context) {
  const std::lock_guard<std::mutex> lock(one_run_);
  if (!workers_.empty() && owner_process_ != process_id()) stop_workers();
  if (static_cast<int>(workers_.size()) != num_threads_ - 1) start_workers();
  Team team(num_threads_);
  function_ = function;
  context_ = context;
  team_ = &team;
  num_running_.store(num_threads_ - 1, std::memory_order_relaxed);
  run_number_.fetch_add(1, std::memory_order_release);
  if (num_threads_ > 1) run_number_.notify_all();
  function(context, team, 0);
  for (int spins = 0;; ++spins) {
    const int running = num_running_.load(std::memory_order_acquire);
    if (running == 0) break;
    if (spins < kSpins) relax();
    else num_running_.wait(running, std::memory_order_acquire);
  }
}

void Pool::work(int thread, uint32_t seen) {
  for (;;) {
    const auto start = std::chrono::steady_clock::now();
    for (int spins = 0; run_number_.load(std::memory_order_acquire) == seen; ++spins) {
      relax();
      if (spins % 256 == 255 && std::chrono::steady_clock::now() - start > kAwake)
        run_number_.wait(seen, std::memory_order_acquire);
    }
    ++seen;
    if (stopping_) return;
    function_(context_, *team_, thread);
    num_running_.fetch_sub(1, std::memory_order_release);
    num_running_.notify_one();
  }
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
