"""Initializers: the rules' variances, fans, shards, out=, and clear errors."""

import hashlib
import itertools
import math

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

import oracles
import pynn
from pynn import _checks, initializers

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
RANDOM = [*RULES, "normal", "uniform", "truncated_normal", "sparse", "orthogonal", "torch_linear"]
ALL = [*RANDOM, "zeros", "ones", "constant", "variance_scaling", "identity"]
MATRIX = ("sparse", "orthogonal", "identity")  # of two axes
EVEN = [*RULES, "normal", "uniform", "truncated_normal", "torch_linear"]


def initializer(name):
    return getattr(initializers, name)


def from_stream(shape, variance, distribution, seed, dtype):
    """What the rule must give: the stream of the seed, at that spread."""
    out = np.empty(shape, dtype)
    first, second = (0.0, math.sqrt(variance))
    if distribution == "uniform":
        first, second = -math.sqrt(3 * variance), math.sqrt(3 * variance)
    if distribution == "truncated_normal":
        second /= scipy.stats.truncnorm(-2, 2).std()
        pynn._core.fill(out, distribution, pynn.random.key(seed), first, second, -2, 2)
    else:
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


@pytest.mark.parametrize("mode", ["fan_in", "fan_out", "fan_avg", "fan_geo_avg"])
@pytest.mark.parametrize("distribution", ["normal", "truncated_normal", "uniform"])
@pytest.mark.parametrize(
    "axes, fans", [((-2, -1), (20, 30)), ((-1, -2), (30, 20)), ((0, 1), (24, 60))]
)
def test_variance_scaling(mode, distribution, axes, fans, dtype):
    """in_axis and out_axis as in JAX: the other axes are the receptive field."""
    shape = (2, 5, 6) if axes == (0, 1) else (20, 30)
    fans = (12, 30) if axes == (0, 1) else fans
    means = {"fan_avg": sum(fans) / 2, "fan_geo_avg": math.sqrt(fans[0] * fans[1])}
    fan = {"fan_in": fans[0], "fan_out": fans[1], **means}[mode]
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
    if name == "sparse":
        return
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


@pytest.mark.parametrize(
    "shape, shard",
    [
        ((1, 2**64), (slice(0, 1), slice(5, 6))),
        ((1, 2**63, 2), (slice(0, 1), slice(2, 3), slice(1, 2))),
        ((2**64, 1), (slice(4, 7), slice(0, 1))),
        ((0, 2**64), (slice(0, 0), slice(5, 6))),
        ((0, 2**64, 2**64), (slice(0, 0), slice(5, 8), slice(2**63, 2**63 + 2))),
        ((2, 2**63), (slice(1, 2), slice(2**63 - 3, None))),
    ],
)
def test_shards_of_2_to_the_64(shape, shard):
    part = initializers.normal(shape, rng=0, shard=shard)
    first = sum(s.start * math.prod(shape[i + 1 :]) for i, s in enumerate(shard))
    want = np.empty(part.size, np.float32)
    if want.size:
        pynn._core.fill(want, "normal", pynn.random.key(0), 0.0, 0.01, start=first)
    oracles.assert_same_bits(part.ravel(), want)
    if len(shape) == 2 and shape[0] < 2:
        assert initializers.sparse(shape, rng=0, shard=shard).shape == part.shape


def test_shards_of_dirac():
    """Of what fits nowhere, too: memory is the shard's."""
    for preset, groups in itertools.product(("book", "torch"), (1, 2, 3, 6)):
        shape = (6, 4, 3, 3) if preset == "torch" else (3, 3, 4, 6)
        whole = initializers.dirac(shape, groups, preset=preset)
        assert np.count_nonzero(whole) == groups * min(4, 6 // groups)
        for bounds in itertools.product(*([(0, n // 2), (n // 3, n)] for n in shape)):
            shard = tuple(slice(*b) for b in bounds)
            part = initializers.dirac(shape, groups, preset=preset, shard=shard)
            assert np.array_equal(part, whole[shard])
    big = initializers.dirac((3, 10**8, 10**9), 2, shard=(slice(1, 2), slice(7, 9), slice(10**7)))
    assert np.argwhere(big[0]).tolist() == [[0, 7], [1, 8]]
    later = slice(10**9 // 2 + 6, 10**9 // 2 + 10)
    big = initializers.dirac((3, 10**8, 10**9), 2, shard=(slice(1, 2), slice(7, 9), later))
    assert np.argwhere(big[0]).tolist() == [[0, 1], [1, 2]]
    last = slice(2**62 - 2, None)
    big = initializers.dirac((1, 2, 2**62), 2**61, shard=(slice(None), slice(None), last))
    assert np.array_equal(big[0], np.eye(2))
    for shape in ((2, 2, 0), (2, 0, 2), (0, 2, 2), (0, 0, 0)):
        assert initializers.dirac(shape).shape == shape


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


class Exporter:
    """Memory with DLPack alone, which gives itself or a copy."""

    def __init__(self, copies):
        self.array, self.copies = np.full((6, 5), 9, np.float32), copies

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()

    def __dlpack__(self, **more):
        if self.copies:
            if more.get("copy") is False:
                raise BufferError("this memory can only be copied")
            return self.array.copy().__dlpack__(**more)
        return self.array.__dlpack__(**more)


@pytest.mark.skipif(np.__version__.startswith("2.0"), reason="its arrays from DLPack are read-only")
def test_out_with_dlpack_is_no_copy(monkeypatch):
    """Which would be filled in vain. NumPy 2.0 does not know copy=."""
    want = initializers.he_normal((6, 5), rng=4)
    new, copies = Exporter(copies=False), Exporter(copies=True)
    assert initializers.he_normal(out=new, rng=4) is new
    oracles.assert_same_bits(new.array, want)
    with pytest.raises(TypeError, match=r"out must be.* Exporter .*only be copied"):
        initializers.he_normal(out=copies, rng=4)
    known = np.from_dlpack
    monkeypatch.setattr(np, "from_dlpack", lambda x, /: known(x))
    new.array[...] = 9
    assert initializers.he_normal(out=new, rng=4) is new
    oracles.assert_same_bits(new.array, want)


def read_only():
    a = np.full((3, 4), 9, np.float32)
    a.flags.writeable = False
    return a


BAD = {
    "no shape": ({}, TypeError, "shape"),
    "negative shape": (dict(shape=(3, -1)), ValueError, "shape"),
    "float shape": (dict(shape=(3.0, 2)), TypeError, "shape"),
    "text shape": (dict(shape="32"), TypeError, "shape"),
    "bytes shape": (dict(shape=b"32"), TypeError, "shape"),
    "set shape": (dict(shape={3, 4}), TypeError, "shape"),
    "65 axes": (dict(shape=(1,) * 65), ValueError, "shape"),
    "2**62 elements": (dict(shape=(2**31, 2**31)), ValueError, "shape"),
    "set rng": (dict(shape=(3, 4), rng={1, 2}), TypeError, "rng"),
    "bool shape": (dict(shape=True), TypeError, "shape"),
    "bool in shape": (dict(shape=(3, True)), TypeError, "shape"),
    "float array shape": (dict(shape=np.array([3.0, 4.0])), TypeError, "shape"),
    "two-dimensional shape": (dict(shape=np.array([[3, 4]])), TypeError, "shape"),
    "longdouble": (dict(shape=(3, 4), dtype=np.longdouble), TypeError, "dtype"),
    "uint16": (dict(shape=(3, 4), dtype=np.uint16), TypeError, "dtype"),
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
    "out uint16": (dict(out=np.full((3, 4), 9, np.uint16)), TypeError, "out"),
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
        (dict(mode=np.ones(2)), "mode"),
        (dict(distribution="cauchy"), "distribution"),
        (dict(scale=-1.0), "scale"),
        (dict(scale=math.nan), "scale"),
        (dict(in_axis=2), "in_axis"),
        (dict(in_axis=np.array([0, 1])), "in_axis"),
        (dict(in_axis=0, out_axis=-2), "axis"),
    ],
)
def test_bad_variance_scaling(arguments, named):
    with pytest.raises((TypeError, ValueError), match=named):
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
        (
            lambda: initializers.truncated_normal((3,), lower=2.0, upper=-2.0),
            "lower must.* 2.0 and -2.0",
        ),
        (lambda: initializers.truncated_normal((3,), 0, 1, 2, -2, preset="torch"), "lower.* 2 and"),
        (lambda: initializers.truncated_normal((3,), 5, 0, -1, 1, preset="torch"), "mean.* 5"),
        (lambda: initializers.truncated_normal((3,), lower=math.nan), "lower"),
        (lambda: initializers.truncated_normal((3,), std=-0.5), "std.*-0.5"),
        (lambda: initializers.truncated_normal((3,), lower=20.0, upper=21.0), "20.0"),
        (lambda: initializers.normal((2**40, 2**40), shard=(slice(0, 1),) * 2), "shape"),
        (lambda: initializers.identity((3,)), "shape"),
        (lambda: initializers.identity((3, 3), math.inf), "gain"),
        (lambda: initializers.dirac((3, 3)), "shape"),
        (lambda: initializers.dirac((3, 4, 4), 3), "groups"),
        (lambda: initializers.orthogonal((3,)), "shape"),
        (lambda: initializers.orthogonal((3, 3), column_axis=2), "column_axis"),
        (lambda: initializers.delta_orthogonal((3, 5, 4)), "shape"),
        (lambda: initializers.sparse((3, 4, 5)), "shape"),
        (lambda: initializers.sparse((3, 4), 1.5), "sparsity"),
    ):
        with pytest.raises(ValueError, match=named):
            call()


@pytest.mark.parametrize("value", [None, "x", 1j, [1.0, 2.0], np.ones(4), object()])
def test_constant_takes_a_number(value):
    with pytest.raises((TypeError, ValueError), match="value"):
        initializers.constant((3, 4), value)


TEXT = {
    "scale": lambda x: initializers.variance_scaling((3, 4), x),
    "mean": lambda x: initializers.normal((3, 4), x),
    "std": lambda x: initializers.normal((3, 4), 0.0, x),
    "low": lambda x: initializers.uniform((3, 4), x, 1.0),
    "lower": lambda x: initializers.truncated_normal((3, 4), lower=x),
    "upper": lambda x: initializers.truncated_normal((3, 4), upper=x, preset="torch"),
    "value": lambda x: initializers.constant((3, 4), x),
    "gain": lambda x: initializers.orthogonal((3, 4), x),
    "sparsity": lambda x: initializers.sparse((3, 4), x),
    "loc": lambda x: pynn.random.normal(3, x),
    "high": lambda x: pynn.random.uniform(3, -1, x),
}


@pytest.mark.parametrize("value", ["0.5", b"0.5", bytearray(b"1"), np.str_("1"), np.array("1")])
@pytest.mark.parametrize("name", TEXT)
def test_text_is_no_number(name, value):
    with pytest.raises(TypeError, match=f"{name} must be a number"):
        TEXT[name](value)


def test_numbers_of_any_kind():
    want = initializers.normal((3, 4), 1.0, 2.0, rng=0)
    for one, two in ((1, 2), (np.float32(1), np.int8(2)), (np.array(1.0), np.array(2)), (True, 2)):
        oracles.assert_same_bits(initializers.normal((3, 4), one, two, rng=0), want)
    for named, call in (("mean", initializers.normal), ("value", initializers.constant)):
        with pytest.raises(ValueError, match=f"{named} must be finite"):
            call((3, 4), 10**400)


@pytest.mark.parametrize(
    "shape", [[3, 4], np.array([3, 4]), np.array([3, 4], np.uint8), (3, np.int64(4))]
)
def test_shapes_of_any_kind(shape):
    want = initializers.he_normal((3, 4), rng=0)
    oracles.assert_same_bits(initializers.he_normal(shape, rng=0), want)
    oracles.assert_same_bits(initializers.he_normal(iter(shape), rng=0), want)
    part = (slice(1, 3), slice(None))
    oracles.assert_same_bits(initializers.he_normal(shape, rng=0, shard=part), want[part])
    assert initializers.zeros(shape).shape == initializers.orthogonal(shape).shape == (3, 4)


OVERFLOWS = {  # by way of float32
    "float16": 65520 - 2.0**-9,
    "bfloat16": 2.0**128 - 2.0**119 - 2.0**103,
    "float32": 2.0**128 - 2.0**103,
}


@pytest.mark.parametrize("kind", OVERFLOWS)
def test_no_parameter_overflows(kind):
    """The least number that rounds to infinity is refused, the one before it is not."""
    type_ = half(kind) if kind != "float32" else np.float32
    much = OVERFLOWS[kind]
    less = np.nextafter(much, 0)
    for named, call in (
        ("value", lambda x, out: initializers.constant(out=out, value=x)),
        ("value", lambda x, out: initializers.constant(out=out, value=-x)),
        ("gain", lambda x, out: initializers.identity(out=out, gain=x)),
        ("gain", lambda x, out: initializers.orthogonal(out=out, gain=x)),
        ("mean", lambda x, out: initializers.normal(out=out, mean=x, std=0.0)),
        ("std", lambda x, out: initializers.truncated_normal(out=out, std=x)),
        ("std", lambda x, out: initializers.sparse(out=out, sparsity=1.0, std=x)),
        ("high", lambda x, out: initializers.uniform(out=out, low=0.0, high=x)),
        ("high - low", lambda x, out: initializers.uniform(out=out, low=-x / 2, high=x / 2)),
    ):
        if named == "high - low" and kind != "float32":  # float32 is drawn
            continue
        out = np.full((2, 3), 9, type_)
        with pytest.raises(ValueError, match=f"{named} must be finite in {kind}"):
            call(much, out)
        assert (out == 9).all()
        call(less, out)
        if named in ("value", "mean"):
            assert np.isfinite(out.astype(float)).all()
    for value in (math.inf, -math.inf, math.nan):
        got = initializers.constant((2, 2), value, dtype=type_).astype(float)
        assert np.array_equal(got, np.full((2, 2), value), equal_nan=True)


def test_a_refused_call_takes_nothing_from_a_generator():
    one, two = np.random.default_rng(1), np.random.default_rng(1)
    for call in (
        lambda: initializers.normal((3,), std=-1.0, rng=one),
        lambda: initializers.he_normal((3, 4), dtype=int, rng=one),
        lambda: pynn.random.uniform(3, 2.0, 1.0, rng=one),
        lambda: initializers.sparse((3, 4), std="1", rng=one),
        lambda: initializers.lsuv(pynn.networks.MultiLayerNet(4, [3], 2), np.ones(3), rng=one),
    ):
        with pytest.raises((TypeError, ValueError)):
            call()
    assert one.random() == two.random()


def test_empty_and_scalar_shapes(dtype):
    for shape in ((0,), (0, 5), (5, 0), (2, 0, 3)):
        for name in RANDOM:
            if (name in MATRIX and len(shape) != 2) or (name == "torch_linear" and len(shape) < 2):
                continue
            assert initializer(name)(shape, rng=0, dtype=dtype).shape == shape
    assert initializers.normal((), rng=0).shape == ()


def test_both_backends(dtype):
    """pynn.reference draws the same numbers: uniform to the bit, normal within rounding."""
    ours = {name: initializer(name)((70, 30), rng=3, dtype=dtype) for name in RANDOM}
    pynn.use_backend("numpy")
    for name, want in ours.items():
        got = initializer(name)((70, 30), rng=3, dtype=dtype)
        if name.endswith("uniform") or name == "torch_linear":
            oracles.assert_same_bits(got, want, name)
        elif name == "orthogonal":
            assert np.allclose(got, want, atol=3e-6)
        elif name == "truncated_normal":
            assert np.allclose(got, want, rtol=1e-6, atol=1e-8)
        else:
            assert (np.abs(got - want) <= 4 * np.spacing(np.abs(want))).all(), name


def half(kind):
    """A half type; bfloat16 needs ml_dtypes."""
    return pytest.importorskip("ml_dtypes").bfloat16 if kind == "bfloat16" else np.dtype(kind).type


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ALL)
def test_half_types(name, kind, tmp_path):
    """The float32 weights rounded once, new and in place, contiguous or not, in files too."""
    type_, f = half(kind), initializer(name)
    want = f((60, 50), rng=3).astype(type_)
    got = f((60, 50), rng=3, dtype=type_)
    assert got.dtype == type_ and np.array_equal(got.view(np.uint16), want.view(np.uint16))
    mapped = np.memmap(tmp_path / "weights", type_, "w+", shape=(60, 50))
    for out in (np.empty((60, 50), type_), np.empty((50, 120), type_).T[::-2], mapped):
        assert f(out=out, rng=3) is out
        assert np.array_equal(out.view(np.uint16), want.view(np.uint16))
    shard = (slice(7, 20), slice(3, 50))
    part = f((60, 50), rng=3, dtype=type_, shard=shard)
    assert np.array_equal(part.view(np.uint16), want[shard].view(np.uint16))


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("name", ALL)
def test_tensors_of_torch(name, kind):
    torch = pytest.importorskip("torch")
    f, dtype = initializer(name), getattr(torch, kind)
    single = f((60, 50), rng=3, dtype="float64" if kind == "float64" else "float32")
    want = torch.from_numpy(single).to(dtype)
    for out in (torch.empty((60, 50), dtype=dtype), torch.empty((50, 180), dtype=dtype).T[::3]):
        assert f(out=out, rng=3) is out
        assert torch.equal(out, want)


def test_identity_and_dirac(dtype):
    for shape in ((4, 4), (3, 7), (7, 3)):
        assert np.array_equal(initializers.identity(shape, dtype=dtype), np.eye(*shape))
    assert initializers.eye((2, 2), 3.0).tolist() == [[3, 0], [0, 3]]
    x = np.random.default_rng(0).standard_normal((20, 3))
    w = initializers.dirac((5, 3, 4), dtype=np.float64)  # a convolution of width 5
    y = sum(x[i : 16 + i] @ w[i] for i in range(5))
    assert np.array_equal(y, np.pad(x[2:18], ((0, 0), (0, 1))))
    grouped = initializers.dirac((6, 2, 3, 3), groups=2, preset="torch")
    want = np.zeros((6, 2, 3, 3))
    for out, into in ((0, 0), (1, 1), (3, 0), (4, 1)):
        want[out, into, 1, 1] = 1
    assert np.array_equal(grouped, want)


SHAPES = [(40, 40), (70, 33), (33, 70), (3, 4, 50), (1, 9), (9, 1), (100, 64), (130, 97)]


@pytest.mark.parametrize("shape", SHAPES)
def test_orthogonal(shape, dtype):
    """Orthonormal rows or columns, to rounding."""
    w = initializers.orthogonal(shape, 2.0, rng=0, dtype=dtype).astype(np.float64)
    m = w.reshape(-1, shape[-1]) / 2
    gram = m.T @ m if len(m) >= shape[-1] else m @ m.T
    assert np.abs(gram - np.eye(len(gram))).max() < 20 * np.finfo(dtype).eps
    first = initializers.orthogonal(shape, rng=0, preset="torch", dtype=np.float64)
    m = first.reshape(shape[0], -1)
    gram = m @ m.T if shape[0] <= m.shape[1] else m.T @ m
    assert np.abs(gram - np.eye(len(gram))).max() < 1e-14


def test_orthogonal_is_the_factor_of_the_stream():
    """LAPACK's Q with R's diagonal made positive: Haar measure."""
    numbers = np.empty((90, 70))
    pynn._core.fill(numbers, "normal", pynn.random.key(4), 0.0, 1.0)
    q, r = np.linalg.qr(numbers)
    got = initializers.orthogonal((90, 70), rng=4, dtype=np.float64)
    assert np.abs(got - q * np.sign(np.diag(r))).max() < 1e-12
    draws = np.array([initializers.orthogonal((3, 3), rng=i) for i in range(3000)])
    assert np.abs(draws.mean(axis=0)).max() < 0.05  # an entry's deviation is 1 / sqrt(3)
    assert abs((np.linalg.det(draws) > 0).mean() - 0.5) < 0.05
    assert scipy.stats.kstest(draws[:, 0, 0], "uniform", (-1, 2)).pvalue > 1e-4  # Archimedes


def test_delta_orthogonal(dtype):
    w = initializers.delta_orthogonal((3, 4, 20, 30), 1.5, rng=0, dtype=dtype)
    m = w[1, 1].astype(np.float64) / 1.5
    assert np.abs(m @ m.T - np.eye(20)).max() < 20 * np.finfo(dtype).eps
    w[1, 1] = 0
    assert not w.any()
    theirs = initializers.delta_orthogonal((30, 20, 3, 3), rng=0, preset="torch")
    assert np.count_nonzero(np.abs(theirs).sum(axis=(0, 1))) == 1 and theirs[:, :, 1, 1].any()


def test_sparse(dtype):
    w = initializers.sparse((101, 60), 0.3, 2.0, rng=0, dtype=dtype)
    assert ((w == 0).sum(axis=0) == 31).all()  # ceil
    assert abs(w[w != 0].std() / 2 - 1) < 0.05
    counts = (w == 0).sum(axis=1)
    assert counts.min() > 5 and counts.max() < 35


def test_the_smallest_of_equal_lots_are_the_first():
    lots = np.array([[0.5, 0.5, 0.2, 0.5], [0.1, 0.3, 0.2, 0.0], [1.0, 1.0, 1.0, 1.0]])
    for count in range(5):
        found = initializers._smallest(lots, count)
        order = np.argsort(lots, axis=1, kind="stable")
        want = np.zeros(lots.shape, bool)
        np.put_along_axis(want, order[:, :count], True, axis=1)
        assert np.array_equal(found, want)


@pytest.mark.parametrize("name", [*ALL, "dirac", "delta_orthogonal"])
def test_out_with_shared_places(name):
    """Elements that lie in one place cannot all have their own value."""
    shape = (3, 2, 2) if name in ("dirac", "delta_orthogonal") else (4, 3)
    for strides in ((4,) * len(shape), (0,) * len(shape)):
        memory = np.zeros(100, np.float32)
        out = np.lib.stride_tricks.as_strided(memory, shape, strides)
        with pytest.raises(ValueError, match="out must have one place"):
            getattr(initializers, name)(out=out, rng=0)
        assert not memory.any()


@pytest.mark.parametrize(
    "dtype", ["", ">f4", "int32", "longdouble", object, np.zeros(2), ["f4"], {}, "f8,(", "bfloat15"]
)
def test_other_dtypes(dtype):
    with pytest.raises(TypeError, match="dtype must be float16, bfloat16, float32 or float64"):
        initializers.he_normal((3, 2), dtype=dtype)


def test_dtype_is_that_of_out_or_float32():
    """None, the default, is not NumPy's float64; what was asked for by any name is what out must have."""
    for f in (initializers.he_normal, initializers.zeros, pynn.random.uniform):
        assert f((3, 2), dtype=None).dtype == f((3, 2)).dtype == np.float32
        for kind in (np.float16, np.float32, np.float64):
            out = np.full((3, 2), 9, kind)
            assert f(out=out, dtype=None) is out
            for asked in (kind, np.dtype(kind), np.dtype(kind).name):
                assert f(out=out, dtype=asked) is out
            out[...] = 9
            for other in {np.float16, np.float32, np.float64} - {kind}:
                for asked in (other, np.dtype(other), np.dtype(other).name):
                    with pytest.raises(TypeError, match="out must have the dtype asked for"):
                        f(out=out, dtype=asked)
            assert (out == 9).all()


def test_axes_of_one_axis():
    """They are an axis, or that of a matrix, whose default layout they are."""
    want = initializers.he_normal((3,), rng=0)
    for axis in (-2, -1, 0, 1):
        got = initializers.he_normal((3,), rng=0, in_axis=axis, out_axis=0)
        oracles.assert_same_bits(got, want)
    for bad, error in (("x", TypeError), (1.0, TypeError), (99, ValueError), (-3, ValueError)):
        for name in ("in_axis", "out_axis"):
            with pytest.raises(error, match=f"{name} must be an"):
                initializers.he_normal((3,), **{name: bad})


@pytest.mark.parametrize("step", [True, 1.0, np.True_, "1"])
def test_steps_of_shards_are_ints(step):
    with pytest.raises(TypeError, match="step of a shard must be an int"):
        initializers.zeros((3, 4), shard=(slice(0, 2, step), slice(4)))
    assert initializers.zeros(3, shard=(slice(0, 2, np.int64(1)),)).shape == (2,)


def test_what_cannot_be_made_whole():
    """The shard would be small, but not what it is taken from; a generator is left as it is."""
    random, twin = np.random.default_rng(1), np.random.default_rng(1)
    one = (slice(0, 1),) * 2
    for f, shape in (
        (initializers.orthogonal, (2**31, 2**31)),
        (initializers.orthogonal, (2**32, 2**32)),
        (initializers.orthogonal, (1, 2**64)),
        (initializers.sparse, (2**64, 1)),
        (initializers.sparse, (2**60, 1)),
        (initializers.delta_orthogonal, (1, 2**20, 2**43)),
    ):
        with pytest.raises((ValueError, MemoryError), match=r"^shape must be one of which"):
            f(shape, shard=(*one, slice(0, 1)) if len(shape) == 3 else one, rng=random)
    assert random.random() == twin.random()
    for shape in ((0, 2**70), (3, 2**70), (0, 10**5000), (3, 10**5000)):
        with pytest.raises(ValueError, match="shape"):
            initializers.zeros(shape)


@pytest.mark.parametrize("sign", [1, -1])
def test_ints_of_more_digits_than_python_writes(sign):
    """The message names the argument nevertheless."""
    value = sign * 10**5000
    for named, call in (
        ("loc", lambda: pynn.random.normal(2, value)),
        ("scale", lambda: pynn.random.normal(2, 0, value)),
        ("low", lambda: pynn.random.uniform(2, value, 1)),
        ("std", lambda: initializers.normal(2, std=value)),
        ("value", lambda: initializers.constant(2, value)),
        ("scale", lambda: initializers.variance_scaling((2, 2), value)),
        ("in_axis", lambda: initializers.he_normal((2, 2), in_axis=value)),
        ("column_axis", lambda: initializers.orthogonal((2, 2), column_axis=value)),
        ("groups", lambda: initializers.dirac((1, 2, 2), value)),
        ("shape", lambda: initializers.zeros((2, value))),
        ("shard", lambda: initializers.zeros(2, shard=(slice(0, value),))),
        ("step of a shard|shard", lambda: initializers.zeros(2, shard=(slice(0, 1, value),))),
        ("lower", lambda: initializers.truncated_normal(2, lower=abs(value))),
        ("lower", lambda: initializers.truncated_normal(2, 0, 0, abs(value), preset="torch")),
        ("rng", lambda: pynn.random.normal(2, rng=-abs(value))),
        ("seed", lambda: pynn.random.Philox4x32(-abs(value))),
        ("key", lambda: pynn.random.Philox4x32(key=value)),
        ("sparsity", lambda: initializers.sparse((2, 2), value)),
    ):
        with pytest.raises(ValueError, match=f"{named} .*more digits"):
            call()


def test_uniform_of_half_types_draws_float32():
    """So high - low need only be finite in that."""
    for kind, limit in (("float16", 65000), ("bfloat16", 1.6e38)):
        type_ = half(kind)
        x = pynn.random.uniform(1000, -limit, limit, dtype=type_, rng=0)
        want = pynn.random.uniform(1000, -limit, limit, rng=0).astype(type_)
        assert np.array_equal(x.view(np.uint16), want.view(np.uint16))
        assert np.isfinite(x.astype(float)).all() and x.astype(float).min() < -0.9 * limit
    with pytest.raises(ValueError, match="high must be finite in float16"):
        pynn.random.uniform(3, 0, 65520, dtype="float16")
    with pytest.raises(ValueError, match="high - low must be finite in float32"):
        pynn.random.uniform(3, -2e38, 2e38, dtype=half("bfloat16"))


def test_lsuv(dtype):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 20)).astype(dtype)
    net = pynn.networks.MultiLayerNet(20, [30, 40], 10, activation="tanh", rng=0, dtype=dtype)
    assert initializers.lsuv(net, x, rng=1) is net
    for i in (1, 2, 3):
        z = x @ net.params[f"W{i}"] + net.params[f"b{i}"]
        assert abs(z.var() - 1) < 0.011
        x = np.tanh(z)
    before = {name: param.copy() for name, param in net.params.items()}
    nan = np.full((5, 20), np.nan)
    for batch in (np.zeros((5, 20)), np.ones((0, 20)), np.ones((5, 19)), np.ones(20), nan):
        with pytest.raises(ValueError, match="batch must"):
            initializers.lsuv(net, batch)
    for batch in ("text", np.ones((5, 20), complex), [[1.0], [1.0, 2.0]]):
        with pytest.raises((TypeError, ValueError), match="batch must"):
            initializers.lsuv(net, batch)
    for name, param in net.params.items():
        oracles.assert_same_bits(param, before[name])
    with pytest.raises(TypeError, match="network"):
        initializers.lsuv(object(), x)
    x = rng.standard_normal((50, 20))
    plain, dropping = (
        pynn.networks.MultiLayerNet(20, [30, 40], 10, rng=0, use_dropout=drop)
        for drop in (False, True)
    )
    for name, param in initializers.lsuv(plain, x, rng=1).params.items():
        oracles.assert_same_bits(initializers.lsuv(dropping, x, rng=1).params[name], param)
    with pytest.raises(ValueError, match="network must have no batch normalization"):
        initializers.lsuv(pynn.networks.MultiLayerNet(20, [30], 10, use_batchnorm=True), x)


def moments_by_scipy(f, slope):
    """E f^2 and E f'^2 by adaptive quadrature."""

    def integral(g):
        pieces = ((-12, -1), (-1, 0), (0, 1), (1, 12))
        density = scipy.stats.norm.pdf
        return sum(scipy.integrate.quad(lambda z: g(z) ** 2 * density(z), *p)[0] for p in pieces)

    return integral(f), integral(slope)


GAINS = {
    "relu": (lambda z: max(z, 0), lambda z: float(z > 0)),
    "tanh": (math.tanh, lambda z: 1 - math.tanh(z) ** 2),
    "leaky_relu": (lambda z: z if z > 0 else 0.01 * z, lambda z: 1 if z > 0 else 0.01),
    "sigmoid": (lambda z: 1 / (1 + math.exp(-z)), lambda z: math.exp(-z) / (1 + math.exp(-z)) ** 2),
}


@pytest.mark.parametrize("name", GAINS)
def test_gain(name):
    forward, backward = (m**-0.5 for m in moments_by_scipy(*GAINS[name]))
    by_ufunc = getattr(pynn, name)
    for activation in (name, by_ufunc, np.vectorize(GAINS[name][0], otypes=[float])):
        assert initializers.gain(activation) == pytest.approx(forward, rel=1e-10)
        assert initializers.gain(activation, "backward") == pytest.approx(backward, rel=1e-7)


def test_gain_keeps_the_spread_of_any_activation():
    """gelu, silu, mish and elu, for which PyTorch's calculate_gain raises."""
    functions = {
        "gelu": lambda x: x * scipy.special.ndtr(x),
        "silu": lambda x: x * scipy.special.expit(x),
        "mish": lambda x: x * np.tanh(np.logaddexp(0, x)),
        "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    }
    for name, f in functions.items():
        x = np.random.default_rng(0).standard_normal((500, 400))
        for layer in range(10):
            w = initializers.he_normal((400, 400), activation=f, rng=layer, dtype=np.float64)
            x = f(x) @ w
        assert 0.5 < x.var() < 2, name
    assert initializers.gain(lambda x: x) == 1
    he = initializers.he_normal((30, 20), activation="relu", rng=1)
    oracles.assert_same_bits(he, initializers.he_normal((30, 20), rng=1))
    bad = ("gauss", 3, lambda x: x.sum(), lambda x: 0 * x, lambda x: "a", lambda x: x**200)
    for activation in (*bad, pynn.softmax, lambda x: x - x.mean() - 1, lambda x: 1 / (x - x)):
        with pytest.raises((TypeError, ValueError), match="activation"):
            initializers.gain(activation)
    with pytest.raises(ValueError, match="direction"):
        initializers.gain("relu", "up")


def test_gain_of_what_is_no_common_activation():
    """A step has no slope, but a second moment; a function may outgrow the density; numbers may be complex."""
    for step, want in ((np.sign, 1), (lambda x: x > 0, math.sqrt(2))):
        assert initializers.gain(step) == pytest.approx(want, rel=1e-12)
        assert initializers.recommend(step).initializer == "xavier_normal"
        with pytest.raises(ValueError, match=r"activation must have a slope.* 0\.0"):
            initializers.gain(step, "backward")
    assert initializers.gain(lambda x: x**10) == pytest.approx(654729075**-0.5, rel=1e-10)
    assert initializers.gain(lambda x: np.exp(x * x / 8)) == pytest.approx(2**-0.25, rel=1e-10)
    for fast in (lambda x: np.exp(x * x / 4), lambda x: np.exp(x * x)):
        with pytest.raises(ValueError, match=r"activation must.* inf"):
            initializers.gain(fast)
    with pytest.raises(TypeError, match=r"activation must.* complex128"):
        initializers.gain(lambda x: 1j * x)


# forward, backward
KNOWN_GAINS = {
    "relu": (1.4142135623730951, 1.4142135623730951),
    "relu6": (1.4142135650954561, 1.414213563768924),
    "leaky_relu": (1.4141428569978354, 1.4141428569978354),
    "elu": (1.245198300700633, 1.223428557552777),
    "celu": (1.245198300700633, 1.223428557552777),
    "selu": (1.0, 0.9660257769720078),
    "gelu": (1.533530441196074, 1.4811144127088145),
    "gelu_tanh": (1.5335805216663263, 1.4811680580932702),
    "quick_gelu": (1.5394587622987965, 1.4914592267502205),
    "silu": (1.6765324703319209, 1.6233202579521322),
    "mish": (1.4868475812730155, 1.444755232547274),
    "sigmoid": (1.8462285453388978, 4.7226460859376775),
    "log_sigmoid": (1.0418668355354714, 1.8462285453388978),
    "tanh": (1.5925374197225106, 1.467413591631219),
    "tanh_shrink": (2.338367530099075, 1.9881388232488078),
    "softplus": (1.0418668355354714, 1.8462285453388978),
    "squareplus": (0.816496580927726, 1.85914916249115),
    "softsign": (2.33753336310565, 2.0957806089487536),
    "hard_sigmoid": (1.897840424727893, 6.008115825195295),
    "hard_swish": (1.7366572127663, 1.6700763674404628),
    "hard_tanh": (1.3920361404479231, 1.2102870624325983),
    "hard_shrink": (1.0157963547198772, 1.2730076010312807),
    "soft_shrink": (1.5443605282795214, 1.2730076010312807),
    "threshold": (1.4142135623730951, 1.4142135623730951),
    "exponential": (0.36787944117145854, 0.36787944117145854),
    "linear": (1.0, 1.0),
}


def test_gains_of_all_activations():
    """As they were published."""
    assert {*KNOWN_GAINS} == {*pynn.ACTIVATIONS}
    for name, gains in KNOWN_GAINS.items():
        found = initializers.gain(name), initializers.gain(name, "backward")
        assert found == pytest.approx(gains, rel=1e-12), name


def shrunk(limit):
    """E f^2 and E f'^2 of hard_shrink."""
    tail = scipy.stats.norm.sf(limit)
    return 2 * (tail + limit * scipy.stats.norm.pdf(limit)), 2 * tail


def shifted_relu(at):
    tail, density = scipy.stats.norm.sf(at), scipy.stats.norm.pdf(at)
    return (1 + at * at) * tail - at * density, tail


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("at", [0.1, 0.3, 0.2525, 1 / 3, 0.5, 2.0**-20, 2.49999])
def test_gain_with_kinks_and_jumps_anywhere(at, single):
    """Not only at the ends of the panels; the slope exists almost everywhere. In float32 to fewer digits."""
    kind = np.float32 if single else np.float64
    for f, (square, slope) in (
        (lambda x: pynn.hard_shrink(x.astype(kind), at), shrunk(at)),
        (lambda x: np.maximum(x.astype(kind) - kind(at), 0), shifted_relu(at)),
    ):
        rel = 1e-4 if single else 1e-9
        assert initializers.gain(f) == pytest.approx(square**-0.5, rel=rel)
        assert initializers.gain(f, "backward") == pytest.approx(slope**-0.5, rel=rel)


def test_gain_of_what_is_rounded_or_steep():
    for kind, rel in ((np.float16, 1e-2), (np.float32, 1e-5)):
        for name in ("relu", "tanh", "gelu", "sigmoid"):
            found = initializers.gain(
                lambda x: getattr(pynn, name)(x.astype(kind)),  # noqa: B023
                "backward",
            )
            assert found == pytest.approx(initializers.gain(name, "backward"), rel=rel)
    assert initializers.gain(lambda x: np.sin(20 * x), "backward") == pytest.approx(
        200**-0.5, rel=1e-9
    )
    steep = scipy.integrate.quad(
        lambda z: 100 * math.cosh(10 * z) ** -4 * scipy.stats.norm.pdf(z), -2, 2, points=[0]
    )[0]
    found = initializers.gain(lambda x: np.tanh(10 * x), "backward")
    assert found == pytest.approx(steep**-0.5, rel=1e-7)
    saw = initializers.gain(lambda x: np.floor(np.pi * x) + x, "backward")
    assert saw == pytest.approx(1, rel=1e-9)
    for stairs in (lambda x: x > 0.1, lambda x: np.round(8 * x), lambda x: np.floor(3 * x - 0.2)):
        assert initializers.gain(stairs) > 0
        with pytest.raises(ValueError, match=r"activation must have a slope.* 0\.0"):
            initializers.gain(stairs, "backward")


def test_recommend():
    assert initializers.recommend("relu")[:2] == ("he_normal", pytest.approx(math.sqrt(2)))
    for name in ("tanh", "sigmoid"):
        found = initializers.recommend(name)
        assert found.initializer == "xavier_normal" and found.reason.endswith("spread.")
    assert initializers.recommend(lambda x: x * scipy.special.ndtr(x)).initializer == "he_normal"
    assert "not odd" in initializers.recommend(np.abs).reason


# preset, name, shape -> distribution with its parameters, as that library's source has it
def keras_normal(variance):
    return scipy.stats.truncnorm(-2, 2, scale=math.sqrt(variance) / 0.87962566103423978)


def flat(limit):
    return scipy.stats.uniform(-limit, 2 * limit)


PRESETS = {
    ("torch", "xavier_normal"): lambda i, o: scipy.stats.norm(0, math.sqrt(2 / (i + o))),
    ("torch", "xavier_uniform"): lambda i, o: flat(math.sqrt(6 / (i + o))),
    ("torch", "kaiming_normal"): lambda i, o: scipy.stats.norm(0, math.sqrt(2 / i)),
    ("torch", "kaiming_uniform"): lambda i, o: flat(math.sqrt(6 / i)),
    ("torch", "normal"): lambda i, o: scipy.stats.norm(0, 1),
    ("torch", "uniform"): lambda i, o: scipy.stats.uniform(0, 1),
    ("torch", "truncated_normal"): lambda i, o: scipy.stats.truncnorm(-2, 2),
    **{
        (preset, f"{rule}_normal"): lambda i, o, v=variance: keras_normal(v(i, o))
        for preset in ("keras", "jax")
        for rule, variance in {
            "glorot": lambda i, o: 2 / (i + o),
            "xavier": lambda i, o: 2 / (i + o),
            "he": lambda i, o: 2 / i,
            "lecun": lambda i, o: 1 / i,
        }.items()
    },
    ("keras", "glorot_uniform"): lambda i, o: flat(math.sqrt(6 / (i + o))),
    ("keras", "he_uniform"): lambda i, o: flat(math.sqrt(6 / i)),
    ("jax", "lecun_uniform"): lambda i, o: flat(math.sqrt(3 / i)),
    ("keras", "normal"): lambda i, o: scipy.stats.norm(0, 0.05),
    ("keras", "uniform"): lambda i, o: flat(0.05),
    ("keras", "truncated_normal"): lambda i, o: scipy.stats.truncnorm(-2, 2, scale=0.05),
    ("jax", "normal"): lambda i, o: scipy.stats.norm(0, 0.01),
    ("jax", "uniform"): lambda i, o: scipy.stats.uniform(0, 0.01),
    ("jax", "truncated_normal"): lambda i, o: scipy.stats.truncnorm(-2, 2, scale=0.01),
}


@pytest.mark.parametrize("preset, name", PRESETS)
def test_presets(preset, name):
    """Each library's distribution, in its layout."""
    w = initializer(name)((200, 300), preset=preset, rng=1)
    fans = (300, 200) if preset == "torch" else (200, 300)
    want = PRESETS[preset, name](*fans)
    assert scipy.stats.kstest(w.ravel(), want.cdf).pvalue > 1e-4


def test_presets_that_are_refused():
    for call in (
        lambda: initializers.he_normal((3, 4), preset="tensorflow"),
        lambda: initializers.lecun_normal((3, 4), preset="torch"),
        lambda: initializers.normal((3, 4), preset=None),
        lambda: initializers.he_normal((3, 4), preset=np.array(["jax", "keras"])),
    ):
        with pytest.raises(ValueError, match="preset"):
            call()
    bounds = initializers.truncated_normal((9, 9), 1.0, 0.5, 0.9, 1.3, preset="torch", rng=0)
    assert bounds.min() >= 0.9 and bounds.max() <= 1.3
    linear = initializers.torch_linear((50, 400), rng=0)
    assert 0.049 < np.abs(linear).max() < 0.05


BOUNDS = [
    (-0.7312715117751976, 2.4532112507341663, -0.01659254834763857, -0.016409343409472937),
    (1.0, 0.5, 0.9, 1.3),
    (-0.3, 3.0, -0.1001, 0.1),
    (0.1, 1e-9, 0.1, math.inf),
    (0.1, 0.0, 0.1, 0.2),
    (0.2, 0.0, 0.1, 0.2),
]


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("bounds", BOUNDS)
def test_bounds_of_torch_hold(bounds, kind):
    """Wherever they are, as PyTorch's clamp sees to it, in whole, shards and strided memory."""
    type_ = half(kind) if kind in ("float16", "bfloat16") else np.dtype(kind).type
    for seed in range(20):
        w = initializers.truncated_normal((40, 30), *bounds, preset="torch", rng=seed, dtype=type_)
        wide = w.astype(np.float64)
        assert wide.min() >= bounds[2] and wide.max() <= bounds[3]
    shard = (slice(3, 30), slice(2, 9))
    more = dict(preset="torch", rng=seed, shard=shard)
    out = np.empty((14, 81), type_).T[::-3, ::2]
    initializers.truncated_normal((40, 30), *bounds, out=out, **more)
    assert np.array_equal(out.astype(float), wide[shard])
    plain = initializers.truncated_normal((), *bounds, preset="torch", rng=0, dtype=type_)
    assert bounds[2] <= float(plain) <= bounds[3]


def test_bounds_between_which_there_is_no_number():
    """The numbers next to them."""
    bounds = 1 + 2.0**-26, 1 + 2.0**-25
    for dtype, most in ((np.float32, 1 + 2.0**-23), (np.float16, 1 + 2.0**-10)):
        w = initializers.truncated_normal(
            1000, 1.0, 1.0, *bounds, preset="torch", dtype=dtype, rng=0
        )
        assert {*w.tolist()} <= {1, most}


def test_bounds_of_torch_hold_in_float32():
    """Where mean + std * z has few digits left."""
    bounds = -0.7312715117751976, 2.4532112507341663, -0.01659254834763857, -0.016509343409472937
    w = initializers.truncated_normal(100_000, *bounds, preset="torch", rng=0).astype(float)
    assert w.min() >= bounds[2] and w.max() <= bounds[3]


def test_clamp_of_large_arrays():
    """In pieces, of any strides."""
    wide = np.random.default_rng(0).standard_normal((3, 1500, 1000))
    for array in (wide.copy(), wide.copy(order="F"), wide.copy()[::-1, ::-1, ::2], wide.copy().T):
        want = np.clip(array, -0.5, 0.25)
        _checks.clamp(array, -0.5, 0.25)
        assert np.array_equal(array, want)


def test_pieces_are_small_and_all():
    """So that no call of NumPy keeps signals waiting."""
    for shape in ((3 * 2**20,), (2, 1500, 1000), (2**21 + 1, 2), (1, 1, 2**21)):
        array = np.zeros(shape, np.float16)
        for view in (array, array.T, array[::-1], array[..., ::2], array.copy(order="F")):
            taken = 0
            for part, same in _checks.pieces(view, view):
                assert part.size <= 2**20 and same.shape == part.shape
                part += 1
                taken += part.size
            assert taken == view.size and (view == 1).all()
            view[...] = 0


def test_large_arrays_in_pieces():
    array = np.empty((1500, 1600), np.float32)
    assert (initializers.constant(out=array.T, value=0.1) == np.float32(0.1)).all()
    for kind in (np.float16, np.float32, np.float64):
        values = np.random.default_rng(0).standard_normal((1500, 1600))
        for out in (np.empty((1500, 1600), kind), np.empty((1600, 1500), kind).T):
            _checks.assign(out, values)
            assert np.array_equal(
                out, values.astype(np.float32 if kind != np.float64 else kind).astype(kind)
            )
    whole = initializers.sparse((5000, 1000), rng=0)
    assert ((whole == 0).sum(axis=0) == 4500).all()
    shard = (slice(100, 4000), slice(203, 420))
    oracles.assert_same_bits(initializers.sparse((5000, 1000), rng=0, shard=shard), whole[shard])


def test_bounds_too_far_out_are_shown_as_given():
    one, two = np.random.default_rng(1), np.random.default_rng(1)
    for preset, std, lower, upper in (
        ("torch", 0.02, 1, 2.5),
        ("torch", 1e-30, 1, 2.5),
        ("torch", 5e-324, 1, 2.5),
        ("torch", 1.0, 1, 1 + 1e-15),
        ("book", 0.5, 20.0, 21),
        ("jax", 0.5, -math.inf, -20),
    ):
        named = f"lower and upper must have .* mean 0, std {std}, lower {lower}, upper {upper}$"
        with pytest.raises(ValueError, match=named):
            initializers.truncated_normal(3, 0, std, lower, upper, preset=preset, rng=one)
    with pytest.raises(ValueError, match=r"lower and upper must .* loc 0.0, scale 1.0, lower 20"):
        pynn.random.truncated_normal(3, lower=20, upper=21, rng=one)
    assert one.random() == two.random()


def layer(name, shape, /, **arguments):
    return name, shape, arguments


CALLS = [
    *(layer(name, (90, 70)) for name in EVEN),
    layer("he_normal", (90, 70), dtype=np.float64),
    layer("he_normal", (90, 70), dtype=np.float16),
    layer("truncated_normal", (90, 70), lower=-6.0, upper=np.inf, dtype=np.float64),
    layer("truncated_normal", (90, 70), lower=1.0, upper=1.5, dtype=np.float16),
    layer("he_uniform", (3, 3, 20, 30)),
    layer("glorot_normal", (90, 70), preset="keras"),
    layer("kaiming_uniform", (64, 32, 3, 3), preset="torch"),
    layer("xavier_normal", (90, 70), activation="tanh"),
    layer("variance_scaling", (90, 70), mode="fan_geo_avg", distribution="truncated_normal"),
    layer("orthogonal", (90, 70)),
    layer("orthogonal", (70, 9, 11), gain=2.0, dtype=np.float64),
    layer("orthogonal", (130, 200), dtype=np.float16),
    layer("delta_orthogonal", (3, 3, 20, 30)),
    layer("dirac", (3, 3, 20, 30)),
    layer("identity", (90, 70), gain=0.5),
    layer("sparse", (90, 70)),
    layer("sparse", (90, 70), sparsity=0.5, dtype=np.float64),
    layer("constant", (90, 70), value=0.1),
    layer("zeros", (90, 70)),
    layer("ones", (90, 70), dtype=np.float16),
]
assert len(CALLS) >= 30
# The first 8 digits of their hashes: a call that gives others breaks its users' seeds.
FROZEN = (
    "4a3905c7 cde18604 bc3a90ea fcdd75d0 d664a331 0995cff1 b1cf1145 dc9961fd 6dfad55a "
    "c08cbcf2 966a55dc b2b04676 da3f4920 d92b4839 f6cc00b2 4379bcb7 c365c4d7 01d3d475 "
    "5871b2ea c499a551 b0de7234 502772c1 9ca7ebe0 7317703e 28a85cdf 70aaab2b 42717397 "
    "d39e9167 43410abd 928e00a4 d6c2fd35 427ca740 d254f55b 54a154be"
)
OTHER_NAMES = {"eye": "identity", "delta": "dirac"}
OTHERS = {"Recommendation", "gain", "recommend", "lsuv"}  # which fill nothing, or no tensor


def test_every_initializer_is_called():
    for name, known in OTHER_NAMES.items():
        assert initializer(name) is initializer(known)
    assert {name for name, *_ in CALLS} == {*initializers.__all__} - OTHERS - {*OTHER_NAMES}


def test_equal_hashes(every_setting):
    """30 calls: one hash each under every instruction set and number of threads, whole or in parts."""
    random = np.random.default_rng(0)
    known = {}
    for setting in every_setting():
        for i, (name, shape, arguments) in enumerate(CALLS):
            whole = initializer(name)(shape, rng=i, **arguments)
            cuts = [sorted({0, n, *random.integers(0, n, 2).tolist()}) for n in shape]
            parts = np.empty_like(whole)
            for bounds in itertools.product(*map(itertools.pairwise, cuts)):
                shard = tuple(slice(*b) for b in bounds)
                parts[shard] = initializer(name)(shape, rng=i, shard=shard, **arguments)
            for values in (whole, parts):
                found = hashlib.sha256(values.tobytes()).hexdigest()
                assert known.setdefault(i, found) == found, f"{setting}: {name} {arguments}"
    assert " ".join(digest[:8] for digest in known.values()) == FROZEN


@pytest.mark.parametrize("name", ["he_normal", "he_uniform", "truncated_normal", "orthogonal"])
def test_equal_hashes_of_bfloat16(name, every_setting):
    type_, known = half("bfloat16"), set()
    for _ in every_setting():
        whole, parts = (initializer(name)((90, 70), rng=5, dtype=type_) for _ in range(2))
        for rows in itertools.pairwise((0, 7, 64, 90)):
            shard = (slice(*rows), slice(None))
            initializer(name)((90, 70), rng=5, shard=shard, out=parts[shard])
        known |= {hashlib.sha256(values.tobytes()).hexdigest() for values in (whole, parts)}
    assert len(known) == 1


def test_equal_hashes_of_lsuv(every_setting):
    batch, known = initializers.normal((50, 20), 0.0, 1.0, rng=3), set()
    for _ in every_setting():
        net = pynn.networks.MultiLayerNet(20, [30, 40], 10, activation="tanh", rng=0)
        initializers.lsuv(net, batch, rng=1)
        everything = b"".join(param.tobytes() for param in net.params.values())
        known.add(hashlib.sha256(everything).hexdigest())
    assert len(known) == 1
