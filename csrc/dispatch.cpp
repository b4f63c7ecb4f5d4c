// The list of instruction sets, best first, and the choice among them.
#include "dispatch.hpp"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace pynn {

#if defined(__x86_64__)
extern const KernelTable avx512_table, avx2_table;
#elif defined(__aarch64__)
extern const KernelTable neon_table;
#endif
extern const KernelTable portable_table;

namespace {

std::atomic<const KernelTable *> active{&portable_table};

bool always() { return true; }

#if defined(__x86_64__)
// By cpuid itself: not every compiler's run-time library fills in what __builtin_cpu_supports reads.
struct Leaf {
    unsigned a = 0, b = 0, c = 0, d = 0;
    explicit Leaf(unsigned number) { __get_cpuid_count(number, 0, &a, &b, &c, &d); }
};

// The registers that the system saves for each thread.
unsigned saved_registers() {
    constexpr unsigned osxsave = 1u << 27;
    if ((Leaf(1).c & osxsave) == 0) return 0;
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

bool has_avx2() {
    constexpr unsigned fma = 1u << 12, avx = 1u << 28, avx2 = 1u << 5, vectors = 0x6;
    return (Leaf(1).c & (fma | avx)) == (fma | avx) && (Leaf(7).b & avx2) != 0 &&
           (saved_registers() & vectors) == vectors;
}
bool has_avx512() {
    constexpr unsigned f_dq_bw_vl = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31, vectors = 0xe6;
    return has_avx2() && (Leaf(7).b & f_dq_bw_vl) == f_dq_bw_vl && (saved_registers() & vectors) == vectors;
}

// Its CPUs follow rows (seen of a Xeon); a Zen 4 takes twice as long where it is not asked.
bool is_intel() { return Leaf(0).b == 0x756e6547; } // "Genu" of the vendor's name
#else
bool is_intel() { return false; }
#endif

} // namespace

const std::vector<InstructionSet> &instruction_sets() {
    static const std::vector<InstructionSet> *sets = new std::vector<InstructionSet>{
#if defined(__x86_64__)
        {&avx512_table, has_avx512},
        {&avx2_table, has_avx2},
#elif defined(__aarch64__)
        {&neon_table, always},
#endif
        {&portable_table, always},
    };
    return *sets;
}

const KernelTable &active_kernels() noexcept { return *active.load(std::memory_order_relaxed); }

bool follows_rows() noexcept {
    static const bool follows = is_intel();
    return follows;
}

void use_isa(const std::string &name, const char *argument) {
    std::string usable;
    for (const InstructionSet &set : instruction_sets()) {
        bool supported = set.supported();
        if (name == set.kernels->name) {
            if (!supported)
                throw std::invalid_argument(std::string(argument) + " is '" + name +
                                            "', which this CPU does not support");
            active.store(set.kernels, std::memory_order_relaxed);
            return;
        }
        if (supported) usable += (usable.empty() ? "'" : ", '") + std::string(set.kernels->name) + "'";
    }
    throw std::invalid_argument(std::string(argument) + " is '" + name + "'; expected one of " + usable);
}

void choose_isa() {
    if (const char *name = std::getenv("PYNN_ISA"); name != nullptr && *name != '\0') {
        use_isa(name, "PYNN_ISA");
        return;
    }
    for (const InstructionSet &set : instruction_sets()) {
        if (!set.supported()) continue;
        active.store(set.kernels, std::memory_order_relaxed);
        return;
    }
}

} // namespace pynn
