// Gathers the kernels of one instruction set into its KernelTable.
#pragma once

#include "kernels.hpp"

#include "activations.hpp"
#include "distributions.hpp"
#include "kernels/affine.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/half.hpp"
#include "kernels/log_softmax.hpp"
#include "kernels/losses.hpp"
#include "kernels/normalizations.hpp"
#include "kernels/optimizers.hpp"
#include "kernels/softmax.hpp"
#include "kernels/sums.hpp"

namespace pynn::PYNN_ISA {
namespace {

#define PYNN_FORWARD(name, ...) forward_loop<PYNN_ISA::name, T>,
#define PYNN_BACKWARD(name, ...) backward_loop<PYNN_ISA::name, T>,
#define PYNN_FORWARD_GIVEN(name, ...) forward_given_loop<PYNN_ISA::name, T>,
#define PYNN_BACKWARD_GIVEN(name, ...) backward_given_loop<PYNN_ISA::name, T>,
#define PYNN_FILL(name, ...) fill_loop<PYNN_ISA::name, Same<T>>,
#define PYNN_UPDATE(name, ...) update_loop<PYNN_ISA::name, T>,
#define PYNN_LOSS(name, ...) loss_loop<PYNN_ISA::name, T>,
#define PYNN_LOSS_SLOPE(name, ...) loss_slope_loop<PYNN_ISA::name, T>,
static_assert(elements_at_once % 16 == 0 && elements_at_once <= most_elements_past_cache);
template <class T>
constexpr Kernels<T> kernels = {
    {PYNN_ACTIVATIONS(PYNN_FORWARD)},
    {PYNN_ACTIVATIONS(PYNN_BACKWARD)},
    {PYNN_ACTIVATIONS(PYNN_FORWARD_GIVEN)},
    {PYNN_ACTIVATIONS(PYNN_BACKWARD_GIVEN)},
    prelu_backward_loop<T>,
    glu_loop<T>,
    glu_backward_loop<T>,
    fma_loop<T>,
    copy_past_cache<T>,
    finish_past_cache,
    elements_at_once,
    softmax_rows<T>,
    softmin_rows<T>,
    log_softmax_rows<T>,
    softmax_backward_row<T>,
    softmin_backward_row<T>,
    log_softmax_backward_row<T>,
    logsumexp_row<T>,
    logsumexp_backward_row<T>,
    {PYNN_DISTRIBUTIONS(PYNN_FILL)},
    Tile<T>::rows,
    panel_columns<T>,
    block_rows<T>,
    group_columns<T>,
    product_block<T>,
    pack_rows<T>,
    transpose_matrix<T>,
    column_sums<T>,
    pack_panels<T>,
    {PYNN_OPTIMIZERS(PYNN_UPDATE)},
    sum_of_squares<T>,
    {PYNN_LOSSES(PYNN_LOSS)},
    {PYNN_LOSSES(PYNN_LOSS_SLOPE)},
    softmax_loss_rows<T>,
    add_scaled_loop<T>,
    scale_loop<T>,
    drop_loop<T>,
    column_moments<T>,
    row_moments<T>,
    normalize<T>,
    normalized_sums<T>,
    normalize_columns_backward<T>,
    normalize_rows_backward<T>,
};
#undef PYNN_FORWARD
#undef PYNN_BACKWARD
#undef PYNN_FORWARD_GIVEN
#undef PYNN_BACKWARD_GIVEN
#undef PYNN_FILL
#undef PYNN_UPDATE
#undef PYNN_LOSS
#undef PYNN_LOSS_SLOPE

} // namespace
} // namespace pynn::PYNN_ISA

// The one symbol of an instruction set's object file.
#define PYNN_STRING_(x) #x
#define PYNN_STRING(x) PYNN_STRING_(x)
#define PYNN_PASTE_(a, b) a##b
#define PYNN_PASTE(a, b) PYNN_PASTE_(a, b)
namespace pynn {
extern const KernelTable PYNN_PASTE(PYNN_ISA, _table);
#define PYNN_FILL_BFLOAT16(name, ...) PYNN_ISA::fill_loop<PYNN_ISA::name, PYNN_ISA::BFloat16>,
#define PYNN_FILL_FLOAT16(name, ...) PYNN_ISA::fill_loop<PYNN_ISA::name, PYNN_ISA::Float16>,
constexpr KernelTable PYNN_PASTE(PYNN_ISA, _table) = {
    PYNN_STRING(PYNN_ISA),
    PYNN_ISA::kernels<float>,
    PYNN_ISA::kernels<double>,
    {PYNN_DISTRIBUTIONS(PYNN_FILL_BFLOAT16)},
    {PYNN_DISTRIBUTIONS(PYNN_FILL_FLOAT16)},
    PYNN_ISA::plain_sum<double>,
    PYNN_ISA::narrow_loop<PYNN_ISA::BFloat16>,
    PYNN_ISA::narrow_loop<PYNN_ISA::Float16>,
    PYNN_ISA::widen_loop<PYNN_ISA::WideBFloat16>,
    PYNN_ISA::widen_loop<PYNN_ISA::WideFloat16>,
};
#undef PYNN_FILL_BFLOAT16
#undef PYNN_FILL_FLOAT16
} // namespace pynn
