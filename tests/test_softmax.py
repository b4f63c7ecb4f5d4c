"""softmax and its backward: accuracy, limits, axes."""

import numpy as np
import pytest

import oracles
import pynn
from oracles import CTX, Mp, mp_array, ulp_error_mp, ulp_errors

LENGTHS = [1, 2, 3, 10, 15, 16, 17, 31, 33, 64, 100, 257, 1000, 2048, 2049, 5001]
FORWARD = {np.float32: 1.0, np.float64: 2.0}  # bounds in ULP
BACKWARD = 2.0


def exact(x):
    e = [Mp(v).exp() for v in x]
    return np.array([v / sum(e) for v in e])


def rows(rng, dtype):
    """Rows of every length and of spreads from nearly equal to nearly one-hot."""
    for n in LENGTHS:
        for spread in (1e-3, 1, 10, 40):
            yield (rng.standard_normal(n) * spread + rng.normal(0, 50)).astype(dtype)


def test_accuracy(dtype, isa, rng, record_ulp):
    """In bulk against the wider type; underflowing elements included."""
    wide = oracles.WIDER[dtype]
    if dtype == np.float64 and not oracles.HAS_LONGDOUBLE:
        pytest.skip("long double is double here")
    for x in rows(rng, dtype):
        e = np.exp(x.astype(wide) - x.max())
        error = ulp_errors(pynn.softmax(x), e / e.sum()).max()
        record_ulp(f"softmax {np.dtype(dtype)}", error)
        assert error <= FORWARD[dtype], f"n = {x.size}"


def test_accuracy_wherever_the_greatest_is(isa, rng):
    """On both sides of 512, from where on float32 is subtracted first; and around the 256 elements that a sum takes."""
    for greatest in (511.9, 512.1, -511.9, -512.1, 1e4, -1e7, 3e9):
        for n in (1, 17, 255, 256, 257, 511, 512, 513, 1025, 2500):
            x = (rng.standard_normal(n) * 9 + greatest).astype(np.float32)
            e = np.exp(x.astype(np.float64) - x.max())
            assert ulp_errors(pynn.softmax(x), e / e.sum()).max() <= FORWARD[np.float32], (
                greatest,
                n,
            )
            others = np.delete(e, x.argmax()).sum()
            true = x.astype(np.float64) - x.max() - np.log1p(others)
            assert ulp_errors(pynn.log_softmax(x), true).max() <= 1, (greatest, n)


def test_accuracy_against_mpmath(dtype, rng, record_ulp):
    for n in (1, 2, 5, 17, 40):
        x = rng.normal(0, 8, n).astype(dtype)
        for got, true in zip(pynn.softmax(x), exact(x), strict=True):
            error = ulp_error_mp(got, true.v)
            record_ulp(f"softmax {np.dtype(dtype)}", error)
            assert error <= FORWARD[dtype]


def test_backward(dtype, isa, rng, record_ulp):
    """y (dy - sum(dy y)): the difference may cancel, so the unit is that of its parts."""
    for x in rows(rng, dtype):
        y, dy = pynn.softmax(x), rng.standard_normal(x.size).astype(dtype)
        mean = np.dot(dy.astype(np.longdouble), y.astype(np.longdouble))
        true = y * (dy - mean)
        unit = np.spacing(y * (np.abs(dy) + abs(dtype(mean))))
        error = float((np.abs(pynn.softmax_backward(dy, y) - true) / unit).max())
        record_ulp(f"softmax_backward {np.dtype(dtype)}", error)
        assert error <= BACKWARD, f"n = {x.size}"


def test_gradient(rng):
    """Against central differences."""
    x, dy = rng.normal(0, 2, 9), rng.standard_normal(9)
    h = 1e-5
    numeric = [dy @ (pynn.softmax(x + d) - pynn.softmax(x - d)) / (2 * h) for d in h * np.eye(9)]
    assert np.allclose(pynn.softmax_backward(dy, pynn.softmax(x)), numeric, rtol=0, atol=1e-10)


def test_limits(dtype, isa):
    """Largest value first taken off: no overflow. -inf alone has a limit; +inf gives NaN."""
    inf, nan, top = np.inf, np.nan, np.finfo(dtype).max
    for x, expected in (
        ([top, top], [0.5, 0.5]),
        ([-top, -top, -top, -top], [0.25] * 4),
        ([top, -top], [1, 0]),
        ([0, -inf, 0], [0.5, 0, 0.5]),
        ([-inf, 3], [0, 1]),
        ([-inf, -inf], [nan, nan]),
        ([inf, 1], [nan, nan]),
        ([0] * 40 + [inf, -inf], [nan] * 42),
        ([1, nan, 2], [nan] * 3),
        ([nan] + [0] * 40, [nan] * 41),
        ([0] * 40 + [nan], [nan] * 41),
        ([7], [1]),
        ([-0.0, 0.0], [0.5, 0.5]),
        ([], []),
    ):
        with np.errstate(all="raise"):
            y = pynn.softmax(np.array(x, dtype))
        assert np.array_equal(y, np.array(expected, dtype), equal_nan=True), x


def test_shift_invariance(dtype, isa, rng):
    """Adding a power of two that rounds nothing changes nothing, far from 0; near it float32 is reduced before."""
    x = rng.integers(-64, 64, (20, 50)).astype(dtype) / 16
    oracles.assert_same_bits(pynn.softmax(x + 2048), pynn.softmax(x + 1024))
    if dtype == np.float64:
        oracles.assert_same_bits(pynn.softmax(x + 1024), pynn.softmax(x))


def test_backward_propagates_nan(dtype, isa):
    y, dy = np.full(40, 1 / 40, dtype), np.ones(40, dtype)
    for where in (0, 17, 39):
        for bad in (y, dy):
            damaged = bad.copy()
            damaged[where] = np.nan
            with np.errstate(all="raise"):
                dx = pynn.softmax_backward(*((damaged, y) if bad is dy else (dy, damaged)))
            assert np.isnan(dx).all()


def test_axes(dtype, threads, rng):
    """Any axis is the last axis of the moved array, bit for bit, into any out."""
    x, dy = rng.standard_normal((2, 4, 5, 7, 33)).astype(dtype)
    for axis in (-1, 0, 1, 2, 3, -3):
        y = pynn.softmax(np.ascontiguousarray(np.moveaxis(x, axis, -1)))
        oracles.assert_same_bits(pynn.softmax(x, axis=axis), np.moveaxis(y, -1, axis))
        out = np.empty_like(x)
        assert pynn.softmax(x, axis=axis, out=out) is out
        oracles.assert_same_bits(out, np.moveaxis(y, -1, axis))
        dx = pynn.softmax_backward(np.ascontiguousarray(np.moveaxis(dy, axis, -1)), y)
        back = pynn.softmax_backward(dy, np.moveaxis(y, -1, axis), axis=axis)
        oracles.assert_same_bits(back, np.moveaxis(dx, -1, axis))
    with pytest.raises(ValueError, match="axis"):
        pynn.softmax(x, axis=4)


def test_empty(dtype):
    for shape in ((0,), (3, 0), (0, 3), (2, 0, 5)):
        x = np.empty(shape, dtype)
        assert pynn.softmax(x).shape == shape and pynn.softmax_backward(x, x).shape == shape


def test_mp_softmax_is_a_distribution(rng):
    """The oracle itself."""
    total = sum(exact(mp_array(rng.normal(0, 30, 50))))
    assert abs(total.v - 1) < CTX.ldexp(1, -230)


@pytest.mark.parametrize("dy", [["max"] * 3, [np.inf, 1, 2], [-np.inf, np.inf, 0], [0, 0, "max"]])
def test_log_softmax_backward_of_sums_too_large(dy, dtype, isa):
    """As the formula gives it, whose sum is float64: infinities, not NaN; and what is finite stays so."""
    dy = np.array([np.finfo(dtype).max if d == "max" else d for d in dy], dtype)
    y = np.full(3, -1, dtype)
    want = pynn.reference.log_softmax_backward(dy.astype(float), y.astype(float))
    np.testing.assert_allclose(pynn.log_softmax_backward(dy, y), want, 1e-6)
