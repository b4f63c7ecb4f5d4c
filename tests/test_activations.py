"""Every activation of the table: accuracy, special values, dtypes, floating-point flags."""

import numpy as np
import pytest

import oracles
import pynn
from oracles import BITS, mp_call, ulp_error_mp, ulp_errors, wide_call
from pynn import reference

ACTIVATIONS = list(pynn.ACTIVATIONS)
FORWARD = {np.float32: 1.0, np.float64: 2.0}  # bounds in ULP
BACKWARD = 2.0
# Where the slope changes sign, 2^-24 (float64: 2^-53) of the terms that cancel, 1/4 of dy, is right too.
CROSSING = {
    name
    for name, row in reference.ACTIVATIONS.items()
    if row.saves == "x" and row.backward(1.0, np.linspace(-4, 4, 801)).min() < 0
}


def backward_errors(name, got, true, dy, saved):
    """Errors of a backward in ULP; near a change of sign in 2^-27 (2^-56) of dy if that is more."""
    errors = ulp_errors(got, true)
    if name in CROSSING:
        with np.errstate(all="ignore"):
            wide = np.asarray(true).dtype.type
            unit = np.abs(dy).astype(wide) * np.finfo(got.dtype).eps / 16
            other = np.abs(got.astype(wide) - true) / unit
        near = (np.abs(saved) < 2) & np.isfinite(other)
        errors = np.where(near, np.minimum(errors, other), errors)
    return errors


def windows(dtype, width=64):
    """Runs of consecutive numbers around every place where an implementation may turn."""
    info = np.finfo(dtype)
    low, high = info.minexp - info.nmant, info.maxexp
    centres = [np.ldexp(dtype(1), e) for e in range(low, high)] + [dtype(0), info.max]
    logs = np.log(np.array([2, info.max, info.tiny, info.smallest_subnormal, info.eps], dtype))
    multiples = np.array([0.25, 0.5, 1, 1.5, 2, 3], dtype)
    centres = np.concatenate([centres, np.abs(np.outer(logs, multiples)).ravel()]).astype(dtype)
    bits = centres.view(BITS[dtype]).astype(np.int64)
    bits = bits[:, None] + np.arange(-width // 2, width // 2)
    bits = bits[(bits >= 0) & (bits <= dtype(np.inf).view(BITS[dtype]).astype(np.int64))]
    positive = np.unique(bits).astype(BITS[dtype]).view(dtype)
    return np.concatenate([positive, -positive, [dtype(np.nan)]])


@pytest.fixture(scope="module")
def samples():
    """dtype -> inputs: every 9973rd float32; random mantissas in every binade of float64. (test_accuracy.py takes every
    997th float32, under one setting.)"""
    rng = np.random.default_rng(7)
    stride = np.arange(0, 2**32, 9973, dtype=np.uint64).astype(np.uint32).view(np.float32)
    tops = np.arange(2**12, dtype=np.uint64) << np.uint64(52)  # sign and exponent
    lows = rng.integers(0, 2**52, (tops.size, 8), np.uint64)
    binades = (tops[:, None] | lows).ravel().view(np.float64)
    sigmas = rng.standard_normal(20_000)
    return {
        np.float32: np.concatenate([stride, windows(np.float32)]),
        np.float64: np.concatenate([binades, windows(np.float64, 16), sigmas, 30 * sigmas]),
    }


def sensitivities(n, dtype):
    """Values for dy: many binades, both signs."""
    rng = np.random.default_rng(8)
    return np.ldexp(rng.uniform(-2, 2, n), rng.integers(-30, 30, n)).astype(dtype)


def saved_by(activation, x):
    """What the activation keeps for its backward, computed by pynn."""
    return activation.forward(x) if activation.saves == "y" else x


@pytest.fixture(scope="module")
def oracle(samples):
    """(name, dtype) -> (x, its value, dy, saved, value of the backward), in the wider type."""
    cache = {}

    def oracle(name, dtype):
        if (name, dtype) not in cache:
            cache.clear()
            formula, x = reference.ACTIVATIONS[name], samples[dtype]
            dy = sensitivities(x.size, dtype)
            saved = saved_by(pynn.ACTIVATIONS[name], x)
            forward = wide_call(formula.forward, x)
            cache[name, dtype] = x, forward, dy, saved, wide_call(formula.backward, dy, saved)
        return cache[name, dtype]

    return oracle


@pytest.mark.parametrize("dtype", oracles.DTYPES, ids=["float32", "float64"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_accuracy(name, dtype, oracle, every_setting, record_ulp):
    """Within the bounds everywhere, forward and backward, under every setting, raising no flags."""
    if dtype == np.float64 and not oracles.HAS_LONGDOUBLE:
        pytest.skip("long double is double here")
    x, forward, dy, saved, backward = oracle(name, dtype)
    activation = pynn.ACTIVATIONS[name]
    known = {}
    for setting in every_setting():
        with np.errstate(all="raise"):
            results = {"": activation.forward(x), " backward": activation.backward(dy, saved)}
        for (suffix, got), true in zip(results.items(), (forward, backward), strict=True):
            if suffix in known:
                oracles.assert_same_bits(got, known[suffix], setting + suffix)
                continue
            known[suffix] = got
            bound = BACKWARD if suffix else FORWARD[dtype]
            if suffix:
                errors = backward_errors(name, got, true, dy, saved)
            else:
                errors = ulp_errors(got, true)
            worst = int(np.argmax(errors))
            record_ulp(f"{name}{suffix} {np.dtype(dtype)}", errors[worst])
            assert errors[worst] <= bound, f"{setting}: {suffix} at {x[worst]!r}, dy {dy[worst]!r}"


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_accuracy_against_mpmath(name, dtype, samples, record_ulp):
    """The same on a few inputs of every kind, against 240 bits."""
    activation, formula = pynn.ACTIVATIONS[name], reference.ACTIVATIONS[name]
    rng = np.random.default_rng(9)
    x = samples[dtype]
    x = np.concatenate([rng.choice(x[np.isfinite(x)], 500), rng.normal(0, 8, 500).astype(dtype)])
    dy, saved = sensitivities(x.size, dtype), saved_by(activation, x)
    keep = np.isfinite(saved)
    for got, true, which in (
        (activation.forward(x), mp_call(formula.forward, x), ""),
        (
            activation.backward(dy, saved),
            mp_call(formula.backward, dy, np.where(keep, saved, 0)),
            " backward",
        ),
    ):
        for i in np.flatnonzero(keep):
            error = ulp_error_mp(got[i], true[i])
            if which and name in CROSSING and abs(saved[i]) < 2:
                unit = abs(float(dy[i])) * float(np.finfo(dtype).eps) / 16
                error = min(error, float(abs(oracles.exactly(got[i]) - true[i]) / unit))
            record_ulp(f"{name}{which} {np.dtype(dtype)}", error)
            assert error <= (BACKWARD if which else FORWARD[dtype]), (
                f"{which} at {x[i]!r}, dy {dy[i]!r}, saved {saved[i]!r}"
            )


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_special_values(name, dtype, isa):
    """Infinities and zeros are the formula's limits; NaN in either operand comes out as NaN."""
    activation, formula = pynn.ACTIVATIONS[name], reference.ACTIVATIONS[name]
    info = np.finfo(dtype)
    x = [0.0, 1.0, info.tiny, info.smallest_subnormal, info.max, np.inf]
    x = np.array(x + [-v for v in x] + [np.nan], dtype)
    with np.errstate(all="raise"):
        y = activation.forward(x)
    true = wide_call(formula.forward, x)
    assert ulp_errors(y, true).max() <= FORWARD[dtype]
    assert np.isnan(y).tolist() == np.isnan(x).tolist()
    assert np.signbit(y[y == 0]).tolist() == np.signbit(true[y == 0]).tolist()
    dy, saved = (a.ravel() for a in np.meshgrid(x, saved_by(activation, x)))
    with np.errstate(all="raise"):
        dx = activation.backward(dy, saved)
    nan = np.isnan(dy) | np.isnan(saved)
    assert np.isnan(dx[nan]).all()
    true = wide_call(formula.backward, dy, saved)
    assert ulp_errors(dx[~nan], true[~nan]).max() <= BACKWARD


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_backward_just_below_a_power_of_two(name, dtype, record_ulp):
    """Where a unit in the last place is smallest beside the result, so that each rounding shows most."""
    activation, formula = pynn.ACTIVATIONS[name], reference.ACTIVATIONS[name]
    x = np.linspace(-6, 6, 200_001).astype(dtype)
    saved = saved_by(activation, x)
    slope = wide_call(formula.backward, np.ones_like(saved), saved)
    saved, slope = saved[slope != 0], slope[slope != 0]
    for part in range(1, 9):
        dy = ((2 - part * np.finfo(dtype).eps) / slope).astype(dtype)
        true = wide_call(formula.backward, dy, saved)
        error = backward_errors(name, activation.backward(dy, saved), true, dy, saved)
        record_ulp(f"{name} backward {np.dtype(dtype)}", error.max())
        assert error.max() <= BACKWARD, (
            f"saved {saved[error.argmax()]!r}, dy {dy[error.argmax()]!r}"
        )


def test_relu_backward_stops_everything_but_nan(dtype, isa):
    """Where the unit is off the gradient is 0, also that of an infinite dy."""
    dy = np.array([1, -np.inf, np.inf, np.nan, 2, np.inf], dtype)
    y = np.array([0, 0, 0, 0, 3, 3], dtype)
    expected = np.array([0, 0, 0, np.nan, 2, np.inf], dtype)
    assert np.array_equal(pynn.relu_backward(dy, y), expected, equal_nan=True)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_odd_bits_raise_no_flags(name, dtype, isa, rng):
    """Any bit pattern, signalling NaNs included, in any position of the vector and the tail."""
    activation, bits = pynn.ACTIVATIONS[name], BITS[dtype]
    x, dy = rng.integers(0, np.iinfo(bits).max, (2, 20_011), bits, endpoint=True).view(dtype)
    with np.errstate(all="raise"):
        y = activation.forward(x)
        dx = activation.backward(dy, x)
        for n in range(40):
            oracles.assert_same_bits(activation.forward(x[n : 2 * n]), y[n : 2 * n], f"{n}")
            oracles.assert_same_bits(
                activation.backward(dy[n : 2 * n], x[n : 2 * n]), dx[n : 2 * n]
            )


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_is_a_ufunc(name, rng):
    activation = pynn.ACTIVATIONS[name]
    assert activation.name == name and activation.saves in ("x", "y")
    assert getattr(pynn, name) is activation.forward
    assert getattr(pynn, f"{name}_backward") is activation.backward
    for f in (activation.forward, activation.backward):
        assert isinstance(f, np.ufunc) and len(f.__doc__) > 100
        assert {"f->f", "d->d", "ff->f", "dd->d"} & set(f.types)
    x = rng.standard_normal((3, 4))
    y = activation.forward(x)
    out = np.full_like(x, 9)
    assert activation.forward(x, out=out, where=x > 0) is out
    assert np.array_equal(out, np.where(x > 0, y, 9))
    assert activation.forward(x, dtype=np.float32).dtype == np.float32
    assert activation.backward(x[0], y).shape == (3, 4)
    assert isinstance(activation.forward(0.5), np.float64)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize(
    "given, result", [("?", "d"), ("e", "f"), *[(c, "d") for c in "bBhHiIlLqQ"]]
)
def test_other_dtypes(name, given, result):
    """float16 is computed in float32, whole numbers in float64; nothing else is accepted."""
    activation = pynn.ACTIVATIONS[name]
    x = np.array([0, 1, 3, 7], given)
    for got, want in (
        (activation.forward(x), activation.forward(x.astype(result))),
        (activation.backward(x, x), activation.backward(x.astype(result), x.astype(result))),
    ):
        assert got.dtype == result
        oracles.assert_same_bits(got, want)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("given", ["O", "F", "D", "U1", "M8[s]", "g"])
def test_refused_dtypes(name, given):
    activation = pynn.ACTIVATIONS[name]
    x = np.zeros(3, given)
    with pytest.raises(TypeError, match=name):
        activation.forward(x)
    with pytest.raises(TypeError, match=name):
        activation.backward(x, x)


def test_the_table_is_read_only():
    with pytest.raises(TypeError):
        pynn.ACTIVATIONS["other"] = None
    assert list(pynn.ACTIVATIONS) == list(reference.ACTIVATIONS)
    for name, row in pynn.ACTIVATIONS.items():
        assert reference.ACTIVATIONS[name].saves == row.saves
