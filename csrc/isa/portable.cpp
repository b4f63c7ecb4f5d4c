// The kernels in plain C++ for any machine.
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>
#define PYNN_ISA portable
#define PYNN_VECTOR_BYTES 16
#include "simd/ops_portable.hpp"

#include "kernels/table.hpp"
