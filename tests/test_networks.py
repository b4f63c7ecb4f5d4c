"""Layers, networks and optimizers: the book's interface, and that both backends agree."""

import math

import numpy as np
import pytest

import oracles
import pynn
from pynn import layers, networks, optimizers
from pynn.networks import MultiLayerNet

ACTIVATIONS = list(pynn.ACTIVATIONS)


def layer_class(name):
    return getattr(layers, name.title().replace("_", ""))


def frozen(*arrays):
    """Arrays that a layer cannot write into."""
    for a in arrays:
        a.flags.writeable = False
    return arrays


@pytest.fixture(params=["pynn", "numpy"])
def backend(request, restore):
    pynn.use_backend(request.param)
    return request.param


@pytest.fixture
def batch(rng):
    return frozen(rng.standard_normal((12, 6)).astype(np.float32), rng.integers(0, 4, 12))


def test_affine_is_the_books(backend, rng):
    x, w, b, dout = frozen(*(rng.standard_normal(s) for s in ((7, 4), (4, 3), (3,), (7, 3))))
    layer = layers.Affine(w, b)
    assert np.allclose(layer.forward(x), x @ w + b, rtol=1e-14)
    assert np.allclose(layer.backward(dout), dout @ w.T, rtol=1e-13)
    assert np.allclose(layer.dW, x.T @ dout, rtol=1e-13)
    assert np.allclose(layer.db, dout.sum(axis=0), rtol=1e-13)
    assert layer.params["W"] is layer.W and layer.params["b"] is layer.b
    without = layers.Affine(w)
    assert np.allclose(without.forward(x), x @ w) and list(without.params) == ["W"]


def test_affine_takes_images(backend, dtype, rng):
    x, w = frozen(
        rng.standard_normal((5, 2, 3, 4)).astype(dtype), rng.standard_normal((24, 6)).astype(dtype)
    )
    layer = layers.Affine(w, np.zeros(6, dtype))
    y = layer.forward(x)
    assert y.shape == (5, 6) and y.dtype == dtype
    dx = layer.backward(np.ones((5, 6), dtype))
    assert dx.shape == x.shape and dx.dtype == dtype and layer.dW.shape == (24, 6)


@pytest.mark.parametrize("order", ["C", "F"])
def test_weights_changed_in_place_count(order, backend, rng):
    """Nothing derived from a weight survives a change of it."""
    x, dout = frozen(rng.standard_normal((3, 40)), rng.standard_normal((3, 50)))
    w, b = np.array(rng.standard_normal((40, 50)), order=order), np.zeros(50)
    layer = layers.Affine(w, b)
    assert layer.W is w and layer.b is b
    for _ in range(3):
        layer.forward(x)
        layer.backward(dout)
        w *= -0.5
        w[3] += 1
        b += 1
        assert np.allclose(layer.forward(x), x @ w + b, rtol=1e-12)
        assert np.allclose(layer.backward(dout), dout @ w.T, rtol=1e-12, atol=1e-13)
    layer.W = np.ones((40, 50))
    assert np.allclose(layer.forward(x), x.sum(axis=1)[:, None] + b)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_layer(name, backend, dtype, rng):
    x, dout = frozen(*rng.standard_normal((2, 4, 3, 5)).astype(dtype))
    layer, activation = layer_class(name)(), pynn.ACTIVATIONS[name]
    y = layer.forward(x)
    saved = y if activation.saves == "y" else x
    dx = layer.backward(dout)
    eps = 8 * np.finfo(dtype).eps
    assert np.allclose(y, activation.forward(x), rtol=eps, atol=eps) and y.dtype == dtype
    assert np.allclose(dx, activation.backward(dout, saved), rtol=eps, atol=eps)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_fused_layer_is_the_two(name, dtype, rng):
    x, w, b, dout = (rng.standard_normal(s).astype(dtype) for s in ((9, 5), (5, 8), 8, (9, 8)))
    fused, plain, activation = (
        layers.Affine(w, b, activation=name),
        layers.Affine(w, b),
        layer_class(name)(),
    )
    oracles.assert_same_bits(fused.forward(x), activation.forward(plain.forward(x)))
    oracles.assert_same_bits(fused.backward(dout), plain.backward(activation.backward(dout)))
    oracles.assert_same_bits(fused.dW, plain.dW)
    oracles.assert_same_bits(fused.db, plain.db)


def test_softmax_with_loss(backend, dtype, rng):
    """The mean of -log of the probability of the right class; labels and one-hot are one."""
    (x,), t = frozen(rng.normal(0, 3, (6, 5)).astype(dtype)), rng.integers(0, 5, 6)
    layer = layers.SoftmaxWithLoss()
    loss = layer.forward(x, t)
    z = x.astype(np.float64)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    eps = 20 * np.finfo(dtype).eps
    assert math.isclose(loss, -np.log(p[np.arange(6), t]).mean(), rel_tol=eps)
    assert np.allclose(layer.y, p, rtol=eps)
    assert np.allclose(layer.backward(), (p - np.eye(5)[t]) / 6, rtol=eps, atol=eps)
    other = layers.SoftmaxWithLoss()
    assert other.forward(x, np.eye(5)[t]) == loss
    oracles.assert_same_bits(other.backward(), layer.backward())


def test_loss_of_the_hopeless(backend):
    """Where a probability underflows the loss is still the score's distance."""
    for scores, t, loss in (
        ([1000, 0], 1, 1000),
        ([1000, 0], 0, 0),
        ([-1e4, 1e4], 0, 2e4),
        ([3, 3], 0, math.log(2)),
    ):
        layer = layers.SoftmaxWithLoss()
        got = layer.forward(np.array([scores], np.float32), np.array([t]))
        assert math.isclose(got, loss, rel_tol=1e-6)
        assert np.isfinite(layer.backward()).all()
    nan = layers.SoftmaxWithLoss().forward(np.array([[np.nan, 1]]), np.array([0]))
    assert math.isnan(nan)


BAD_TARGETS = {
    "too few": (np.array([0, 1]), ValueError),
    "too large": (np.array([0, 1, 4]), ValueError),
    "negative": (np.array([0, -1, 2]), ValueError),
    "floats": (np.array([0.0, 1.0, 2.0]), TypeError),
    "wrong one-hot": (np.zeros((3, 5)), ValueError),
    "not one-hot": (np.full((3, 4), 0.25), ValueError),
}


@pytest.mark.parametrize("case", BAD_TARGETS)
def test_bad_targets(case):
    t, error = BAD_TARGETS[case]
    with pytest.raises(error, match=r"\bt\b"):
        layers.SoftmaxWithLoss().forward(np.zeros((3, 4)), t)


@pytest.mark.parametrize("kind", ["O", "D", "U1", "M8[s]"])
def test_refused_dtypes(kind, backend):
    """Objects, complex numbers, text and dates are a TypeError, never converted."""
    bad, good = np.zeros((3, 4), kind), np.ones((3, 4))
    net = MultiLayerNet(4, [5], 3, rng=0)
    affine = layers.Affine(good.T)
    affine.forward(good)
    calls = [
        lambda: net.predict(bad),
        lambda: net.gradient(bad, np.zeros(3, int)),
        lambda: affine.forward(bad),
        lambda: affine.backward(bad[:, :3]),
        lambda: layers.Affine(bad.T).forward(good),
        lambda: layers.SoftmaxWithLoss().forward(bad, np.zeros(3, int)),
        lambda: layers.SoftmaxWithLoss().forward(good, bad),
    ]
    if kind != "O" or backend != "numpy":  # the reference's formulas take high-precision objects
        calls += [lambda name=name: layer_class(name)().forward(bad) for name in ACTIVATIONS]
    for i, call in enumerate(calls):
        with pytest.raises((TypeError, ValueError) if i == 6 else TypeError):
            call()


def test_empty_batches(backend):
    """An output of no rows; no loss or accuracy of nothing."""
    net = MultiLayerNet(4, [5], 3, rng=0)
    x, t = np.ones((0, 4)), np.zeros(0, int)
    assert net.predict(x).shape == (0, 3)
    for call in (net.loss, net.accuracy, net.gradient):
        with pytest.raises(ValueError, match=r"\bx\b.*row"):
            call(x, t)


def test_layer_errors():
    with pytest.raises(RuntimeError, match="forward"):
        layers.Affine(np.ones((2, 3))).backward(np.ones((1, 3)))
    with pytest.raises(RuntimeError, match="forward"):
        layers.SoftmaxWithLoss().backward()
    with pytest.raises(ValueError, match="gauss"):
        layers.Affine(np.ones((2, 3)), activation="gauss")
    with pytest.raises(ValueError, match="b must"):
        layers.Affine(np.ones((2, 3)), np.ones(2))
    for name in ACTIVATIONS:
        layer = layer_class(name)()
        with pytest.raises(RuntimeError, match="forward"):
            layer.backward(np.ones(3))
        layer.forward(np.ones((2, 3)))
        with pytest.raises(ValueError, match=r"\(2, 3\)"):
            layer.backward(np.ones(4))


def test_network_is_the_books(backend, batch, dtype):
    """params W1, b1, ...; scores, loss with decay, accuracy, gradients by key."""
    x, t = batch
    net = MultiLayerNet(
        6, [5, 8], 4, activation="tanh", weight_decay_lambda=0.1, rng=0, dtype=dtype
    )
    assert [*net.params] == ["W1", "b1", "W2", "b2", "W3", "b3"]
    assert [p.shape for p in net.params.values()] == [(6, 5), (5,), (5, 8), (8,), (8, 4), (4,)]
    y = np.asarray(x, dtype)
    for i in (1, 2, 3):
        y = y @ net.params[f"W{i}"] + net.params[f"b{i}"]
        y = np.tanh(y) if i < 3 else y
    eps = 40 * np.finfo(dtype).eps
    assert np.allclose(net.predict(x), y, rtol=eps, atol=eps) and net.predict(x).dtype == dtype
    decay = sum(0.05 * np.sum(net.params[f"W{i}"] ** 2) for i in (1, 2, 3))
    loss = layers.SoftmaxWithLoss().forward(y, t)
    assert math.isclose(net.loss(x, t), loss + decay, rel_tol=eps)
    assert net.accuracy(x, t) == np.mean(y.argmax(axis=1) == t) == net.accuracy(x, np.eye(4)[t])
    gradient = net.gradient(x, t)
    assert [*gradient] == [*net.params]
    assert all(gradient[k].shape == net.params[k].shape for k in gradient)


def test_networks_honour_changed_params(backend, batch):
    x, t = batch
    one, two = (MultiLayerNet(6, [5], 4, rng=seed) for seed in (0, 1))
    one.predict(x)
    for key, value in two.params.items():
        one.params[key][...] = value
    oracles.assert_same_bits(one.predict(x), two.predict(x))
    for key in one.params:
        one.params[key] = 2 * one.params[key]
        two.params[key] *= 2
    for key, value in one.gradient(x, t).items():
        oracles.assert_same_bits(value, two.gradient(x, t)[key], key)


@pytest.mark.parametrize(
    "std, deviation",
    [(0.3, 0.3), ("xavier", 0.05), ("Sigmoid", 0.05), ("he", 0.0707), ("ReLU", 0.0707)],
)
def test_weight_init_std(std, deviation):
    net = MultiLayerNet(400, [400], 10, weight_init_std=std, rng=1)
    for name in ("W1", "W2"):
        w = net.params[name]
        assert abs(w.std() / deviation - 1) < 5 / math.sqrt(2 * w.size)
    assert not net.params["b1"].any() and not net.params["b2"].any()
    assert not np.array_equal(net.params["W1"][:, :10], net.params["W2"])


def test_equal_weights_stay_equal(backend, batch):
    """The seed's point: units that start equal get equal updates."""
    x, t = batch
    net = MultiLayerNet(6, [5, 5], 4, weight_init_std="Equal", weight_decay_lambda=0.01)
    assert (net.params["W1"] == np.float32(1 / 6)).all() and (
        net.params["W2"] == np.float32(1 / 5)
    ).all()
    optimizer = optimizers.SGD(lr=0.1)
    for _ in range(5):
        optimizer.update(net.params, net.gradient(x, t))
    for name in ("W1", "W2"):
        assert (net.params[name] == net.params[name][:, :1]).all()
    assert (net.params["W2"] == net.params["W2"][:1]).all()
    assert len(np.unique(net.params["W3"], axis=0)) == 1 and len(np.unique(net.params["W3"])) > 1


def test_seeds_of_networks():
    one, two, three = (MultiLayerNet(6, [5], 4, rng=seed).params for seed in (7, 7, 8))
    for key, value in one.items():
        oracles.assert_same_bits(value, two[key], key)
    assert not np.array_equal(one["W1"], three["W1"])
    generator = np.random.default_rng(1)
    first, second = (MultiLayerNet(6, [5], 4, rng=generator).params["W1"] for _ in range(2))
    assert not np.array_equal(first, second)


def test_without_hidden_layers(batch):
    x, t = batch
    net = MultiLayerNet(6, [], 4, rng=0)
    assert [*net.params] == ["W1", "b1"] and net.predict(x).shape == (12, 4)
    assert net.predict(x[0]).shape == (4,)
    assert set(net.gradient(x, t)) == {"W1", "b1"}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_backends_agree(name, batch, dtype):
    """The same network on the kernels and on NumPy, trained: equal but for rounding."""
    x, t = batch
    trained = {}
    for backend in ("pynn", "numpy"):
        pynn.use_backend(backend)
        std = 0.1 if name == "exponential" else "relu"  # which grows like exp(exp(x))
        net = MultiLayerNet(6, [20, 20], 4, name, std, weight_decay_lambda=0.01, rng=3, dtype=dtype)
        optimizer = optimizers.SGD(lr=0.1)
        losses = []
        for _ in range(10):
            losses.append(net.loss(x, t))
            optimizer.update(net.params, net.gradient(x, t))
        trained[backend] = losses, net.params
    (ours, params), (theirs, others) = trained.values()
    eps = 100 * np.finfo(dtype).eps
    assert np.allclose(ours, theirs, rtol=eps) and ours[-1] < ours[0]
    for key, value in params.items():
        assert np.allclose(value, others[key], rtol=eps, atol=eps), key


BAD_NETWORKS = {
    "input_size": dict(input_size=0),
    "hidden_size_list": dict(hidden_size_list=5),
    "hidden": dict(hidden_size_list=[3, -1]),
    "output_size": dict(output_size=2.5),
    "activation": dict(activation="gauss"),
    "weight_init_std": dict(weight_init_std="large"),
    "weight_init_std number": dict(weight_init_std=-1.0),
    "weight_decay_lambda": dict(weight_decay_lambda=-1.0),
    "weight_decay_lambda nan": dict(weight_decay_lambda=math.nan),
    "dtype": dict(dtype=np.float16),
    "rng": dict(rng="seed"),
}


@pytest.mark.parametrize("case", BAD_NETWORKS)
def test_bad_networks(case):
    arguments = dict(input_size=3, hidden_size_list=[4], output_size=2) | BAD_NETWORKS[case]
    with pytest.raises((TypeError, ValueError), match=case.split()[0]):
        networks.MultiLayerNet(**arguments)


def test_sgd(dtype):
    params, grads = {"W": np.array([1, 2], dtype)}, {"W": np.array([10, -10], dtype)}
    kept = params["W"]
    optimizers.SGD(lr=0.1).update(params, grads)
    assert params["W"] is kept and np.allclose(kept, [0, 3], atol=1e-6) and kept.dtype == dtype
    optimizers.SGD().update(params, grads)
    assert np.allclose(kept, [-0.1, 3.1], atol=1e-6)
    assert np.array_equal(grads["W"], [10, -10])


def test_momentum(dtype):
    """v = momentum v - lr g; W += v, for each array its own v."""
    params, grads = (
        {"W": np.zeros(2, dtype), "b": np.ones(1, dtype)},
        {"W": np.array([1, -2], dtype), "b": np.ones(1, dtype)},
    )
    kept, optimizer = params["W"], optimizers.Momentum(lr=0.1, momentum=0.5)
    expected, v = np.zeros(2), np.zeros(2)
    for _ in range(4):
        optimizer.update(params, grads)
        v = 0.5 * v - 0.1 * np.array([1, -2])
        expected = expected + v
        assert params["W"] is kept and np.allclose(kept, expected, rtol=1e-6)
    assert np.allclose(params["b"], 1 + expected[0], rtol=1e-6)
    assert optimizers.Momentum().momentum == 0.9 and optimizers.Momentum().lr == 0.01


@pytest.mark.parametrize("optimizer", [optimizers.SGD, optimizers.Momentum])
def test_optimizers_take_views_and_other_types(optimizer):
    """Any strides are changed in place; gradients of another precision keep the parameter's."""
    memory = np.zeros((4, 6), np.float32)
    view = memory[::2, ::-3]
    optimizer(lr=0.5).update({"w": view}, {"w": np.ones((2, 2), np.float64)})
    assert (view == -0.5).all() and np.count_nonzero(memory) == 4 and view.dtype == np.float32


@pytest.mark.parametrize("optimizer", [optimizers.SGD, optimizers.Momentum])
def test_optimizer_errors(optimizer):
    """Refused before anything is changed."""
    w = np.ones(3)
    (fixed,) = frozen(np.ones(3))
    for params, grads, error, named in (
        ({"a": w, "b": w.copy()}, {"a": np.ones(3)}, (KeyError, ValueError), "b"),
        ({"a": w}, {"a": np.ones(4)}, ValueError, r"\(4,\)"),
        ({"a": w, "f": fixed}, {"a": np.ones(3), "f": np.ones(3)}, ValueError, "f"),
        ({"a": w, "i": np.ones(3, int)}, {"a": np.ones(3), "i": np.ones(3)}, TypeError, "i"),
        ({"a": [1.0, 2.0]}, {"a": np.ones(2)}, TypeError, "a"),
    ):
        with pytest.raises(error, match=named):
            optimizer(lr=0.1).update(params, grads)
        assert (w == 1).all()
    with pytest.raises((TypeError, ValueError), match="lr"):
        optimizer(lr=-0.1)


def test_backend_names():
    for name in ("torch", "", None, "PYNN"):
        with pytest.raises((TypeError, ValueError), match="backend"):
            pynn.use_backend(name)
    assert pynn.get_backend() == "pynn"
    pynn.use_backend("numpy")
    assert pynn.get_backend() == "numpy"


@pytest.mark.parametrize("lr", ["0.5", b"0.5", np.str_("0.5"), np.array("0.5"), 1j, None, [0.5]])
def test_a_learning_rate_is_a_number(lr):
    for optimizer in (optimizers.SGD, optimizers.Momentum):
        with pytest.raises(TypeError, match="lr must be a number"):
            optimizer(lr)
    assert optimizers.SGD(np.float32(0.5)).lr == optimizers.SGD(np.array(0.5)).lr == 0.5


@pytest.mark.parametrize("momentum", [1, 2, -0.1, np.nan])
def test_momentum_is_a_share(momentum):
    with pytest.raises(ValueError, match="momentum must be"):
        optimizers.Momentum(0.1, momentum)
