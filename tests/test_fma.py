"""The fused multiply-add under everything is correctly rounded on every instruction set."""

import itertools

import numpy as np
import pytest

import oracles
from oracles import BITS
from pynn import _core


def edges(dtype):
    info = np.finfo(dtype)
    tiny = info.smallest_subnormal
    values = [0, tiny, 3 * tiny, info.tiny - tiny, info.tiny, info.eps, 1 - info.epsneg, 1]
    values += [1 + info.eps, 2, 3, np.sqrt(info.max), info.max / 2, info.max, np.inf]
    values = np.array(values, dtype)
    return np.concatenate([values, -values, [dtype(np.nan)]])


def double_rounding(rng, dtype, n):
    """c is a midpoint of two neighbours (or a number) and a * b is far below, or nearly cancels."""
    precision = oracles.FORMAT[dtype][0]
    a = rng.integers(2 ** (precision - 1), 2**precision, n).astype(dtype)
    b = rng.integers(2 ** (precision - 1), 2**precision, n).astype(dtype)
    shift = rng.integers(-3, 3, n) + rng.choice([0, precision, 2 * precision, -precision], n)
    c = np.ldexp(
        rng.integers(2 ** (precision - 1), 2**precision, n).astype(dtype), precision + shift
    )
    return a, b, np.where(rng.random(n) < 0.5, -c, c).astype(dtype)


def halfway(dtype):
    """Products that fall exactly between two numbers, then a hair to either side."""
    info = np.finfo(dtype)
    one = 1 + info.eps * np.arange(1, 40, dtype=dtype)  # one[i] * (1 + 2^-p) needs p + 1 bits
    half = np.full_like(one, 1 + info.eps)
    hair = np.resize(np.array([0, 1, -1, info.tiny, -info.tiny], dtype), one.size)
    scaled = info.smallest_subnormal * np.arange(1, 40, dtype=dtype)
    small = np.full_like(one, 0.5)
    return (
        np.concatenate([one, scaled, scaled]),
        np.concatenate([half, small, -small]),
        np.concatenate([hair, np.zeros_like(one), np.resize(scaled, one.size)]),
    )


def exact(a, b, c):
    with np.errstate(all="ignore"):
        values = [oracles.fma_fraction(*t) for t in zip(a, b, c, strict=True)]
    return np.array(values, a.dtype)


@pytest.fixture(scope="module")
def cases():
    """dtype -> (name, (a, b, c), correctly rounded result), computed once."""
    rng = np.random.default_rng(11)
    table = {}
    for dtype in oracles.DTYPES:
        bits = rng.integers(0, np.iinfo(BITS[dtype]).max, (3, 8000), BITS[dtype], endpoint=True)
        triples = np.array(list(itertools.product(edges(dtype), repeat=3))).T
        a, b = rng.standard_normal((2, 4000)).astype(dtype)
        small = np.ldexp(dtype(1), np.finfo(dtype).minexp // 2)
        inputs = {
            "any bits": tuple(bits.view(dtype)),
            "edges": tuple(np.ascontiguousarray(triples)),
            "near 1": (a, b, rng.standard_normal(4000).astype(dtype)),
            "cancelling": (a, b, -(a * b)),
            "subnormal": (
                a * small,
                b * small,
                np.finfo(dtype).smallest_subnormal * np.rint(9 * a),
            ),
            "double rounding": double_rounding(rng, dtype, 6000),
            "halfway": halfway(dtype),
        }
        table[dtype] = [(name, abc, exact(*abc)) for name, abc in inputs.items()]
    return table


def test_fma_is_correctly_rounded(dtype, isa, cases):
    for name, abc, expected in cases[dtype]:
        assert all(v.dtype == dtype for v in abc), name
        with np.errstate(all="ignore"):
            oracles.assert_same_bits(_core.fma(*abc), expected, f"{name} under {isa}")


def test_fma_of_a_few(dtype, isa, cases):
    """The tail of the vector loop is the same operation."""
    _, abc, expected = cases[dtype][0]
    with np.errstate(all="ignore"):
        for n in range(70):
            part = slice(n, 2 * n)
            oracles.assert_same_bits(_core.fma(*(v[part] for v in abc)), expected[part], f"{n}")
