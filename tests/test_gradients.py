"""Every backward against central differences of its forward, in float64."""

import numpy as np
import pytest

import pynn
from pynn import layers, networks

H = 1e-5


def numeric(f, *arrays):
    """Gradients of the scalar f() with respect to arrays, which are changed in place."""
    gradients = []
    for a in arrays:
        gradient = np.empty_like(a)
        for i in np.ndindex(a.shape):
            value = a[i]
            a[i] = value + H
            high = f()
            a[i] = value - H
            gradient[i] = (high - f()) / (2 * H)
            a[i] = value
        gradients.append(gradient)
    return gradients


def close(got, want):
    return np.allclose(got, want, rtol=1e-8, atol=2e-9)


def away_from_kinks(rng, *shape):
    """Numbers that stay on their side of 0 when H is added."""
    x = rng.uniform(0.05, 3, shape)
    return np.where(rng.random(shape) < 0.5, -x, x)


@pytest.mark.parametrize("name", pynn.ACTIVATIONS)
def test_activation(name, isa, rng):
    activation = pynn.ACTIVATIONS[name]
    x = away_from_kinks(rng, 500)
    slope = (activation.forward(x + H) - activation.forward(x - H)) / (2 * H)
    dy = rng.standard_normal(500)
    saved = activation.forward(x) if activation.saves == "y" else x
    assert close(activation.backward(dy, saved), dy * slope)


@pytest.mark.parametrize("name", [None, *pynn.ACTIVATIONS])
@pytest.mark.parametrize("lead", [(), (4,), (2, 3)])
def test_affine(name, lead, isa, rng):
    x, w, b = (rng.standard_normal(s) for s in ((*lead, 5), (5, 3), (3,)))
    dy = rng.standard_normal((*lead, 3))
    y = pynn.affine(x, w, b, activation=name)
    if name and pynn.ACTIVATIONS[name].saves == "x":  # in two steps: affine keeps no input for it
        dz = pynn.ACTIVATIONS[name].backward(dy, pynn.affine(x, w, b))
        got = pynn.affine_backward(dz, x, w)
    else:
        got = pynn.affine_backward(dy, x, w, y, activation=name)
    want = numeric(lambda: np.sum(dy * pynn.affine(x, w, b, activation=name)), x, w, b)
    for which, one, other in zip("xwb", got, want, strict=True):
        assert close(one, other), which


@pytest.mark.parametrize("backend", ["pynn", "numpy"])
@pytest.mark.parametrize("name", pynn.ACTIVATIONS)
def test_layer(name, backend, rng):
    pynn.use_backend(backend)
    layer = layer_of(name)
    x, dy = away_from_kinks(rng, 3, 4), rng.standard_normal((3, 4))
    (want,) = numeric(lambda: np.sum(dy * layer.forward(x)), x)
    layer.forward(x)
    assert close(layer.backward(dy), want)


def layer_of(name):
    """The layer class of an activation: its name in CamelCase."""
    return getattr(layers, "".join(part.capitalize() for part in name.split("_")))()


@pytest.mark.parametrize("backend", ["pynn", "numpy"])
@pytest.mark.parametrize("name", [None, *pynn.ACTIVATIONS])
@pytest.mark.parametrize("shape", [(4, 6), (4, 2, 3), (2, 1, 3, 2)])
def test_affine_layer(name, backend, shape, rng):
    pynn.use_backend(backend)
    w, b, x = rng.standard_normal((6, 5)), rng.standard_normal(5), rng.standard_normal(shape)
    layer = layers.Affine(w, b, activation=name)
    dy = rng.standard_normal((shape[0], 5))
    want = numeric(lambda: np.sum(dy * layer.forward(x)), x, w, b)
    layer.forward(x)
    dx = layer.backward(dy)
    assert dx.shape == shape
    for which, one, other in zip("xwb", (dx, layer.dW, layer.db), want, strict=True):
        assert close(one, other), which


@pytest.mark.parametrize("backend", ["pynn", "numpy"])
@pytest.mark.parametrize("one_hot", [False, True])
def test_softmax_with_loss(one_hot, backend, rng):
    pynn.use_backend(backend)
    x, t = rng.normal(0, 3, (5, 7)), rng.integers(0, 7, 5)
    t = np.eye(7)[t] if one_hot else t
    layer = layers.SoftmaxWithLoss()
    (want,) = numeric(lambda: layer.forward(x, t), x)
    layer.forward(x, t)
    assert close(layer.backward(), want) and close(layer.backward(2.0), 2 * want)


@pytest.mark.parametrize("backend", ["pynn", "numpy"])
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("name", pynn.ACTIVATIONS)
def test_network(name, decay, backend, rng):
    """Backpropagation through all layers, weight decay included."""
    pynn.use_backend(backend)
    std = 0.1 if name == "exponential" else "relu"  # which grows like exp(exp(x))
    net = networks.MultiLayerNet(
        4, [5, 3], 3, name, std, weight_decay_lambda=decay, rng=1, dtype=np.float64
    )
    for key in net.params:
        net.params[key] += 0.1 * rng.standard_normal(net.params[key].shape)
    x, t = rng.standard_normal((6, 4)), rng.integers(0, 3, 6)
    got = net.gradient(x, t)
    want = numeric(lambda: net.loss(x, t), *net.params.values())
    assert list(got) == list(net.params)
    for (key, one), other in zip(got.items(), want, strict=True):
        assert close(one, other), key
    slow = net.numerical_gradient(x, t)
    for key, one in got.items():
        assert np.allclose(slow[key], one, atol=1e-4), key
