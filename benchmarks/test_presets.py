"""Each preset against the library it is named after, where that is installed: two samples of one distribution."""

import os

import numpy as np
import pytest
import scipy.stats

from pynn import initializers

MATRIX, KERNEL = (200, 300), (3, 3, 40, 50)  # in, out; torch has them the other way round
RULES = [
    f"{rule}_{kind}"
    for rule in ("xavier", "glorot", "he", "lecun")
    for kind in ("normal", "uniform")
]
LEAST = 1e-4  # p value: the samples are the same in every run


def same_distribution(ours, theirs):
    """Kolmogorov and Smirnov's p value for two samples of as many numbers, and that of their spreads."""
    ours, theirs = (np.asarray(a, np.float64).ravel() for a in (ours, theirs))
    assert ours.shape == theirs.shape
    values = [(a - a.mean()) ** 2 for a in (ours, theirs)]
    spread = scipy.stats.ttest_ind(*values, equal_var=False).pvalue if values[0].any() else 1
    return min(scipy.stats.ks_2samp(ours, theirs, method="asymp").pvalue, spread)


def call(name, shape, preset, **arguments):
    return getattr(initializers, name)(shape, preset=preset, rng=1, **arguments)


@pytest.fixture(scope="module")
def torch():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    return torch


@pytest.fixture(scope="module")
def jax():
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    return pytest.importorskip("jax")


@pytest.fixture(scope="module")
def keras(jax):
    os.environ.setdefault("KERAS_BACKEND", "jax")
    return pytest.importorskip("keras")


# our name -> PyTorch's, and its arguments
TORCH = {
    "xavier_normal": ("xavier_normal_", {}),
    "xavier_uniform": ("xavier_uniform_", {}),
    "glorot_normal": ("xavier_normal_", {}),
    "kaiming_normal": ("kaiming_normal_", dict(nonlinearity="relu")),
    "kaiming_uniform": ("kaiming_uniform_", dict(nonlinearity="relu")),
    "he_normal": ("kaiming_normal_", dict(nonlinearity="relu")),
    "normal": ("normal_", {}),
    "uniform": ("uniform_", {}),
    "truncated_normal": ("trunc_normal_", {}),
}


@pytest.mark.parametrize("shape", [MATRIX[::-1], KERNEL[::-1]], ids=["matrix", "kernel"])
@pytest.mark.parametrize("name", TORCH)
def test_torch(name, shape, torch):
    theirs, more = TORCH[name]
    tensor = getattr(torch.nn.init, theirs)(torch.empty(shape), **more)
    assert same_distribution(call(name, shape, "torch"), tensor) > LEAST


def test_torch_bounds(torch):
    """a and b are in the units of the weights."""
    bounds = 1.0, 0.5, 0.9, 2.5
    tensor = torch.nn.init.trunc_normal_(torch.empty(60_000), *bounds)
    ours = initializers.truncated_normal(60_000, *bounds, preset="torch", rng=1)
    assert same_distribution(ours, tensor) > LEAST


@pytest.mark.parametrize("kind", ["Linear", "Conv2d"])
def test_torch_layers(kind, torch):
    layer = getattr(torch.nn, kind)(*((200, 300) if kind == "Linear" else (40, 50, 3)))
    ours = initializers.torch_linear(tuple(layer.weight.shape), rng=1)
    assert same_distribution(ours, layer.weight.detach()) > LEAST


def test_torch_values(torch):
    """What is not random is equal."""
    for shape in ((4, 6), (6, 4)):
        ours = initializers.identity(shape)
        assert np.array_equal(ours, torch.nn.init.eye_(torch.empty(shape)))
    for shape, groups in (((6, 4, 3), 1), ((6, 2, 3, 5), 2), ((4, 6, 2, 4, 3), 1)):
        want = torch.nn.init.dirac_(torch.empty(shape), groups)
        assert np.array_equal(initializers.dirac(shape, groups, preset="torch"), want)


def test_torch_sparse(torch):
    shape = (300, 200)
    want = torch.nn.init.sparse_(torch.empty(shape), 0.3, 0.01).numpy()
    ours = initializers.sparse(shape, 0.3, 0.01, rng=1)
    assert ((ours == 0).sum(axis=0) == (want == 0).sum(axis=0)).all()
    assert same_distribution(ours[ours != 0], want[want != 0]) > LEAST


@pytest.mark.parametrize("shape", [(3, 3), (2, 5), (5, 2)])
def test_orthogonal_of_torch_and_jax(shape, torch, jax):
    """The first entry, and the sum of all, of many matrices."""
    draw = jax.nn.initializers.orthogonal(2.0)
    keys = jax.random.split(jax.random.key(0), 4000)
    of_jax = np.asarray(jax.vmap(lambda k: draw(k, shape))(keys))
    of_torch = np.array([torch.nn.init.orthogonal_(torch.empty(shape), 2.0).numpy() for _ in keys])
    ours = {
        preset: np.array(
            [initializers.orthogonal(shape, 2.0, preset=preset, rng=i) for i in range(4000)]
        )
        for preset in ("torch", "jax")
    }
    for preset, theirs in (("torch", of_torch), ("jax", of_jax)):
        for what in (lambda a: a[:, 0, 0], lambda a: a.sum(axis=(1, 2))):
            assert same_distribution(what(ours[preset]), what(theirs)) > LEAST


@pytest.mark.parametrize("shape", [MATRIX, KERNEL], ids=["matrix", "kernel"])
@pytest.mark.parametrize("name", RULES)
def test_jax(name, shape, jax):
    theirs = getattr(jax.nn.initializers, name)()(jax.random.key(0), shape)
    assert same_distribution(call(name, shape, "jax"), theirs) > LEAST


@pytest.mark.parametrize("name", ["normal", "uniform", "truncated_normal"])
def test_jax_defaults(name, jax):
    theirs = getattr(jax.nn.initializers, name)()(jax.random.key(0), MATRIX)
    assert same_distribution(call(name, MATRIX, "jax"), theirs) > LEAST


@pytest.mark.parametrize("axes", [(-2, -1), (0, 1), (3, 0)], ids=str)
@pytest.mark.parametrize("distribution", ["normal", "truncated_normal", "uniform"])
@pytest.mark.parametrize("mode", ["fan_in", "fan_out", "fan_avg", "fan_geo_avg"])
def test_jax_variance_scaling(mode, distribution, axes, jax):
    rule = 1.7, mode, distribution, *axes
    theirs = jax.nn.initializers.variance_scaling(*rule)(jax.random.key(0), KERNEL)
    assert same_distribution(initializers.variance_scaling(KERNEL, *rule, rng=1), theirs) > LEAST


def test_jax_delta_orthogonal(jax):
    """0 and not 0 in the same places."""
    for shape in ((3, 5, 6), (4, 3, 5, 6), (3, 3, 2, 5, 5)):
        theirs = jax.nn.initializers.delta_orthogonal()(jax.random.key(0), shape)
        ours = initializers.delta_orthogonal(shape, preset="jax", rng=1)
        assert np.array_equal(np.asarray(theirs) != 0, ours != 0)


# Keras' class -> our name
KERAS = {
    **{name.title().replace("_", ""): name for name in RULES if not name.startswith("xavier")},
    "RandomNormal": "normal",
    "RandomUniform": "uniform",
    "TruncatedNormal": "truncated_normal",
}


@pytest.mark.parametrize("shape", [MATRIX, KERNEL], ids=["matrix", "kernel"])
@pytest.mark.parametrize("theirs", KERAS)
def test_keras(theirs, shape, keras):
    sample = getattr(keras.initializers, theirs)(seed=0)(shape)
    assert same_distribution(call(KERAS[theirs], shape, "keras"), sample) > LEAST


@pytest.mark.parametrize("distribution", ["untruncated_normal", "truncated_normal", "uniform"])
@pytest.mark.parametrize("mode", ["fan_in", "fan_out", "fan_avg"])
def test_keras_variance_scaling(mode, distribution, keras):
    sample = keras.initializers.VarianceScaling(1.7, mode, distribution, seed=0)(KERNEL)
    ours_named = "normal" if distribution == "untruncated_normal" else distribution
    ours = initializers.variance_scaling(KERNEL, 1.7, mode, ours_named, rng=1)
    assert same_distribution(ours, sample) > LEAST


def test_other_rules_are_told_apart(jax):
    """The test would notice: another library's rule of the same name, or other fans, fail by far."""
    theirs = jax.nn.initializers.he_normal()(jax.random.key(0), MATRIX)
    xavier = jax.nn.initializers.xavier_uniform()(jax.random.key(0), MATRIX)
    for ours, sample in (
        (initializers.he_normal(MATRIX, rng=1), theirs),  # not truncated
        (call("he_normal", MATRIX, "jax", in_axis=1, out_axis=0), theirs),
        (initializers.xavier_uniform(MATRIX, rng=1), xavier),  # fan_in, not fan_avg
    ):
        assert same_distribution(ours, sample) < 1e-9
