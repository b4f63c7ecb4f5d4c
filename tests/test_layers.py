"""Losses, dropout and normalizations: formulas, gradients, bits, inputs."""

import math

import numpy as np
import pytest

import oracles
import pynn
from pynn import functions, layers, losses

H = 1e-5


@pytest.fixture(params=["pynn", "numpy"])
def backend(request, restore):
    pynn.use_backend(request.param)
    return request.param


def frozen(*arrays):
    for a in arrays:
        a.flags.writeable = False
    return arrays


def slopes(f, *arrays):
    """Central differences of the scalar f() by arrays, with an extrapolation: to 1e-9 or so."""
    found = []
    for a in arrays:
        slope = np.empty_like(a)
        for i in np.ndindex(a.shape):
            value, estimates = a[i], []
            for h in (2 * H, H):
                a[i] = value + h
                above = f()
                a[i] = value - h
                estimates.append((above - f()) / (2 * h))
            a[i] = value
            slope[i] = (4 * estimates[1] - estimates[0]) / 3
        found.append(slope)
    return found


def assert_slopes(got, want):
    """To 1e-7 of the largest."""
    assert got.shape == want.shape
    assert np.abs(got - want).max(initial=0) <= 1e-7 * np.abs(want).max(initial=1e-30)


# ---- Losses --------------------------------------------------------------------------------------

LAST = {
    "softmax": (layers.SoftmaxWithLoss, lambda rng: rng.integers(0, 4, 6)),
    "softmax, one-hot": (layers.SoftmaxWithLoss, lambda rng: np.eye(4)[rng.integers(0, 4, 6)]),
    "sigmoid": (layers.SigmoidWithLoss, lambda rng: rng.integers(0, 2, (6, 4))),
    "sigmoid, shares": (layers.SigmoidWithLoss, lambda rng: rng.random((6, 4))),
    "identity": (layers.IdentityWithLoss, lambda rng: rng.standard_normal((6, 4))),
}


@pytest.mark.parametrize("name", LAST)
def test_slopes_of_last_layers(name, backend, rng):
    make, targets = LAST[name]
    x, t, layer = rng.normal(0, 2, (6, 4)), targets(rng), make()
    (want,) = slopes(lambda: layer.forward(x, t), x)
    layer.forward(x, t)
    assert_slopes(layer.backward(), want)
    assert_slopes(layer.backward(-3.0), -3 * want)


@pytest.mark.parametrize("name", LAST)
def test_values_of_last_layers(name, backend, dtype, rng):
    make, targets = LAST[name]
    x, t = rng.normal(0, 2, (6, 4)).astype(dtype), targets(rng)
    frozen(x, t)
    layer, z = make(), x.astype(np.float64)
    loss = layer.forward(x, t)
    if "softmax" in name:
        one_hot = t if t.ndim == 2 else np.eye(4)[t]
        y = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        want, slope = -(one_hot * np.log(y)).sum() / 6, (y - one_hot) / 6
    elif "sigmoid" in name:
        y = 1 / (1 + np.exp(-z))
        want, slope = -(t * np.log(y) + (1 - t) * np.log(1 - y)).sum() / 6, (y - t) / 6
    else:
        y, want, slope = z, ((z - t) ** 2).sum() / 12, (z - t) / 6
    eps = 20 * np.finfo(dtype).eps
    assert isinstance(loss, float) and math.isclose(loss, want, rel_tol=eps)
    assert layer.loss == loss and layer.y.dtype == dtype
    assert np.allclose(layer.y, y, rtol=eps) and np.allclose(layer.backward(), slope, atol=eps)
    assert layer.backward().dtype == dtype


def test_losses_far_out(backend):
    """Where a probability is 0 or 1 in its type, the loss is still the score's distance."""
    layer = layers.SigmoidWithLoss()
    x = np.array([1000.0, -1000.0, 1000.0, -1000.0], np.float32)
    assert layer.forward(x, np.array([1, 0, 0, 1])) == 500
    assert np.array_equal(layer.backward(), np.array([0, 0, 0.25, -0.25], np.float32))
    assert layer.forward(np.zeros(4), np.zeros(4)) == pytest.approx(math.log(2), rel=1e-15)
    assert layers.SoftmaxWithLoss().forward(np.array([0.0, 1e4]), 0) == 1e4
    for make in (layers.SigmoidWithLoss, layers.IdentityWithLoss):
        assert math.isnan(make().forward(np.array([math.nan, 1]), np.array([0.0, 1])))
    for dtype in (np.float32, np.float64):
        x = np.array([math.inf, -math.inf], dtype)
        assert layers.SigmoidWithLoss().forward(x, np.array([1, 0])) == 0
        for t in ([1, 0.5], [0.5, 0], [0, 0], [1, 1], [0, 1]):
            assert layers.SigmoidWithLoss().forward(x, np.array(t)) == math.inf, t
    assert layers.IdentityWithLoss().forward(np.array([math.inf, 1]), np.ones(2)) == math.inf


def test_log_of_loss(isa, rng):
    """The logarithm within the softmax loss, in float64, over its range."""
    for n in (2, 3, 17, 1000, 100_000):
        for spread in (0, 1e-9, 1e-3, 1, 30):
            x = rng.normal(0, 1, n) * spread
            wide = x.astype(np.longdouble)
            e = np.exp(wide - wide.max())
            want = np.log(e.sum()) + wide.max() - wide[1]
            got = losses.softmax_cross_entropy(x, 1)
            assert math.isclose(got, float(want), rel_tol=4e-16 * max(1, n / 1e4), abs_tol=1e-15)


ROWS = (37, 11)


def probabilities(rng, dtype):
    y = rng.random(ROWS).astype(dtype)
    return y / y.sum(axis=1, keepdims=True)


LOSSES = {
    "sum_squared_error": lambda y, t: 0.5 * ((y - t) ** 2).sum(),
    "mean_squared_error": lambda y, t: ((y - t) ** 2).mean(),
    "binary_cross_entropy": lambda y, t: (
        -np.mean(t * np.log(y + 1e-7) + (1 - t) * np.log(1 - y + 1e-7))
    ),
    "huber": lambda y, t: np.mean(
        np.where(np.abs(y - t) < 1, (y - t) ** 2 / 2, np.abs(y - t) - 0.5)
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name, backend, dtype, rng):
    y, t = probabilities(rng, dtype), rng.random(ROWS).astype(dtype)
    if name == "huber":
        y, t = 3 * y, 40 * t
    want = LOSSES[name](y.astype(float), t.astype(float))
    got = getattr(losses, name)(y, t)
    assert isinstance(got, float) and math.isclose(got, want, rel_tol=10 * np.finfo(dtype).eps)
    whole = rng.integers(0, 2, ROWS)
    want = LOSSES[name](y.astype(float), whole)
    assert math.isclose(getattr(losses, name)(y, whole), want, rel_tol=20 * np.finfo(dtype).eps)
    with pytest.raises(ValueError, match=r"\(37, 11\).*\(11,\)"):
        getattr(losses, name)(y, t[0])
    if name != "sum_squared_error":
        with pytest.raises(ValueError, match="y must"):
            getattr(losses, name)(y[:0], t[:0])


def test_cross_entropy_error(backend, dtype, rng):
    y, t = probabilities(rng, dtype), rng.integers(0, 11, 37)
    want = -np.log(y.astype(float) + 1e-7)[np.arange(37), t].mean()
    eps = 10 * np.finfo(dtype).eps
    for targets in (t, t.astype(np.uint8), np.eye(11)[t]):
        assert math.isclose(losses.cross_entropy_error(y, targets), want, rel_tol=eps)
    one = -math.log(float(y[0, 3]) + 1e-7)
    assert math.isclose(losses.cross_entropy_error(y[0], 3), one, rel_tol=eps)
    for targets in ([0, 1], np.full(37, 11), np.full(37, 0.5), np.full((37, 11), 0.5)):
        with pytest.raises((ValueError, TypeError), match=r"\bt\b"):
            losses.cross_entropy_error(y, np.asarray(targets))


def test_whole_targets(backend):
    """Of any size: they are not rounded to the type of y."""
    half, single = np.ones(1, np.float16), np.ones(1, np.float32)
    for t in (70_000, 2**24 + 1, 2**53, -70_000):
        want = (t - 1.0) ** 2
        for y in (half, single, single.astype(float)):
            for kind in (np.int64, float):
                target = np.array([t], kind)
                assert losses.mean_squared_error(y, target) == pytest.approx(want, rel=2e-7)
                assert losses.sum_squared_error(y, target) == pytest.approx(want / 2, rel=2e-7)
                assert losses.huber(y, target) == pytest.approx(abs(t - 1) - 0.5, rel=2e-7)
    near = np.array([2**24], np.float32)
    assert losses.mean_squared_error(near, [2**24 + 1]) == 1


def test_operands_of_losses(backend):
    """Refused by the name they have there."""
    good = np.ones(2)
    for f in (
        losses.mean_squared_error,
        losses.sum_squared_error,
        losses.binary_cross_entropy,
        losses.huber,
        losses.cross_entropy_error,
    ):
        for bad, error in (
            (good * 1j, TypeError),
            (None, TypeError),
            (["a", "b"], TypeError),
            (good.astype(np.longdouble), TypeError),
            ([[1.0], [1.0, 2.0]], ValueError),
        ):
            with pytest.raises(error, match=r"^y must be"):
                f(bad, good)
            if f is not losses.cross_entropy_error:
                with pytest.raises(error, match=r"^t must be"):
                    f(good, bad)


def test_operands_of_layers(backend):
    """Likewise."""
    good, ragged = np.ones((2, 2)), [[1.0], [1.0, 2.0]]
    affine, prelu = layers.Affine(good), layers.PRelu()
    affine.forward(good), prelu.forward(good)
    for call, named in (
        (lambda: layers.Affine(good * 1j), "W must be real"),
        (lambda: layers.Affine(ragged), "W must be an array"),
        (lambda: layers.Affine(good, ["a", "b"]), "b must be real"),
        (lambda: affine.forward(ragged), "x must be an array"),
        (lambda: affine.backward(good.astype(str)), "dout must be real"),
        (lambda: affine.backward(ragged), "dout must be an array"),
        (lambda: prelu.backward(good * 1j), "dout must be real"),
        (lambda: layers.PRelu(None), "slope must be real"),
        (lambda: layers.PRelu("a"), "slope must be real"),
        (lambda: layers.LayerNormalization(good[0] * 1j, good[0]), "gamma must be real"),
    ):
        with pytest.raises((TypeError, ValueError), match=f"^{named}"):
            call()


def test_labels_are_copied():
    """Another thread may write to what was given."""
    x, t = np.zeros((3, 4), np.float32), np.array([0, 1, 3])
    layer, net = layers.SoftmaxWithLoss(), pynn.networks.MultiLayerNet(4, [3], 4, rng=0)
    layer.forward(x, t)
    net.gradient(x, t)
    assert not np.shares_memory(layer.t, t) and not np.shares_memory(net.last_layer.t, t)


def test_huber_delta(backend):
    y, t = np.array([0.0, 3.0, -5.0]), np.zeros(3)
    for delta in (0.5, 1.0, 4.0):
        want = [0.5 * d * d if d < delta else delta * (d - delta / 2) for d in (0, 3, 5)]
        assert losses.huber(y, t, delta) == pytest.approx(np.mean(want), rel=1e-14)
    for delta in (0, -1.0, math.nan, "one"):
        with pytest.raises((ValueError, TypeError), match="delta"):
            losses.huber(y, t, delta)
    for delta in (1e-50, 1e50):  # 0 and infinite in float32
        assert math.isfinite(losses.huber(y, t, delta))
        with pytest.raises(ValueError, match=r"delta must be .* in float32"):
            losses.huber(y.astype(np.float32), t.astype(np.float16), delta)


ELEMENTWISE = {
    "half_squared_error": 0.0,
    "huber": 0.7,
    "sigmoid_cross_entropy": 0.0,
    "binary_cross_entropy": 1e-7,
    "cross_entropy": 1e-7,
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_slopes_of_losses(name, backend, rng):
    """Every row of the table of losses."""
    f, c = pynn._backend.functions(), ELEMENTWISE[name]
    x, t = rng.uniform(0.05, 0.95, (2, 5, 7))
    if name == "huber":
        x *= 3
        x[np.abs(np.abs(x - t) - c) < 1e-3] += 0.01  # away from the kink
    (want,) = slopes(lambda: f.loss(name, x, t, c), x)
    assert_slopes(f.loss_backward(name, x, t, 1.0, c), want)
    assert_slopes(f.loss_backward(name, x, t, 2.0, c), 2 * want)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_bits_of_losses(name, dtype, every_setting, rng):
    x, t = rng.uniform(0.01, 0.99, (2, 60_011)).astype(dtype)
    known = None
    for setting in every_setting():
        core = pynn._core
        got = (
            np.array(core.loss(name, x, t, ELEMENTWISE[name])),
            core.loss_backward(name, x, t, 0.3, ELEMENTWISE[name]),
        )
        known = known or got
        for one, other in zip(got, known):
            oracles.assert_same_bits(one, other, setting)
        part = core.loss_backward(name, x[7:29], t[7:29], 0.3, ELEMENTWISE[name])
        oracles.assert_same_bits(part, known[1][7:29], setting)


@pytest.mark.parametrize(("rows", "classes"), [(3001, 23), (9, 5001)])
def test_bits_of_softmax_loss(rows, classes, dtype, every_setting, rng):
    x, t = rng.normal(0, 4, (rows, classes)).astype(dtype), rng.integers(0, classes, rows)
    known = None
    for setting in every_setting():
        loss, y, _ = pynn._core.softmax_loss(x, t)
        got = np.array(loss), y, pynn._core.softmax_loss_backward(y, t, 1 / rows)
        oracles.assert_same_bits(y, pynn.softmax(x), setting)
        known = known or got
        for one, other in zip(got, known):
            oracles.assert_same_bits(one, other, setting)


def test_the_books_names(rng):
    x, t = rng.standard_normal((5, 4)).astype(np.float32), rng.integers(0, 4, 5)
    assert functions.identity_function(x) is x
    assert np.array_equal(functions.step_function(x), (x > 0).astype(int))
    assert functions.step_function(np.zeros(2)).dtype.kind == "i"
    s = 1 / (1 + np.exp(-x.astype(float)))
    assert np.allclose(functions.sigmoid_grad(x), s * (1 - s), rtol=1e-6)
    grad = functions.relu_grad(np.array([-1.0, -0.0, 0.0, 2.0], np.float32))
    assert np.array_equal(grad, [0, 1, 1, 1]) and grad.dtype == np.float32
    assert functions.softmax_loss(x, t) == layers.SoftmaxWithLoss().forward(x, t)
    assert functions.softmax_loss(x, t) == pytest.approx(
        functions.cross_entropy_error(functions.softmax(x), t), rel=1e-5
    )


# ---- Dropout -------------------------------------------------------------------------------------


def test_dropout(backend, dtype, rng):
    (x,), (dout,) = (
        frozen(rng.uniform(1, 2, (40, 50)).astype(dtype)),
        frozen(np.ones((40, 50), dtype)),
    )
    for inverted in (False, True):
        layer = layers.Dropout(0.3, rng=4, inverted=inverted)
        y = layer.forward(x)
        mask = layer.mask
        scale = dtype(1 / 0.7 if inverted else 1)
        oracles.assert_same_bits(y, np.where(mask, x * scale, dtype(0)))
        oracles.assert_same_bits(layer.backward(dout), np.where(mask, dout * scale, dtype(0)))
        assert abs(mask.mean() - 0.7) < 4 * math.sqrt(0.21 / 2000)
        tested = layer.forward(x, train_flg=False)
        assert np.allclose(tested, x if inverted else x * 0.7, rtol=1e-6) and layer.mask is None
        assert np.allclose(layer.backward(dout), 1 if inverted else 0.7, rtol=1e-6)
        again = layer.forward(x)
        assert not np.array_equal(again, y) and layer.drawn == 4000
        layer.drawn = 0
        oracles.assert_same_bits(layer.forward(x), y)


def test_dropout_keeps_what_forward_had(backend):
    """backward and mask are those of the last forward, whatever was set since."""
    for inverted in (False, True):
        for train_flg in (False, True):
            layer = layers.Dropout(0.5, rng=9, inverted=inverted)
            y, mask = layer.forward(np.ones(100), train_flg), layer.mask
            layer.dropout_ratio, layer.inverted, layer.key, layer.drawn = 0.1, not inverted, 3, 7
            oracles.assert_same_bits(layer.backward(np.ones(100)), y)
            assert mask is None if not train_flg else np.array_equal(layer.mask, mask)
    for name, bad in (("drawn", -1), ("drawn", 1.5), ("key", "a"), ("dropout_ratio", 1.0)):
        with pytest.raises((TypeError, ValueError), match=f"{name} must be"):
            setattr(layer, name, bad)


def test_dropout_is_its_stream(backend, rng):
    """Any part can be made alone; float64 drops the same elements as float32."""
    layer = layers.Dropout(0.5, rng=9)
    x = np.ones((7, 613))
    y = layer.forward(x)
    uniform = pynn.random.uniform(x.size, rng=9)
    oracles.assert_same_bits(y.ravel(), (uniform > 0.5).astype(float))
    later = layers.Dropout(0.5, rng=9)
    later.drawn = 613
    oracles.assert_same_bits(later.forward(x[1:3]), y[1:3])
    single = layers.Dropout(0.5, rng=9).forward(x.astype(np.float32))
    assert np.array_equal(single, y)
    assert not np.array_equal(layers.Dropout(0.5, rng=8).forward(x), y)
    none, number = layers.Dropout(0.0, rng=1), np.ones(1, np.float32)
    none.drawn = 3_358_097  # where the stream has a 0
    pynn._backend.functions().fill(number, "uniform", none.key, 0.0, 1.0, start=none.drawn)
    assert number == 0
    oracles.assert_same_bits(none.forward(x), x)
    assert none.mask.all()


def test_dropout_returns_new_arrays_of_floats(backend):
    """When not training, too."""
    for inverted in (False, True):
        for ratio in (0.0, 0.5):
            layer = layers.Dropout(ratio, rng=1, inverted=inverted)
            for train_flg in (True, False):
                x = np.ones(100)
                for result in (layer.forward(x, train_flg), layer.backward(x)):
                    assert not np.shares_memory(result, x)
                    scale = 1 if inverted else 1 - ratio
                    assert train_flg or (result == scale).all()
                for kind, wanted in (("e", "f"), ("i", "d"), ("f", "f"), ("?", "d")):
                    assert layer.forward(np.ones(3, kind), train_flg).dtype.char == wanted
                for kind in "ODU":
                    with pytest.raises(TypeError):
                        layer.forward(np.zeros(3, kind), train_flg)


def test_bits_of_dropout(dtype, every_setting, rng):
    x = rng.standard_normal(70_001).astype(dtype)
    known = None
    for setting in every_setting():
        layer = layers.Dropout(0.4, rng=1, inverted=True)
        layer.drawn = 33
        got = layer.forward(x)
        known = got if known is None else known
        oracles.assert_same_bits(got, known, setting)


# ---- Normalizations ------------------------------------------------------------------------------


def normalization(name, features, dtype, rng):
    gamma = rng.uniform(0.5, 2, features).astype(dtype)
    if name == "RMSNormalization":
        return layers.RMSNormalization(gamma)
    return getattr(layers, name)(gamma, rng.standard_normal(features).astype(dtype))


NORMALIZATIONS = ["BatchNormalization", "LayerNormalization", "RMSNormalization"]


@pytest.mark.parametrize("shape", [(6, 5), (300, 3), (2, 3, 19), (4, 1)])
@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_normalized_values(name, shape, backend, dtype, rng):
    layer = normalization(name, shape[-1], dtype, rng)
    (x,) = frozen((rng.standard_normal(shape) * 3 + 5).astype(dtype))
    z, axis = x.astype(np.float64), tuple(range(x.ndim - 1)) if "Batch" in name else -1
    mean = 0 if "RMS" in name else z.mean(axis=axis, keepdims=True)
    variance = ((z - mean) ** 2).mean(axis=axis, keepdims=True)
    want = (z - mean) / np.sqrt(variance + layer.eps) * layer.gamma
    want = want if layer.beta is None else want + layer.beta
    y = layer.forward(x)
    eps = 8 * np.finfo(dtype).eps
    cancelled = 8 * np.finfo(float).eps * np.abs(z).max() / np.sqrt(variance + layer.eps)
    assert y.dtype == dtype and (np.abs(y - want) <= eps * (1 + np.abs(want)) + cancelled).all()
    if "Batch" in name:
        assert np.allclose(layer.running_mean, 0.1 * mean.ravel(), rtol=1e-12)
        assert np.allclose(layer.running_var, 0.1 * variance.ravel(), rtol=1e-12)
        running = layer.running_mean.copy()
        tested = layer.forward(x, train_flg=False)
        want = (z - layer.running_mean) / np.sqrt(layer.running_var + 1e-6)
        assert np.allclose(tested, want * layer.gamma + layer.beta, rtol=eps, atol=8 * eps)
        assert np.array_equal(running, layer.running_mean)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("shape", [(6, 5), (2, 3, 4), (20, 1), (1, 6), (270, 2)])
@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_slopes_of_normalizations(name, shape, train, backend, rng):
    layer = normalization(name, shape[-1], np.float64, rng)
    x, dout = rng.standard_normal((2, *shape))
    arguments = [train] if "Batch" in name else []
    if not train and not arguments:
        pytest.skip("has no other mode")
    if not train:
        layer.running_mean[...], layer.running_var[...] = 0.3, 2.0
    elif ("Batch" in name and shape == (1, 6)) or ("Layer" in name and shape[-1] == 1):
        pytest.skip("all slopes are 0")
    params = [layer.gamma] + ([] if layer.beta is None else [layer.beta])
    want = slopes(lambda: float(np.sum(dout * layer.forward(x, *arguments))), x, *params)
    if train and "Batch" in name:
        layer.running_mean[...] = 7  # is not used
    layer.forward(x, *arguments)
    frozen(x, dout)
    assert_slopes(layer.backward(dout), want[0])
    for got, slope in zip(layer.grads.values(), want[1:], strict=True):
        assert_slopes(got, slope)
    assert list(layer.params) == list(layer.grads)


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_exactness(name, isa, rng):
    """float32: within 1 ULP and a bit of the exact value, forward and backward, far from 0 too."""
    for shape, offset in (((64, 48), 0), ((300, 20), 1000), ((3, 5000), -7)):
        layer = normalization(name, shape[-1], np.float32, rng)
        x = (rng.standard_normal(shape) + offset).astype(np.float32)
        dout = rng.standard_normal(shape).astype(np.float32)
        wide = np.longdouble
        axis = 0 if "Batch" in name else 1
        z, g = x.astype(wide), dout.astype(wide)
        mean = 0 if "RMS" in name else z.mean(axis=axis, keepdims=True)
        scale = 1 / np.sqrt(((z - mean) ** 2).mean(axis=axis, keepdims=True) + layer.eps)
        n = (z - mean) * scale
        want = n * layer.gamma
        y = layer.forward(x)
        unit = np.spacing(np.abs(want).astype(np.float32))
        if layer.beta is not None:
            want = want + layer.beta
            unit = np.maximum(unit, np.spacing(np.abs(want).astype(np.float32)))
        assert (np.abs(y - want) / unit).max() <= 0.51
        dx = layer.backward(dout)
        d = g * layer.gamma if axis else g
        rest = d - n * (d * n).mean(axis=axis, keepdims=True)
        rest = rest if "RMS" in name else rest - d.mean(axis=axis, keepdims=True)
        want = rest * scale * (1 if axis else layer.gamma)
        unit = np.maximum(np.spacing(np.abs(want).astype(np.float32)), np.abs(want).max() * 1e-10)
        assert (np.abs(dx - want) / unit).max() <= 0.51
        assert np.allclose(layer.dgamma, (g * n).sum(axis=0), rtol=1e-6, atol=1e-6)
        assert np.allclose(layer.dbeta, g.sum(axis=0), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_bits_of_normalizations(name, dtype, every_setting, rng):
    for shape in ((700, 130), (3, 9001), (40_000, 1)):
        layer = normalization(name, shape[-1], dtype, rng)
        x, dout = rng.standard_normal((2, *shape)).astype(dtype)
        known = None
        for setting in every_setting():
            got = layer.forward(x), layer.backward(dout), *layer.grads.values()
            known = known or got
            for one, other in zip(got, known):
                oracles.assert_same_bits(one, other, setting)
            if "Batch" not in name:  # a row's values do not depend on the others
                oracles.assert_same_bits(layer.forward(x[2:3]), known[0][2:3], setting)


def test_batch_normalization_keeps_what_it_is_given(rng):
    mean, var = frozen(np.ones(3), np.full(3, 2.0))
    layer = layers.BatchNormalization(np.ones(3), np.zeros(3), 0.5, mean, var)
    x = rng.standard_normal((8, 3))
    layer.forward(x)
    assert np.allclose(layer.running_mean, 0.5 + 0.5 * x.mean(axis=0))
    assert np.allclose(layer.running_var, 1 + 0.5 * x.var(axis=0))
    gamma = layer.gamma
    gamma *= 2
    assert np.allclose(layer.forward(x).std(axis=0), 2, rtol=1e-5)


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_inputs_of_normalizations(name, backend, rng):
    layer = normalization(name, 3, np.float64, rng)
    with pytest.raises(RuntimeError, match="forward"):
        layer.backward(np.ones((2, 3)))
    for bad in (np.ones((2, 4)), np.float64(1)):
        with pytest.raises(ValueError, match=r"\(3,\)|shape"):
            layer.forward(bad)
    for kind in ("O", "D", "U1"):
        with pytest.raises(TypeError):
            layer.forward(np.zeros((2, 3), kind))
    x = rng.standard_normal((4, 6))
    want = layer.forward(np.ascontiguousarray(x[:, ::-2]))
    oracles.assert_same_bits(layer.forward(x[:, ::-2]), want)
    with pytest.raises(ValueError, match=r"\(4, 3\)"):
        layer.backward(np.ones((4, 2)))
    if "Batch" in name:
        with pytest.raises(ValueError, match="row"):
            layer.forward(np.ones((0, 3)))
        assert layer.forward(np.ones((0, 3)), train_flg=False).shape == (0, 3)
    else:
        assert layer.forward(np.ones((0, 3))).shape == (0, 3)
        assert layer.backward(np.ones((0, 3))).shape == (0, 3) and not layer.dgamma.any()
    assert np.isnan(layer.forward(np.full((2, 3), np.nan))).all()


def test_bad_arguments():
    for make, arguments, named in (
        (layers.Dropout, (1.0,), "dropout_ratio"),
        (layers.Dropout, (-0.1,), "dropout_ratio"),
        (layers.Dropout, ("half",), "dropout_ratio"),
        (layers.BatchNormalization, (np.ones((2, 2)), np.ones(2)), "gamma"),
        (layers.BatchNormalization, (np.ones(2), np.ones(3)), "beta"),
        (layers.BatchNormalization, (np.ones(2), np.ones(2), -1), "momentum"),
        (layers.BatchNormalization, (np.ones(2), np.ones(2), 1.1), "momentum"),
        (layers.BatchNormalization, (np.ones(2), np.ones(2), 0.9, np.ones(3)), "running_mean"),
        (layers.LayerNormalization, (np.ones(2), np.ones(3)), "beta"),
        (layers.RMSNormalization, (np.ones((2, 1)),), "gamma"),
    ):
        with pytest.raises((ValueError, TypeError), match=named):
            make(*arguments)
    with pytest.raises(ValueError, match="eps"):
        layers.LayerNormalization(np.ones(2), eps=-1)
    norm = layers.BatchNormalization(np.ones(2), np.ones(2))
    for name, value in (("momentum", 5), ("momentum", "a"), ("eps", -5), ("eps", np.nan)):
        with pytest.raises((ValueError, TypeError), match=name):
            setattr(norm, name, value)
    for layer in (layers.Dropout(), layers.SigmoidWithLoss(), layers.IdentityWithLoss()):
        with pytest.raises(RuntimeError, match="forward"):
            layer.backward(*([np.ones(2)] if isinstance(layer, layers.Dropout) else []))
    for layer in (layers.SigmoidWithLoss(), layers.IdentityWithLoss()):
        with pytest.raises(ValueError, match=r"\(3,\).*\(2,\)"):
            layer.forward(np.ones(3), np.ones(2))
        with pytest.raises(ValueError, match="row"):
            layer.forward(np.ones((0, 3)), np.ones((0, 3)))
        with pytest.raises(TypeError):
            layer.forward(np.ones(3, complex), np.ones(3))


def test_masks_are_refused_by_sums(backend):
    """A masked element would count as any other."""
    x, good = np.ma.array(np.ones((2, 3)), mask=np.eye(2, 3)), np.ones((2, 3))
    t, net = np.ma.array([0, 1], mask=[1, 0]), pynn.networks.MultiLayerNet(3, [], 3)
    last = [layers.SoftmaxWithLoss(), layers.SigmoidWithLoss(), layers.IdentityWithLoss()]
    calls = [
        *(lambda layer=layer: layer.forward(x, good) for layer in last),
        *(lambda layer=layer: layer.forward(good, x) for layer in last),
        lambda: losses.softmax_cross_entropy(good, t),
        lambda: losses.softmax_cross_entropy(x, [0, 1]),
        lambda: losses.cross_entropy_error(good, t),
        lambda: losses.cross_entropy_error(x, [0, 1]),
        lambda: losses.mean_squared_error(x, good),
        lambda: losses.huber(good, x),
        lambda: net.gradient(good, t),
        lambda: net.loss(good, t),
        lambda: net.accuracy(good, t),
        lambda: pynn.networks.Trainer(net, good, t),
    ]
    for call in calls:
        with pytest.raises(TypeError, match=r"\b[xyt]\w* must have no mask"):
            call()


def test_labels_of_every_type(backend, rng):
    x, t = rng.standard_normal((6, 5)), np.array([0, 4, 2, 1, 4, 3])
    want = losses.softmax_cross_entropy(x, t)
    for kind in ("b", "B", "h", "H", "i", "I", "q", "Q", ">i2", ">u8"):
        assert losses.softmax_cross_entropy(x, t.astype(kind)) == want
    assert losses.softmax_cross_entropy(x, np.repeat(t, 2)[::2]) == want
    assert losses.softmax_cross_entropy(x, list(t)) == want
    for bad, least, most in (
        (np.full(6, 2**64 - 1, np.uint64), 2**64 - 1, 2**64 - 1),
        (np.array([0, 4, 2, 1, 4, -3]), -3, 4),
        (np.arange(6, dtype=np.uint8), 0, 5),
    ):
        with pytest.raises(ValueError, match=f"t must be from 0 to 4; got {least} to {most}"):
            losses.softmax_cross_entropy(x, bad)
    for kind in ("?", "d", "O", "U1"):
        with pytest.raises(TypeError, match=r"\bt\b"):
            losses.softmax_cross_entropy(x, t.astype(kind))


def test_scale_of_a_last_layer_is_a_number(backend):
    for layer, t in ((layers.SoftmaxWithLoss(), [0, 1]), (layers.IdentityWithLoss(), np.eye(2))):
        layer.forward(np.ones((2, 2)), t)
        for bad in ("a", "1", np.ones(2), None, 1j):
            with pytest.raises(TypeError, match="dout must be a number"):
                layer.backward(bad)
        assert np.isnan(layer.backward(np.nan)).any() and layer.backward(np.float32(2)).shape


def test_parameters_larger_than_the_input(backend):
    """The output has the shape of the input, or backward would not."""
    for layer in (layers.LeakyRelu(np.ones((5, 3))), layers.PRelu(np.ones((5, 3)))):
        with pytest.raises(ValueError, match=r"slope must broadcast .*\(3,\); got \(5, 3\)"):
            layer.forward(np.ones(3))
        assert layer.forward(np.ones((5, 3))).shape == (5, 3)


def test_slopes_of_the_book_are_of_real_numbers():
    for f in (functions.relu_grad, functions.step_function):
        for bad in (np.ones(2, complex), np.ones(2, object), "text"):
            with pytest.raises(TypeError, match=r"\bx\b"):
                f(bad)
        assert f([-1, 0, 2]).dtype.kind == "i" and f(2.0) == 1
