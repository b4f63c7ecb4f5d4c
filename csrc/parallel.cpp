// The thread pool. One job runs at a time; a caller that finds it taken does its work alone, with the same results.
#include "parallel.hpp"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

#include "simd/environment.hpp"

namespace pynn {
namespace {

inline void relax() noexcept {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

// The CPU that this thread is on; -1 where nobody says.
inline int current_cpu() noexcept {
#if defined(__linux__)
    return sched_getcpu();
#else
    return -1;
#endif
}

constexpr int worker_spins = 2000; // some 20 to 60 microseconds awake for the next job, then sleep
constexpr int caller_spins = 20000;

// One 64-bit word, the ticket, holds how many workers may help (high half) and how many chunks nobody has taken yet (low
// half). Whoever takes one by compare-and-swap knows that its job stands until that chunk is done, so the job's fields may
// be read. Which chunk it is comes after: each thread has a range of its own, so that it finds in its cache what it wrote
// in the job before, and takes from the others' ranges when that one is done.
class Pool {
  public:
    void run(std::size_t n, std::size_t chunk, int threads, detail::Work work, void *context) {
        start_workers(threads - 1);
        caller_cpu_.store(current_cpu(), std::memory_order_relaxed);
        const std::uint64_t chunks = (n + chunk - 1) / chunk;
        work_ = work;
        context_ = context;
        n_ = n;
        chunk_ = chunk;
        const std::uint64_t ranges = std::min(chunks, static_cast<std::uint64_t>(threads));
        ranges_of_job_ = static_cast<int>(ranges);
        for (std::uint64_t i = 0; i < ranges; ++i)
            ranges_[i].left.store(chunks * (i + 1) / ranges << 32 | chunks * i / ranges, std::memory_order_relaxed);
        pending_.store(static_cast<std::uint32_t>(chunks), std::memory_order_relaxed);
        ticket_.store(static_cast<std::uint64_t>(threads - 1) << 32 | chunks, std::memory_order_seq_cst);
        if (sleepers_.load(std::memory_order_seq_cst) > 0) {
            { std::lock_guard<std::mutex> lock(mutex_); }
            if (workers_ == 1)
                wake_.notify_one();
            else
                wake_.notify_all(); // one alone might be a worker beyond this job's number of threads
        }
        while (take_chunk(0)) {}
        for (int i = 0; pending_.load(std::memory_order_acquire) != 0; ++i) {
            if (i < caller_spins) {
                relax();
            } else {
                std::unique_lock<std::mutex> lock(mutex_);
                caller_waits_.store(true, std::memory_order_seq_cst);
                done_.wait(lock, [this] { return pending_.load(std::memory_order_seq_cst) == 0; });
                caller_waits_.store(false, std::memory_order_relaxed);
            }
        }
    }

    // As many as that number of threads needs; of more that were started once, some sleep for ever.
    bool awake(int threads) const noexcept {
        return workers_.load(std::memory_order_relaxed) - sleepers_.load(std::memory_order_relaxed) >= threads - 1;
    }

    std::mutex busy; // held by the caller whose job runs

  private:
    bool take_chunk(int slot) {
        std::uint64_t ticket = ticket_.load(std::memory_order_acquire);
        do {
            if (!has_work(ticket, slot)) return false;
        } while (!ticket_.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel));
        const std::size_t begin = next_chunk(slot) * chunk_, end = std::min(n_, begin + chunk_);
        {
            StandardEnvironment environment;
            work_(context_, begin, end, slot);
        }
        if (pending_.fetch_sub(1, std::memory_order_seq_cst) == 1 && caller_waits_.load(std::memory_order_seq_cst)) {
            { std::lock_guard<std::mutex> lock(mutex_); }
            done_.notify_one();
        }
        return true;
    }

    // There is one for everybody who took one from the ticket: the first of the thread's own range, or the last of another's.
    std::size_t next_chunk(int slot) {
        for (int i = slot;; ++i) {
            if (i >= ranges_of_job_) i = 0;
            std::atomic<std::uint64_t> &left = ranges_[i].left;
            std::uint64_t range = left.load(std::memory_order_relaxed);
            for (;;) {
                const std::uint64_t begin = range & 0xffffffffu, end = range >> 32;
                if (begin == end) break;
                const std::uint64_t rest = i == slot ? end << 32 | (begin + 1) : (end - 1) << 32 | begin;
                if (left.compare_exchange_weak(range, rest, std::memory_order_relaxed))
                    return static_cast<std::size_t>(i == slot ? begin : end - 1);
            }
        }
    }

    void start_workers(int wanted) {
        while (workers_ < wanted) {
            int slot = ++workers_;
            try {
                std::thread([this, slot] { serve(slot); }).detach();
            } catch (const std::exception &) { // no more threads to be had: work with those there are
                --workers_;
                return;
            }
        }
    }

    void serve(int slot) {
        for (;;) {
            while (take_chunk(slot)) {}
            // Where it took the caller's place on a CPU, it is the caller who waits.
            const int cpu = current_cpu();
            const bool in_its_way = cpu >= 0 && cpu == caller_cpu_.load(std::memory_order_relaxed);
            const int spins = in_its_way ? 0 : worker_spins;
            for (int i = 0; i < spins && !has_work(ticket_.load(std::memory_order_relaxed), slot); ++i) relax();
            if (!has_work(ticket_.load(std::memory_order_relaxed), slot)) {
                std::unique_lock<std::mutex> lock(mutex_);
                sleepers_.fetch_add(1, std::memory_order_seq_cst);
                wake_.wait(lock, [this, slot] { return has_work(ticket_.load(std::memory_order_seq_cst), slot); });
                sleepers_.fetch_sub(1, std::memory_order_relaxed);
            }
        }
    }

    struct alignas(64) Range {
        std::atomic<std::uint64_t> left{0}; // begin (low half) and end of chunks
    };

    static bool has_work(std::uint64_t ticket, int slot) noexcept {
        return static_cast<std::uint32_t>(ticket) != 0 && static_cast<std::uint64_t>(slot) <= ticket >> 32;
    }

    std::mutex mutex_;
    std::condition_variable wake_, done_;
    alignas(64) std::atomic<std::uint64_t> ticket_{0};
    alignas(64) std::atomic<std::uint32_t> pending_{0};
    std::atomic<int> sleepers_{0}, caller_cpu_{-1};
    std::atomic<bool> caller_waits_{false};
    std::atomic<int> workers_{0};
    detail::Work work_ = nullptr;
    void *context_ = nullptr;
    std::size_t n_ = 0, chunk_ = 0;
    int ranges_of_job_ = 0;
    Range ranges_[max_threads];
};

std::atomic<int> current_threads{0};

// Lives for ever: detached workers may outlast every static object.
Pool *pool = nullptr;

#if defined(__unix__) || defined(__APPLE__)
// A forked child has no workers, and its copy of the pool may be in any state: it starts a new one.
void forget_pool() { pool = new Pool; }
#endif

// What this thread's calls are limited to, 0 for nothing; whether a long one asks to be ended.
thread_local int call_threads = 0;
thread_local bool call_asks = true;

int cpus_allowed() {
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
    return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

int cpus_in_quota(int cpus) {
    std::ifstream file("/sys/fs/cgroup/cpu.max");
    std::string quota;
    double period = 0;
    if (file >> quota >> period && quota != "max" && period > 0) {
        double allowed = std::strtod(quota.c_str(), nullptr) / period;
        if (allowed > 0) return std::max(1, std::min(cpus, static_cast<int>(allowed + 0.999)));
    }
    return cpus;
}

} // namespace

DefaultThreads default_threads() {
    if (const char *text = std::getenv("PYNN_NUM_THREADS"); text != nullptr && *text != '\0') {
        char *end = nullptr;
        long n = std::strtol(text, &end, 10);
        if (*end != '\0' || n < 1 || n > max_threads)
            throw std::invalid_argument("PYNN_NUM_THREADS is '" + std::string(text) +
                                        "'; expected a whole number from 1 to " + std::to_string(max_threads));
        return {static_cast<int>(n), "PYNN_NUM_THREADS"};
    }
    const int allowed = cpus_allowed(), in_quota = cpus_in_quota(allowed);
    if (in_quota > max_threads) return {max_threads, "the most that pynn uses"};
    if (in_quota < allowed) return {in_quota, "the cgroup's CPU quota"};
    return {allowed, "the CPUs that this process may use"};
}

int thread_count() noexcept {
    return call_threads != 0 ? call_threads : current_threads.load(std::memory_order_relaxed);
}

CallSettings::CallSettings(int threads) noexcept : threads_(call_threads), asks_(call_asks) {
    call_threads = threads;
    call_asks = false;
}

CallSettings::~CallSettings() {
    call_threads = threads_;
    call_asks = asks_;
}

bool workers_awake() noexcept { return pool != nullptr && pool->awake(thread_count()); }

void set_thread_count(int n) {
    if (n < 1 || n > max_threads)
        throw std::invalid_argument("n is " + std::to_string(n) + "; expected a number of threads from 1 to " +
                                    std::to_string(max_threads));
    if (pool == nullptr) {
        pool = new Pool;
#if defined(__unix__) || defined(__APPLE__)
        pthread_atfork(nullptr, nullptr, forget_pool);
#endif
    }
    current_threads.store(n, std::memory_order_relaxed);
}

namespace {
bool (*interrupted)() = nullptr;
constexpr std::chrono::milliseconds between_questions(50);
} // namespace

void Patience::set_check(bool (*check)()) { interrupted = check; }

void Patience::ask(int slot) {
    if (slot != 0 || interrupted == nullptr || !call_asks) return;
    const auto now = std::chrono::steady_clock::now();
    if (now - asked_ < between_questions) return;
    asked_ = now;
    if (interrupted()) over_.store(true, std::memory_order_relaxed);
}

namespace detail {

void run_parallel(std::size_t n, std::size_t chunk, int threads, Work work, void *context) {
    if (n == 0) return;
    if (threads > 1 && n > chunk) {
        std::unique_lock<std::mutex> lock(pool->busy, std::try_to_lock);
        if (lock.owns_lock()) {
            pool->run(n, chunk, threads, work, context);
            return;
        }
    }
    StandardEnvironment environment;
    work(context, 0, n, 0);
}

} // namespace detail
} // namespace pynn
