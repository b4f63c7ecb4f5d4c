"""Independent oracles: mpmath, exact fractions, float64 and longdouble. They share no code with csrc.

The readable formulas of ``pynn.reference`` become oracles when they are evaluated on wider
numbers: on object arrays of `Mp` (240 bits, exact for our purposes), or in bulk in the next wider
NumPy type. ``test_oracles.py`` checks these against each other.
"""

from fractions import Fraction
from functools import partial
from inspect import unwrap

import mpmath
import numpy as np
import scipy.special

CTX = mpmath.mp.clone()
CTX.prec = 240
DTYPES = (np.float32, np.float64)
WIDER = {np.float32: np.float64, np.float64: np.longdouble}
HAS_LONGDOUBLE = np.finfo(np.longdouble).nmant > np.finfo(np.float64).nmant
BITS = {np.float16: np.uint16, np.float32: np.uint32, np.float64: np.uint64}
# precision, exponent of the smallest subnormal, exponent of overflow
FORMAT = {np.float32: (24, -149, 128), np.float64: (53, -1074, 1024)}


class Mp:
    """A 240-bit number that NumPy's object loops can use: ``np.exp(a)`` calls ``a.exp()``."""

    __slots__ = ("v",)
    __hash__ = None

    def __init__(self, value):
        self.v = value.v if isinstance(value, Mp) else exactly(value)

    def __repr__(self):
        return f"Mp({CTX.nstr(self.v, 20)})"

    def __float__(self):
        return float(self.v)

    def __bool__(self):
        return bool(self.v)


def exactly(value):
    """A number of any type, long double too, as an mpf of the same value."""
    if isinstance(value, np.floating) and np.isfinite(value):
        numerator, denominator = value.as_integer_ratio()
        return CTX.mpf(numerator) / denominator
    return CTX.mpf(value.item() if isinstance(value, np.generic) else value)


_method = partial(setattr, Mp)
for _name in ("add", "sub", "mul", "truediv", "pow"):
    _op = getattr(CTX.mpf, f"__{_name}__")
    _method(f"__{_name}__", lambda a, b, op=_op: Mp(op(a.v, Mp(b).v)))
    _method(f"__r{_name}__", lambda a, b, op=_op: Mp(op(Mp(b).v, a.v)))
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    _op = getattr(CTX.mpf, f"__{_name}__")
    _method(f"__{_name}__", lambda a, b, op=_op: bool(op(a.v, Mp(b).v)))
for _name in ("neg", "pos", "abs"):
    _op = getattr(CTX.mpf, f"__{_name}__")
    _method(f"__{_name}__", lambda a, op=_op: Mp(op(a.v)))
for _name in ("exp", "expm1", "erfc", "log", "log1p", "tanh", "sinh", "cosh", "sqrt", "sin", "cos"):
    _op = getattr(CTX, _name)
    _method(_name, lambda a, op=_op: Mp(op(a.v)))


def mp_array(a):
    """Object array of `Mp` with the exact values of a."""
    out = np.empty(np.shape(a), object)
    out.ravel()[:] = [Mp(v) for v in np.asarray(a).ravel()]
    return out


def mp_call(formula, *arrays):
    """A formula of pynn.reference at 240 bits; finite arguments (mpf has no signed zero)."""
    result = np.asarray(unwrap(formula)(*map(mp_array, arrays)))
    return [Mp(v).v for v in result.ravel()]


def wide_call(formula, *arrays):
    """The same formula in the next wider NumPy type, for bulk."""
    wide = WIDER[arrays[0].dtype.type]
    with np.errstate(all="ignore"):
        return unwrap(formula)(*(a.astype(wide) for a in arrays))


def ulp_errors(got, true):
    """|got - true| in units in the last place of `true` in got's type; 0 where both are NaN.

    Infinity counts as the first power of two beyond the type's range, so that rounding at the
    overflow threshold is measured like any other.
    """
    precision, tiny, huge = FORMAT[got.dtype.type]
    wide = np.asarray(true).dtype.type
    limit = np.ldexp(wide(1), huge)
    with np.errstate(all="ignore"):
        clipped = np.clip(true, -limit, limit)
        exponent = np.frexp(np.where(np.isfinite(clipped), clipped, 1))[1] - precision
        unit = np.ldexp(wide(1), np.clip(exponent, tiny, huge - precision))
        error = np.abs(np.clip(got.astype(wide), -limit, limit) - clipped) / unit
    error[np.isnan(error)] = np.inf
    error[np.isnan(got) & np.isnan(true)] = 0
    return error


def ulp_error_mp(got, true):
    """The same for one value and an mpf."""
    precision, tiny, huge = FORMAT[type(got)]
    limit = CTX.ldexp(1, huge)
    true = max(-limit, min(limit, true))
    exponent = CTX.frexp(true)[1] - precision
    unit = CTX.ldexp(1, min(max(exponent, tiny), huge - precision))
    got = exactly(got)
    return float(abs(max(-limit, min(limit, got)) - true) / unit)


def differing(a, b):
    """Where a and b differ in their bits, all NaNs being one; None if nowhere."""
    if a.dtype == b.dtype and a.dtype.isnative:
        bits = BITS[a.dtype.type]
        if np.array_equal(a.view(bits), b.view(bits)):
            return None
    same = (a == b) & (np.signbit(a) == np.signbit(b)) | np.isnan(a) & np.isnan(b)
    return None if same.all() else ~same


def assert_same_bits(a, b, note=""):
    """Equal type (in either byte order), shape and bits; else fail with the first that differs."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.dtype.newbyteorder("=") == b.dtype.newbyteorder("="), note
    assert a.shape == b.shape, note
    where = differing(a, b)
    if where is not None:
        at = tuple(int(i[0]) for i in np.nonzero(where))
        raise AssertionError(
            f"{note}: {int(where.sum())} of {a.size} differ, first at {at}: {a[at]!r}, {b[at]!r}"
        )


def round_fraction(value, dtype):
    """A Fraction rounded to nearest even, subnormals and overflow included."""
    precision, tiny, huge = FORMAT[dtype]
    size = abs(value)
    if not size:
        return dtype(0)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent -= size < Fraction(2) ** exponent
    unit = Fraction(2) ** max(exponent - precision + 1, tiny)
    rounded = round(size / unit) * unit
    result = np.inf if rounded >= 2**huge else float(rounded)
    return dtype(-result if value < 0 else result)


def fma_fraction(a, b, c):
    """Correctly rounded a * b + c of three scalars of one type."""
    dtype = type(a)
    a, b, c = float(a), float(b), float(c)
    if not np.isfinite([a, b]).all():
        return dtype(a * b + c)
    if not np.isfinite(c):
        return dtype(c)
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        return dtype(0.0 if a and b else a * b + c)
    return round_fraction(exact, dtype)


def fma32(a, b, c):
    """Correctly rounded float32 a * b + c of arrays: exact product, sum rounded to odd, rounded."""
    with np.errstate(all="ignore"):
        product, c = np.multiply(a, b, dtype=np.float64), np.asarray(c, np.float64)
        total = product + c
        other = total - product
        error = (product - (total - other)) + (c - other)
        even = np.asarray(total).view(np.uint64) & np.uint64(1) == 0
        toward = np.nextafter(total, np.copysign(np.inf, error))
        to_odd = np.where(np.isfinite(total) & (error != 0) & even, toward, total)
        return to_odd.astype(np.float32)


_fma64 = np.frompyfunc(lambda a, b, c: fma_fraction(*map(np.float64, (a, b, c))), 3, 1)


def fma(a, b, c):
    """Correctly rounded a * b + c of arrays of either type."""
    if np.result_type(a, b, c) == np.float32:
        return fma32(a, b, c)
    return np.asarray(_fma64(a, b, c)).astype(np.float64)


def affine(x, w, b, chunk):
    """The contract's bits of x (m, k) @ w (k, n) + b: the sum that every blocking must give."""
    total = np.zeros((x.shape[0], w.shape[1]), x.dtype)
    for start in range(0, x.shape[1], chunk):
        acc = np.zeros_like(total)
        for i in range(start, min(start + chunk, x.shape[1])):
            acc = fma(x[:, i, None], w[None, i], acc)
        total = total + acc if start else acc
    return total if b is None else total + b


def philox4x32(counter, key, rounds=10):
    """Philox4x32 on Python ints (Salmon, Moraes, Dror, Shaw 2011, Random123)."""
    c, k = list(counter), list(key)
    for _ in range(rounds):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [p1 >> 32 ^ c[1] ^ k[0], p1 & 0xFFFFFFFF, p0 >> 32 ^ c[3] ^ k[1], p0 & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def block(number, key):
    """Output words of the stream's block `number` under a 64-bit key."""
    return philox4x32([number & 0xFFFFFFFF, number >> 32, 0, 0], [key & 0xFFFFFFFF, key >> 32])


def _words(index, key, dtype):
    """The words of the block that holds element `index`, and which of them is its own."""
    group, rest = divmod(index, 64 if dtype == np.float32 else 32)
    slot, lane = divmod(rest, 16)
    words = block(16 * group + lane, key)
    return (
        [words[0] | words[1] << 32, words[2] | words[3] << 32] if dtype == np.float64 else words
    ), slot


def uniform(index, key, low, high, dtype):
    """Element `index` of the stream's uniform numbers, to the bit."""
    words, slot = _words(index, key, dtype)
    size, drop = (32, 8) if dtype == np.float32 else (64, 11)
    low, high = dtype(low), dtype(high)
    u = Fraction(words[slot] >> drop, 2 ** (size - drop))
    value = round_fraction(u * Fraction(float(high - low)) + Fraction(float(low)), dtype)
    return min(value, np.nextafter(high, dtype(-np.inf)))


def normal(index, key, loc, scale, dtype):
    """Element `index` of the stream's normal numbers, as an mpf."""
    words, slot = _words(index, key, dtype)
    size, drop = (32, 0) if dtype == np.float32 else (53, 11)
    a, b = (CTX.mpf(words[i] >> drop) for i in (slot - slot % 2, slot - slot % 2 + 1))
    radius = CTX.sqrt(-2 * CTX.log(CTX.ldexp(a + 0.5, -size)))
    angle = 2 * CTX.pi * CTX.ldexp(b + 0.5, -size)
    loc, scale = (CTX.mpf(float(dtype(v))) for v in (loc, scale))
    return loc + scale * radius * (CTX.sin(angle) if slot % 2 else CTX.cos(angle))


def truncated_normal(index, key, loc, scale, lower, upper, dtype):
    """Element `index` of the stream's truncated normal numbers, as an mpf."""
    words, slot = _words(index, key, dtype)
    bits, drop = (31, 1) if dtype == np.float32 else (52, 12)
    r = words[slot] >> drop
    loc, scale, lower, upper = (CTX.mpf(float(dtype(v))) for v in (loc, scale, lower, upper))
    probability = CTX.ncdf(upper) - CTX.ncdf(lower)
    below = CTX.ncdf(lower) + CTX.ldexp(r + 0.5, -bits) * probability
    above = CTX.ncdf(-upper) + CTX.ldexp(2**bits - 1 - r + 0.5, -bits) * probability
    tail = min(below, above)
    x = CTX.mpf(float(scipy.special.ndtri(float(tail))))
    for _ in range(5):
        x -= (CTX.ncdf(x) - tail) / CTX.npdf(x)
    return loc + scale * (x if below < above else -x)
