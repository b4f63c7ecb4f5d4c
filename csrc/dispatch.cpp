// The list of instruction sets, best first, and the choice among them.
#include "dispatch.hpp"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

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
bool has_avx512() {
    __builtin_cpu_init(); // libgcc does so at load time, other run-time libraries do not
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
}
bool has_avx2() {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
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
