# pynn.h for Cython: `from pynn cimport pynn_api, pynn_import`. The header says what each function does.
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport uint32_t, uint64_t

cdef extern from "pynn.h" nogil:
    int PYNN_API_VERSION
    int PYNN_OK, PYNN_BAD_ARGUMENT, PYNN_OUT_OF_MEMORY

    ctypedef struct pynn_input_float32:
        const float *data
        ptrdiff_t row, column

    ctypedef struct pynn_input_float64:
        const double *data
        ptrdiff_t row, column

    ctypedef struct pynn_output_float32:
        float *data
        ptrdiff_t row, column

    ctypedef struct pynn_output_float64:
        double *data
        ptrdiff_t row, column

    ctypedef struct pynn_activation:
        const char *name
        int saves
        int (*forward_float32)(size_t n, const float *x, ptrdiff_t x_step, float *y, ptrdiff_t y_step, int threads) noexcept nogil
        int (*forward_float64)(size_t n, const double *x, ptrdiff_t x_step, double *y, ptrdiff_t y_step, int threads) noexcept nogil
        int (*backward_float32)(size_t n, const float *dy, ptrdiff_t dy_step, const float *saved, ptrdiff_t saved_step, float *dx, ptrdiff_t dx_step, int threads) noexcept nogil
        int (*backward_float64)(size_t n, const double *dy, ptrdiff_t dy_step, const double *saved, ptrdiff_t saved_step, double *dx, ptrdiff_t dx_step, int threads) noexcept nogil

    ctypedef struct pynn_distribution:
        const char *name
        const char *parameters
        int (*fill_float32)(size_t n, float *out, ptrdiff_t step, uint64_t key, uint64_t start, const double *parameters, size_t count, int threads) noexcept nogil
        int (*fill_float64)(size_t n, double *out, ptrdiff_t step, uint64_t key, uint64_t start, const double *parameters, size_t count, int threads) noexcept nogil

    ctypedef struct pynn_api:
        uint32_t version, size
        const pynn_activation *(*activation)(const char *name) noexcept nogil
        const pynn_activation *(*activation_at)(size_t index) noexcept nogil
        const pynn_distribution *(*distribution)(const char *name) noexcept nogil
        const pynn_distribution *(*distribution_at)(size_t index) noexcept nogil
        int (*get_num_threads)() noexcept nogil
        int (*set_num_threads)(int n) noexcept nogil
        int (*affine_float32)(size_t m, size_t n, size_t k, pynn_input_float32 x, pynn_input_float32 w, const float *b, const pynn_activation *activation, pynn_output_float32 y, int threads) noexcept nogil
        int (*affine_float64)(size_t m, size_t n, size_t k, pynn_input_float64 x, pynn_input_float64 w, const double *b, const pynn_activation *activation, pynn_output_float64 y, int threads) noexcept nogil
        int (*affine_backward_float32)(size_t m, size_t n, size_t k, pynn_input_float32 dy, pynn_input_float32 x, pynn_input_float32 w, pynn_input_float32 y, const pynn_activation *activation, pynn_output_float32 dx, pynn_output_float32 dw, float *db, int accumulate, int threads) noexcept nogil
        int (*affine_backward_float64)(size_t m, size_t n, size_t k, pynn_input_float64 dy, pynn_input_float64 x, pynn_input_float64 w, pynn_input_float64 y, const pynn_activation *activation, pynn_output_float64 dx, pynn_output_float64 dw, double *db, int accumulate, int threads) noexcept nogil
        int (*softmax_float32)(size_t rows, size_t columns, pynn_input_float32 x, pynn_output_float32 y, int threads) noexcept nogil
        int (*softmax_float64)(size_t rows, size_t columns, pynn_input_float64 x, pynn_output_float64 y, int threads) noexcept nogil
        int (*softmax_backward_float32)(size_t rows, size_t columns, pynn_input_float32 dy, pynn_input_float32 y, pynn_output_float32 dx, int threads) noexcept nogil
        int (*softmax_backward_float64)(size_t rows, size_t columns, pynn_input_float64 dy, pynn_input_float64 y, pynn_output_float64 dx, int threads) noexcept nogil

cdef extern from "pynn.h":
    const pynn_api *pynn_import() except NULL
