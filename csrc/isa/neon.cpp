// The kernels for AArch64, whose Advanced SIMD every such CPU has.
#if defined(__aarch64__)
#include <arm_neon.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>
#define PYNN_ISA neon
#define PYNN_VECTOR_BYTES 16
#include "simd/ops_neon.hpp"

#include "kernels/table.hpp"
#endif
