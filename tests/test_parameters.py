"""Parameters of activations: operands that broadcast, by position or by name; and prelu."""

import inspect
import itertools
import pickle

import numpy as np
import pytest

import oracles
import pynn
from oracles import mp_call, ulp_error_mp, ulp_errors, wide_call
from pynn import layers, reference

# Sensible values, (invalid ones, whether backward alone is without a result)
CASES = {
    "leaky_relu": ([(0.2,), (0.0,), (1.0,), (0.3333,), (3.7,)], [(-0.1,)], True),
    "elu": ([(0.1,), (0.7,), (1.6732632,), (20.0,), (0.0,)], [(-1.0,)], True),
    "celu": (
        [(0.1,), (0.3,), (1.7,), (3.0,), (30.0,), (1000.0,)],
        [(0.0,), (-1.0,), (np.inf,)],
        False,
    ),
    "softplus": (
        [(0.001,), (0.1,), (0.3,), (1.7,), (3.0,), (5.0,), (30.0,)],
        [(0.0,), (-2.0,), (1e-20,), (np.inf,)],
        False,
    ),
    "squareplus": (
        [(0.0,), (0.01,), (1.0,), (3.0,), (10.0,), (500.0,)],
        [(-4.0,), (np.inf,)],
        False,
    ),
    "hard_tanh": ([(-2.0, 0.5), (0.0, 6.0), (1.0, 1.0)], [(1.0, -1.0)], False),
    "hard_shrink": ([(0.0,), (0.1,), (3.0,)], [(-0.5,)], False),
    "soft_shrink": ([(0.0,), (0.1,), (3.0,)], [(-0.5,)], False),
    "threshold": ([(0.1, 20.0), (-1.0, -7.0), (0.0, np.inf)], [], False),
}
FORWARD = {np.float32: 1.0, np.float64: 2.0}  # bounds in ULP, as without parameters
BACKWARD = 2.0


def test_every_row_with_parameters_is_here():
    assert {*CASES} == {name for name, row in pynn.ACTIVATIONS.items() if row.parameters}


def inputs(dtype, rng):
    """Numbers of every size and, most of them, where functions bend."""
    info = np.finfo(dtype)
    sizes = np.geomspace(info.tiny, info.max / 4, 700)
    wide = np.concatenate([sizes, np.geomspace(1e-6, 300, 3000), [info.max, info.tiny / 8, 0]])
    wide = np.concatenate([wide, -wide, 3 * rng.standard_normal(6000), rng.uniform(-30, 30, 3000)])
    return wide.astype(dtype)


def saved_by(name, x, *parameters):
    row = pynn.ACTIVATIONS[name]
    return row.forward(x, *parameters) if row.saves == "y" else x


@pytest.mark.parametrize("name", CASES)
def test_defaults_are_the_plain_function(name, dtype, isa, rng):
    """Given as numbers, as arrays, by name or left out: the same bits, forward and backward."""
    row = pynn.ACTIVATIONS[name]
    x = np.concatenate([inputs(dtype, rng), np.array([np.inf, -np.inf, np.nan, -0.0], dtype)])
    dy, y = rng.standard_normal(x.size).astype(dtype), row.forward(x)
    saved = saved_by(name, x)
    dx, values = row.backward(dy, saved), list(row.parameters.values())
    arrays = [np.full(x.size, v, dtype) for v in values]
    for given in (values, arrays, [np.array(v, dtype) for v in values]):
        oracles.assert_same_bits(row.forward(x, *given), y)
        oracles.assert_same_bits(row.backward(dy, saved, *given), dx)
        for count in range(1, len(given) + 1):
            for names in itertools.combinations(row.parameters, count):
                named = {n: given[[*row.parameters].index(n)] for n in names}
                oracles.assert_same_bits(row.forward(x, **named), y)
                oracles.assert_same_bits(row.backward(dy, saved, **named), dx)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", CASES)
def test_16_bit_types(name, kind, rng):
    """Parameters are not rounded to the type: defaults are the plain function; other values count in full."""
    kind = getattr(pytest.importorskip("ml_dtypes"), kind) if kind == "bfloat16" else np.float16
    row, x = pynn.ACTIVATIONS[name], rng.standard_normal(700).astype(kind)
    saved, wide = saved_by(name, x), x.astype(np.float32)
    y, dx, values = row.forward(x), row.backward(x, saved), [*row.parameters.values()]
    for given in (values, [np.float32(v) for v in values]):
        got = row.forward(x, *given), row.backward(x, saved, *given)
        assert got[0].dtype == got[1].dtype == kind
        assert got[0].tobytes() == y.tobytes() and got[1].tobytes() == dx.tobytes()
    for case in CASES[name][0]:
        assert row.forward(x, *case).tobytes() == row.forward(wide, *case).astype(kind).tobytes()


@pytest.mark.parametrize("name", CASES)
def test_accuracy(name, dtype, every_setting, rng, record_ulp):
    """The bounds of the plain function hold for sensible parameters; the same bits in every setting."""
    if dtype == np.float64 and not oracles.HAS_LONGDOUBLE:
        pytest.skip("long double is double here")
    row, formula, x = pynn.ACTIVATIONS[name], reference.ACTIVATIONS[name], inputs(dtype, rng)
    dy = np.ldexp(rng.uniform(-2, 2, x.size), rng.integers(-9, 9, x.size)).astype(dtype)
    known = {}
    for setting in every_setting():
        for case in CASES[name][0]:
            given = [dtype(v) for v in case]
            saved = saved_by(name, x, *given)
            with np.errstate(all="raise"):
                got = row.forward(x, *given), row.backward(dy, saved, *given)
            if case in known:
                for one, other in zip(got, known[case], strict=True):
                    oracles.assert_same_bits(one, other, f"{setting}: {case}")
                continue
            known[case] = got
            finite = np.isfinite(saved)
            true = wide_call(formula.forward, x, *given)
            slope = wide_call(formula.backward, dy, saved, *given)
            for which, values, exact, bound in (
                ("", got[0], true, FORWARD[dtype]),
                ("_backward", got[1][finite], slope[finite], BACKWARD),
            ):
                errors = ulp_errors(values, exact)
                record_ulp(f"{name}{which} given {np.dtype(dtype)}", errors.max())
                at = errors.argmax()
                where = x[at] if not which else saved[finite][at]
                assert errors.max() <= bound, f"{setting}: {which}{case} at {where!r}"


@pytest.mark.parametrize("name", CASES)
def test_accuracy_against_mpmath(name, dtype, rng):
    """Each element with parameters of its own."""
    row, formula = pynn.ACTIVATIONS[name], reference.ACTIVATIONS[name]
    x = rng.uniform(-9, 9, 300).astype(dtype)
    given = [
        np.abs(rng.normal(1, 0.5, 300) + 2 * i + 0.01).astype(dtype)
        for i in range(len(row.parameters))
    ]
    y = row.forward(x, *given)
    saved, dy = y if row.saves == "y" else x, rng.standard_normal(300).astype(dtype)
    dx = row.backward(dy, saved, *given)
    for values, exact, bound in (
        (y, mp_call(formula.forward, x, *given), FORWARD[dtype]),
        (dx, mp_call(formula.backward, dy, saved, *given), BACKWARD),
    ):
        for i, (got, true) in enumerate(zip(values, exact, strict=True)):
            assert ulp_error_mp(got, true) <= bound, f"{x[i]!r}, {[g[i] for g in given]}"


def test_products_with_beta_do_not_overflow(dtype, isa):
    """dy beta y, where y is small and dy or beta great."""
    least = np.finfo(dtype).smallest_subnormal
    dy, beta, y = (
        (2.0**100, 2.0**40, 35 * least) if dtype == np.float32 else (2.0**900, 2.0**160, 16 * least)
    )
    dx = pynn.softplus_backward(dtype(dy), dtype(y), beta=beta)
    assert (
        ulp_errors(np.array([dx]), np.array([oracles.WIDER[dtype](dy) * y * beta]))[0] <= BACKWARD
    )


def test_elu_of_parameters_too_large(dtype, isa):
    for alpha in (2.0**91 if dtype == np.float32 else 2.0**901, np.inf, -1.0):
        assert np.isnan(pynn.elu_backward(dtype(1), dtype(-0.5), alpha=dtype(alpha)))


@pytest.mark.parametrize("name", CASES)
def test_limits(name, dtype, isa):
    """Infinities and zeros are the formula's limits."""
    row, formula = pynn.ACTIVATIONS[name], reference.ACTIVATIONS[name]
    x = np.array([np.inf, -np.inf, 0.0, np.nan], dtype)
    for case in CASES[name][0]:
        with np.errstate(all="raise"):
            y = row.forward(x, *case)
        true = np.asarray(formula.forward(x, *case))
        assert ulp_errors(y[:3], true[:3].astype(oracles.WIDER[dtype])).max() <= 1, (case, y, true)
        assert np.isnan(y[3])


@pytest.mark.parametrize("name", CASES)
def test_values_that_a_function_does_not_have(name, dtype, isa):
    """NaN, never a wrong number; and NaN of a NaN."""
    row = pynn.ACTIVATIONS[name]
    x = np.linspace(-3, 3, 41).astype(dtype)
    _, invalid, backward_alone = CASES[name]
    for case in invalid:
        assert np.isnan(row.backward(x, x, *case)).all()
        assert np.isnan(row.forward(x, *case)).all() != backward_alone
    for first in (np.nan, np.full(41, np.nan, dtype)):
        assert np.isnan(row.forward(x, first)).all() and np.isnan(row.backward(x, x, first)).all()


def test_broadcasting(dtype, rng):
    """One slope, one per row, one per column, one per element: as if written out."""
    x = rng.standard_normal((6, 700)).astype(dtype)
    for shape in ((), (700,), (6, 1), (6, 700), (1, 1)):
        slope = rng.uniform(0, 1, shape).astype(dtype)
        want = np.where(x > 0, x, x * slope)
        oracles.assert_same_bits(pynn.leaky_relu(x, slope), want)
        turned = np.broadcast_to(slope, x.shape).T
        oracles.assert_same_bits(pynn.leaky_relu(x.T, turned), want.T)
        oracles.assert_same_bits(pynn.prelu(x, slope), want)
    assert pynn.elu(dtype(-1), np.ones(5, dtype)).shape == (5,)


def test_calls():
    """By position and by name; errors name the function and what is missing or too much."""
    x = np.float32([-2, 2])
    assert pynn.leaky_relu(x, 0.5).tolist() == pynn.leaky_relu(x, slope=0.5).tolist() == [-1, 2]
    assert pynn.threshold(x, value=7).tolist() == [7, 2]
    assert pynn.threshold(x, 5).tolist() == [0, 0]
    out = np.zeros(2, np.float32)
    assert pynn.leaky_relu(x, 0.5, out=out, where=[True, False]) is out and out.tolist() == [-1, 0]
    assert pynn.leaky_relu(x, slope=0.5, dtype=np.float64).dtype == np.float64
    for call, said in (
        (lambda: pynn.leaky_relu(x, 1, 2), "leaky_relu.*x, slope"),
        (lambda: pynn.leaky_relu(slope=1), "no x"),
        (lambda: pynn.leaky_relu_backward(x, slope=1), "no y"),
        (lambda: pynn.leaky_relu(x, 1, slope=1), "slope"),
        (lambda: pynn.leaky_relu(x, alpha=1), "alpha"),
        (lambda: pynn.elu(x, alpha=1, slope=1), "slope"),
        (lambda: pynn.relu(x, slope=1), "slope"),
        (lambda: pynn.elu(x, "1"), "elu"),
        (lambda: pynn.elu(x, None), "elu"),
        (lambda: pynn.elu(x, 1j), "elu"),
    ):
        with pytest.raises(TypeError, match=said):
            call()
    with pytest.raises(ValueError, match=r"\(2,\).*\(3,\)"):
        pynn.elu(x, np.ones(3))


def test_types():
    """A number takes the type of x; float32 is enough for 16-bit ones; whole numbers give float64."""
    for given, slope, result in (
        ("f", 0.5, "f"),
        ("f", 2, "f"),
        ("f", np.float64(0.5), "d"),
        ("e", 0.5, "e"),
        ("e", np.float32(0.5), "e"),
        ("e", np.float16(0.5), "e"),
        ("e", np.float64(0.5), "d"),
        ("f", np.float16(0.5), "f"),
        ("b", 0.5, "d"),
        ("b", np.int8(2), "d"),
        ("i", 0.5, "d"),
        ("?", 0.5, "d"),
    ):
        y = pynn.leaky_relu(np.ones(3, given), slope)
        assert y.dtype == result, (given, slope)


class Container:
    """Something that NumPy hands ufuncs to, as Dask and xarray do."""

    def __array_ufunc__(self, ufunc, method, *operands, **others):
        return ufunc, method, operands, others


def test_they_stay_ufuncs():
    """Parameters come as operands, whoever is asked; both ufuncs pickle."""
    own, x = Container(), np.ones(3)
    ufunc, method, operands, others = pynn.leaky_relu(own, 0.5, where=True)
    assert isinstance(ufunc, np.ufunc) and method == "__call__" and operands == (own, 0.5)
    assert others == {"where": True}
    assert ufunc(x, 0.5).tolist() == [1, 1, 1]
    assert pynn.leaky_relu(own)[0] is pynn.leaky_relu
    for f in (ufunc, pynn.leaky_relu):
        assert pickle.loads(pickle.dumps(f)) is f


def test_signatures():
    """help() and editors see the parameters, where NumPy lets a ufunc have a signature of its own."""
    if "__signature__" not in getattr(pynn.elu, "__dict__", {}):
        pytest.skip("ufuncs of this NumPy have no attributes")
    for name in CASES:
        row = pynn.ACTIVATIONS[name]
        for f, operands in ((row.forward, ["x"]), (row.backward, ["dy", row.saves])):
            known = inspect.signature(f).parameters
            assert [*known][: len(operands) + len(row.parameters)] == [*operands, *row.parameters]
            assert {n: known[n].default for n in row.parameters} == row.parameters
            assert known["out"].kind is inspect.Parameter.KEYWORD_ONLY
            assert (
                f.__doc__.startswith(f"{f.__name__}({operands[0]}, ")
                and "\nNotes" in row.forward.__doc__
            )


@pytest.mark.parametrize("name", ["elu", "celu", "softplus", "squareplus"])
def test_parameters_of_every_size(name, dtype, isa, rng):
    """Right, or NaN: from the least subnormal number to infinity, at inputs where the function bends."""
    if dtype == np.float64 and not oracles.HAS_LONGDOUBLE:
        pytest.skip("long double is double here")
    row, formula, wide = pynn.ACTIVATIONS[name], reference.ACTIVATIONS[name], oracles.WIDER[dtype]
    _, low, high = oracles.FORMAT[dtype]
    with np.errstate(all="ignore"):
        given = np.ldexp(rng.uniform(1, 2, 20_000), rng.integers(low, high + 1, 20_000))
        given = given.astype(dtype)
    bend = {
        "elu": 1,
        "celu": given,
        "softplus": 1 / given.astype(wide),
        "squareplus": np.sqrt(given),
    }
    with np.errstate(all="ignore"):
        x = bend[name] * rng.normal(0, 1, given.size) * np.exp2(rng.uniform(-30, 10, given.size))
        x = np.where(np.arange(given.size) % 3 == 0, rng.normal(0, 9, given.size), x).astype(dtype)
    dy = rng.uniform(1, 2, given.size).astype(dtype)
    y = row.forward(x, given)
    dx = row.backward(dy, y, given)
    for got, true, bound in (
        (y, wide_call(formula.forward, x, given), FORWARD[dtype]),
        (dx, wide_call(formula.backward, dy, y, given), BACKWARD),
    ):
        known = np.isfinite(x) & ~np.isnan(y)
        errors = ulp_errors(got[known], true[known])
        at = errors.argmax()
        # results near the least numbers may have twice the error
        assert errors[at] <= 2 * bound, (x[known][at], given[known][at], got[known][at])
    usual = (given > 2.0**-49) & (given < 2.0**89) & np.isfinite(x)
    assert not np.isnan(y[usual]).any() and not np.isnan(dx[usual]).any()


@pytest.mark.parametrize("slope", [0.25, -0.5, 0.0])
def test_prelu(slope, dtype, isa, rng):
    """A slope of any sign; both gradients against central differences, and the limits."""
    x, dy, h = rng.uniform(0.05, 3, 60) * rng.choice([-1, 1], 60), rng.standard_normal(60), 1e-6
    dx, dslope = pynn.prelu_backward(dy, x, slope)
    assert np.allclose(dx, dy * (pynn.prelu(x + h, slope) - pynn.prelu(x - h, slope)) / (2 * h))
    assert np.allclose(dslope, dy * (pynn.prelu(x, slope + h) - pynn.prelu(x, slope - h)) / (2 * h))
    x = np.array([0, -0.0, np.inf, 2, np.nan, 1, -1], dtype)
    dy = np.array([np.inf, np.inf, np.inf, np.inf, 1, np.nan, 2], dtype)
    with np.errstate(all="raise"):
        dx, dslope = pynn.prelu_backward(dy, x, dtype(slope))
    assert dslope[:4].tolist() == [0, 0, 0, 0] and dslope[6] == -2 and dx[6] == 2 * slope
    assert np.isnan(dslope[4:6]).all() and np.isnan(dx[4:6]).all()
    assert np.isnan(pynn.prelu_backward(dy, x, np.nan)).all()


@pytest.mark.parametrize("backend", ["pynn", "numpy"])
@pytest.mark.parametrize("shape", [(), (4,), (3, 1), (1, 4)])
def test_prelu_layer(shape, backend, rng):
    pynn.use_backend(backend)
    x, dy, h = rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 3, 4)), 1e-6
    slope = rng.uniform(-1, 1, shape)
    layer = layers.PRelu(slope)
    layer.forward(x)
    dx = layer.backward(dy)
    assert np.allclose(dx, np.where(x > 0, dy, dy * slope))
    assert layer.dslope.shape == shape and layer.grads["slope"] is layer.dslope
    for i in np.ndindex(shape):
        step = np.zeros(shape)
        step[i] = h
        change = pynn.prelu(x, slope + step) - pynn.prelu(x, slope - step)
        assert np.isclose(layer.dslope[i], np.sum(dy * change) / (2 * h))


@pytest.mark.parametrize("backend", ["pynn", "numpy"])
def test_layers(backend, rng):
    """Layers take their function's parameters, and no others."""
    pynn.use_backend(backend)
    x, dy = rng.standard_normal((5, 6)), rng.standard_normal((5, 6))
    for name, (cases, _, _) in CASES.items():
        make = getattr(layers, name.title().replace("_", ""))
        for layer in (
            make(*cases[0]),
            make(**dict(zip(pynn.ACTIVATIONS[name].parameters, cases[0]))),
        ):
            assert np.allclose(layer.forward(x), getattr(pynn, name)(x, *cases[0]))
            saved = saved_by(name, x, *cases[0])
            want = getattr(pynn, f"{name}_backward")(dy, saved, *cases[0])
            assert np.allclose(layer.backward(dy), want)
    for bad in (
        lambda: layers.Relu(1),
        lambda: layers.Elu(1, 2),
        lambda: layers.Elu(1, alpha=2),
        lambda: layers.Elu(slope=2),
    ):
        with pytest.raises(TypeError, match="parameters"):
            bad()
