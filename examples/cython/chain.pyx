# cython: boundscheck=False, wraparound=False
"""Layer after layer without going through Python: h = gelu(h @ w + b), again and again."""

from pynn cimport (
    PYNN_OK,
    pynn_activation,
    pynn_api,
    pynn_import,
    pynn_input_float32,
    pynn_output_float32,
)

cdef const pynn_api *pynn = pynn_import()


cdef inline pynn_input_float32 reading(const float[:, :] a) noexcept nogil:
    cdef pynn_input_float32 matrix
    matrix.data = &a[0, 0] if a.shape[0] and a.shape[1] else NULL
    matrix.row, matrix.column = a.strides[0] // 4, a.strides[1] // 4
    return matrix


cdef inline pynn_output_float32 writing(float[:, :] a) noexcept nogil:
    cdef pynn_output_float32 matrix
    matrix.data = &a[0, 0] if a.shape[0] and a.shape[1] else NULL
    matrix.row, matrix.column = a.strides[0] // 4, a.strides[1] // 4
    return matrix


def chain(float[:, ::1] h, const float[:, :] w, const float[::1] b, float[:, ::1] z, int layers, int threads=0):
    """Send h, in place, through layers that share their weights; z is room for one of them."""
    if not (h.shape[0] == z.shape[0] and h.shape[1] == z.shape[1] == w.shape[0] == w.shape[1] == b.shape[0]):
        raise ValueError("expected h (m, n), w (n, n), b (n,) and z (m, n)")
    if not h.shape[0] or not h.shape[1]:
        return
    cdef const pynn_activation *gelu = pynn.activation("gelu")
    cdef int i, status = PYNN_OK
    cdef size_t m = h.shape[0], n = h.shape[1]
    with nogil:
        for i in range(layers):
            status = pynn.affine_float32(m, n, n, reading(h), reading(w), &b[0], NULL, writing(z), threads)
            if status == PYNN_OK:
                status = gelu.forward_float32(m * n, &z[0, 0], 1, &h[0, 0], 1, threads)
            if status != PYNN_OK:
                break
    if status != PYNN_OK:
        raise MemoryError("pynn had no memory for its workspace")
