"""affine at every size, and its options: out= for gradients, accumulate, need_dx, packed weights."""

import copy
import itertools
import pickle

import numpy as np
import pytest

import oracles
import pynn
from pynn import reference
from test_environment import Environment, needs_x86
from test_inputs import BAD_OUTS, LAYOUTS

AXIS = range(71)  # every size up to here, past several tiles and panels of every instruction set
PARTNERS = [1, 14, 33, 6, 17, 48, 70]
# block edges: of rows, of columns, and of the chunks of k; a few of each size, for any instruction set
ROWS = [251, 252, 253, 335, 336, 337, 503, 504, 505, 511, 512, 513, 673]
COLUMNS = [127, 128, 129, 191, 193, 240, 241, 255, 256, 257, 264, 383, 385, 511, 512, 513]
DEPTHS = [255, 256, 257, 511, 512, 513, 769]
SKINNY = [(5003, 3, 5), (5003, 17, 1), (1, 3, 5003), (3, 5003, 2), (1, 5003, 1), (20_011, 10, 9)]
ORDERS = list(itertools.product((np.ascontiguousarray, np.asfortranarray), repeat=2))


def some(isa, sizes, n):
    """All the sizes, or the first n where fma is in software, which takes its time."""
    return sizes[:n] if isa == "portable" else sizes


class Whole:
    """Operands of small whole numbers, for which every order of summation is exact."""

    def __init__(self, rng, dtype, m, k, n):
        def draw(*shape):
            return rng.integers(-8, 9, shape).astype(dtype)

        self.x, self.w, self.dy, self.b = draw(m, k), draw(k, n), draw(m, n), draw(n)

    def check(self, m, k, n, turn):
        """Products of the leading parts, in every order; one order of them backward."""
        x, w, dy, b = self.x[:m, :k], self.w[:k, :n], self.dy[:m, :n], self.b[:n]
        product = x @ w
        want = product + b
        for to_x, to_w in ORDERS:
            assert np.array_equal(pynn.affine(to_x(x), to_w(w), b), want), (m, k, n)
        assert np.array_equal(pynn.affine(x, w), product), (m, k, n)  # rows with gaps between
        (to_x, to_w), (to_dy, _) = ORDERS[turn % 4], ORDERS[turn // 4 % 4]
        got = pynn.affine_backward(to_dy(dy), to_x(x), to_w(w))
        for one, other in zip(got, (dy @ w.T, x.T @ dy, dy.sum(0)), strict=True):
            assert np.array_equal(one, other), (m, k, n)


@pytest.fixture
def two_threads(request):
    pynn.set_num_threads(request.param)
    return request.param


both = pytest.mark.parametrize("two_threads", [1, 2], indirect=True, ids=["1", "2"])


@both
def test_every_size_along_each_axis(dtype, isa, two_threads, rng):
    """All of 0..70 for m, k and n, against each pair of partners."""
    whole = Whole(rng, dtype, 70, 70, 70)
    partners = some(isa, PARTNERS, 3)
    for turn, (v, p, q) in enumerate(itertools.product(AXIS, partners, partners)):
        for size in ((v, p, q), (p, v, q), (p, q, v)):
            whole.check(*size, turn)


@both
def test_block_edges(dtype, isa, two_threads, rng):
    """Around the edges of blocks and chunks, small and large enough to be shared out."""
    whole = Whole(rng, dtype, max(ROWS), max(DEPTHS), max(COLUMNS))
    for turn, (m, k, n) in enumerate(some(isa, [(3, 5, 19), (48, 96, 97)], 1)):
        for v in ROWS:
            whole.check(v, k, n, turn)
        for v in DEPTHS:
            whole.check(m, v, n, turn)
        for v in COLUMNS:
            whole.check(m, k, v, turn)
    edges = list(itertools.product((253, 505), (257, 513), (129, 257)))
    for turn, size in enumerate(some(isa, edges, 1)):
        whole.check(*size, turn)


@both
@pytest.mark.parametrize("size", SKINNY, ids=str)
def test_tall_and_skinny(size, dtype, isa, two_threads, rng):
    for turn in some(isa, [2, 1, 0, 3], 1):
        Whole(rng, dtype, *size).check(*size, turn)


@pytest.mark.slow
def test_every_size(dtype, isa, rng):
    """All (m, k, n) in 0..70."""
    whole = Whole(rng, dtype, 70, 70, 70)
    for turn, size in enumerate(itertools.product(AXIS, repeat=3)):
        whole.check(*size, turn)


# ---- out= of affine_backward ---------------------------------------------------------------------


def operands(rng, dtype, m=23, k=70, n=37):
    """dy, x, w and y; large enough for several tiles."""
    shapes = ((m, n), (m, k), (k, n), (m, n))
    return [rng.uniform(-0.9, 0.9, s).astype(dtype) for s in shapes]


def assert_all_same(got, want, note=""):
    for one, other in zip(got, want, strict=True):
        oracles.assert_same_bits(one, other, note)


@pytest.mark.parametrize("activation", [None, "tanh"])
def test_out_of_gradients(activation, dtype, threads, rng):
    """Any of the three: written in place and returned; the others new."""
    dy, x, w, y = operands(rng, dtype)
    want = pynn.affine_backward(dy, x, w, y, activation)
    for given in itertools.product((False, True), repeat=3):
        out = tuple(
            np.full_like(a, np.nan) if g else None for a, g in zip(want, given, strict=True)
        )
        got = pynn.affine_backward(dy, x, w, y, activation, out=out)
        assert_all_same(got, want, str(given))
        assert all(o is None or o is g for o, g in zip(out, got, strict=True))
    out = (None, *out[1:])
    got = pynn.affine_backward(dy, x, w, y, activation, need_dx=False, out=out)
    assert got[0] is None and got[1] is out[1] and got[2] is out[2]
    assert_all_same(got[1:], want[1:])


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_of_gradients(layout, accumulate, dtype, threads, rng):
    """Any strides, alignment and byte order; nothing between the elements changes."""
    dy, x, w, _ = operands(rng, dtype)
    new = pynn.affine_backward(dy, x, w)
    old = [rng.uniform(-9, 9, a.shape).astype(dtype) for a in new]
    want = [a + b if accumulate and i else a for i, (a, b) in enumerate(zip(new, old, strict=True))]
    out = tuple(LAYOUTS[layout](a) for a in old)
    around = [None if a.base is None else a.base.copy() for a in out]
    got = pynn.affine_backward(dy, x, w, out=out, accumulate=accumulate)
    assert all(a is b for a, b in zip(got, out, strict=True))
    assert_all_same([a.astype(dtype) for a in out], want)
    for a, b, memory in zip(out, old, around, strict=True):
        if memory is not None:
            a[...] = b
            assert np.array_equal(a.base, memory, equal_nan=memory.dtype.kind == "f")


@pytest.mark.parametrize("accumulate", [False, True])
def test_gradients_overlap_operands(accumulate, dtype, threads, rng):
    """Each gradient over each operand's memory, shifted or not, is what separate memory gets."""
    plain = operands(rng, dtype, 20, 20, 20)
    new = pynn.affine_backward(*plain, activation="sigmoid")
    for which, result, gap in itertools.product(range(4), range(3), (0, 1, 16, 40)):
        memory = np.zeros(plain[which].size + gap, dtype)
        given = memory[: plain[which].size].reshape(plain[which].shape)
        given[...] = plain[which]
        overlapping = memory[gap:][: new[result].size].reshape(new[result].shape)
        arguments = [given if i == which else a for i, a in enumerate(plain)]
        out = tuple(overlapping if i == result else np.zeros_like(a) for i, a in enumerate(new))
        want = [
            a + b if accumulate and i else a for i, (a, b) in enumerate(zip(new, out, strict=True))
        ]
        got = pynn.affine_backward(*arguments, activation="sigmoid", out=out, accumulate=accumulate)
        assert_all_same(got, want, f"operand {which}, result {result}, gap {gap}")


@pytest.mark.parametrize("functions", [pynn, reference], ids=["pynn", "reference"])
def test_gradients_that_share_memory(functions, dtype, rng):
    """Refused; neighbours in one memory, even with strides that interleave, are not."""
    dy, x, w, _ = operands(rng, dtype, 6, 6, 5)
    want = pynn.affine_backward(dy, x, w)
    both = np.full((7, 5), 7, dtype)
    outs = [
        (None, both[:6], both[5]),
        (both[:6].T[:0].T, None, None),
        (np.full((6, 6), 7, dtype),) * 3,
    ]
    outs[1:] = [
        (memory := np.full((6, 6), 7, dtype), memory[:, :5], None),
        (memory, None, memory[0, :5]),
    ]
    for out in outs:
        with pytest.raises(ValueError, match="share memory"):
            functions.affine_backward(dy, x, w, out=out)
        assert all(a is None or (a == 7).all() for a in out)
    neighbours = np.full((6, 12), 7, dtype)
    for out in (
        (None, both[:6], both[6]),
        (neighbours[:, ::2], neighbours[:, 1:11:2], None),
        (neighbours[:, :6], neighbours[:, 6:11], None),
    ):
        got = functions.affine_backward(dy, x, w, out=out)
        assert all(o is None or o is g for o, g in zip(out, got, strict=True))
        for one, other in zip(got, want, strict=True):
            assert np.allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("kind", BAD_OUTS)
@pytest.mark.parametrize("which", range(3))
def test_bad_gradients(which, kind, accumulate, dtype, rng):
    """An error that names it, and none of the three is written."""
    dy, x, w, _ = operands(rng, dtype)
    change, error = BAD_OUTS[kind]
    out = [np.full(a.shape, 7, dtype) for a in (x, w, w[0])]
    out[which] = change(out[which])
    with pytest.raises(error, match=f"{('dx', 'dw', 'db')[which]} in out"):
        pynn.affine_backward(dy, x, w, out=tuple(out), accumulate=accumulate)
    assert all((np.asarray(a) == 7).all() for a in out)


X, W, DY, B = (np.ones(s, np.float32) for s in ((2, 3), (3, 4), (2, 4), 4))
BAD_OPTIONS = {
    "a list": (dict(out=[None] * 3), TypeError, "tuple"),
    "an array": (dict(out=W), TypeError, "tuple"),
    "two": (dict(out=(None, None)), ValueError, "2"),
    "four": (dict(out=(None,) * 4), ValueError, "4"),
    "dx not needed": (dict(out=(X, None, None), need_dx=False), ValueError, "dx in out"),
    "no out": (dict(accumulate=True), ValueError, "dw in out"),
    "no dw": (dict(accumulate=True, out=(None, None, B)), ValueError, "dw in out"),
    "no db": (dict(accumulate=True, out=(None, W.copy(), None)), ValueError, "db in out"),
    "other precision": (dict(out=(None, W.astype("d"), None)), TypeError, "dw in out.*float32"),
}


@pytest.mark.parametrize("functions", [pynn, reference], ids=["pynn", "reference"])
@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_bad_options(case, functions):
    options, error, message = BAD_OPTIONS[case]
    with pytest.raises(error, match=message):
        functions.affine_backward(DY, X, W, **options)
    assert (B == 1).all() and (X == 1).all()


def shared(shape, dtype, *strides):
    memory = np.full(200, 7, dtype)
    return np.lib.stride_tricks.as_strided(memory, shape, [s * memory.itemsize for s in strides])


@pytest.mark.parametrize("strides", [(0, 1), (1, 0), (1, 1), (2, 1), (3, 1), (1, 2)])
def test_out_of_elements_that_share(strides, dtype):
    """Rows that overlap are refused as rows in one place are; rows that do not are written."""
    x, w, dy = (np.ones(s, dtype) for s in ((3, 3), (3, 4), (3, 4)))
    out = shared((3, 4), dtype, *strides)[::-1]
    with pytest.raises(ValueError, match=r"out.*share"):
        pynn.affine(x, w, out=out)
    with pytest.raises(ValueError, match=r"dw in out.*share"):
        pynn.affine_backward(dy, x, w, out=(None, out, None))
    assert (out == 7).all()
    for fine in ((4, 1), (1, 3), (9, 2), (3, 9)):
        out = shared((3, 4), dtype, *fine)
        assert pynn.affine(x, w, out=out) is out and (out == 3).all()


# ---- accumulate ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size", [(23, 70, 37), (300, 5, 3), (600, 300, 290), (1, 1, 1), (40, 3, 0)]
)
@pytest.mark.parametrize("activation", [None, "relu"])
def test_accumulate(size, activation, dtype, isa, threads, rng):
    """The finished sum is added to the old value in one addition, whatever the blocks; dx is not."""
    if isa == "portable":
        size = tuple(min(v, 290) for v in size[:1]) + tuple(min(v, 40) for v in size[1:])
    dy, x, w, y = operands(rng, dtype, *size)
    new = pynn.affine_backward(dy, x, w, y, activation)
    out = tuple(rng.uniform(-9, 9, a.shape).astype(dtype) for a in new)
    want = new[0], out[1] + new[1], out[2] + new[2]
    got = pynn.affine_backward(dy, x, w, y, activation, out=out, accumulate=True)
    assert all(a is b for a, b in zip(got, out, strict=True))
    assert_all_same(got, want)
    rest = (None, *out[1:])
    got = pynn.affine_backward(dy, x, w, y, activation, False, rest, True)
    assert got[0] is None
    assert_all_same(got[1:], (want[1] + new[1], want[2] + new[2]))


def test_accumulate_nothing(dtype, isa):
    """An empty batch adds +0.0; empty weights still have a bias."""
    dw, db = np.full((3, 2), -0.0, dtype), np.array([1, np.inf], dtype)
    none = np.empty((0, 2), dtype), np.empty((0, 3), dtype), np.ones((3, 2), dtype)
    pynn.affine_backward(*none, out=(None, dw, db), accumulate=True)
    assert not np.signbit(dw).any() and np.array_equal(db, [1, np.inf])
    arguments = np.ones((4, 2), dtype), np.empty((4, 0), dtype), np.empty((0, 2), dtype)
    pynn.affine_backward(*arguments, out=(None, dw[:0], db), accumulate=True)
    assert np.array_equal(db, [5, np.inf])


def test_accumulate_batches(dtype, rng):
    """Gradients of the parts of a batch add up to those of the whole, exactly for whole numbers."""
    whole = Whole(rng, dtype, 90, 40, 30)
    dw, db = np.zeros((40, 30), dtype), np.zeros(30, dtype)
    for i in range(0, 90, 25):
        part = slice(i, i + 25)
        pynn.affine_backward(
            whole.dy[part], whole.x[part], whole.w, out=(None, dw, db), accumulate=True
        )
    assert np.array_equal(dw, whole.x.T @ whole.dy) and np.array_equal(db, whole.dy.sum(0))


@needs_x86
def test_accumulate_under_other_modes(dtype, threads, rng):
    """The addition rounds to nearest and keeps subnormals, whatever the caller's modes."""
    dy, x, w, _ = operands(rng, dtype, 300, 80, 90)
    tiny = np.finfo(dtype).smallest_subnormal
    dy[:, ::2] *= tiny / dtype(4e-3) if dtype == np.float32 else tiny * 200
    old = [rng.uniform(-1, 1, s).astype(dtype) for s in (w.shape, w.shape[1])]
    for a in old:
        a[..., ::2] *= tiny * 100

    def accumulated():
        out = (None, *(a.copy() for a in old))
        return pynn.affine_backward(dy, x, w, out=out, accumulate=True)

    want, environment = accumulated(), Environment()
    before = environment.mxcsr()
    try:
        environment.set_mxcsr(0x1F80 | 0x8040 | 0x4000)  # subnormals as zeros, rounding up
        got = accumulated()
    finally:
        environment.set_mxcsr(before)
    assert_all_same(got, want)


def test_reference_agrees(rng):
    """The readable specification takes the same options with the same meaning."""
    dy, x, w, y = operands(rng, np.float64)
    for accumulate, activation in itertools.product((False, True), (None, "sigmoid")):
        outs = [tuple(np.full(a.shape, 2.0) for a in (x, w, w[0])) for _ in range(2)]
        for functions, out in zip((pynn, reference), outs, strict=True):
            got = functions.affine_backward(
                dy, x, functions.pack(w), y, activation, out=out, accumulate=accumulate
            )
            assert all(a is b for a, b in zip(got, out, strict=True))
        for one, other in zip(*outs, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


# ---- Packed weights ------------------------------------------------------------------------------


PACKED_SIZES = [
    (1, 257, 100),
    (3, 300, 33),
    (4, 5, 1),
    (17, 513, 70),
    (40, 256, 257),
    (130, 260, 530),
]


@pytest.mark.parametrize("size", [*PACKED_SIZES, (3, 0, 4), (0, 3, 4), (5, 4, 0)], ids=str)
def test_packed_weights(size, dtype, isa, threads, rng):
    """The same bits as the weights, in either order, with every option; backward too."""
    if isa == "portable":
        size = tuple(min(v, 270) for v in size[:2]) + tuple(min(v, 70) for v in size[2:])
    dy, x, w, y = operands(rng, dtype, *size)
    b = rng.standard_normal(size[2]).astype(dtype)
    for to_w in (np.ascontiguousarray, np.asfortranarray, lambda a: a[::-1][::-1].T.copy().T):
        given = to_w(w)
        packed = pynn.pack(given)
        for bias, activation in ((None, None), (b, "tanh")):
            want = pynn.affine(x, given, bias, activation)
            oracles.assert_same_bits(pynn.affine(x, packed, bias, activation), want)
            out = np.empty(want.shape[::-1], dtype).T
            assert pynn.affine(x, packed, bias, activation, out) is out
            oracles.assert_same_bits(out, want)
        want = pynn.affine_backward(dy, x, given, y, "tanh")
        assert_all_same(pynn.affine_backward(dy, x, packed, y, "tanh"), want)


def test_packed_for_another_instruction_set(dtype, every_setting, rng):
    """Packed under any set, used under any: right, and the same."""
    _, x, w, _ = operands(rng, dtype, 30, 300, 75)
    packed = [pynn.pack(w) for _ in every_setting()]
    want = pynn.affine(x, w)
    for setting in every_setting():
        for each in packed:
            oracles.assert_same_bits(pynn.affine(x, each), want, setting)


@pytest.mark.parametrize("x_type", ["e", "f", "d", "i2", "?"])
@pytest.mark.parametrize("w_type", ["e", "f", "d", "i1", "i8", "?", ">f4", ">f8"])
def test_packed_dtypes(x_type, w_type, rng):
    """They take part in the choice of the type as the weights do."""
    x, w = rng.integers(0, 2, (6, 5)).astype(x_type), rng.integers(0, 2, (5, 9)).astype(w_type)
    oracles.assert_same_bits(pynn.affine(x, pynn.pack(w)), pynn.affine(x, w))


def test_packed_is_a_snapshot(dtype, rng):
    """Later changes of the weights do not reach it, and nothing else does."""
    x, w = rng.standard_normal((9, 40)).astype(dtype), rng.standard_normal((40, 35)).astype(dtype)
    want, before = pynn.affine(x, w), w.copy()
    packed = pynn.pack(w)
    w[...] = 0
    oracles.assert_same_bits(pynn.affine(x, packed), want)
    weights = np.asarray(packed)
    oracles.assert_same_bits(weights, before)
    with pytest.raises(ValueError, match="read-only"):
        weights[...] = 0
    with pytest.raises(ValueError, match=r"(?i)writ"):
        weights.flags.writeable = True
    owner = weights
    while owner is not None:  # no array behind it that could be written through
        assert not (isinstance(owner, np.ndarray) and owner.flags.owndata)
        owner = getattr(owner, "base", None)
    with pytest.raises(AttributeError):
        packed.shape = (1, 2)
    with pytest.raises(AttributeError):
        packed.other = 1


def test_packed_object(dtype, rng):
    w = rng.standard_normal((7, 5)).astype(dtype)
    packed = pynn.pack(w)
    assert packed.shape == (7, 5) and packed.dtype == dtype
    assert repr(packed) == f"PackedWeights(shape=(7, 5), dtype={np.dtype(dtype)})"
    assert isinstance(packed, pynn.PackedWeights)
    assert np.asarray(packed, np.float64).dtype == np.float64
    assert np.array(packed).flags.writeable and np.array_equal(np.array(packed), w)
    for other in (
        pickle.loads(pickle.dumps(packed)),
        copy.copy(packed),
        copy.deepcopy(packed),
        pynn.pack(packed),
    ):
        assert isinstance(other, pynn.PackedWeights) and other.shape == (7, 5)
        oracles.assert_same_bits(np.asarray(other), w)
        x = np.eye(7, dtype=dtype)
        oracles.assert_same_bits(pynn.affine(x, other), pynn.affine(x, w))
    with pytest.raises(TypeError):
        pynn.PackedWeights()


@pytest.mark.parametrize(
    "w, error, message",
    [
        ([1.0, 2.0], ValueError, r"\(2,\)"),
        (np.ones((1, 2, 3)), ValueError, r"\(1, 2, 3\)"),
        (np.ones((2, 2), complex), TypeError, "complex"),
        (np.ones((2, 2), object), TypeError, "object"),
        (np.ones((2, 2), np.longdouble), TypeError, "w has dtype"),
    ],
)
def test_bad_weights_to_pack(w, error, message):
    with pytest.raises(error, match=message):
        pynn.pack(w)


def test_packed_shapes_that_do_not_match():
    with pytest.raises(ValueError, match=r"x has shape \(2, 5\), w has shape \(3, 4\)"):
        pynn.affine(np.ones((2, 5)), pynn.pack(np.ones((3, 4))))


@pytest.mark.parametrize("name", ["need_dx", "accumulate"])
@pytest.mark.parametrize("value", ["no", 2, None, 0.0, [], np.ones(1, bool)])
def test_switches_are_bools(name, value):
    x, w = np.ones((3, 4)), np.ones((4, 2))
    out = (np.full((3, 4), 9.0), np.full((4, 2), 9.0), np.full(2, 9.0))
    with pytest.raises(TypeError, match=rf"^{name} is .*; expected True or False"):
        pynn.affine_backward(np.ones((3, 2)), x, w, out=out, **{name: value})
    assert all((array == 9).all() for array in out)
    dx, _, _ = pynn.affine_backward(np.ones((3, 2)), x, w, need_dx=np.False_)
    assert dx is None
