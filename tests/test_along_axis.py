"""log_softmax, logsumexp, softmin and glu: accuracy, limits as SciPy has them, axes, gradients."""

import warnings

import numpy as np
import pytest
import scipy.special

import oracles
import pynn
from oracles import CTX, Mp, ulp_error_mp, ulp_errors
from pynn import _core, layers
from test_softmax import rows

FORWARD = {np.float32: 1.0, np.float64: 2.0}
# logsumexp adds the greatest element and a logarithm, which may cancel: an error of so much of the former is right too where the
# logarithm is of few terms, and of so much of the latter everywhere.
CANCELS = {np.float32: 2.0**-40, np.float64: 2.0**-53}
OF_LOGARITHM = {np.float32: 2.0**-25, np.float64: 2.0**-53}
INF, NAN = np.inf, np.nan
LIMITS = [
    [-INF, -INF],
    [INF, 1],
    [INF, INF, 0],
    [INF, -INF],
    [-INF, 1],
    [-INF],
    [INF],
    [NAN, 1],
    [1, NAN],
    [INF, NAN],
    [NAN, INF],
    [0] * 40 + [INF, -INF],
    [0] * 40 + [NAN],
    [-INF] * 40,
    [7],
    [-0.0, 0.0],
]


def wide_log_sum(x):
    """greatest, log(sum(exp(x - greatest))) in the wider type, no sum rounded to 1."""
    wide = x.astype(oracles.WIDER[x.dtype.type])
    at = wide.argmax()
    return wide, wide[at], np.log1p(np.exp(np.delete(wide, at) - wide[at]).sum())


def test_accuracy(dtype, isa, rng, record_ulp):
    """Within the bounds on rows of every length, nearly equal to nearly one-hot."""
    if dtype == np.float64 and not oracles.HAS_LONGDOUBLE:
        pytest.skip("long double is double here")
    kinds = [*rows(rng, dtype)]
    kinds += [np.array([0.5, -d, -d - 3], dtype) for d in (1, 10, 20, 30, 60, 80, 100)]
    kinds += [np.full(n, v, dtype) for n in (1, 2, 15, 16, 17, 100) for v in (0, -3.3, 700)]
    for x in kinds:
        wide, greatest, log = wide_log_sum(x)
        with np.errstate(all="raise"):
            got, total = pynn.log_softmax(x), pynn.logsumexp(x)
        error = ulp_errors(got, (wide - greatest) - log).max()
        record_ulp(f"log_softmax {np.dtype(dtype)}", error)
        assert error <= FORWARD[dtype], x
        true = greatest + log
        error = ulp_errors(np.array([total]), np.array([true]))[0]
        within = abs(float(total - true)) <= CANCELS[dtype] * abs(float(greatest))
        if not within:
            record_ulp(f"logsumexp {np.dtype(dtype)}", error)
        assert within or error <= FORWARD[dtype], x


def test_one_great_element_and_many_small(dtype, isa, rng, record_ulp):
    """What the additions of many small terms round off is not lost, nor what that rounds off."""
    if dtype == np.float64 and not oracles.HAS_LONGDOUBLE:
        pytest.skip("long double is double here")
    for n in (480, 1025, 40_000, 300_000):
        for below in (-25, -18, -16.004774, -15.94, -13, -9, -5):
            x = np.full(n, below, dtype)
            if n % 2 == 0:
                x += rng.standard_normal(n).astype(dtype)
            x[n // 3] = 0
            wide, greatest, log = wide_log_sum(x)
            for name, got, true in (
                ("logsumexp", np.array([pynn.logsumexp(x)]), np.array([greatest + log])),
                ("log_softmax", pynn.log_softmax(x), (wide - greatest) - log),
                ("softmax", pynn.softmax(x), np.exp((wide - greatest) - log)),
            ):
                error = ulp_errors(got, true).max()
                record_ulp(f"{name} {np.dtype(dtype)}", error)
                assert error <= FORWARD[dtype], (name, n, below)


def test_accuracy_of_the_logarithm(dtype, rng):
    """Of rows that logsumexp is next to 0 of, as log_softmax gives them."""
    if dtype == np.float64 and not oracles.HAS_LONGDOUBLE:
        pytest.skip("long double is double here")
    for spread in (0.1, 1, 5):
        for n in rng.integers(2, 300, 100):
            x = pynn.log_softmax((spread * rng.standard_normal(n)).astype(dtype))
            _, greatest, log = wide_log_sum(x)
            assert abs(pynn.logsumexp(x) - (greatest + log)) <= OF_LOGARITHM[dtype] * log


def test_accuracy_against_mpmath(dtype, rng):
    for n in (1, 2, 5, 17, 40):
        for spread in (1, 8, 40):
            x = rng.normal(0, spread, n).astype(dtype)
            e = [Mp(v).exp() for v in x]
            total = CTX.log(sum(e).v)
            assert ulp_error_mp(pynn.logsumexp(x), total) <= 2
            for got, v in zip(pynn.log_softmax(x), x, strict=True):
                assert ulp_error_mp(got, oracles.exactly(v) - total) <= FORWARD[dtype]


def test_cancellation(dtype):
    """log(2) - log(2), as far as numbers of the type come near it."""
    x = np.full(2, -np.log(dtype(2)), dtype)
    true = oracles.exactly(x[0]) + CTX.log(2)
    assert abs(oracles.exactly(pynn.logsumexp(x)) - true) <= CANCELS[dtype]


def test_backward_of_great_gradients(dtype, isa):
    """Neither a small exponential loses bits, nor a sum or difference overflows, where the gradient does not."""
    far, huge = (-95, 1e30) if dtype == np.float32 else (-720, 1e300)
    x, wide = np.array([far, 0], dtype), oracles.WIDER[dtype]
    small = huge * np.exp(wide(x[0]))
    with np.errstate(all="raise"):
        dx = pynn.logsumexp_backward(dtype(huge), x, pynn.logsumexp(x))
        assert ulp_errors(dx[:1], np.array([small]))[0] <= 2
        dx = pynn.log_softmax_backward(np.array([0, huge], dtype), pynn.log_softmax(x))
        assert ulp_errors(dx[:1], np.array([-small]))[0] <= 2
        most = np.finfo(dtype).max
        y = pynn.softmax(np.array([0, 60], dtype))
        true = y[0] * (wide(most) * (1 - wide(y[0])) + wide(most) * y[1])
        for f, sign in ((pynn.softmax_backward, 1), (pynn.softmin_backward, -1)):
            dx = f(np.array([most, -most]), y)
            assert ulp_errors(dx[:1], np.array([sign * true]))[0] <= 2
            assert abs(dx[1]) <= 2 * true
        if dtype == np.float32:
            dx = pynn.log_softmax_backward(
                np.float32([2e38, 2e38]), pynn.log_softmax(np.float32([0, 0]))
            )
            assert np.array_equal(dx, [0, 0])


def test_backward(dtype, isa, rng, record_ulp):
    """Differences may cancel, so the unit is that of their parts."""
    for x in rows(rng, dtype):
        y, dy = pynn.log_softmax(x), rng.standard_normal(x.size).astype(dtype)
        part = np.exp(y.astype(np.longdouble)) * dy.astype(np.longdouble).sum()
        unit = np.spacing((np.abs(dy) + np.abs(part)).astype(dtype))
        error = float((np.abs(pynn.log_softmax_backward(dy, y) - (dy - part)) / unit).max())
        record_ulp(f"log_softmax_backward {np.dtype(dtype)}", error)
        assert error <= 2, x
        total = pynn.logsumexp(x)
        got = pynn.logsumexp_backward(dy[0], x, total)
        wide = oracles.WIDER[dtype]
        errors = ulp_errors(got, wide(dy[0]) * np.exp(x.astype(wide) - wide(total)))
        record_ulp(f"logsumexp_backward {np.dtype(dtype)}", errors.max())
        assert errors.max() <= 2, x


@pytest.mark.parametrize("x", LIMITS, ids=str)
def test_limits(x, dtype, isa):
    """Infinities, NaN and zeros as in SciPy; no flags."""
    x = np.array(x, dtype)
    with np.errstate(all="raise"):
        got, total = pynn.log_softmax(x), pynn.logsumexp(x)
        low = pynn.softmin(-x)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        want, want_total = scipy.special.log_softmax(x), scipy.special.logsumexp(x)
    assert np.allclose(got, want, rtol=1e-6, equal_nan=True), (got, want)
    assert np.allclose(total, want_total, rtol=1e-6, equal_nan=True), (total, want_total)
    oracles.assert_same_bits(low, pynn.softmax(x))


def test_empty(dtype):
    for shape in ((0,), (3, 0), (0, 3), (2, 0, 5)):
        x = np.empty(shape, dtype)
        for f, backward in (
            (pynn.log_softmax, pynn.log_softmax_backward),
            (pynn.softmin, pynn.softmin_backward),
        ):
            assert f(x).shape == backward(x, x).shape == shape
        total = pynn.logsumexp(x)
        assert total.shape == shape[:-1] and (total == -INF).all()
        assert pynn.logsumexp_backward(total, x, total).shape == shape


def test_softmin_is_softmax_of_the_opposite(dtype, isa, rng):
    x, dy = (3 * rng.standard_normal((2, 5, 77))).astype(dtype)
    y = pynn.softmin(x)
    oracles.assert_same_bits(y, pynn.softmax(-x))
    oracles.assert_same_bits(pynn.softmin_backward(dy, y), -pynn.softmax_backward(dy, y))


@pytest.mark.parametrize("name", ["softmin", "log_softmax", "logsumexp"])
def test_gradient(name, rng):
    """Against central differences."""
    f, x = getattr(pynn, name), rng.normal(0, 2, 9)
    dy = rng.standard_normal(np.shape(f(x)))
    numeric = [np.sum(dy * (f(x + d) - f(x - d))) / 2e-5 for d in 1e-5 * np.eye(9)]
    backward = getattr(pynn, f"{name}_backward")
    got = backward(dy, x, f(x)) if name == "logsumexp" else backward(dy, f(x))
    assert np.allclose(got, numeric, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["softmin", "log_softmax"])
def test_axes(name, dtype, threads, rng):
    """Any axis is the last axis of the moved array, bit for bit, into any out."""
    f, backward = getattr(pynn, name), getattr(pynn, f"{name}_backward")
    x, dy = rng.standard_normal((2, 4, 5, 7, 33)).astype(dtype)
    for axis in (-1, 0, 2, -3):
        y = f(np.ascontiguousarray(np.moveaxis(x, axis, -1)))
        out = np.empty_like(x)
        assert f(x, axis=axis, out=out) is out
        oracles.assert_same_bits(out, np.moveaxis(y, -1, axis))
        dx = backward(np.ascontiguousarray(np.moveaxis(dy, axis, -1)), y)
        oracles.assert_same_bits(backward(dy, out, axis=axis), np.moveaxis(dx, -1, axis))
        total = pynn.logsumexp(x, axis=axis)
        assert pynn.logsumexp(x, axis=axis, keepdims=True).ndim == 4
        oracles.assert_same_bits(total, pynn.logsumexp(np.moveaxis(x, axis, -1)))
        dx = pynn.logsumexp_backward(total, np.moveaxis(x, axis, -1), total)
        oracles.assert_same_bits(
            pynn.logsumexp_backward(total, x, total, axis=axis), np.moveaxis(dx, -1, axis)
        )


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_16_bit_types(kind, rng):
    """Computed in float32, rounded once."""
    kind = getattr(pytest.importorskip("ml_dtypes"), kind) if kind == "bfloat16" else np.float16
    x, dy = rng.standard_normal((2, 7, 40)).astype(kind)
    wide, wide_dy = x.astype(np.float32), dy.astype(np.float32)
    for got, want in (
        (pynn.log_softmax(x), pynn.log_softmax(wide)),
        (pynn.log_softmax_backward(dy, x), pynn.log_softmax_backward(wide_dy, wide)),
        (pynn.softmin(x), pynn.softmin(wide)),
        (pynn.logsumexp(x, axis=0), pynn.logsumexp(wide, axis=0)),
        (pynn.glu(x), pynn.glu(wide)),
        (pynn.glu_backward(dy[:, :20], x), pynn.glu_backward(wide_dy[:, :20], wide)),
    ):
        assert got.dtype == kind and got.tobytes() == want.astype(kind).tobytes()


def pairs(dtype, rng):
    """a and b: usual ones, and far ones whose product is nevertheless a number."""
    info = np.finfo(dtype)
    most = np.log(float(info.max))
    b = np.concatenate([rng.uniform(-20, 20, 4000), rng.uniform(-2.2 * most, 2.2 * most, 4000)])
    a = np.exp(rng.uniform(-0.98 * most, 0.98 * most, b.size)) * rng.choice([-1, 1], b.size)
    a[:2000] = rng.standard_normal(2000)
    return a.astype(dtype), b.astype(dtype)


def sigmoid(b):
    e = np.exp(-np.abs(b))
    return np.where(b < 0, e, 1) / (1 + e)


def test_glu_accuracy(dtype, isa, rng, record_ulp):
    """a sigmoid(b), also where the sigmoid alone would be 0; both gradients."""
    if dtype == np.float64 and not oracles.HAS_LONGDOUBLE:
        pytest.skip("long double is double here")
    a, b = pairs(dtype, rng)
    wide_a, wide_b = a.astype(oracles.WIDER[dtype]), b.astype(oracles.WIDER[dtype])
    with np.errstate(all="raise"):
        y = _core.glu_halves(a, b)
    errors = ulp_errors(y, wide_a * sigmoid(wide_b))
    record_ulp(f"glu {np.dtype(dtype)}", errors.max())
    assert errors.max() <= FORWARD[dtype], (a[errors.argmax()], b[errors.argmax()])
    dy = rng.uniform(0.5, 2, a.size).astype(dtype)
    with np.errstate(all="raise"):
        da, db = _core.glu_halves_backward(dy, a, b)
    errors = ulp_errors(da, dy * sigmoid(wide_b))
    assert errors.max() <= FORWARD[dtype]
    true = dy * (wide_a * (sigmoid(wide_b) * sigmoid(-wide_b)))
    normal = np.abs(true) > 8 * np.finfo(dtype).tiny  # below, the slope was rounded to a subnormal
    errors = ulp_errors(db, true)
    record_ulp(f"glu_backward {np.dtype(dtype)}", errors[normal].max())
    assert errors[normal].max() <= 2 and errors.max() <= 3


def test_glu_backward_of_any_size(dtype, isa, rng):
    """A small product of two factors must not be what a large third one multiplies."""
    if dtype == np.float64 and not oracles.HAS_LONGDOUBLE:
        pytest.skip("long double is double here")
    high, far = (60, 86) if dtype == np.float32 else (500, 700)
    dy, a = np.exp2(rng.uniform(-high - 60, high, (2, 20_000))).astype(dtype)
    b = rng.uniform(-far, far, dy.size).astype(dtype)
    da, db = _core.glu_halves_backward(dy, a, b)
    wide_dy, wide_a, wide_b = (v.astype(oracles.WIDER[dtype]) for v in (dy, a, b))
    assert ulp_errors(da, wide_dy * sigmoid(wide_b)).max() <= FORWARD[dtype]
    errors = ulp_errors(db, wide_dy * (wide_a * (sigmoid(wide_b) * sigmoid(-wide_b))))
    at = errors.argmax()
    assert errors[at] <= 2, (dy[at], a[at], b[at])


def test_glu_small_and_far(isa, rng):
    """Next to the least normal number, of any operands, and with NaN beside them."""
    for limit in (3, 30, 80, 81, 200):
        a = rng.integers(0, 2**32, 4000, dtype=np.uint32).view(np.float32)
        a[::2] = rng.integers(1, 2**25, a[::2].size, dtype=np.uint32).view(np.float32)
        b = rng.uniform(-limit, limit, a.size).astype(np.float32)
        a[~np.isfinite(a)] = 1
        a[::97] = b[48::97] = np.nan
        with np.errstate(all="ignore"):
            wide = b.astype(np.longdouble)
            true = a * np.exp(np.minimum(wide, 0)) / (1 + np.exp(-abs(wide)))
        y = _core.glu_halves(a, b)
        number = ~np.isnan(a) & ~np.isnan(b)
        assert np.array_equal(np.isnan(y), ~number)
        assert ulp_errors(y[number], true[number]).max() <= FORWARD[np.float32]


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((5000, 2), -1),
        ((5000, 6), 1),
        ((2, 9000), 0),
        ((4, 6, 5, 7), 1),
        ((4, 6, 5, 7), -4),
        ((3, 0, 2), 0),
        ((6,), 0),
    ],
)
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, ">f4", int])
def test_glu_along_any_axis(shape, axis, kind, rng):
    """However kernels run over it: what the halves give when they are contiguous and flat."""
    if axis == 0 and shape[0] % 2:
        shape = (4, *shape[1:])
    x = (4 * rng.standard_normal(shape)).astype(kind)
    a, b = np.split(x, 2, axis)
    dy = rng.standard_normal(a.shape).astype(kind)
    flat = [np.array(v).ravel() for v in (dy, a, b)]
    want = _core.glu_halves(*flat[1:]).reshape(a.shape)
    parts = [v.reshape(a.shape) for v in _core.glu_halves_backward(*flat)]
    oracles.assert_same_bits(pynn.glu(x, axis), want)
    oracles.assert_same_bits(pynn.glu(np.asfortranarray(x), axis), want)
    oracles.assert_same_bits(pynn.glu_backward(dy, x, axis), np.concatenate(parts, axis))
    for order in "CF":
        out = np.empty(a.shape, want.dtype, order)
        assert pynn.glu(x, axis, out=out) is out and pynn.glu(x, axis, out=(out,)) is out
        oracles.assert_same_bits(out, want)
        dx = np.empty(shape, want.dtype, order)
        assert pynn.glu_backward(dy, x, axis, out=dx) is dx
        oracles.assert_same_bits(dx, np.concatenate(parts, axis))
    if x.dtype == want.dtype and x.size:
        pynn.glu_backward(dy, x, axis, out=x)
        oracles.assert_same_bits(x, dx)


def test_glu_limits(dtype, isa):
    for a, b, y in (
        (2, INF, 2),
        (2, -INF, 0),
        (INF, 0, INF),
        (INF, -INF, NAN),
        (-INF, 3, -INF),
        (0, INF, 0),
        (NAN, 0, NAN),
        (0, NAN, NAN),
    ):
        with np.errstate(all="raise"):
            given = np.array([a], dtype), np.array([b], dtype)
            got = _core.glu_halves(*given)[0]
            da, db = (v[0] for v in _core.glu_halves_backward(np.ones(1, dtype), *given))
        assert np.array_equal(got, y, equal_nan=True), (a, b)
        assert np.array_equal(da, sigmoid(b), equal_nan=True) or b == 3
        if np.isinf(b) and np.isfinite(a):
            assert db == 0
    assert np.signbit(pynn.glu(np.array([-0.0, 1], dtype)))


def test_glu(dtype, threads, rng):
    """Halves along any axis; into out, also over the input."""
    x = rng.standard_normal((4, 6, 700)).astype(dtype)
    for axis in (-1, 0, 1, -2):
        a, b = np.split(x, 2, axis)
        y = pynn.glu(x, axis)
        oracles.assert_same_bits(y, _core.glu_halves(a.copy(), b.copy()))
        out = np.empty_like(y)
        assert pynn.glu(x, axis=axis, out=out) is out
        oracles.assert_same_bits(out, y)
        dx = pynn.glu_backward(y, x, axis)
        da, db = _core.glu_halves_backward(y, a.copy(), b.copy())
        oracles.assert_same_bits(dx, np.concatenate([da, db], axis))
        over = x.copy()
        assert pynn.glu_backward(y, over, axis, out=over) is over
        oracles.assert_same_bits(over, dx)
        assert pynn.glu_backward(y.astype(np.float64), x, axis).dtype == np.float64
    assert pynn.glu([0, 1, 2, 3]).dtype == np.float64


def test_glu_errors():
    x = np.ones((4, 5))
    for call, said in (
        (lambda: pynn.glu(x), r"even.*\(4, 5\)"),
        (lambda: pynn.glu(1.0), r"\(\)"),
        (lambda: pynn.glu(x, 2), "axis 2"),
        (lambda: pynn.glu_backward(x, x, 0), r"dy.*\(2, 5\).*\(4, 5\)"),
        (lambda: pynn.glu_backward(1.0, x, 0), r"dy.*\(2, 5\).*\(\)"),
        (lambda: pynn.glu_backward(x[None, :2], x, 0), r"dy.*\(2, 5\).*\(1, 2, 5\)"),
        (lambda: pynn.glu_backward(x[:2], x, 0, out=x[:2]), r"out.*\(4, 5\).*\(2, 5\)"),
    ):
        with pytest.raises(ValueError, match=said):
            call()
    for call, said in (
        (lambda: pynn.glu(np.ones(4, complex)), "glu"),
        (lambda: pynn.glu(x, 0.0), "axis.*0.0"),
        (lambda: pynn.glu(x, None), "axis.*None"),
        (lambda: pynn.glu_backward(x[:2], x, 0, out=x.tolist()), "out.*list"),
    ):
        with pytest.raises(TypeError, match=said):
            call()


@pytest.mark.parametrize("backend", ["pynn", "numpy"])
@pytest.mark.parametrize("axis", [-1, 0])
@pytest.mark.parametrize("name", ["Softmax", "Softmin", "LogSoftmax", "Glu"])
def test_layers(name, axis, backend, rng):
    """Against central differences, on either backend."""
    pynn.use_backend(backend)
    layer, x = getattr(layers, name)(axis=axis), rng.standard_normal((4, 6))
    dy = rng.standard_normal(layer.forward(x).shape)
    dx = layer.backward(dy)
    for i in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[i] = 1e-6
        change = layer.forward(x + step) - layer.forward(x - step)
        assert np.isclose(dx[i], np.sum(dy * change) / 2e-6, atol=1e-8)


def test_reference(rng):
    """The readable versions of all of these."""
    from pynn import reference

    x = rng.standard_normal((3, 8))
    dy = rng.standard_normal((3, 8))
    for name in ("softmin", "log_softmax"):
        y = getattr(pynn, name)(x, axis=0)
        assert np.allclose(getattr(reference, name)(x, axis=0), y)
        want = getattr(pynn, f"{name}_backward")(dy, y, axis=0)
        assert np.allclose(getattr(reference, f"{name}_backward")(dy, y, axis=0), want)
    total = pynn.logsumexp(x, axis=0)
    assert np.allclose(reference.logsumexp(x, axis=0), total)
    want = pynn.logsumexp_backward(dy[0], x, total, axis=0)
    assert np.allclose(reference.logsumexp_backward(dy[0], x, total, axis=0), want)
    assert reference.logsumexp(np.empty((2, 0))).tolist() == [-INF, -INF]
    a, b = x[:, :4], x[:, 4:]
    assert np.allclose(reference.glu_halves(a, b), pynn.glu(x))
    want = np.hsplit(pynn.glu_backward(dy[:, :4], x), 2)
    assert np.allclose(reference.glu_halves_backward(dy[:, :4], a, b), want)


@pytest.mark.parametrize("span", [(-64.01, -64), (-87, -64), (-190, -87), (-64, 64)])
def test_glu_subnormal_results_have_the_same_bits(every_setting, rng, span):
    """What is rounded twice by one instruction set and once by another differs there alone."""
    b = rng.uniform(*span, 50_000).astype(np.float32)
    a = np.exp2(np.clip(rng.uniform(-150, -125, b.size) - b / np.log(2), -149, 127.9))
    results = {s: _core.glu_halves(a.astype(np.float32), b).tobytes() for s in every_setting()}
    assert len(set(results.values())) == 1
