// Which instruction set's kernels run: the best that this CPU has, unless PYNN_ISA or use_isa() says otherwise.
#pragma once

#include <string>
#include <vector>

#include "kernels.hpp"

namespace pynn {

struct InstructionSet {
    const KernelTable *kernels;
    bool (*supported)();
};

const std::vector<InstructionSet> &instruction_sets(); // those built, best first

const KernelTable &active_kernels() noexcept;
template <class T> const Kernels<T> &active_kernels_of() noexcept { return active_kernels().of<T>(); }

// Whether this CPU follows two rows in memory that are read side by side, from the end of each to the next one's beginning. Asking ahead
// for them is in its way then.
bool follows_rows() noexcept;

void use_isa(const std::string &name, const char *argument); // throws std::invalid_argument that names the argument
void choose_isa();                                           // PYNN_ISA, else the best

} // namespace pynn
