"""Philox, the stream, fills: known answers, every slice is that slice of the whole, distributions."""

import pickle

import numpy as np
import pytest

import oracles
import pynn
from oracles import CTX
from pynn import _core, reference

BIG_KEY = 0xFEDCBA9876543210
PARAMETERS = {
    "normal": [(0.0, 1.0), (-3.0, 0.02)],
    "uniform": [(0.0, 1.0), (-0.3, 0.7), (5.0, 5.5)],
    "truncated_normal": [
        (0.0, 1.0, -2.0, 2.0),
        (-3.0, 0.02, -2.0, 2.0),
        (0.0, 1.0, -np.inf, np.inf),
        (0.0, 1.0, 0.0, np.inf),
        (0.0, 1.0, -1.0, 3.0),
        (0.0, 1.0, 5.0, 6.0),
        (0.0, 1.0, 2.9999, 9.0),
        (0.0, 1.0, -2.9, -2.5),
        (1.0, 0.5, -9.0, -7.5),
        (0.0, 1.0, 0.1, 0.1001),
    ],
}
# units in the last place that an element may be off
ALLOWED = {
    "normal": {np.float32: 2, np.float64: 2},
    "truncated_normal": {np.float32: 4, np.float64: 7},
}
CASES = [(name, p) for name, rows in PARAMETERS.items() for p in rows]
# a kernel's ways: ranges whose end rounding may reach, and no, some or only tails
WAYS = [
    ("normal", (0.0, 1.0)),
    ("uniform", (0.0, 1.0)),
    ("uniform", (1.0, 2.0)),
    ("truncated_normal", (0.0, 1.0, -2.0, 2.0)),
    ("truncated_normal", (0.5, 1.0, -2.1, np.inf)),
    ("truncated_normal", (0.0, 1.0, 5.0, 6.0)),
]
# philox4x32-10 of Random123's tests/kat_vectors: counter, key, answer
KNOWN_ANSWERS = [
    (
        "00000000 00000000 00000000 00000000",
        "00000000 00000000",
        "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    ),
    (
        "ffffffff ffffffff ffffffff ffffffff",
        "ffffffff ffffffff",
        "408f276d 41c83b0e a20bc7c6 6d5451fd",
    ),
    (
        "243f6a88 85a308d3 13198a2e 03707344",
        "a4093822 299f31d0",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


def words(text):
    return np.array([int(w, 16) for w in text.split()], np.uint32)


def filled(n, distribution="normal", key=BIG_KEY, parameters=None, dtype=np.float32, **more):
    out = np.full(n, 9 if dtype == np.uint16 else np.nan, dtype)
    parameters = PARAMETERS[distribution][0] if parameters is None else parameters
    _core.fill(out, distribution, key, *parameters, **more)
    return out


@pytest.mark.parametrize("philox", [_core.philox4x32, pynn.random.philox4x32, reference.philox4x32])
def test_known_answers(philox):
    for counter, key, answer in KNOWN_ANSWERS:
        assert np.array_equal(philox(words(counter), words(key)), words(answer))
    counters, keys, answers = (
        np.array([words(t) for t in column]) for column in zip(*KNOWN_ANSWERS)
    )
    assert np.array_equal(philox(counters, keys), answers)
    assert philox(counters[None, :, :], keys[:, None, :]).shape == (3, 3, 4)


def test_philox_against_python(isa, rng):
    counters, keys = (
        rng.integers(0, 2**32, (200, 4), np.uint32),
        rng.integers(0, 2**32, (200, 2), np.uint32),
    )
    expected = [oracles.philox4x32(c, k) for c, k in zip(counters.tolist(), keys.tolist())]
    assert np.array_equal(_core.philox4x32(counters, keys), expected)


@pytest.mark.parametrize("distribution, parameters", CASES)
def test_stream_is_the_documented_one(distribution, parameters, dtype, isa, record_ulp):
    """Elements at the start, across groups and past 2^32 against 240 bits of the definition."""
    for start in (0, 37, 2**32 - 70, 2**40 + 5, 2**62 + 1):
        got = filled(150, distribution, BIG_KEY, parameters, dtype, start=start)
        for i in range(0, 150, 3 if start == 37 else 17):
            where = f"index {start + i}"
            if distribution == "uniform":
                want = oracles.uniform(start + i, BIG_KEY, *parameters, dtype)
                assert got[i] == want, where
                continue
            true = getattr(oracles, distribution)(start + i, BIG_KEY, *parameters, dtype)
            size = max(abs(true), abs(parameters[0]))  # where loc cancels the draw, its unit counts
            if distribution == "truncated_normal":  # the median is where the probability is 1/2
                size = max(size, parameters[1] * 2.0 ** (-8 if dtype == np.float32 else -3))
            unit = CTX.ldexp(1, CTX.frexp(size)[1] - oracles.FORMAT[dtype][0])
            error = float(abs(CTX.mpf(float(got[i])) - true) / unit)
            record_ulp(f"{distribution}{parameters} {np.dtype(dtype)}", error)
            assert error <= ALLOWED[distribution][dtype], (
                f"{where}: {got[i]!r}, {CTX.nstr(true, 20)}"
            )


@pytest.mark.parametrize("distribution, parameters", CASES)
def test_against_the_reference(distribution, parameters, dtype, isa):
    """uniform bit for bit; normal within a few units of its larger parts."""
    for start in (0, 11, 2**33 + 3):
        got = filled(20_000, distribution, BIG_KEY, parameters, dtype, start=start)
        want = np.full_like(got, np.nan)
        reference.fill(want, distribution, BIG_KEY, *parameters, start=start)
        if distribution == "uniform":
            oracles.assert_same_bits(got, want)
        else:
            unit = np.spacing(np.maximum(np.abs(want), dtype(abs(parameters[0]))))
            if distribution == "truncated_normal":  # inverted in float64 there too
                unit = np.maximum(unit, 16 * np.spacing(dtype(parameters[1])))
            assert (np.abs(got - want) <= 4 * unit).all()


@pytest.mark.parametrize("distribution", PARAMETERS)
def test_where_block_numbers_pass_32_bits(distribution, dtype, isa):
    """One fill across a multiple of 2**32 blocks has what fills of one element have."""
    size = 2**34 if dtype == np.float32 else 2**33
    for start in (size - 512, 5 * size - 511, size - 1):
        whole = filled(1280, distribution, dtype=dtype, start=start)
        single = [filled(1, distribution, dtype=dtype, start=start + i) for i in range(1280)]
        oracles.assert_same_bits(whole, np.concatenate(single), str(start))


@pytest.mark.parametrize("distribution, parameters", WAYS)
def test_every_slice_of_the_whole(distribution, parameters, dtype, every_setting):
    """Any start and any length, under every setting, has the bits of the whole."""
    whole = filled(4000, distribution, parameters=parameters, dtype=dtype)
    starts = [0, 1, 15, 16, 17, 31, 32, 63, 64, 65, 127, 1000, 1023]
    for setting in every_setting():
        for start in starts:
            for n in (0, 1, 2, 15, 16, 17, 33, 63, 64, 65, 130, 2900):
                part = filled(n, distribution, parameters=parameters, dtype=dtype, start=start)
                oracles.assert_same_bits(part, whole[start : start + n], f"{setting}: {start}, {n}")


@pytest.mark.parametrize("distribution, parameters", WAYS)
def test_one_stream_for_all_settings(distribution, parameters, dtype, every_setting):
    """Large enough for every thread to take part."""
    n = 1_000_003
    known = None
    for setting in every_setting():
        got = filled(n, distribution, 7, parameters, dtype, start=5)
        known = got if known is None else known
        oracles.assert_same_bits(got, known, setting)


def test_every_order_and_stride_of_the_output(dtype, isa, threads):
    """The value belongs to the index, wherever the element is kept."""
    shape = (7, 40, 33)
    whole = filled(shape, dtype=dtype)
    assert np.array_equal(whole.ravel(), filled(whole.size, dtype=dtype))
    layouts = {
        "F": np.empty(shape, dtype, order="F"),
        "moved": np.moveaxis(np.empty((33, 7, 40), dtype), 0, 2),
        "reversed": np.empty(shape, dtype)[::-1, ::-1, ::-1],
        "strided": np.empty((14, 120, 33), dtype)[::2, ::-3],
        "last axis strided": np.empty((7, 40, 66), dtype)[..., ::2],
        "offset": np.empty(7 * 40 * 33 + 3, dtype)[3:].reshape(shape),
    }
    for name, out in layouts.items():
        _core.fill(out, "normal", BIG_KEY, 0.0, 1.0)
        oracles.assert_same_bits(np.ascontiguousarray(out), whole, name)


def test_index_strides(dtype, isa, threads, rng):
    """out[idx] is element start + sum(idx * index_strides), for any strides."""
    whole = filled(100_000, dtype=dtype)
    for shape, strides, start in (
        ((50,), (1,), 3),
        ((50,), (7,), 0),
        ((20, 30), (1, 100), 17),
        ((20, 30), (1000, 1), 64),
        ((5, 6, 7), (10_000, 300, 2), 9),
        ((40,), (0,), 12),
        ((3, 40), (40, 1), 2**12),
    ):
        out = filled(shape, dtype=dtype, start=start, index_strides=strides)
        index = start + sum(i * s for i, s in zip(np.indices(shape), strides, strict=True))
        oracles.assert_same_bits(out, whole[index], f"{shape} {strides}")


@pytest.mark.parametrize("distribution", PARAMETERS)
def test_nothing_else_is_written(distribution, dtype, isa, threads):
    for n in range(131):
        buffer = np.full(n + 64, 9, dtype)
        _core.fill(buffer[32 : 32 + n], distribution, 1, *PARAMETERS[distribution][0])
        assert (buffer[:32] == 9).all() and (buffer[32 + n :] == 9).all(), n
        assert (buffer[32 : 32 + n] != 9).all()
    gaps = np.full((30, 4), 9, dtype)
    _core.fill(gaps[:, 1], distribution, 1, *PARAMETERS[distribution][0])
    assert (gaps[:, [0, 2, 3]] == 9).all()


def test_uniform_is_half_open(dtype, isa):
    """high never comes out, also where rounding would reach it."""
    for low, high in ((0, 1), (-1, 1), (1, np.nextafter(dtype(1), dtype(2))), (2**20, 2**20 + 1)):
        u = filled(200_000, "uniform", 3, (low, high), dtype)
        assert u.min() >= low and u.max() < high, (low, high)


def index_of_greatest_word(key):
    """Where 24 ones stand in a stream of float32."""
    part = np.empty(2**22, np.float32)
    for start in range(0, 2**28, part.size):
        _core.fill(part, "uniform", key, 0.0, 1.0, start=start)
        found = np.flatnonzero(part == 1 - 2.0**-24)
        if found.size:
            return start + int(found[0])
    raise AssertionError("2**28 words without it")


def test_uniform_next_to_the_ends_of_every_kind_of_range(isa, rng):
    """The greatest word, which random tests never meet, and ranges down to neighbours and subnormals."""
    key = 3
    where = index_of_greatest_word(key)
    ends = [
        0.0,
        1.0,
        1.5,
        1.9,
        2.0,
        3.0,
        1e-45,
        1e-39,
        1e-35,
        3e-32,
        2.0**-102,
        2.0**-101,
        1e30,
        3e38,
    ]
    ends = np.float32(ends + [-v for v in ends[1:]])
    ranges = {(low, high) for low in ends for high in ends}
    ranges |= {tuple(np.sort(rng.standard_normal(2).astype(np.float32))) for _ in range(100)}
    with np.errstate(over="ignore"):
        for high in ends:
            for low in (
                np.nextafter(high, np.float32(-np.inf)),
                high - abs(high) / 2,
                high - 5 * abs(high),
            ):
                ranges.add((low, high))
        ranges = [
            r for r in ranges if r[0] < r[1] and np.isfinite(r).all() and np.isfinite(r[1] - r[0])
        ]
    assert len(ranges) > 350
    for low, high in ranges:
        for start in (where, where - 3):
            got = filled(70, "uniform", key, (float(low), float(high)), start=start)
            for i in (0, 3, 69):
                want = oracles.uniform(start + i, key, float(low), float(high), np.float32)
                assert got[i] == want and low <= got[i] < high, (low, high, i)


def test_moments_and_distribution(dtype):
    stats = pytest.importorskip("scipy.stats")
    n = 1_000_000
    z = pynn.random.normal(n, rng=1, dtype=dtype).astype(np.float64)
    u = pynn.random.uniform(n, rng=1, dtype=dtype).astype(np.float64)
    for value, mean, deviation in (
        (z, 0, 1),
        (z**2, 1, 2**0.5),
        (z**3, 0, 15**0.5),
        (z**4, 3, 96**0.5),
        (u, 1 / 2, 12**-0.5),
        (u**2, 1 / 3, (4 / 45) ** 0.5),
        (z[1:] * z[:-1], 0, 1),
        (z[16:] * z[:-16], 0, 1),
        (z[64:] * z[:-64], 0, 1),
        ((u[1:] - 0.5) * (u[:-1] - 0.5), 0, 1 / 12),
    ):
        assert abs(value.mean() - mean) < 4.5 * deviation / n**0.5
    assert stats.kstest(z, "norm").pvalue > 1e-4 and stats.kstest(u, "uniform").pvalue > 1e-4
    assert abs(z).max() > 4.3 and len(np.unique(u)) > 0.96 * n


def test_consecutive_seeds_and_keys_differ():
    draws = np.array([pynn.random.normal(4000, rng=seed) for seed in range(8)])
    draws = np.concatenate([draws, [filled(4000, key=k) for k in (0, 1, 2**32, 2**63)]])
    correlation = np.corrcoef(draws) - np.eye(len(draws))
    assert np.abs(correlation).max() < 5 / 4000**0.5
    shifted = np.intersect1d(draws[0], draws[1])
    assert len(shifted) < 20


def test_seeds_of_spec_7(rng):
    """int, sequence, SeedSequence: reproducible; Generator: advances; None: fresh each time."""

    def draw(seed):
        return pynn.random.normal(9, rng=seed).tolist()

    assert draw(5) == draw(5) == draw(np.random.SeedSequence(5)) == draw(np.int64(5)) != draw(6)
    assert draw([1, 2]) == draw([1, 2]) != draw([2, 1])
    assert pynn.random.key(5) == int(np.random.SeedSequence(5).generate_state(1, np.uint64)[0])
    one, two = np.random.default_rng(3), np.random.default_rng(3)
    first = draw(one)
    assert first == draw(two) and draw(one) == draw(two) != first
    assert pynn.random.key(np.random.default_rng(3)) == int(
        np.random.default_rng(3).integers(0, 2**64, dtype=np.uint64)
    )
    assert draw(None) != draw(None)
    generator = np.random.default_rng(8)
    assert draw(generator.bit_generator) != draw(generator)


def test_keys_of_seeds_are_numpys():
    """The key of an int is SeedSequence's first 64 bits; that of a generator its next."""
    edges = [2**i + j for i in range(0, 140, 4) for j in (-1, 0, 1)]
    for seed in (*edges, *map(int, np.random.default_rng(0).integers(0, 2**64, 300, np.uint64))):
        want = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])
        assert pynn.random.key(seed) == want
    for seed in ([], [0], [2**40, 3], (1, 2, 3, 4, 5, 6), np.uint64(2**63), np.arange(5)):
        want = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])
        assert pynn.random.key(seed) == want
    names = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")
    for make in (*(getattr(np.random, name) for name in names), pynn.random.Philox4x32):
        one, two = np.random.Generator(make(3)), np.random.Generator(make(3))
        for source in (one, one.bit_generator, one):
            assert pynn.random.key(source) == two.integers(0, 2**64, dtype=np.uint64)
            assert one.integers(9, size=3).tolist() == two.integers(9, size=3).tolist()


@pytest.mark.parametrize(
    "seed", ["seed", 1.5, True, object(), -1, np.random.RandomState(1), iter([1])]
)
def test_bad_seeds(seed):
    with pytest.raises((TypeError, ValueError), match="rng"):
        pynn.random.normal(3, rng=seed)


@pytest.mark.parametrize("seed", ["a", 1.5, True, -1, [1, -1], {1}])
def test_bad_seeds_of_the_bit_generator(seed):
    """By the name that they have there."""
    with pytest.raises((TypeError, ValueError), match=r"^seed must"):
        pynn.random.Philox4x32(seed)


@pytest.mark.parametrize("sample", [pynn.random.normal, pynn.random.uniform])
def test_shapes_dtypes_and_out(sample, dtype):
    assert sample((2, 3), rng=0).dtype == np.float32
    whole = sample((6, 5), rng=0, dtype=dtype)
    assert whole.shape == (6, 5) and whole.dtype == dtype and whole.flags.c_contiguous
    assert sample(7, rng=0).shape == (7,) and np.shape(sample((), rng=0)) == ()
    assert sample((0, 4), rng=0).shape == (0, 4)
    out = np.empty((6, 5), dtype)
    assert sample(out=out, rng=0) is out
    oracles.assert_same_bits(out, whole)
    out = np.empty((5, 6), dtype).T
    assert sample(out=out, rng=0) is out
    oracles.assert_same_bits(out, whole)
    assert np.array_equal(sample((6, 5), 0.0, 1.0, rng=0, dtype=dtype), whole)


def test_location_and_scale(dtype):
    z = pynn.random.normal(1000, rng=2, dtype=dtype)
    scaled = pynn.random.normal(1000, 3.0, 0.5, rng=2, dtype=dtype)
    assert np.allclose(scaled, z * 0.5 + 3, rtol=4 * np.finfo(dtype).eps, atol=0)
    constant = pynn.random.normal(1000, 3.0, 0.0, rng=2, dtype=dtype)
    assert (constant == 3).all()
    u = pynn.random.uniform(1000, -2.0, 6.0, rng=2, dtype=dtype)
    assert u.min() >= -2 and u.max() < 6 and u.min() < -1.9 and u.max() > 5.9


BAD_FILLS = {
    "distribution": dict(distribution="cauchy"),
    "key": dict(key=-1),
    "key too large": dict(key=2**64),
    "start": dict(start=-1),
    "index_strides": dict(index_strides=(1, 1)),
    "index_strides negative": dict(index_strides=(-1,)),
    "index_strides too large": dict(index_strides=(2**63,)),
    "scale": dict(parameters=(0.0, -1.0)),
    "scale text": dict(parameters=(0.0, "1")),
    "loc": dict(parameters=(np.nan, 1.0)),
    "parameters too few": dict(parameters=(0.0,)),
    "parameters too many": dict(parameters=(0.0, 1.0, 2.0)),
    "low": dict(distribution="uniform", parameters=(2.0, 1.0)),
    "high infinite": dict(distribution="uniform", parameters=(0.0, np.inf)),
    "lower": dict(distribution="truncated_normal", parameters=(0.0, 1.0, 2.0, 1.0)),
    "lower far out": dict(distribution="truncated_normal", parameters=(0.0, 1.0, 10.0, 11.0)),
    "upper": dict(distribution="truncated_normal", parameters=(0.0, 1.0, 2.0, np.nan)),
}


@pytest.mark.parametrize("name", BAD_FILLS)
def test_bad_fills(name):
    arguments = dict(distribution="normal", key=1, parameters=(0.0, 1.0)) | BAD_FILLS[name]
    parameters = arguments.pop("parameters")
    distribution, key = arguments.pop("distribution"), arguments.pop("key")
    out = np.full(5, 9, np.float32)
    with pytest.raises((TypeError, ValueError), match=name.split()[0]):
        _core.fill(out, distribution, key, *parameters, **arguments)
    assert (out == 9).all()


def bfloat16(values):
    """float32 to bfloat16's bits, to nearest even, by exact fractions of the format."""
    down = (values.view(np.uint32) >> 16 << 16).view(np.float32)  # toward 0
    up = ((down.view(np.uint32) >> 16) + 1 << 16).view(np.float32)
    wide, low, high = (np.abs(a.astype(np.float64)) for a in (values, down, up))
    odd = down.view(np.uint32) >> 16 & 1 == 1
    take_up = (high - wide < wide - low) | (high - wide == wide - low) & odd
    return (np.where(take_up, up, down).view(np.uint32) >> 16).astype(np.uint16)


@pytest.mark.parametrize("distribution, given", WAYS)
@pytest.mark.parametrize("kind", [np.float16, np.uint16], ids=["float16", "bfloat16"])
def test_half_types_are_the_float32_draw_rounded_once(distribution, given, kind, every_setting):
    """Of any size, subnormals and overflow included; nor do ties differ, of which 2**-13 of uniform numbers are."""
    for scale in (1.0, 1e-6, 3e-5, 2e4, 1e-38):
        parameters = [p * scale for p in given[:2]] + list(given[2:])
        for start, n in ((0, 70_000), (3, 1), (1000, 1030), (5, 33)):
            single = filled(n, distribution, 4, parameters, start=start)
            with np.errstate(all="ignore"):
                want = bfloat16(single) if kind == np.uint16 else single.astype(kind)
            for setting in every_setting():
                got = filled(n, distribution, 4, parameters, kind, start=start)
                assert np.array_equal(got, want), f"{setting}, {scale}"
    strided = np.empty((50, 60), kind)[::-1, ::3]
    _core.fill(strided, distribution, 4, *parameters)
    assert np.array_equal(strided.ravel(), want_of(filled(1000, distribution, 4, parameters), kind))


def want_of(single, kind):
    with np.errstate(all="ignore"):
        return bfloat16(single) if kind == np.uint16 else single.astype(kind)


@pytest.mark.parametrize("lower, upper", [p[2:] for p in PARAMETERS["truncated_normal"]])
def test_truncated_normal_stays_within_and_has_its_distribution(lower, upper, dtype):
    stats = pytest.importorskip("scipy.stats")
    x = filled(200_000, "truncated_normal", 5, (0.0, 1.0, lower, upper), dtype)
    assert x.min() >= dtype(lower) and x.max() <= dtype(upper)
    assert stats.kstest(x.astype(float), stats.truncnorm(lower, upper).cdf).pvalue > 1e-4


def generator(seed=0):
    return np.random.Generator(pynn.random.Philox4x32(seed))


def test_bit_generator_gives_the_words_of_its_blocks():
    """32, 64 bits and doubles in order; the key of pynn.random.key, the counter from 2**96 on."""
    key = pynn.random.key(7)
    blocks = [oracles.philox4x32([i, 0, 0, 1], [key & 0xFFFFFFFF, key >> 32]) for i in range(50)]
    flat = np.array(blocks, np.uint64).ravel()
    wide = flat[::2] | flat[1::2] << np.uint64(32)
    assert np.array_equal(pynn.random.Philox4x32(7).random_raw(100), wide)
    assert np.array_equal(generator(7).integers(0, 2**32, 200, np.uint32), flat)
    assert np.array_equal(generator(7).random(100), (wide >> np.uint64(11)) * 2.0**-53)
    for counter, key, answer in KNOWN_ANSWERS:
        c, k = (sum(int(w) << 32 * i for i, w in enumerate(words(t))) for t in (counter, key))
        raw = pynn.random.Philox4x32(key=k, counter=c).random_raw(2)
        assert np.array_equal(raw.view(np.uint32), words(answer))


def test_bit_generator_advances_jumps_spawns_and_pickles():
    one, two = pynn.random.Philox4x32(3), pynn.random.Philox4x32(3)
    first = one.random_raw(400)
    assert np.array_equal(two.advance(150).random_raw(100), first[300:])
    assert np.array_equal(two.advance(-100).random_raw(2), first[200:202])
    jumped = pynn.random.Philox4x32(3).jumped(2)
    assert jumped.state["state"]["counter"] == 2**96 + 2 * 2**64
    assert len(np.intersect1d(jumped.random_raw(1000), first)) == 0
    children = pynn.random.Philox4x32(3).spawn(2)
    draws = [c.random_raw(4).tolist() for c in children]
    assert draws[0] != draws[1] and all(type(c) is pynn.random.Philox4x32 for c in children)
    seeds = (np.random.default_rng(s) for s in (1, 2))  # whose children differ, as they do
    assert len({int(pynn.random.Philox4x32(s).spawn(1)[0].random_raw()) for s in seeds}) == 2
    rng = generator(3)
    rng.integers(5, size=7)  # an odd number of 32-bit words
    copy = pickle.loads(pickle.dumps(rng))
    assert np.array_equal(copy.integers(9, size=50), rng.integers(9, size=50))
    rng.bit_generator.state = copy.bit_generator.state
    assert copy.normal() == rng.normal() and pynn.random.key(copy) == pynn.random.key(rng)
    assert abs(generator().standard_normal(100_000).std() - 1) < 0.01
    for bad in (dict(counter=3), dict(seed=1, key=1), dict(key=-1), dict(key=1, counter=2**128)):
        with pytest.raises((TypeError, ValueError), match=r"key|counter"):
            pynn.random.Philox4x32(**bad)
    with pytest.raises(ValueError, match="state"):
        one.state = np.random.PCG64(1).state


def states():
    """Name of what is wrong -> a state that is no state."""
    good = pynn.random.Philox4x32(3).state
    for name in good:
        yield f"no {name}", {k: v for k, v in good.items() if k != name}
    for name in good["state"]:
        inner = {k: v for k, v in good["state"].items() if k != name}
        yield f"no {name} in state", {**good, "state": inner}
        for value in (-1, 2**130, 1.5, "1", None):
            yield f"{name} = {value}", {**good, "state": {**good["state"], name: value}}
    for name in ("has_uint32", "uinteger"):
        for value in (-1, 2**32, 0.5, "1", None):
            yield f"{name} = {value}", {**good, name: value}
    yield "list", [good]
    yield "state list", {**good, "state": [1, 2, 3]}


@pytest.mark.parametrize("state", [pytest.param(s, id=name) for name, s in states()])
def test_bad_states(state):
    """An error that says what the state lacks, and the generator is as it was."""
    generator, twin = pynn.random.Philox4x32(3), pynn.random.Philox4x32(3)
    assert np.array_equal(generator.random_raw(5), twin.random_raw(5))
    with pytest.raises((TypeError, ValueError), match=r"state must|in state must"):
        generator.state = state
    assert np.array_equal(generator.random_raw(5), twin.random_raw(5))


@pytest.mark.parametrize("value", [1.5, "1", None, np.float64(2)])
def test_blocks_are_whole(value):
    generator = pynn.random.Philox4x32(3)
    with pytest.raises(TypeError, match="delta must be an int"):
        generator.advance(value)
    with pytest.raises(TypeError, match="jumps must be an int"):
        generator.jumped(value)
