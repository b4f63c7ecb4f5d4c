"""affine and affine_backward: exact sums, the contract's bits, random data, shapes and layouts."""

import functools
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracles
import pynn
from pynn import _core, reference

ACTIVATIONS = list(pynn.ACTIVATIONS)
CHUNK = _core.build_info()["affine_chunk"]
EDGES = [0, 1, 2, 3, 7, 8, 9, 13, 14, 15, 16, 17, 27, 28, 29, 31, 32, 33, 47, 48, 63, 64, 65, 97]
LONG = [127, 128, 129, 255, 256, 257, 511, 513, 1025]


def whole(rng, *shape, dtype=np.float32):
    """Small whole numbers: every order of summation is exact."""
    return rng.integers(-8, 9, shape).astype(dtype)


def reversed_both(a):
    return np.ascontiguousarray(a[::-1, ::-1])[::-1, ::-1]


def every_second(a):
    wide = np.full((2 * a.shape[0], 3 * a.shape[1]), np.nan, a.dtype)
    wide[::2, ::3] = a
    return wide[::2, ::3]


def within_larger(a):
    wide = np.full((a.shape[0] + 2, a.shape[1] + 5), np.nan, a.dtype)
    wide[1:-1, 3:-2] = a
    return wide[1:-1, 3:-2]


LAYOUTS = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "reversed": reversed_both,
    "strided": every_second,
    "within": within_larger,
    "within.T": lambda a: within_larger(a.T).T,
}


def sizes():
    """(m, k, n) around every block edge, one at a time and a few together."""
    for v in EDGES + LONG:
        yield from ((v, 5, 6), (3, v, 19), (4, 7, v), (15, v, 33))
    yield from itertools.product((1, 13, 14, 15, 29), (1, 16, 257), (1, 31, 33, 65))


def test_exact_on_whole_numbers(dtype, isa, threads, rng):
    for m, k, n in sizes():
        x, w = whole(rng, m, k, dtype=dtype), whole(rng, k, n, dtype=dtype)
        b = whole(rng, n, dtype=dtype)
        for bias in (b, None):
            y = pynn.affine(x, w, bias)
            assert y.dtype == dtype and y.shape == (m, n)
            assert np.array_equal(y, x @ w + (0 if bias is None else b)), (m, k, n)


def test_exact_backward_on_whole_numbers(dtype, isa, threads, rng):
    for m, k, n in sizes():
        x, w = whole(rng, m, k, dtype=dtype), whole(rng, k, n, dtype=dtype)
        dy = whole(rng, m, n, dtype=dtype)
        dx, dw, db = pynn.affine_backward(dy, x, w)
        for got, want in ((dx, dy @ w.T), (dw, x.T @ dy), (db, dy.sum(axis=0))):
            assert got.dtype == dtype and np.array_equal(got, want), (m, k, n)


@pytest.mark.parametrize(
    "size", [(3, 4, 5), (14, 64, 32), (15, 257, 33), (1, 65, 33), (130, 3, 17)]
)
def test_layouts(size, dtype, isa, rng):
    """Row or column order, strides of either sign and sign, padding: the same bits."""
    m, k, n = size
    x, w = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
    b, dy = rng.standard_normal(n).astype(dtype), rng.standard_normal((m, n)).astype(dtype)
    y, back = pynn.affine(x, w, b), pynn.affine_backward(dy, x, w)
    for (xl, to_x), (wl, to_w) in itertools.product(LAYOUTS.items(), repeat=2):
        oracles.assert_same_bits(pynn.affine(to_x(x), to_w(w), b), y, f"{xl} {wl}")
    for names in itertools.product(LAYOUTS, repeat=3):
        dy2, x2, w2 = (LAYOUTS[name](a) for name, a in zip(names, (dy, x, w), strict=True))
        for got, want in zip(pynn.affine_backward(dy2, x2, w2), back, strict=True):
            oracles.assert_same_bits(got, want, str(names))
    for b2 in (b[::-1], np.repeat(b, 2)[::2], np.repeat(b, 3)[::-3], np.broadcast_to(b[:1], n)):
        want = pynn.affine(x, w, np.ascontiguousarray(b2))
        oracles.assert_same_bits(pynn.affine(x, w, b2), want, f"bias of strides {b2.strides}")


@pytest.mark.parametrize("size", [(5, 40, 300), (70, 100, 403)])
def test_equal_rows_or_columns(size, dtype, isa, rng):
    """Strides of 0, as numpy.broadcast_to makes them."""
    m, k, n = size
    x, w, dy = (whole(rng, *shape, dtype=dtype) for shape in ((m, k), (k, n), (m, n)))
    for i, j in itertools.product((slice(0, 1), slice(None)), repeat=2):
        x2, w2, dy2 = (np.broadcast_to(a[i, j].copy(), a.shape) for a in (x, w, dy))
        assert np.array_equal(pynn.affine(x2, w), x2 @ w)
        assert np.array_equal(pynn.affine(x, w2), x @ w2)
        dx, dw, db = pynn.affine_backward(dy2, x2, w2)
        assert np.array_equal(dx, dy2 @ w2.T)
        assert np.array_equal(dw, x2.T @ dy2) and np.array_equal(db, dy2.sum(0))


@st.composite
def views(draw, rows, columns):
    """A view of larger memory of whole numbers: any order, steps of either sign, offsets."""
    steps = [draw(st.sampled_from([1, 1, 2, 3, -1, -2])) for _ in range(2)]
    offsets = [draw(st.integers(0, 3)) for _ in range(2)]
    order = draw(st.sampled_from("CF"))
    shape = [o + n * abs(s) for o, n, s in zip(offsets, (rows, columns), steps, strict=True)]
    memory = np.arange(np.prod(shape), dtype=np.float64).reshape(shape, order=order) % 17 - 8
    memory = memory.astype(draw(st.sampled_from([np.float32, np.float64])), order="K")
    part = memory[tuple(slice(o, None) for o in offsets)]
    return part[tuple(slice(None, None, s) for s in steps)]


@given(data=st.data())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_view(data):
    """Sizes, layouts, precisions and threads in any combination; whole numbers, so exact."""
    m, k, n = (data.draw(st.integers(0, 40)) for _ in range(3))
    x, w, dy = (data.draw(views(*s)) for s in ((m, k), (k, n), (m, n)))
    b = data.draw(views(1, n))[0]
    pynn.set_num_threads(data.draw(st.sampled_from([1, 3])))
    assert np.array_equal(pynn.affine(x, w, b), x @ w + b)
    out = data.draw(views(m, n)).astype(np.result_type(x, w, b), order="K")
    assert pynn.affine(x, w, b, out=out) is out and np.array_equal(out, x @ w + b)
    for got, want in zip(
        pynn.affine_backward(dy, x, w), (dy @ w.T, x.T @ dy, dy.sum(0)), strict=True
    ):
        assert np.array_equal(got, want)


CONTRACT_SIZES = [(2, 3, 5), (1, CHUNK, 3), (3, CHUNK + 1, 2), (2, 2 * CHUNK + 7, 3), (17, 20, 33)]


@pytest.fixture(scope="module")
def contract_cases():
    """dtype -> inputs and the contract's bits, computed once by the loop in oracles.affine."""
    rng = np.random.default_rng(3)
    table = {}
    for dtype in oracles.DTYPES:
        rows = table[dtype] = []
        for m, k, n in CONTRACT_SIZES:
            x, w, b, dz = (
                rng.standard_normal(s).astype(dtype) for s in ((m, k), (k, n), (n,), (m, n))
            )
            ones = np.ones((1, m), dtype)
            rows.append(
                (
                    (x, w, b, dz),
                    oracles.affine(x, w, b, CHUNK),
                    oracles.affine(dz, np.ascontiguousarray(w.T), None, CHUNK),
                    oracles.affine(np.ascontiguousarray(x.T), dz, None, CHUNK),
                    oracles.affine(ones, dz, None, CHUNK)[0],
                )
            )
    return table


def test_bits_of_the_contract(dtype, isa, threads, contract_cases):
    """Chunks of k, fma from +0 in increasing k, chunk sums in order, then the bias."""
    for (x, w, b, dz), y, *gradients in contract_cases[dtype]:
        oracles.assert_same_bits(pynn.affine(x, w, b), y, f"{x.shape} @ {w.shape}")
        back = pynn.affine_backward(dz, x, w)
        for name, got, want in zip(("dx", "dw", "db"), back, gradients, strict=True):
            oracles.assert_same_bits(got, want, f"{name} of {x.shape} @ {w.shape}")


def test_bits_of_long_sums(dtype, isa, rng):
    """Every gradient's own k runs over more than one chunk."""
    m, k, n = 2 * CHUNK + 3, 2, 3
    x, w, dz = (rng.standard_normal(s).astype(dtype) for s in ((m, k), (k, n), (m, n)))
    _, dw, db = pynn.affine_backward(dz, x, w)
    oracles.assert_same_bits(dw, oracles.affine(x.T, dz, None, CHUNK))
    oracles.assert_same_bits(db, oracles.affine(np.ones((1, m), dtype), dz, None, CHUNK)[0])
    dx, _, _ = pynn.affine_backward(dz.T.copy(), w.T.copy(), x.T.copy())
    oracles.assert_same_bits(dx, oracles.affine(dz.T, x, None, CHUNK))


# One for each way that affine goes about its work: by chunks of rows of w, few rows in either order, packing while it
# multiplies, packing before, several blocks of rows and of columns, several ranges of rows in a block, with ragged edges.
WAYS = [(1, 1100, 501), (2, 1100, 501), (3, 1100, 301), (4, 801, 300), (7, 1025, 203)]
WAYS += [(25, 523, 401), (193, 260, 129), (60, 1027, 131), (290, 700, 290), (305, 2001, 99)]
WAYS += [(31, 256, 128)]


@functools.cache
def case_of_some_results(m, k, n, dtype):
    """Operands, some rows and columns, and the contract's results there, for every instruction set."""
    rng = np.random.default_rng(20240229)
    x, w, b = (rng.standard_normal(s).astype(dtype) for s in ((m, k), (k, n), (n,)))
    rows = np.unique([0, m // 3, m // 2, m - 2, m - 1]) % m
    columns = np.unique([0, 1, 7, 8, 15, 16, n // 2, n - 9, n - 8, n - 2, n - 1])
    return x, w, b, rows, columns, oracles.affine(x[rows], w[:, columns], b[columns], CHUNK)


@pytest.mark.parametrize("size", WAYS, ids=lambda size: "x".join(map(str, size)))
def test_bits_of_the_contract_however_it_is_done(size, dtype, isa):
    m, k, n = size
    if isa == "portable" and dtype == np.float64 and m * k * n > 3e7:
        pytest.skip("takes 20 seconds, its fma being made of additions; float32 goes the same ways")
    x, w, b, some_rows, some_columns, want = case_of_some_results(m, k, n, dtype)
    for to_x, to_w in itertools.product("CF", repeat=2):
        pynn.set_num_threads(5 if to_x == to_w else 1)
        y = pynn.affine(x.copy(to_x), w.copy(to_w), b)
        oracles.assert_same_bits(y[some_rows][:, some_columns], want, to_x + to_w)
    dw = pynn.affine_backward(y, x, w)[1]
    accumulated = np.ones((k, n), dtype)
    pynn.affine_backward(y, x, w, need_dx=False, out=(None, accumulated, b.copy()), accumulate=True)
    oracles.assert_same_bits(accumulated, 1 + dw, "accumulated")
    oracles.assert_same_bits(pynn.affine(x, pynn.pack(w), b), y, "packed")
    tanh = pynn.affine(x, w, b, activation="tanh")
    oracles.assert_same_bits(tanh, pynn.tanh(y), "tanh")


@pytest.mark.parametrize("columns", [1408, 1413, 1424])
def test_results_larger_than_a_cache(columns, dtype, isa, threads, rng):
    """8 MB and more, of one chunk: whole cache lines and not."""
    x, dy = whole(rng, 4, 1500, dtype=dtype), whole(rng, 4, columns, dtype=dtype)
    memory = np.full((1502, columns), 7, dtype)
    w = np.ones((1500, columns), dtype)
    for dw in (None, memory[1:-1]):
        _, got, _ = pynn.affine_backward(dy, x, w, need_dx=False, out=(None, dw, None))
        assert np.array_equal(got, x.T @ dy)
    assert (memory[[0, -1]] == 7).all()


def test_rows_larger_than_a_cache(dtype, isa, rng):
    """Packed rows of x of more than 4 MiB, in two ranges, are asked for ahead."""
    if isa == "portable" and dtype == np.float64:
        pytest.skip("takes long, its fma being made of additions; float32 goes the same ways")
    pynn.set_num_threads(1)
    x, w = whole(rng, 300, 4100, dtype=dtype), whole(rng, 4100, 300, dtype=dtype)
    for to_w in "CF":
        assert np.array_equal(pynn.affine(x, w.copy(to_w)), x @ w), to_w


def test_empty_sums_of_many_rows(dtype, isa):
    """k = 0, and no outputs to sum over, with several blocks of rows."""
    b = np.arange(20, dtype=dtype)
    for order in "CF":
        x, w = np.ones((500, 0), dtype), np.ones((0, 20), dtype, order)
        assert np.array_equal(pynn.affine(x, w, b), np.broadcast_to(b, (500, 20)))
        assert np.array_equal(pynn.affine(x, pynn.pack(w)), np.zeros((500, 20)))
        dx, dw, db = pynn.affine_backward(
            x, np.ones((500, 5), dtype), np.ones((5, 0), dtype, order)
        )
        assert np.array_equal(dx, np.zeros((500, 5))) and dw.shape == (5, 0) and db.shape == (0,)


@pytest.mark.slow
@pytest.mark.parametrize("orders", list(itertools.product("CF", repeat=2)), ids="".join)
def test_exact_at_every_small_size(orders, dtype, isa, rng):
    """All of m, k and n in 0 ... 70."""
    most = 71
    x, w, b = whole(rng, most, most), whole(rng, most, most), whole(rng, most)
    x, w, b = x.astype(dtype, orders[0]), w.astype(dtype, orders[1]), b.astype(dtype)
    for k in range(most):
        want = x[:, :k] @ w[:k] + b
        for m, n in itertools.product(range(most), repeat=2):
            y = pynn.affine(x[:m, :k], w[:k, :n], b[:n])
            assert np.array_equal(y, want[:m, :n]), (m, k, n)


def test_subnormal_sums_and_signs_of_zero(dtype, isa):
    """Underflow within a sum is gradual, and zeros have the contract's sign."""
    tiny = np.finfo(dtype).smallest_subnormal
    x = np.array([[tiny, 1], [-tiny, 0], [0, -0.0], [-tiny, 0]], dtype)
    w = np.array([[0.5, 3, -1], [tiny, -tiny, tiny]], dtype)
    for b in (None, np.array([-0.0, 0, tiny], dtype)):
        for k in (0, 1, 2):
            want = oracles.affine(x[:, :k], w[:k], b, CHUNK)
            oracles.assert_same_bits(pynn.affine(x[:, :k], w[:k], b), want, f"k = {k}, b = {b}")


@pytest.mark.parametrize("name", [None, *ACTIVATIONS])
def test_fused_activation_is_the_ufunc(name, dtype, isa, threads, rng):
    """Fused forward and backward give the bits of the steps done one after the other."""
    for m, k, n in ((1, 1, 1), (3, 300, 5), (33, 20, 70), (200, 31, 257)):
        x, w, b, dy = (rng.standard_normal(s).astype(dtype) for s in ((m, k), (k, n), (n,), (m, n)))
        z = pynn.affine(x, w, b)
        y = pynn.affine(x, w, b, activation=name)
        dz = dy
        if name is not None:
            activation = pynn.ACTIVATIONS[name]
            oracles.assert_same_bits(y, activation.forward(z), f"{m, k, n}")
            if activation.saves == "x":  # which affine does not keep
                for module in (pynn, reference):
                    with pytest.raises(ValueError, match=repr(name)):
                        module.affine_backward(dy, x, w, y, activation=name)
                continue
            dz = activation.backward(dy, y)
        back = pynn.affine_backward(dy, x, w, y, activation=name)
        for got, want in zip(back, pynn.affine_backward(dz, x, w), strict=True):
            oracles.assert_same_bits(got, want, f"{m, k, n}")


def test_random_data_within_the_bound(dtype, isa, threads, rng, record_ulp):
    """|error| <= (chunk + number of chunks + 1) eps / 2 sum |x||w|, the bound of chunked sums."""
    for m, k, n in ((5, 1000, 7), (64, 300, 65), (1, 4099, 3)):
        x, w = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
        b = rng.standard_normal(n).astype(dtype)
        wide = np.longdouble
        true = (x.astype(wide)[:, :, None] * w.astype(wide)).sum(axis=1) + b
        size = np.abs(x).astype(np.float64) @ np.abs(w) + np.abs(b)
        steps = min(k, CHUNK) + -(-k // CHUNK) + 1
        unit = np.finfo(dtype).eps / 2 * size
        error = np.abs(pynn.affine(x, w, b) - true) / unit
        record_ulp(f"affine {np.dtype(dtype)}, in eps/2 sum|x||w|", error.max())
        assert error.max() <= steps


@pytest.mark.parametrize("lead", [(), (4,), (2, 3), (2, 1, 5), (0,), (3, 0)])
def test_leading_axes(lead, dtype, rng):
    """x of any number of axes is its rows; gradients come back in x's shape."""
    x, w = whole(rng, *lead, 6, dtype=dtype), whole(rng, 6, 5, dtype=dtype)
    b, dy = whole(rng, 5, dtype=dtype), whole(rng, *lead, 5, dtype=dtype)
    y = pynn.affine(x, w, b)
    assert y.shape == (*lead, 5) and np.array_equal(y, x @ w + b)
    dx, dw, db = pynn.affine_backward(dy, x, w)
    rows, outs = x.reshape(-1, 6), dy.reshape(-1, 5)
    assert dx.shape == x.shape and np.array_equal(dx, dy @ w.T)
    assert np.array_equal(dw, rows.T @ outs) and np.array_equal(db, outs.sum(axis=0))


def test_nothing_to_sum(dtype, isa):
    """k = 0 gives the bias, through the activation; empty outputs stay empty."""
    b = np.array([1, -2, 3], dtype)
    x, w = np.empty((4, 0), dtype), np.empty((0, 3), dtype)
    assert np.array_equal(pynn.affine(x, w, b), np.tile(b, (4, 1)))
    assert np.array_equal(pynn.affine(x, w), np.zeros((4, 3)))
    assert np.array_equal(pynn.affine(x, w, b, activation="relu"), np.tile([1, 0, 3], (4, 1)))
    dx, dw, db = pynn.affine_backward(np.ones((4, 3), dtype), x, w)
    assert dx.shape == (4, 0) and dw.shape == (0, 3) and np.array_equal(db, [4, 4, 4])
    dx, dw, db = pynn.affine_backward(
        np.ones((0, 3), dtype), np.ones((0, 2), dtype), np.ones((2, 3), dtype)
    )
    assert dx.shape == (0, 2) and not dw.any() and dw.shape == (2, 3) and not db.any()


def test_without_dx(rng):
    x, w, dy = whole(rng, 4, 3), whole(rng, 3, 5), whole(rng, 4, 5)
    dx, dw, db = _core.affine_backward(dy, x, w, need_dx=False)
    assert dx is None and np.array_equal(dw, x.T @ dy) and np.array_equal(db, dy.sum(axis=0))


@pytest.mark.parametrize(
    "types, result",
    [
        ("ff", "f"),
        ("dd", "d"),
        ("fd", "d"),
        ("df", "d"),
        ("ii", "d"),
        ("bf", "f"),
        ("lf", "d"),
        ("?d", "d"),
    ],
)
def test_dtypes(types, result, rng):
    x, w = rng.integers(0, 2, (3, 4)).astype(types[0]), rng.integers(0, 2, (4, 2)).astype(types[1])
    y = pynn.affine(x, w)
    assert y.dtype == result and np.array_equal(y, x.astype(result) @ w.astype(result))
    dx, dw, db = pynn.affine_backward(y, x, w)
    assert {dx.dtype, dw.dtype, db.dtype} == {np.dtype(result)}


def memory_mapped(a, folder):
    mapped = np.memmap(folder / f"{id(a)}", a.dtype, "w+", shape=a.shape)
    mapped[...] = a
    return mapped


OTHER_ARRAYS = {
    "matrix": lambda a, _: np.asmatrix(a) if a.ndim == 2 else a,
    "masked": lambda a, _: np.ma.masked_array(a, np.arange(a.size).reshape(a.shape) % 3 == 1),
    "memmap": memory_mapped,
    "torch": lambda a, _: pytest.importorskip("torch").from_numpy(a.copy()),
    "torch transposed": lambda a, _: pytest.importorskip("torch").from_numpy(a.T.copy()).T,
}


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.filterwarnings("ignore:The use of `x.T`:UserWarning")
@pytest.mark.parametrize("kind", OTHER_ARRAYS)
@pytest.mark.parametrize("activation", [None, "tanh"])
def test_other_arrays(kind, activation, dtype, tmp_path, rng):
    """Matrices, masked arrays, files in memory and tensors count as the plain data in them."""
    m, k, n = 33, 70, 21
    plain = [rng.standard_normal(s).astype(dtype) for s in ((m, k), (k, n), (n,), (m, n))]
    x, w, b, dy = plain
    y = pynn.affine(x, w, b, activation=activation)
    back = pynn.affine_backward(dy, x, w, y, activation=activation)
    for which in (range(5), *([i] for i in range(5))):
        xs, ws, bs, dys, ys = (
            OTHER_ARRAYS[kind](a, tmp_path) if i in which else a for i, a in enumerate((*plain, y))
        )
        got = pynn.affine(xs, ws, bs, activation=activation)
        oracles.assert_same_bits(got, y, f"changed {list(which)}")
        got_back = pynn.affine_backward(dys, xs, ws, ys, activation=activation)
        for one, other in zip((got, *got_back), (y, *back), strict=True):
            assert type(one) is np.ndarray
            oracles.assert_same_bits(one, other, f"changed {list(which)}")
        for changed, same in zip((xs, ws, bs, dys, ys), (*plain, y), strict=True):
            assert np.array_equal(np.asarray(changed), same)


def test_nan_and_infinity_reach_what_they_touch(dtype, isa):
    """No shortcut past zeros: 0 times NaN or infinity is NaN, and only in its own row and column."""
    x, w = np.zeros((20, 40), dtype), np.ones((40, 50), dtype)
    x[3, 5], x[7, 6], w[9, 11] = np.nan, np.inf, np.inf
    with np.errstate(invalid="ignore"):
        expected = x @ w
        assert np.array_equal(pynn.affine(x, w), expected, equal_nan=True)
        assert np.isnan(expected).sum() == 50 + 19 and np.isinf(expected).sum() == 49
        for name in ACTIVATIONS:
            y = pynn.affine(x, w, activation=name)
            assert np.array_equal(np.isnan(y), np.isnan(pynn.ACTIVATIONS[name].forward(expected)))


@pytest.mark.parametrize(
    "m, k, n", [(8, 1030, 77), (8, 256, 301), (33, 517, 64), (130, 262, 66), (67, 533, 403)]
)
def test_weights_in_column_order(m, k, n, dtype, every_setting, rng):
    """The product is turned, or columns are laid out as they come: the bits of weights in row order."""
    x, w = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
    b, memory = rng.standard_normal(n).astype(dtype), np.empty((m + 2, n + 9), dtype)
    want, plain = pynn.affine(x, w, b, activation="tanh"), pynn.affine(x, w)
    columns, rows, out = np.asfortranarray(w), np.asfortranarray(x), memory[1:-1, 4:-5]
    for setting in every_setting():
        for same in (x, rows):
            got = pynn.affine(same, columns, b, activation="tanh")
            oracles.assert_same_bits(got, want, setting)
        memory[...] = np.nan
        assert pynn.affine(x, columns, out=out) is out
        oracles.assert_same_bits(np.array(out), plain, setting)
        assert np.isnan(memory).sum() == memory.size - out.size
    dx, _, _ = pynn.affine_backward(x, plain, w.T)
    oracles.assert_same_bits(dx, plain)
