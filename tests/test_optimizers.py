"""Optimizers against plain NumPy in float64, in place on arrays of any kind, the same bits everywhere."""

import collections
import math

import numpy as np
import pytest

import oracles
import pynn
from pynn import optimizers

STEPS = 50
SHAPES = {"W1": (17, 33), "b1": (33,), "W2": (33, 5), "s": (), "e": (0, 3)}


class Plain:
    """The formulas of the docstrings, array by array."""

    def __init__(self, name, **h):
        self.name, self.h, self.t, self.state = name, h, 0, {}

    def update(self, params, grads):
        h, self.t = self.h, self.t + 1
        grads = {k: g.astype(np.float64) for k, g in grads.items()}
        if (bound := h.get("clip_norm")) is not None:
            norm = math.sqrt(sum((g**2).sum() for g in grads.values()))
            grads = {k: g * min(1, bound / norm) for k, g in grads.items()}
        for k, p in params.items():
            g, lr = grads[k], h["lr"]
            if (bound := h.get("clip_value")) is not None:
                g = np.minimum(np.maximum(g, -bound), bound)
            decay = h.get("weight_decay", 0.01 if self.name == "AdamW" else 0)
            if self.name == "AdamW":
                p = p * (1 - lr * decay)
            else:
                g = g + decay * p
            params[k] = self.rule(p, g, lr, *self.state.get(k, (np.zeros_like(p),) * 2), k)

    def rule(self, p, g, lr, a, b, k):
        h = self.h
        match self.name:
            case "SGD":
                return p - lr * g
            case "Momentum":
                a = h["momentum"] * a - lr * g
                step = a
            case "Nesterov":  # the book's way to write it, from the velocity before
                step = h["momentum"] ** 2 * a - (1 + h["momentum"]) * lr * g
                a = h["momentum"] * a - lr * g
            case "AdaGrad":
                a = a + g**2
                step = -lr * g / (np.sqrt(a) + 1e-7)
            case "RMSprop":
                a = h["decay_rate"] * a + (1 - h["decay_rate"]) * g**2
                step = -lr * g / (np.sqrt(a) + 1e-7)
            case "Adam" | "AdamW":
                a, b = 0.9 * a + 0.1 * g, 0.999 * b + 0.001 * g**2
                rate = lr * math.sqrt(1 - 0.999**self.t) / (1 - 0.9**self.t)
                step = -rate * a / (np.sqrt(b) + 1e-7)
        self.state[k] = a, b
        return p + step


HYPERPARAMETERS = {
    "SGD": dict(lr=0.1),
    "Momentum": dict(lr=0.1, momentum=0.8),
    "Nesterov": dict(lr=0.1, momentum=0.8),
    "AdaGrad": dict(lr=0.1),
    "RMSprop": dict(lr=0.01, decay_rate=0.95),
    "Adam": dict(lr=0.01),
    "AdamW": dict(lr=0.01),
}
OPTIONS = {
    "plain": {},
    "weight decay": dict(weight_decay=0.05),
    "clipped value": dict(clip_value=0.7),
    "clipped norm": dict(clip_norm=3.0),
    "all": dict(weight_decay=0.05, clip_value=0.2, clip_norm=3.0),
}


def arrays(rng, dtype):
    return {k: np.asarray(rng.standard_normal(s), dtype) for k, s in SHAPES.items()}


@pytest.mark.parametrize("backend", ["pynn", "numpy"])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", HYPERPARAMETERS)
def test_formulas(name, options, backend, dtype, rng):
    """50 steps, to 1e-9 in float64."""
    pynn.use_backend(backend)
    h = HYPERPARAMETERS[name] | OPTIONS[options]
    ours, plain = getattr(optimizers, name)(**h), Plain(name, **h)
    params = arrays(rng, dtype)
    kept, want = dict(params), {k: p.astype(np.float64) for k, p in params.items()}
    for _ in range(STEPS):
        grads = arrays(rng, dtype)
        before = {k: g.copy() for k, g in grads.items()}
        ours.update(params, grads)
        plain.update(want, grads)
        assert all(np.array_equal(grads[k], before[k]) for k in grads)
    tolerance = 1e-9 if dtype == np.float64 else 3e-5
    for k, p in params.items():
        assert p is kept[k] and p.dtype == dtype
        assert np.allclose(p, want[k], rtol=tolerance, atol=tolerance * 0.1), k
    assert ours.iter == STEPS


@pytest.mark.parametrize("name", HYPERPARAMETERS)
def test_bits(name, dtype, every_setting, rng):
    """Every instruction set and number of threads; shapes that are shared out; norms too."""
    shapes = {"a": (300, 137), "b": (7,), "c": (50_021,)}
    params = {k: rng.standard_normal(s).astype(dtype) for k, s in shapes.items()}
    grads = {k: rng.standard_normal(s).astype(dtype) for k, s in shapes.items()}
    for options in OPTIONS.values():
        known = None
        for setting in every_setting():
            optimizer = getattr(optimizers, name)(**HYPERPARAMETERS[name] | options)
            got = {k: p.copy() for k, p in params.items()}
            for _ in range(3):
                optimizer.update(got, grads)
            known = known or got
            for k, p in got.items():
                oracles.assert_same_bits(p, known[k], f"{setting}: {k}")


def strided(a, step):
    memory = np.full([n * abs(step) for n in a.shape], np.nan, a.dtype)
    view = memory[(slice(None, None, step),) * a.ndim]
    view[...] = a
    return view


def misaligned(a):
    view = np.ndarray(a.shape, a.dtype, np.zeros(a.nbytes + 1, np.uint8), 1)
    view[...] = a
    return view


LAYOUTS = {
    "column order": np.asfortranarray,
    "every second": lambda a: strided(a, 2),
    "backwards": lambda a: strided(a, -1),
    "misaligned": misaligned,
    "transposed view": lambda a: np.ascontiguousarray(a.T).T,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", HYPERPARAMETERS)
def test_layouts(name, layout, dtype, threads, rng):
    """Parameters or gradients of any strides: the bits of plain ones, nothing around touched."""
    shape, change = (130, 270), LAYOUTS[layout]
    param, grad = rng.standard_normal((2, *shape)).astype(dtype)
    h = HYPERPARAMETERS[name] | OPTIONS["all"]
    for which in ((change, np.array), (np.array, change), (change, change)):
        one, other = getattr(optimizers, name)(**h), getattr(optimizers, name)(**h)
        plain, odd = {"w": param.copy()}, {"w": which[0](param)}
        for _ in range(2):
            one.update(plain, {"w": grad})
            other.update(odd, {"w": which[1](grad)})
        oracles.assert_same_bits(np.array(odd["w"]), plain["w"])
        base = odd["w"].base
        if layout == "every second" and base is not None:
            assert np.isnan(base[1::2]).all()


def test_arrays_that_share_memory(threads, rng):
    """Tied weights take both steps, as one after the other; gradients are those from before."""
    w = rng.standard_normal(100_000)
    want = w - 0.1 * np.ones(100_000) - 0.1 * 2 * np.ones(100_000)
    optimizers.SGD(0.1).update({"a": w, "b": w}, {"a": np.ones(100_000), "b": np.full(100_000, 2)})
    assert np.allclose(w, want, rtol=1e-14)
    memory = rng.standard_normal(100_001)
    before = memory.copy()
    optimizers.SGD(0.5).update({"a": memory[1:]}, {"a": memory[:-1]})
    assert np.array_equal(memory[1:], before[1:] - 0.5 * before[:-1])
    w = rng.standard_normal(9)
    before = w.copy()
    optimizers.SGD(0.5).update({"a": w}, {"a": w})
    assert np.array_equal(w, before - 0.5 * before)
    even, odd = before[::2], before[1::2]
    optimizers.SGD(1.0).update({"e": even, "o": odd}, {"e": np.ones(5), "o": np.zeros(4)})
    assert np.array_equal(before, w * 2 - (np.arange(9) % 2 == 0))


def test_both_precisions_at_once(rng):
    params = {"a": np.ones(5, np.float32), "b": np.ones((3, 4))}
    grads = {"a": np.full(5, 3.0), "b": np.full((3, 4), 4, np.int64)}
    optimizers.SGD(1.0, clip_norm=1.0).update(params, grads)
    norm = math.sqrt(5 * 9 + 12 * 16)
    assert np.allclose(params["a"], 1 - 3 / norm, rtol=1e-6)
    assert np.allclose(params["b"], 1 - 4 / norm, rtol=1e-14)
    assert params["a"].dtype == np.float32


@pytest.mark.parametrize("backend", ["pynn", "numpy"])
def test_clipping(backend):
    """A norm within the bound changes no bit; NaN stays NaN."""
    pynn.use_backend(backend)
    for grad, options, want in (
        ([3.0, 4.0], dict(clip_norm=5.0), [3.0, 4.0]),
        ([3.0, 4.0], dict(clip_norm=2.5), [1.5, 2.0]),
        ([3.0, -4.0], dict(clip_value=3.5), [3.0, -3.5]),
        ([0.0, 0.0], dict(clip_norm=0.0), [0.0, 0.0]),
        ([math.nan, 4.0], dict(clip_value=1.0), [math.nan, 1.0]),
        ([math.nan, 4.0], dict(clip_norm=1.0), [math.nan, 4.0]),
        ([math.inf, 4.0], dict(clip_value=1.0), [1.0, 1.0]),
        ([3e200, 4e200], dict(clip_norm=2.5), [1.5, 2.0]),  # whose squares are beyond float64
        ([3e200, 4e200], dict(clip_norm=6e200), [3e200, 4e200]),
    ):
        w = np.zeros(2)
        optimizers.SGD(1.0, **options).update({"w": w}, {"w": np.array(grad)})
        assert np.allclose(w, -np.array(want), rtol=1e-15, atol=0, equal_nan=True), (grad, options)


@pytest.mark.parametrize("backend", ["pynn", "numpy"])
@pytest.mark.parametrize("types", ["ff", "fd", "dd"])
def test_an_infinite_norm(types, backend):
    """An infinite element's step is NaN, all others are 0, in float32 as in float64."""
    pynn.use_backend(backend)
    params = {"a": np.ones(2, types[0]), "b": np.ones(2, types[1])}
    grads = {"a": np.array([math.inf, 1], types[0]), "b": np.array([3, 4], types[1])}
    with np.errstate(invalid="ignore"):
        optimizers.SGD(1.0, clip_norm=1.0).update(params, grads)
    assert np.array_equal(params["a"], [math.nan, 1], equal_nan=True)
    assert np.array_equal(params["b"], [1, 1])


@pytest.mark.parametrize("name", HYPERPARAMETERS)
def test_state(name, dtype, rng):
    """A copy of the state in another optimizer takes the same steps."""
    make = getattr(optimizers, name)
    one, other = make(**HYPERPARAMETERS[name]), make(**HYPERPARAMETERS[name])
    params = arrays(rng, dtype)
    for _ in range(3):
        one.update(params, arrays(rng, dtype))
    other.load_state_dict(one.state_dict())
    twin, grads = {k: p.copy() for k, p in params.items()}, arrays(rng, dtype)
    one.update(params, grads)
    other.update(twin, grads)
    for k, p in params.items():
        oracles.assert_same_bits(p, twin[k])
    for state in ({}, {"iter": 1, "q.W": np.ones(3)}, {"iter": -1}):
        with pytest.raises(ValueError, match=r"iter|q\.W"):
            other.load_state_dict(state)
    for state in (1.0, np.ones(3), "one"):
        with pytest.raises(TypeError, match=r"state\['iter'\] must be an int"):
            other.load_state_dict({"iter": state})
    for key in one._states:
        with pytest.raises(TypeError, match=rf"state\['{key}.W'\] must be real numbers"):
            other.load_state_dict({"iter": 1, f"{key}.W": np.ones(3, complex)})
        one.update({0: np.ones(2)}, {0: np.ones(2)})  # which is fine, but has no name
        with pytest.raises(TypeError, match="keys of str"):
            one.state_dict()
    assert other.iter == 4 and repr(one).startswith(f"{name}(lr=0.")


@pytest.mark.parametrize("backend", ["pynn", "numpy"])
@pytest.mark.parametrize("name", HYPERPARAMETERS)
def test_states_that_are_put_there(name, backend):
    """None is made anew, as the book's begin; what is no dict is refused by name."""
    pynn.use_backend(backend)
    optimizer, w = getattr(optimizers, name)(), np.zeros(3)
    first = getattr(optimizers, name)()
    for state in optimizer._states:
        setattr(optimizer, state, None)
    assert list(optimizer.state_dict()) == ["iter"]
    for state in optimizer._states:
        setattr(optimizer, state, None)
    optimizer.update({"w": w}, {"w": np.ones(3)})
    first.update({"w": np.zeros(3)}, {"w": np.ones(3)})
    for key, array in first.state_dict().items():
        assert np.array_equal(array, optimizer.state_dict()[key])
    before = w.copy()
    for state in optimizer._states:
        kept = getattr(optimizer, state)
        for bad in (collections.UserDict(), 3, [kept]):
            setattr(optimizer, state, bad)
            with pytest.raises(TypeError, match=rf"^{state} must be a dict.*{type(bad).__name__}"):
                optimizer.update({"w": w}, {"w": np.ones(3)})
        setattr(optimizer, state, collections.OrderedDict(kept))
    if len(optimizer._states) > 1:
        with pytest.raises(ValueError, match=r"state must have the key 'v\.a'"):
            optimizer.load_state_dict({"iter": 5, "m.a": np.ones(3)})
    assert np.array_equal(w, before) and optimizer.iter == 1


def test_steps_that_are_put_there():
    optimizer = optimizers.Adam()
    for bad in (-5, 2**63):
        with pytest.raises(ValueError, match="iter must be at"):
            optimizer.iter = bad
    for bad in (1.0, "a", None):
        with pytest.raises(TypeError, match="iter must be an int"):
            optimizer.iter = bad
    optimizer.iter = 7
    assert optimizer.iter == 7
    with pytest.raises(TypeError, match="Optimizer has no rule"):
        optimizers.Optimizer(0, None, None)


def test_hyperparameters_may_change():
    optimizer, w = optimizers.Momentum(1.0, 0.0), np.zeros(3)
    optimizer.update({"w": w}, {"w": np.ones(3)})
    optimizer.lr, optimizer.momentum = 0.5, 0.5
    optimizer.update({"w": w}, {"w": np.ones(3)})
    assert (w == -2.0).all()
    optimizer.lr = math.nan
    with pytest.raises(ValueError, match="lr"):
        optimizer.update({"w": w}, {"w": np.ones(3)})
    assert (w == -2.0).all() and optimizer.iter == 2


BAD = {
    "lr": (dict(lr=-0.1), ValueError),
    "lr infinite": (dict(lr=math.inf), ValueError),
    "lr of no float": (dict(lr=10**400), ValueError),
    "lr text": (dict(lr="fast"), TypeError),
    "weight_decay": (dict(weight_decay=-1), ValueError),
    "clip_value": (dict(clip_value=math.nan), ValueError),
    "clip_norm": (dict(clip_norm=[1, 2]), TypeError),
}


@pytest.mark.parametrize("backend", ["pynn", "numpy"])
@pytest.mark.parametrize("name", HYPERPARAMETERS)
def test_bad_hyperparameters(name, backend):
    pynn.use_backend(backend)
    make = getattr(optimizers, name)
    for case, (arguments, error) in BAD.items():
        with pytest.raises(error, match=case.split()[0]):
            make(**arguments)
    for key in {"beta1", "beta2", "decay_rate", "momentum"} & set(make._hyperparameters):
        with pytest.raises(ValueError, match=key):
            make(**{key: 1.0})


def shared_elements():
    return np.lib.stride_tricks.as_strided(np.ones(3), (3, 3), (8, 8))


@pytest.mark.parametrize("name", HYPERPARAMETERS)
def test_bad_arrays(name, rng):
    """Refused by name, before anything is changed."""
    w, fixed = np.ones(3), np.ones(3)
    fixed.flags.writeable = False
    for params, grads, error, named in (
        ({"b": w.copy()}, {"a": np.ones(3)}, ValueError, "'b'"),
        ({"b": w.copy()}, {"b": np.ones(4)}, ValueError, r"grads\['b'\].*\(3,\).*\(4,\)"),
        ({"f": fixed}, {"f": np.ones(3)}, ValueError, "read-only"),
        ({"i": np.ones(3, int)}, {"i": np.ones(3)}, TypeError, r"params\['i'\]"),
        ({"h": np.ones(3, np.float16)}, {"h": np.ones(3)}, TypeError, r"params\['h'\]"),
        ({"l": np.ones(3, np.longdouble)}, {"l": np.ones(3)}, TypeError, r"params\['l'\]"),
        ({"B": np.ones(3, ">f4")}, {"B": np.ones(3)}, TypeError, r"params\['B'\]"),
        ({"s": shared_elements()}, {"s": np.ones((3, 3))}, ValueError, r"params\['s'\]"),
        ({"o": [1.0]}, {"o": np.ones(1)}, TypeError, r"params\['o'\].*list"),
        ({"g": w.copy()}, {"g": np.ones(3, complex)}, TypeError, r"grads\['g'\]"),
        ({"g": w.copy()}, {"g": np.ones(3, object)}, TypeError, r"grads\['g'\]"),
        ({"g": w.copy()}, {"g": "abc"}, (TypeError, ValueError), r"grads\['g'\]"),
    ):
        optimizer = getattr(optimizers, name)(**HYPERPARAMETERS[name])
        with pytest.raises(error, match=named):
            optimizer.update({"a": w} | params, {"a": np.ones(3)} | grads)
        assert (w == 1).all() and optimizer.iter == 0
        assert not any(getattr(optimizer, state) for state in optimizer._states)
    optimizer = getattr(optimizers, name)(**HYPERPARAMETERS[name])
    for params, grads in (([w], {"a": w}), ({"a": w}, None), (None, {})):
        with pytest.raises(TypeError, match="params and grads"):
            optimizer.update(params, grads)
    optimizer.update({"a": w}, {"a": np.ones(3)})
    if optimizer._states:
        with pytest.raises(ValueError, match=r"params\['a'\] had shape \(3,\) before; got \(4,\)"):
            optimizer.update({"a": np.ones(4)}, {"a": np.ones(4)})


def test_mappings_that_are_no_dicts():
    from collections import OrderedDict
    from types import MappingProxyType

    w = np.zeros(3)
    optimizers.SGD(1.0).update(MappingProxyType({"w": w}), OrderedDict(w=[1, 2, 3], other=None))
    assert np.array_equal(w, [-1, -2, -3])


def test_flushing_of_subnormals_changes_nothing(rng):
    """Small numbers stay, in the constants too."""
    w = np.array([0.0, 1e-310])
    optimizers.SGD(1.0).update({"w": w}, {"w": np.array([5e-324, 0.0])})
    assert w[0] == -5e-324 and w[1] == 1e-310
