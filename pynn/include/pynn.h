/* pynn's functions for C, C++ and Cython: a table of pointers, found through Python once and called without it.
 *
 *     #include <Python.h>
 *     #include <pynn.h>                                     (its folder is what pynn.get_include() returns)
 *     const pynn_api *pynn = pynn_import();                 (with the GIL; NULL and a Python exception if it fails)
 *     const pynn_activation *gelu = pynn->activation("gelu");
 *     gelu->forward_float32(n, x, 1, y, 1, 0);              (with or without the GIL, on any thread)
 *
 * No function below needs the GIL, a Python object or a thread that Python knows. Each returns one of the statuses; what
 * is not PYNN_OK has written nothing, but that affine_backward may have written dx before memory ran out. Results are, to
 * the bit, those of the Python functions of the same names.
 *
 * Strides and steps are in elements, of any sign, 0 for inputs too. Outputs have one place for each element and share
 * none with the inputs, but that an elementwise function may write onto an input of the same address and step. Pointers
 * are aligned to their elements, and may be null where there are no elements.
 *
 * threads is the most that this call may use: 1 is the calling one alone, 0 as many as pynn.set_num_threads says. Ctrl-C
 * does not end a call.
 */
#ifndef PYNN_H
#define PYNN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Grows when a table of this version can no longer be read by what was compiled for an earlier one. Fields are only ever
 * added, at the end, and size says which are there. */
#define PYNN_API_VERSION 1

enum { PYNN_OK = 0, PYNN_BAD_ARGUMENT = 1, PYNN_OUT_OF_MEMORY = 2 };

/* Element (i, j) is data[i * row + j * column]. The first is read, the second written. */
#define PYNN_MATRICES(T, type)                                                                                         \
    typedef struct pynn_input_##type {                                                                                 \
        const T *data;                                                                                                 \
        ptrdiff_t row, column;                                                                                         \
    } pynn_input_##type;                                                                                               \
    typedef struct pynn_output_##type {                                                                                \
        T *data;                                                                                                       \
        ptrdiff_t row, column;                                                                                         \
    } pynn_output_##type;
PYNN_MATRICES(float, float32)
PYNN_MATRICES(double, float64)
#undef PYNN_MATRICES

/* An activation and its gradient, dy times the slope. saves is 'x' or 'y': whether backward is given the input or the
 * output of forward. Functions with parameters have their defaults. */
typedef struct pynn_activation {
    const char *name;
    int saves;
    int (*forward_float32)(size_t n, const float *x, ptrdiff_t x_step, float *y, ptrdiff_t y_step, int threads);
    int (*forward_float64)(size_t n, const double *x, ptrdiff_t x_step, double *y, ptrdiff_t y_step, int threads);
    int (*backward_float32)(size_t n, const float *dy, ptrdiff_t dy_step, const float *saved, ptrdiff_t saved_step,
                            float *dx, ptrdiff_t dx_step, int threads);
    int (*backward_float64)(size_t n, const double *dy, ptrdiff_t dy_step, const double *saved, ptrdiff_t saved_step,
                            double *dx, ptrdiff_t dx_step, int threads);
} pynn_activation;

/* Elements start .. start + n - 1 of the stream of a key. parameters are those that the string of the same name lists, in
 * its order, such as "loc, scale"; count is their number. */
typedef struct pynn_distribution {
    const char *name, *parameters;
    int (*fill_float32)(size_t n, float *out, ptrdiff_t step, uint64_t key, uint64_t start, const double *parameters,
                        size_t count, int threads);
    int (*fill_float64)(size_t n, double *out, ptrdiff_t step, uint64_t key, uint64_t start, const double *parameters,
                        size_t count, int threads);
} pynn_distribution;

typedef struct pynn_api {
    uint32_t version, size; /* PYNN_API_VERSION and sizeof(pynn_api) of the pynn that runs */

    /* By name, NULL if there is none; by number from 0 on, NULL beyond the last. Valid for ever. */
    const pynn_activation *(*activation)(const char *name);
    const pynn_activation *(*activation_at)(size_t index);
    const pynn_distribution *(*distribution)(const char *name);
    const pynn_distribution *(*distribution_at)(size_t index);

    int (*get_num_threads)(void);
    int (*set_num_threads)(int n); /* for the process, as pynn.set_num_threads */

    /* y (m, n) = activation(x (m, k) @ w (k, n) + b (n)); b and activation may be NULL. */
    int (*affine_float32)(size_t m, size_t n, size_t k, pynn_input_float32 x, pynn_input_float32 w, const float *b,
                          const pynn_activation *activation, pynn_output_float32 y, int threads);
    int (*affine_float64)(size_t m, size_t n, size_t k, pynn_input_float64 x, pynn_input_float64 w, const double *b,
                          const pynn_activation *activation, pynn_output_float64 y, int threads);

    /* Its gradients dx (m, k), dw (k, n) and db (n). y is read with an activation only, which must be one that saves 'y'.
     * dx.data may be NULL: then it is not wanted. accumulate: dw and db are added to what stands there. */
    int (*affine_backward_float32)(size_t m, size_t n, size_t k, pynn_input_float32 dy, pynn_input_float32 x,
                                   pynn_input_float32 w, pynn_input_float32 y, const pynn_activation *activation,
                                   pynn_output_float32 dx, pynn_output_float32 dw, float *db, int accumulate,
                                   int threads);
    int (*affine_backward_float64)(size_t m, size_t n, size_t k, pynn_input_float64 dy, pynn_input_float64 x,
                                   pynn_input_float64 w, pynn_input_float64 y, const pynn_activation *activation,
                                   pynn_output_float64 dx, pynn_output_float64 dw, double *db, int accumulate,
                                   int threads);

    /* Of each row, and the gradient from that of the output and the output y. */
    int (*softmax_float32)(size_t rows, size_t columns, pynn_input_float32 x, pynn_output_float32 y, int threads);
    int (*softmax_float64)(size_t rows, size_t columns, pynn_input_float64 x, pynn_output_float64 y, int threads);
    int (*softmax_backward_float32)(size_t rows, size_t columns, pynn_input_float32 dy, pynn_input_float32 y,
                                    pynn_output_float32 dx, int threads);
    int (*softmax_backward_float64)(size_t rows, size_t columns, pynn_input_float64 dy, pynn_input_float64 y,
                                    pynn_output_float64 dx, int threads);
} pynn_api;

#define PYNN_API_CAPSULE "pynn._core._C_API"

#ifdef Py_PYTHON_H
/* Imports pynn and returns its table, which stays valid; NULL with an exception set if that fails. Needs the GIL. */
static inline const pynn_api *pynn_import(void) {
    const pynn_api *api = (const pynn_api *)PyCapsule_Import(PYNN_API_CAPSULE, 0);
    if (api != NULL && (api->version != PYNN_API_VERSION || api->size < sizeof(pynn_api))) {
        PyErr_Format(PyExc_ImportError,
                     "pynn offers version %u of its C interface, %u bytes; expected version %d, at least %d",
                     (unsigned)api->version, (unsigned)api->size, PYNN_API_VERSION, (int)sizeof(pynn_api));
        return NULL;
    }
    return api;
}
#endif

#ifdef __cplusplus
}
#endif

#endif
