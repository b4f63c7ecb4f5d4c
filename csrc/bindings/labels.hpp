// Integer labels that go with scores: checked, and as contiguous intp. A copy: the caller's could be written to by another
// thread after they were checked.
#pragma once

#include "bindings/operands.hpp"

namespace pynn {

struct Labels {
    py::object array; // of intp, contiguous
    const npy_intp *data;
    std::size_t count, classes;

    // For scores of a shape, the last axis of which are the classes
    Labels(py::handle t, int dimensions, const npy_intp *shape) {
        auto scores = [&](int n) {
            py::tuple text(n);
            for (int i = 0; i < n; ++i) text[i] = shape[i];
            return text_of(text);
        };
        if (dimensions < 1 || shape[dimensions - 1] == 0)
            throw py::value_error("x must have shape (classes,) or (m, classes); got " + scores(dimensions));
        const Operand given = take("t", t);
        if (!has_shape(given, dimensions - 1, shape))
            throw py::value_error("t must have shape " + scores(dimensions - 1) + ", or one-hot " + scores(dimensions) +
                                  "; got " + shape_text(of(given)));
        if (!PyTypeNum_ISINTEGER(PyArray_TYPE(of(given))))
            throw py::type_error("t must be integer labels or one-hot rows; got labels of dtype " +
                                 dtype_text(of(given)));
        array = owned(PyArray_FromArray(of(given), PyArray_DescrFromType(NPY_INTP),
                                        NPY_ARRAY_CARRAY_RO | NPY_ARRAY_FORCECAST | NPY_ARRAY_NOTSWAPPED |
                                            NPY_ARRAY_ENSURECOPY | NPY_ARRAY_ENSUREARRAY));
        data = static_cast<const npy_intp *>(PyArray_DATA(as_array(array)));
        count = static_cast<std::size_t>(PyArray_SIZE(as_array(array)));
        classes = static_cast<std::size_t>(shape[dimensions - 1]);
        if (count == 0) throw py::value_error("x must have rows to have a mean loss; got shape " + scores(dimensions));
        // A negative label is a large one here.
        std::size_t most = 0;
        for (std::size_t i = 0; i < count; ++i) most = std::max(most, static_cast<std::size_t>(data[i]));
        if (most >= classes) PyTypeNum_ISUNSIGNED(PyArray_TYPE(of(given))) ? refuse<npy_uintp>() : refuse<npy_intp>();
    }

  private:
    template <class Integer> [[noreturn]] void refuse() const {
        auto of_type = [](npy_intp a, npy_intp b) { return static_cast<Integer>(a) < static_cast<Integer>(b); };
        const auto [least, most] = std::minmax_element(data, data + count, of_type);
        throw py::value_error("t must be from 0 to " + std::to_string(classes - 1) + "; got " +
                              std::to_string(static_cast<Integer>(*least)) + " to " +
                              std::to_string(static_cast<Integer>(*most)));
    }
};

} // namespace pynn
