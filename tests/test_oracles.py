"""The oracles against each other and against known values: a wrong oracle proves nothing."""

import math
from fractions import Fraction

import numpy as np
import pytest

import oracles
import pynn
from oracles import CTX, Mp, exactly, mp_call, wide_call
from pynn import reference

ACTIVATIONS = list(pynn.ACTIVATIONS)
# The error of a rounded z is |z| times as large in exp(z); a slope with a change of sign has more roundings.
SLACK = dict.fromkeys(("gelu", "silu", "mish"), 4) | {"gelu_tanh": 128, "quick_gelu": 128}


def patterns(rng, dtype, *shape):
    """Random bit patterns: every exponent, NaN and infinity."""
    bits = oracles.BITS[dtype]
    return rng.integers(0, np.iinfo(bits).max, shape, bits, endpoint=True).view(dtype)


def test_mp_is_a_number():
    third = Mp(1) / 3
    assert abs(float(third * 3 - 1)) < 1e-70 and float(2 - third) == 5 / 3
    assert float(Mp(2.0).sqrt()) == math.sqrt(2) and float(abs(-third)) == 1 / 3
    assert float(Mp(1e-30).expm1()) == 1e-30 and float(Mp(1).log1p()) == math.log(2)
    assert third < 1 and third == Mp(third) and third != 0


def test_rounding_of_fractions(rng):
    """Python's int / int is correctly rounded; NumPy's float64 -> float32 is too."""
    values = patterns(rng, np.float64, 2000)
    for v in values[np.isfinite(values)]:
        f = Fraction(float(v))
        assert oracles.round_fraction(f, np.float64) == v
        third = f / 3
        assert oracles.round_fraction(third, np.float64) == float(third)
        with np.errstate(all="ignore"):
            assert oracles.round_fraction(f, np.float32) == np.float32(v)


def test_vector_fma_is_the_exact_one(rng):
    a, b, c = patterns(rng, np.float32, 3, 4000)
    near = rng.standard_normal((3, 4000)).astype(np.float32)
    for x, y, z in ((a, b, c), near, (near[0], near[1], -near[0] * near[1])):
        with np.errstate(all="ignore"):
            exact = [oracles.fma_fraction(*t) for t in zip(x, y, z, strict=True)]
        oracles.assert_same_bits(oracles.fma32(x, y, z), np.array(exact, np.float32))


def test_ulp_measure():
    one = np.float32([1, 1, np.inf, np.nan, 0])
    half = 2.0**-24
    true = np.array([1 + half, 1 - half, 2.0**128 - 2.0**103, np.nan, 2.0**-150])
    assert oracles.ulp_errors(one, true).tolist() == [0.5, 1, 0.5, 0, 0.5]
    assert (
        oracles.ulp_errors(np.float32([1, np.nan]), np.array([np.nan, 1])).tolist() == [np.inf] * 2
    )
    for got, want in zip(one, true, strict=True):
        if not np.isnan(got):
            error = oracles.ulp_errors(np.array([got]), np.array([want]))[0]
            assert oracles.ulp_error_mp(got, CTX.mpf(want)) == error


@pytest.mark.parametrize("dtype", oracles.DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_bulk_oracle_against_mpmath(name, dtype, rng):
    """The wider type is far more precise than the ULP that it has to judge."""
    if dtype == np.float64 and not oracles.HAS_LONGDOUBLE:
        pytest.skip("long double is double here")
    precision, tiny, _ = oracles.FORMAT[dtype]
    formula = reference.ACTIVATIONS[name]
    x = patterns(rng, dtype, 400)
    x = np.concatenate([x[np.isfinite(x)], rng.normal(0, 10, 400).astype(dtype)])
    saved = np.asarray(wide_call(formula.forward, x)).astype(dtype) if formula.saves == "y" else x
    saved = np.where(np.isfinite(saved), saved, dtype(1))
    dy = rng.standard_normal(x.size).astype(dtype)
    limit = 2.0**-24 if dtype == np.float32 else 2.0**-8  # of dtype's ULP
    limit *= SLACK.get(name, 1)
    for wide, exact, backward in (
        (wide_call(formula.forward, x), mp_call(formula.forward, x), False),
        (wide_call(formula.backward, dy, saved), mp_call(formula.backward, dy, saved), True),
    ):
        for i, (w, e) in enumerate(zip(wide, exact, strict=True)):
            unit = max(CTX.ldexp(abs(e), -precision), CTX.ldexp(1, tiny))
            if np.isinf(w):
                assert e > CTX.mpf(2) ** np.finfo(w.dtype).maxexp * (1 - 2.0**-20)
                continue
            if backward and name in SLACK and abs(saved[i]) < 2:  # terms cancel, 1/4 of dy
                unit = max(unit, CTX.ldexp(abs(float(dy[i])), -precision - 2))
            assert abs(exactly(w) - e) <= limit * unit


def test_book_values():
    """What the book says of its three functions, so that no formula is taken on trust."""
    x = np.array([-1.0, 0.0, 2.0])
    e = math.e
    assert np.allclose(pynn.sigmoid(x), [1 / (1 + e), 0.5, 1 / (1 + e**-2)], rtol=1e-15)
    assert pynn.relu(x).tolist() == [0, 0, 2]
    tanh2 = (e**2 - e**-2) / (e**2 + e**-2)
    assert np.allclose(pynn.tanh(x), [(1 - e**2) / (1 + e**2), 0, tanh2], rtol=1e-15)
    assert pynn.sigmoid_backward(1.0, 0.5) == 0.25 and pynn.tanh_backward(1.0, 0.0) == 1
    assert pynn.relu_backward(3.0, 2.0) == 3 and pynn.relu_backward(3.0, 0.0) == 0
