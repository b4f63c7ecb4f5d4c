"""Initializers: the rules' variances, fans, shards, out=, and clear errors."""

import math

import numpy as np
import pytest

import oracles
import pynn
from pynn import initializers

# name -> variance as a function of the fans, distribution
RULES = {
    f"{rule}_{distribution}": (variance, distribution)
    for rule, variance in {
        "xavier": lambda fan_in, fan_out: 1 / fan_in,
        "glorot": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
        "he": lambda fan_in, fan_out: 2 / fan_in,
        "kaiming": lambda fan_in, fan_out: 2 / fan_in,
        "lecun": lambda fan_in, fan_out: 1 / fan_in,
    }.items()
    for distribution in ("normal", "uniform")
}
RANDOM = [*RULES, "normal", "uniform"]
ALL = [*RANDOM, "zeros", "ones", "constant", "variance_scaling"]


def initializer(name):
    return getattr(initializers, name)


def from_stream(shape, variance, distribution, seed, dtype):
    """What the rule must give: the stream of the seed, at that spread."""
    out = np.empty(shape, dtype)
    first, second = (0.0, math.sqrt(variance))
    if distribution == "uniform":
        first, second = -math.sqrt(3 * variance), math.sqrt(3 * variance)
    pynn._core.fill(out, distribution, pynn.random.key(seed), first, second)
    return out


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(
    "shape, fan_in, fan_out",
    [((784, 100), 784, 100), ((3, 3, 16, 32), 144, 288), ((5, 7, 2), 35, 10), ((40,), 40, 40)],
)
def test_rules(name, shape, fan_in, fan_out, dtype):
    """The stream scaled by the rule; fans of convolutions include the receptive field."""
    variance, distribution = RULES[name]
    got = initializer(name)(shape, rng=5, dtype=dtype)
    want = from_stream(shape, variance(fan_in, fan_out), distribution, 5, dtype)
    oracles.assert_same_bits(got, want)


@pytest.mark.parametrize("name", RULES)
def test_measured_spread(name):
    variance, distribution = RULES[name]
    w = initializer(name)((500, 400), rng=1).astype(np.float64)
    n, expected = w.size, variance(500, 400)
    kurtosis = 3 if distribution == "normal" else 9 / 5
    assert abs(w.mean()) < 4.5 * math.sqrt(expected / n)
    assert abs(w.var() / expected - 1) < 4.5 * math.sqrt((kurtosis - 1) / n)
    if distribution == "uniform":
        limit = math.sqrt(3 * expected)
        assert 0.999 * limit < np.abs(w).max() <= limit * (1 + 1e-7)


@pytest.mark.parametrize("mode", ["fan_in", "fan_out", "fan_avg"])
@pytest.mark.parametrize("distribution", ["normal", "uniform"])
@pytest.mark.parametrize(
    "axes, fans", [((-2, -1), (20, 30)), ((-1, -2), (30, 20)), ((0, 1), (24, 60))]
)
def test_variance_scaling(mode, distribution, axes, fans, dtype):
    """in_axis and out_axis as in JAX: the other axes are the receptive field."""
    shape = (2, 5, 6) if axes == (0, 1) else (20, 30)
    fans = (12, 30) if axes == (0, 1) else fans
    fan = {"fan_in": fans[0], "fan_out": fans[1], "fan_avg": sum(fans) / 2}[mode]
    got = initializers.variance_scaling(shape, 1.7, mode, distribution, *axes, rng=3, dtype=dtype)
    oracles.assert_same_bits(got, from_stream(shape, 1.7 / fan, distribution, 3, dtype))


def test_layout_of_other_libraries():
    """PyTorch's (out, in) with the axes swapped has the transposed shape's fans."""
    ours = initializers.he_normal((300, 50), rng=0)
    theirs = initializers.he_normal((50, 300), rng=0, in_axis=-1, out_axis=-2)
    assert abs(theirs.std() / ours.std() - 1) < 0.03


def test_kaiming_is_he_and_xavier_is_the_books():
    assert np.array_equal(
        initializers.kaiming_normal((9, 8), rng=1), initializers.he_normal((9, 8), rng=1)
    )
    he, xavier = (initializer(f"{r}_normal")((400, 300), rng=1) for r in ("he", "xavier"))
    assert np.allclose(he, xavier * math.sqrt(2), rtol=1e-6)


def test_constants(dtype):
    for name, arguments, value in (("zeros", (), 0), ("ones", (), 1), ("constant", (2.5,), 2.5)):
        got = initializer(name)((3, 4), *arguments, dtype=dtype)
        assert got.dtype == dtype and np.array_equal(got, np.full((3, 4), value))
        out = np.empty((2, 2), dtype)
        assert initializer(name)((2, 2), *arguments, out=out) is out and (out == value).all()
    assert initializers.zeros((100, 50), shard=(slice(3, 5), slice(None))).shape == (2, 50)


SHARDS = [
    (slice(0, 1000), slice(None)),
    (slice(3, 4), slice(5, 6)),
    (slice(None), slice(40, 41)),
    (slice(17, 900), slice(1, 42)),
    (slice(7, 7), slice(None)),
    (slice(999, 1000), slice(0, 43)),
]


@pytest.mark.parametrize("name", RANDOM)
def test_shards(name, dtype, threads):
    """A shard is that part of the whole, to the bit; fans stay those of the whole."""
    shape = (1000, 43)
    whole = initializer(name)(shape, rng=2, dtype=dtype)
    for shard in SHARDS:
        part = initializer(name)(shape, rng=2, dtype=dtype, shard=shard)
        oracles.assert_same_bits(part, whole[shard], f"{shard}")
        out = np.empty(part.shape[::-1], dtype).T
        assert initializer(name)(shape, rng=2, shard=shard, out=out) is out
        oracles.assert_same_bits(np.ascontiguousarray(out), whole[shard], f"{shard}, out")
    conv = (3, 3, 20, 30)
    shard = (slice(1, 3), slice(0, 2), slice(4, 17), slice(29, 30))
    part = initializer(name)(conv, rng=2, dtype=dtype, shard=shard)
    oracles.assert_same_bits(part, initializer(name)(conv, rng=2, dtype=dtype)[shard])


def test_a_shard_of_what_fits_nowhere():
    """50 million by 100 million weights: a corner of them, at once."""
    shape = (50_000_000, 100_000_000)
    one = initializers.he_normal(shape, rng=0, shard=(slice(49_999_990, None), slice(0, 3)))
    two = initializers.he_normal(shape, rng=0, shard=(slice(49_999_995, None), slice(1, 3)))
    assert one.shape == (10, 3) and np.array_equal(one[5:, 1:], two)
    assert 1e-5 < np.abs(one).mean() < 5e-4


@pytest.mark.parametrize("name", ALL)
def test_out(name, dtype):
    """Any writable memory is filled in place and returned; it brings shape and dtype."""
    f = initializer(name)
    want = f((6, 5), rng=4, dtype=dtype)
    fortran, reverse = np.empty((6, 5), dtype, order="F"), np.empty((6, 5), dtype)[::-1, ::-1]
    for out in (np.empty((6, 5), dtype), fortran, reverse):
        assert f(out=out, rng=4) is out
        oracles.assert_same_bits(np.ascontiguousarray(out), want)
    memory = bytearray(want.nbytes)
    view = memoryview(memory).cast("B").cast("f" if dtype == np.float32 else "d", (6, 5))
    assert f(out=view, rng=4) is view
    assert np.frombuffer(memory, dtype).tobytes() == want.tobytes()


def test_out_of_other_libraries(dtype):
    torch = pytest.importorskip("torch")
    tensor = torch.empty((6, 5), dtype=getattr(torch, np.dtype(dtype).name), requires_grad=True)
    assert initializers.he_normal(out=tensor, rng=4) is tensor
    want = initializers.he_normal((6, 5), rng=4, dtype=dtype)
    oracles.assert_same_bits(tensor.detach().numpy(), want)


def read_only():
    a = np.full((3, 4), 9, np.float32)
    a.flags.writeable = False
    return a


BAD = {
    "no shape": ({}, TypeError, "shape"),
    "negative shape": (dict(shape=(3, -1)), ValueError, "shape"),
    "float shape": (dict(shape=(3.0, 2)), TypeError, "shape"),
    "text shape": (dict(shape="32"), TypeError, "shape"),
    "float16": (dict(shape=(3, 4), dtype=np.float16), TypeError, "dtype"),
    "int": (dict(shape=(3, 4), dtype=int), TypeError, "dtype"),
    "complex": (dict(shape=(3, 4), dtype=complex), TypeError, "dtype"),
    "object": (dict(shape=(3, 4), dtype=object), TypeError, "dtype"),
    "big-endian": (dict(shape=(3, 4), dtype=">f4"), TypeError, "dtype"),
    "rng": (dict(shape=(3, 4), rng="seed"), TypeError, "rng"),
    "negative rng": (dict(shape=(3, 4), rng=-1), ValueError, "rng"),
    "shard length": (dict(shape=(3, 4), shard=(slice(2),)), ValueError, "shard"),
    "shard step": (
        dict(shape=(3, 4), shard=(slice(0, 3, 2), slice(4))),
        (TypeError, ValueError),
        "shard",
    ),
    "shard end": (dict(shape=(3, 4), shard=(slice(2), slice(5))), ValueError, "shard"),
    "shard ints": (dict(shape=(3, 4), shard=(1, 2)), TypeError, "shard"),
    "out shape": (dict(shape=(3, 4), out=np.full((4, 3), 9.0)), ValueError, "out"),
    "out list": (dict(out=[[9.0, 9.0]]), TypeError, "out"),
    "out int": (dict(out=np.full((3, 4), 9)), TypeError, "out"),
    "out float16": (dict(out=np.full((3, 4), 9, np.float16)), TypeError, "out"),
    "out object": (dict(out=np.full((3, 4), 9, object)), TypeError, "out"),
    "out big-endian": (dict(out=np.full((3, 4), 9, ">f4")), TypeError, "out"),
    "out read-only": (dict(out=read_only()), ValueError, "out"),
    "out bytes": (dict(out=b"12345678"), TypeError, "out"),
    "out misaligned": (
        dict(out=np.ndarray((3, 4), np.float32, np.zeros(50, np.uint8), 1)),
        ValueError,
        "out",
    ),
    "out and dtype": (dict(out=np.full((3, 4), 9, np.float32), dtype=np.float64), TypeError, "out"),
}


NAMES = ("he_normal", "normal", "uniform", "zeros")
BAD_CASES = [(n, c) for n in NAMES for c in BAD if n != "zeros" or "rng" not in c]


@pytest.mark.parametrize("name, case", BAD_CASES)
def test_errors_name_the_argument(name, case):
    arguments, error, named = BAD[case]
    out = arguments.get("out")
    before = out.copy() if isinstance(out, np.ndarray) else None
    with pytest.raises(error, match=named):
        initializer(name)(**arguments)
    if before is not None:
        assert np.array_equal(out, before)


@pytest.mark.parametrize(
    "arguments, named",
    [
        (dict(mode="fan"), "mode"),
        (dict(distribution="cauchy"), "distribution"),
        (dict(scale=-1.0), "scale"),
        (dict(scale=math.nan), "scale"),
        (dict(in_axis=2), "in_axis"),
        (dict(in_axis=0, out_axis=-2), "axis"),
    ],
)
def test_bad_variance_scaling(arguments, named):
    with pytest.raises(ValueError, match=named):
        initializers.variance_scaling((3, 4), **{"scale": 1.0, **arguments})


def test_bad_parameters():
    for call, named in (
        (lambda: initializers.normal((3,), std=-1.0), "std"),
        (lambda: initializers.normal((3,), mean=math.inf), "mean"),
        (lambda: initializers.uniform((3,), low=1.0, high=1.0), "low"),
        (lambda: initializers.uniform((3,), low=2.0, high=1.0), "low"),
        (lambda: pynn.random.normal(3, scale=math.nan), "scale"),
        (lambda: pynn.random.uniform(3, -3e38, 3e38), "low"),
        (lambda: initializers.he_normal(()), "shape"),
    ):
        with pytest.raises(ValueError, match=named):
            call()


@pytest.mark.parametrize("value", [None, "x", 1j, [1.0, 2.0], np.ones(4), object()])
def test_constant_takes_a_number(value):
    with pytest.raises((TypeError, ValueError), match="value"):
        initializers.constant((3, 4), value)


def test_empty_and_scalar_shapes(dtype):
    for shape in ((0,), (0, 5), (5, 0), (2, 0, 3)):
        for name in RANDOM:
            assert initializer(name)(shape, rng=0, dtype=dtype).shape == shape
    assert initializers.normal((), rng=0).shape == ()


def test_both_backends(dtype):
    """pynn.reference draws the same numbers: uniform to the bit, normal within rounding."""
    ours = {name: initializer(name)((70, 30), rng=3, dtype=dtype) for name in RANDOM}
    pynn.use_backend("numpy")
    for name, want in ours.items():
        got = initializer(name)((70, 30), rng=3, dtype=dtype)
        if name.endswith("uniform"):
            oracles.assert_same_bits(got, want, name)
        else:
            assert (np.abs(got - want) <= 4 * np.spacing(np.abs(want))).all(), name
