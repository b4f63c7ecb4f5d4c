"""Every activation of the table: accuracy, special values, dtypes, floating-point flags."""

import numpy as np
import pytest

import oracles
import pynn
from oracles import BITS, WIDER, mp_call, ulp_error_mp, ulp_errors, wide_call
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


def saved_by(activation, x, *parameters):
    """What the activation keeps for its backward, computed by pynn."""
    return activation.forward(x, *parameters) if activation.saves == "y" else x


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


# Parameters at the ends of what a row has, as exponents of 2 for float32 and float64.
ENDS = {
    "leaky_relu": [(-100, -140), (-1000, -1060)],
    "elu": [(-40, -100, -117, -124, -140, 89), (-900, -1013, -1030, 899)],
    "celu": [(-40, -100, -120, 89), (-900, -1000, 899)],
    "softplus": [(-49, 89), (-49, 899)],
    "squareplus": [(-33, -66, -99, 89), (-333, -666, -999, 899)],
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_next_to_the_smallest_normal_number(name, dtype, rng, record_ulp):
    """Small operands, results and parameters, where the low parts of a product may be lost."""
    if dtype == np.float64 and not oracles.HAS_LONGDOUBLE:
        pytest.skip("long double is double here")
    row, formula, info = pynn.ACTIVATIONS[name], reference.ACTIVATIONS[name], np.finfo(dtype)
    least, n, wide = info.minexp - info.nmant, 10_000, WIDER[dtype]

    def numbers(low, high):
        return (rng.choice([-1, 1], n) * np.exp2(rng.uniform(low, high, n).astype(wide))).astype(
            dtype
        )

    for end in (None, *ENDS.get(name, [(), ()])[dtype == np.float64]):
        given = [] if end is None else [np.ldexp(dtype(1.37), end)]
        bend = max(end or 0, least)
        ranges = (least, info.minexp + 20), (bend - 8, bend + 6), (-8, 8), (least, info.maxexp - 1)
        for x in (numbers(*ends) for ends in ranges):
            saved = saved_by(row, x, *given)
            slope = wide_call(formula.backward, np.ones(n, dtype), saved, *given)
            with np.errstate(all="ignore"):
                dy = (numbers(least - 1, info.minexp + 16) / slope).astype(dtype)
            dy[~np.isfinite(dy)] = 1
            with np.errstate(all="raise"):
                y, dx = row.forward(x, *given), row.backward(dy, saved, *given)
            errors = ulp_errors(y, wide_call(formula.forward, x, *given))
            assert (errors <= FORWARD[dtype]).all(), (end, x[errors.argmax()], errors.max())
            true = wide_call(formula.backward, dy, saved, *given)
            counts = np.isfinite(saved) & (np.abs(slope) > wide(2) ** (least - 30))
            backward = np.where(counts, backward_errors(name, dx, true, dy, saved), 0)
            at = backward.argmax()
            assert backward[at] <= BACKWARD, (end, dy[at], saved[at], backward[at])
            record_ulp(f"{name} {np.dtype(dtype)}", errors.max())
            record_ulp(f"{name} backward {np.dtype(dtype)}", backward[at])


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


@pytest.mark.parametrize("name", ["silu", "quick_gelu", "gelu_tanh", "gelu", "mish"])
def test_backward_of_minus_zero(name, dtype, isa):
    """It is dy times the slope: -0.0 where that is above 0."""
    x = np.array([0, -0.0, 0.25, 0.5, 1, 2, 30, np.inf, -0.5], dtype)
    dx = getattr(pynn, f"{name}_backward")(np.full_like(x, -0.0), x)
    assert (dx == 0).all() and np.signbit(dx).all()


def test_results_larger_than_any_cache(dtype, isa, threads, rng):
    """The bits of small parts, wherever the result begins, and nothing beyond it."""
    n = (32 << 20) // dtype().itemsize + 5
    part = rng.standard_normal(1021).astype(dtype)
    x, dy = np.resize(part, n), np.resize(part[::-1], n)
    memory = np.full(n + 3, 7, dtype)
    for function, args, small in (
        (pynn.relu, (x,), (part,)),
        (pynn.tanh_backward, (dy, x), (part[::-1], part)),
    ):
        want = np.resize(function(*small), n)
        for start in (1, 2):
            function(*args, out=memory[start : start + n])
            oracles.assert_same_bits(memory[start : start + n], want)
            assert (memory[:start] == 7).all() and (memory[start + n :] == 7).all()
            memory[...] = 7
        oracles.assert_same_bits(function(*args), want)
    pynn.relu(x, out=x)
    oracles.assert_same_bits(x, np.resize(pynn.relu(part), n), "in place")


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
    "given, result", [("?", "d"), ("f", "f"), *[(c, "d") for c in "bBhHiIlLqQ"]]
)
def test_other_dtypes(name, given, result):
    """Whole numbers are computed in float64; nothing else is accepted."""
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


HALVES = {"float16": np.uint16(0x7E00), "bfloat16": np.uint16(0x7FC0)}


def half_type(kind):
    """bfloat16 is a type of ml_dtypes."""
    return getattr(pytest.importorskip("ml_dtypes"), kind) if kind == "bfloat16" else np.float16


def same_half_bits(got, wide, kind):
    """Results are the float32 ones, rounded once by the type's own conversion."""
    assert got.dtype == kind
    with np.errstate(all="ignore"):
        want = wide.astype(kind)
    nan = np.isnan(wide)
    assert np.array_equal(np.isnan(got.astype(np.float32)), nan)
    assert np.array_equal(got.view(np.uint16)[~nan], want.view(np.uint16)[~nan])


@pytest.mark.parametrize("kind", HALVES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_half(name, kind, rng):
    """All 65536 inputs of the 16-bit types, forward and backward, contiguous and not."""
    activation, kind = pynn.ACTIVATIONS[name], half_type(kind)
    x = np.arange(2**16, dtype=np.uint16).view(kind)
    with np.errstate(all="ignore"):  # ml_dtypes' conversions of signalling NaNs
        wide, dy = x.astype(np.float32), rng.permutation(x)
    with np.errstate(all="raise"):
        y, dx = activation.forward(x), activation.backward(dy, x)
    same_half_bits(y, activation.forward(wide), kind)
    same_half_bits(dx, activation.backward(dy.astype(np.float32), wide), kind)
    out = np.zeros(2 * x.size, kind)[::-2]
    assert activation.forward(x, out=out) is out
    assert np.array_equal(out.view(np.uint16), y.view(np.uint16))
    for n in range(40):
        part = activation.forward(x[1000 : 1000 + n])
        assert np.array_equal(part.view(np.uint16), y[1000 : 1000 + n].view(np.uint16))


@pytest.mark.parametrize("kind", HALVES)
def test_half_types_with_others(kind, isa, rng):
    """One half type with numbers is that type, with float32 it is that; the same bits on every set."""
    kind = half_type(kind)
    x = rng.standard_normal(500).astype(kind)
    wide = x.astype(np.float32)
    same_half_bits(pynn.leaky_relu(x, 0.25), pynn.leaky_relu(wide, 0.25), kind)
    same_half_bits(pynn.elu(x, alpha=x), pynn.elu(wide, wide), kind)
    same_half_bits(pynn.tanh_backward(x, x[0]), pynn.tanh_backward(wide, wide[0]), kind)
    same_half_bits(pynn.softmax(x.reshape(20, 25)), pynn.softmax(wide.reshape(20, 25)), kind)
    y = x.reshape(20, 25)
    same_half_bits(
        pynn.softmax_backward(y, y), pynn.softmax_backward(*[wide.reshape(20, 25)] * 2), kind
    )
    dx, dslope = pynn.prelu_backward(x, x, -0.5)
    same_half_bits(dx, pynn.prelu_backward(wide, wide, -0.5)[0], kind)
    same_half_bits(dslope, pynn.prelu_backward(wide, wide, -0.5)[1], kind)
    oracles.assert_same_bits(pynn.tanh_backward(x, wide), pynn.tanh_backward(wide, wide))
    assert pynn.tanh_backward(x, wide.astype(np.float64)).dtype == np.float64
    assert pynn.sigmoid(x[0]).dtype == kind
    out = np.zeros(500, kind)
    assert pynn.silu(x, out=out, where=wide > 0) is out and not out[wide <= 0].any()


def test_reference_of_half_types(rng):
    """The reference's results are of the operands' type too."""
    for kind in map(half_type, HALVES):
        x = rng.standard_normal((4, 5)).astype(kind)
        for got in (reference.gelu(x), reference.softmax(x), reference.elu(x, 0.5)):
            assert got.dtype == kind
        close = reference.tanh(x).astype(float) - pynn.tanh(x).astype(float)
        assert np.abs(close).max() < 0.01


@pytest.mark.parametrize("first", ["pynn", "ml_dtypes"])
def test_bfloat16_needs_no_order_of_imports(first, python):
    pytest.importorskip("ml_dtypes")
    second = {"pynn": "ml_dtypes", "ml_dtypes": "pynn"}[first]
    code = f"""
import sys, numpy as np
import {first}
assert "{second}" not in sys.modules
import {second}
x = np.ones((3, 4), ml_dtypes.bfloat16)
for f in (pynn.relu, pynn.softmax, pynn.elu):
    assert f(x).dtype == x.dtype, f
print(pynn.leaky_relu(-x[0], 0.5)[0], pynn.relu(x.astype(np.float32)).dtype)
"""
    assert python(code) == "-0.5 float32"


def test_the_table_is_read_only():
    with pytest.raises(TypeError):
        pynn.ACTIVATIONS["other"] = None
    assert list(pynn.ACTIVATIONS) == list(reference.ACTIVATIONS)
    for name, row in pynn.ACTIVATIONS.items():
        assert reference.ACTIVATIONS[name].saves == row.saves
        assert reference.ACTIVATIONS[name].parameters == row.parameters


@pytest.mark.parametrize("name", ["sigmoid", "silu", "quick_gelu", "gelu_tanh", "gelu"])
def test_far_elements_among_others(isa, rng, name):
    """What is far goes a longer way, which is chosen for some vectors at once and must change no bit beside it."""
    function = getattr(pynn, name)
    far = np.array([-np.inf, -200, -90, -80, -64, -47, -16, -12, -9.65, 9.65, 80, np.inf, np.nan])
    x = rng.normal(0, 3, 2000).astype(np.float32)
    x[rng.integers(0, x.size, 60)] = (far[:, None] * [1, 0.999, 1.001]).ravel()[
        rng.integers(0, 39, 60)
    ]
    alone = np.array([function(x[i : i + 1])[0] for i in range(x.size)])
    assert np.isfinite(alone).sum() > 1900
    for n in (1, 15, 47, 48, 190, 191, 192, 193, 255, 256, 257, 500, 1999):
        oracles.assert_same_bits(function(x[1 : n + 1]), alone[1 : n + 1], f"{n} elements")
    in_place = x.copy()
    function(in_place, out=in_place)
    oracles.assert_same_bits(in_place, alone, "in place")
