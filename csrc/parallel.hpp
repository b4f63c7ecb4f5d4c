// parallel_for(n, grain, f): the only place that knows threads. A small pool whose free threads take chunks of work;
// the caller works too and waits for nobody who has not begun, so a busy neighbour does not stall it.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <type_traits>

namespace pynn {

int thread_count() noexcept;   // for a call on this thread
void set_thread_count(int n);  // 1 .. max_threads
bool workers_awake() noexcept; // from a job just before: they take work at once
inline constexpr int max_threads = 256;
inline constexpr std::size_t elementwise_grain = 16384; // elements that keep a thread busy for several microseconds

// PYNN_NUM_THREADS, else the CPUs this process may use (affinity, cgroup quota)
struct DefaultThreads {
    int count;
    const char *reason;
};
DefaultThreads default_threads();

// While it lives, calls on this thread use at most so many threads (0: as set for the process), and ask nobody whether
// to end: who calls from C may hold what the one who is asked waits for.
class CallSettings {
  public:
    explicit CallSettings(int threads) noexcept;
    ~CallSettings();
    CallSettings(const CallSettings &) = delete;
    CallSettings &operator=(const CallSettings &) = delete;

  private:
    int threads_;
    bool asks_;
};

namespace detail {
using Work = void (*)(void *context, std::size_t begin, std::size_t end, int slot);
void run_parallel(std::size_t n, std::size_t chunk, int threads, Work work, void *context);

template <class F> void run_chunks(std::size_t n, std::size_t chunk, int threads, F &f) {
    run_parallel(
        n, chunk, threads,
        [](void *context, std::size_t begin, std::size_t end, int slot) {
            (*static_cast<F *>(context))(begin, end, slot);
        },
        const_cast<void *>(static_cast<const void *>(std::addressof(f))));
}
} // namespace detail

// Calls f(begin, end, slot) for consecutive parts of 0 .. n of nearly equal length, each but the last at least half of grain,
// on at most so many threads. slot is below threads and no two parts that run at once share it. f must not throw.
template <class F> void parallel_for_slots(std::size_t n, std::size_t grain, int threads, F &&f) {
    grain = std::max<std::size_t>(grain, 1);
    constexpr std::size_t chunks_per_thread = 4; // enough for a free thread to take over from a slow one
    constexpr std::size_t line = 64;             // elements of a byte: long parts begin where lines do
    const auto each = static_cast<std::size_t>(threads);
    std::size_t chunks = std::clamp<std::size_t>((n + grain - 1) / grain, 1, chunks_per_thread * each);
    if (chunks > each) chunks = (chunks + each - 1) / each * each; // or one thread has more to do
    const std::size_t chunk = (n + chunks - 1) / chunks;
    detail::run_chunks(n, grain < line ? chunk : (chunk + line - 1) / line * line, threads, f);
}

// The same for f(begin, end) on thread_count() threads.
template <class F> void parallel_for(std::size_t n, std::size_t grain, F &&f) {
    parallel_for_slots(n, grain, thread_count(), [&f](std::size_t begin, std::size_t end, int) { f(begin, end); });
}

// Calls f(number, slot) for tasks 0 .. n - 1 that are long enough to be taken one by one, in any order.
template <class F> void parallel_tasks(std::size_t n, int threads, F &&f) {
    const auto some = [&f](std::size_t begin, std::size_t end, int slot) {
        for (; begin < end; ++begin) f(begin, slot);
    };
    detail::run_chunks(n, 1, threads, some);
}

// What a long call that was asked to end throws.
struct Interrupted {};

// Whether whoever waits for a long call wants it to end: asked now and then between tasks, on the calling thread.
class Patience {
  public:
    static void set_check(bool (*interrupted)()); // true: end
    bool over() const noexcept { return over_.load(std::memory_order_relaxed); }
    void ask(int slot); // only slot 0, the calling thread, asks
    void end() const {
        if (over()) throw Interrupted();
    }

  private:
    std::atomic<bool> over_{false};
    std::chrono::steady_clock::time_point asked_ = std::chrono::steady_clock::now();
};

} // namespace pynn
