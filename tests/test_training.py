"""Whole training: networks against plain NumPy, the same bits everywhere, checkpoints, memory."""

import concurrent.futures
import copy
import hashlib
import json
import math
import pathlib
import pickle
import types

import numpy as np
import pytest

import oracles
import pynn
from pynn import layers, optimizers
from pynn.networks import MultiLayerNet, Sequential, Trainer

SIZES = 12, [17, 9], 5


@pytest.fixture
def batches(rng):
    return [(rng.standard_normal((20, 12)), rng.integers(0, 5, 20)) for _ in range(50)]


def books_gradient(params, x, t, masks, batchnorm, decay):
    """The loss and gradients of SIZES with tanh, in plain NumPy; the moments of the batches."""
    cache, moments, h = [], [], x
    for i in (1, 2):
        z, saved = h @ params[f"W{i}"] + params[f"b{i}"], {"x": h}
        if batchnorm:
            saved["xc"] = z - z.mean(axis=0)
            variance = (saved["xc"] ** 2).mean(axis=0)
            moments.append((z.mean(axis=0), variance))
            saved["std"] = np.sqrt(variance + 1e-6)
            saved["xn"] = saved["xc"] / saved["std"]
            z = params[f"gamma{i}"] * saved["xn"] + params[f"beta{i}"]
        saved["y"] = np.tanh(z)
        h = saved["y"] * masks[i - 1]
        cache.append(saved)
    scores = h @ params["W3"] + params["b3"]
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    loss = -np.log(p[np.arange(len(t)), t]).mean()
    d = (p - np.eye(5)[t]) / len(t)
    grads = {"W3": h.T @ d, "b3": d.sum(axis=0)}
    d = d @ params["W3"].T
    for i in (2, 1):
        saved = cache[i - 1]
        d = d * masks[i - 1] * (1 - saved["y"] ** 2)
        if batchnorm:
            grads[f"beta{i}"], grads[f"gamma{i}"] = d.sum(axis=0), (d * saved["xn"]).sum(axis=0)
            dxn, m = d * params[f"gamma{i}"], len(t)
            dxc = dxn / saved["std"]
            dstd = -(dxn * saved["xc"] / saved["std"] ** 2).sum(axis=0)
            dxc += 2 / m * saved["xc"] * (dstd / 2 / saved["std"])
            d = dxc - dxc.mean(axis=0)
        grads[f"W{i}"], grads[f"b{i}"] = saved["x"].T @ d, d.sum(axis=0)
        d = d @ params[f"W{i}"].T
    for i in (1, 2, 3):
        grads[f"W{i}"] = grads[f"W{i}"] + decay * params[f"W{i}"]
    return loss, grads, moments


def plain_step(name, params, grads, state, t, lr):
    for k, g in grads.items():
        a, b = state.get(k, (0, 0))
        if name == "SGD":
            step = -lr * g
        elif name == "Momentum":
            step = a = 0.9 * a - lr * g
        elif name == "Nesterov":
            step = 0.81 * a - 1.9 * lr * g
            a = 0.9 * a - lr * g
        elif name == "AdaGrad":
            a = a + g * g
            step = -lr * g / (np.sqrt(a) + 1e-7)
        elif name == "RMSprop":
            a = 0.99 * a + 0.01 * g * g
            step = -lr * g / (np.sqrt(a) + 1e-7)
        else:
            a, b = 0.9 * a + 0.1 * g, 0.999 * b + 0.001 * g * g
            step = -lr * math.sqrt(1 - 0.999**t) / (1 - 0.9**t) * a / (np.sqrt(b) + 1e-7)
            step = step - (0.01 * lr * params[k] if name == "AdamW" else 0)
        state[k] = a, b
        params[k] = params[k] + step


RATES = dict(
    SGD=0.1, Momentum=0.1, Nesterov=0.1, AdaGrad=0.05, RMSprop=0.005, Adam=0.01, AdamW=0.01
)


@pytest.mark.parametrize("backend", ["pynn", "numpy"])
@pytest.mark.parametrize("extras", ["", "batchnorm", "dropout", "batchnorm and dropout"])
@pytest.mark.parametrize("name", RATES)
def test_fifty_steps(name, extras, backend, batches):
    """Parameters and losses as plain NumPy has them, to 1e-9."""
    pynn.use_backend(backend)
    batchnorm, dropout, decay = "batchnorm" in extras, "dropout" in extras, 0.01
    net = MultiLayerNet(
        *SIZES,
        activation="tanh",
        weight_init_std="xavier",
        weight_decay_lambda=decay,
        use_batchnorm=batchnorm,
        use_dropout=dropout,
        dropout_ratio=0.3,
        rng=6,
        dtype=np.float64,
    )
    optimizer = getattr(optimizers, name)(lr=RATES[name])
    params, state = {k: p.copy() for k, p in net.params.items()}, {}
    running = [[np.zeros(n), np.zeros(n)] for n in SIZES[1]]
    for step, (x, t) in enumerate(batches, 1):
        optimizer.update(net.params, net.gradient(x, t))
        masks = [net.layers[f"Dropout{i}"].mask for i in (1, 2)] if dropout else [1, 1]
        loss, grads, moments = books_gradient(params, x, t, masks, batchnorm, decay)
        assert math.isclose(net.last_layer.loss, loss, rel_tol=1e-9)
        plain_step(name, params, grads, state, step, RATES[name])
        for kept, new in zip(running, moments):
            for i in (0, 1):
                kept[i] = 0.9 * kept[i] + 0.1 * new[i]
    for k, p in net.params.items():
        # the biases before batch normalization have no effect: their gradients are rounding errors
        largest = 1 if batchnorm and k in ("b1", "b2") else np.abs(params[k]).max()
        assert np.abs(p - params[k]).max() <= 1e-9 * largest, k
    for i in (1, 2) if batchnorm else ():
        layer = net.layers[f"BatchNorm{i}"]
        assert np.allclose(layer.running_mean, running[i - 1][0], rtol=1e-9, atol=1e-9)
        assert np.allclose(layer.running_var, running[i - 1][1], rtol=1e-9)


@pytest.mark.parametrize("activation", pynn.ACTIVATIONS)
def test_one_crossing_is_the_layers(activation, dtype, every_setting, rng):
    """gradient() has the bits of layer by layer, and so has the loss."""
    x, t = rng.standard_normal((75, 4, 10)).astype(dtype), rng.integers(0, 7, 75)
    for decay in (0.0, 0.03):
        std = 0.05 if activation == "exponential" else "relu"  # which grows like exp(exp(x))
        net = MultiLayerNet(
            40, [31, 64], 7, activation, std, weight_decay_lambda=decay, rng=2, dtype=dtype
        )
        known = None
        for setting in every_setting():
            got = net.gradient(x, t)
            loss, y = net.last_layer.loss, net.last_layer.y
            if known is None:
                known, net._keys = got, None
                want = net.gradient(x, t)
                assert loss == net.last_layer.loss
                oracles.assert_same_bits(y, net.last_layer.y)
                net._keys = tuple(net.params)
                for k in want:
                    oracles.assert_same_bits(got[k], want[k], k)
            for k, g in got.items():
                oracles.assert_same_bits(g, known[k], f"{setting}: {k}")
        assert loss == pytest.approx(net.loss(x, t), rel=1e-6) or decay


def test_unusual_parameters_go_layer_by_layer(rng):
    """Of another order, type or class: the same gradients."""
    x, t = rng.standard_normal((9, 12)).astype(np.float32), rng.integers(0, 5, 9)
    net = MultiLayerNet(*SIZES, rng=1)
    want = net.gradient(x, t)
    for change in (np.asfortranarray, lambda a: np.repeat(a, 2, axis=0)[::2], list):
        other = MultiLayerNet(*SIZES, rng=1)
        for k, p in other.params.items():
            if k in ("W2", "b1"):
                other.params[k] = change(p)
        got = other.gradient(x, t)
        for k in want:
            assert np.allclose(got[k], want[k], rtol=1e-5, atol=1e-7), k
    for given in (x.astype(float), x.tolist(), np.asfortranarray(x)):
        got = net.gradient(given, t.tolist())
        for k in want:
            oracles.assert_same_bits(got[k], want[k])
    got = net.gradient(x, np.eye(5)[t])
    for k in want:
        oracles.assert_same_bits(got[k], want[k])


def test_gradients_stay(rng):
    """What was returned is not written to by later calls."""
    net = MultiLayerNet(60, [300, 200], 5, rng=1)
    x, t = rng.standard_normal((100, 60)).astype(np.float32), rng.integers(0, 5, 100)
    first, y = net.gradient(x, t), net.last_layer.y
    kept = {k: g.copy() for k, g in first.items()}, y.copy()
    for _ in range(3):
        net.gradient(x + 1, t)
        net.predict(x)
    for k, g in first.items():
        oracles.assert_same_bits(g, kept[0][k])
    oracles.assert_same_bits(y, kept[1])


def sequential(dtype=np.float32):
    make = pynn.initializers
    array = lambda *shape: np.zeros(shape, dtype)  # noqa: E731
    return Sequential(
        {
            "first": layers.Affine(make.he_normal((12, 20), rng=1, dtype=dtype), array(20)),
            "batch": layers.BatchNormalization(array(20) + 1, array(20)),
            "gelu": layers.Gelu(),
            "drop": layers.Dropout(0.2, rng=3),
            "second": layers.Affine(
                make.he_normal((20, 16), rng=2, dtype=dtype), activation="mish"
            ),
            "layer": layers.LayerNormalization(array(16) + 1, array(16)),
            "rms": layers.RMSNormalization(array(16) + 1),
            "third": layers.Affine(make.he_normal((16, 5), rng=4, dtype=dtype), array(5)),
        },
        weight_decay_lambda=0.01,
    )


@pytest.mark.parametrize("last", [layers.SigmoidWithLoss, layers.IdentityWithLoss, None])
@pytest.mark.parametrize("backend", ["pynn", "numpy"])
def test_sequential_gradient(backend, last, rng):
    """Every parameter against central differences."""
    pynn.use_backend(backend)
    net = sequential(np.float64)
    net.last_layer = last() if last else net.last_layer
    x = rng.standard_normal((7, 12))
    t = rng.random((7, 5)) if last else rng.integers(0, 5, 7)
    got, drop = net.gradient(x, t), net.layers["drop"]
    assert list(got) == list(net.params)

    def loss():
        drop.drawn = 0
        return net.loss(x, t, train_flg=True)

    for name, param in net.params.items():
        for index in list(np.ndindex(param.shape))[:: max(1, param.size // 12)]:
            value, estimates = param[index], []
            for h in (2e-4, 1e-4):
                param[index] = value + h
                above = loss()
                param[index] = value - h
                estimates.append((above - loss()) / (2 * h))
            param[index] = value
            slope = (4 * estimates[1] - estimates[0]) / 3
            assert abs(got[name][index] - slope) < 1e-7 * max(1, np.abs(got[name]).max()), name


def test_numerical_gradient(rng):
    """With batch normalization and dropout, of what gradient() will drop."""
    net = MultiLayerNet(
        4, [5, 3], 3, "tanh", use_batchnorm=True, use_dropout=True, dropout_ratio=0.2, rng=1
    )
    x, t = rng.standard_normal((6, 4)), rng.integers(0, 3, 6)
    slow, before = net.numerical_gradient(x, t), net.state_dict()
    assert all(np.array_equal(a, before[k]) for k, a in net.state_dict().items())
    for k, g in net.gradient(x, t).items():
        assert np.allclose(g, slow[k], atol=1e-4), k


TRAINED = """
import hashlib, sys, numpy as np, pynn
from pynn.networks import MultiLayerNet
rng = np.random.default_rng(8)
x, t = rng.standard_normal((120, 40)), rng.integers(0, 6, 120)
def train(dtype, name, bn, drop):
    net = MultiLayerNet(40, [70, 50], 6, "gelu" if bn else "relu", weight_decay_lambda=0.01,
                        use_batchnorm=bn, use_dropout=drop, rng=5, dtype=dtype)
    optimizer = getattr(pynn.optimizers, name)(weight_decay=0.01, clip_norm=0.9, clip_value=0.2)
    for i in range(6):
        rows = slice(20 * i, 20 * i + 20)
        optimizer.update(net.params, net.gradient(x[rows], t[rows]))
        yield np.array(net.last_layer.loss)
    yield from net.state_dict().values()
    yield from optimizer.state_dict().values()
def digest():
    whole = hashlib.sha256()
    for dtype in (np.float32, np.float64):
        for name in ("SGD", "Momentum", "Nesterov", "AdaGrad", "RMSprop", "Adam", "AdamW"):
            for bn, drop in ((False, False), (True, True)):
                for a in train(dtype, name, bn, drop):
                    assert np.isfinite(a).all()
                    whole.update(a.tobytes())
    return whole.hexdigest()
"""


def test_sha256_of_all_parameters(every_setting):
    """One digest of weights, states and losses for every instruction set and 1, 2, 5 threads."""
    space = {}
    exec(TRAINED, space)
    digests = {setting: space["digest"]() for setting in every_setting()}
    assert len(set(digests.values())) == 1, digests


def test_sha256_on_a_lesser_cpu(python):
    """Nor does it depend on what NumPy, whose part is single operations, makes use of."""
    from numpy._core import _multiarray_umath as umath

    names = [name for name in umath.__cpu_dispatch__ if umath.__cpu_features__.get(name)]
    if not names:
        pytest.skip("NumPy has no CPU feature to disable here")
    code = TRAINED + "print(digest())"
    assert python(code) == python(code, NPY_DISABLE_CPU_FEATURES=",".join(names))


# ---- Trainer -------------------------------------------------------------------------------------


@pytest.fixture
def digits(rng):
    centres = rng.standard_normal((5, 12))
    t = rng.integers(0, 5, 230)
    x = (centres[t] + 0.7 * rng.standard_normal((230, 12))).astype(np.float32)
    return x[:170], t[:170], x[170:], t[170:]


def network(activation="relu", dtype=np.float32, sizes=SIZES):
    return MultiLayerNet(
        *sizes,
        activation,
        use_batchnorm=True,
        use_dropout=True,
        dropout_ratio=0.1,
        rng=1,
        dtype=dtype,
    )


def test_trainer(digits, capsys):
    trainer = Trainer(network(), *digits, 6, 32, "Adam", {"lr": 0.01}, 100, rng=2)
    trainer.train()
    assert trainer.iter_per_epoch == 6 and trainer.current_iter == 36
    assert trainer.current_epoch == 6 and len(trainer.train_loss_list) == 36
    assert len(trainer.train_acc_list) == len(trainer.test_acc_list) == 6
    assert trainer.train_acc_list[-1] > 0.9 > trainer.train_acc_list[0]
    assert trainer.train_acc_list[-1] == trainer.network.accuracy(digits[0][:100], digits[1][:100])
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 6 and "epoch 6/6" in out and not err
    trainer.train()  # is done already
    assert trainer.current_iter == 36


def test_an_epoch_has_every_sample_once():
    """In an order that the seed alone decides, another in every epoch."""

    class Recorder:
        params, seen = {}, []
        last_layer = layers.SoftmaxWithLoss()

        def gradient(self, x, t):
            assert np.array_equal(x[:, 0], t)
            self.seen.append(t.copy())
            return {}

        def accuracy(self, x, t):
            return 0.5

    orders = []
    for seed in (3, 3, 4):
        recorder = Recorder()
        recorder.seen = []
        samples = np.arange(23)
        Trainer(
            recorder, np.stack([samples] * 2, 1), samples, None, None, 2, 5, verbose=False, rng=seed
        ).train()
        assert [len(b) for b in recorder.seen] == [5, 5, 5, 5, 3] * 2
        epochs = np.concatenate(recorder.seen).reshape(2, 23)
        assert all(sorted(epoch) == list(samples) for epoch in epochs)
        assert not np.array_equal(*epochs)
        orders.append(epochs)
    assert np.array_equal(orders[0], orders[1]) and not np.array_equal(orders[0], orders[2])


def test_callbacks_and_patience(digits):
    calls = []

    def callback(trainer):
        calls.append(trainer.current_epoch)
        return trainer.current_epoch == 3

    trainer = Trainer(network(), *digits, verbose=False, callbacks=[callback, callback])
    trainer.train()
    assert calls == [1, 1, 2, 2, 3, 3] and trainer.current_epoch == 3
    still = Trainer(network(), *digits, optimizer_param={"lr": 0.0}, verbose=False, patience=2)
    still.network.layers["BatchNorm1"].momentum = still.network.layers["BatchNorm2"].momentum = 1.0
    still.train()
    assert still.current_epoch == 3


RESUMED = """
import sys
import numpy as np
sys.path.insert(0, {tests!r})
from test_training import network, sequential
from pynn import optimizers
from pynn.networks import Trainer
digits = [np.load({folder!r} + f"/{{i}}.npy") for i in range(4)]
net = {make}()
trainer = Trainer(net, *digits, 7, 32, optimizers.{optimizer}(), verbose=False, rng=99)
trainer.load({folder!r} + "/checkpoint")
trainer.train()
import hashlib
state = {{**net.state_dict(), **trainer.optimizer.state_dict()}}
print(hashlib.sha256(b"".join(state[k].tobytes() for k in sorted(state))).hexdigest())
print(trainer.train_loss_list, trainer.test_acc_list)
"""


@pytest.mark.parametrize(
    "make, optimizer", [("network", "AdamW"), ("sequential", "Nesterov"), ("network", "RMSprop")]
)
def test_resumed_in_another_process(make, optimizer, digits, tmp_path, python):
    """From the middle of an epoch to the same bits."""
    pytest.importorskip("safetensors")
    for i, a in enumerate(digits):
        np.save(tmp_path / f"{i}.npy", a)
    net = globals()[make]()
    trainer = Trainer(net, *digits, 7, 32, getattr(optimizers, optimizer)(), verbose=False, rng=4)
    trainer.epochs = 3
    trainer.train()
    trainer.epochs = 7
    for _ in range(2):
        trainer.train_step()
    trainer.save(tmp_path / "checkpoint")
    code = RESUMED.format(
        tests=str(pathlib.Path(__file__).parent),
        folder=str(tmp_path),
        make=make,
        optimizer=optimizer,
    )
    sha, lists = python(code, PYNN_NUM_THREADS="5").split("\n")
    trainer.train()
    state = net.state_dict() | trainer.optimizer.state_dict()
    whole = b"".join(state[k].tobytes() for k in sorted(state))
    assert sha == hashlib.sha256(whole).hexdigest()
    assert lists == f"{trainer.train_loss_list} {trainer.test_acc_list}"


def test_checkpoints_after_epochs(digits, tmp_path):
    pytest.importorskip("safetensors")
    path = tmp_path / "checkpoint.safetensors"
    trainer = Trainer(network(), *digits, 2, verbose=False, checkpoint=path)
    trainer.train()
    other = Trainer(network(), *digits, 2, verbose=False)
    other.load(path)
    assert other.current_epoch == 2 and other.key == trainer.key
    for k, a in trainer.network.state_dict().items():
        assert other.network.state_dict()[k].tobytes() == a.tobytes(), k
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_schedule_and_patience_resume(digits, tmp_path):
    """A learning rate that a callback changes, and an end by patience: as without a break."""
    pytest.importorskip("safetensors")
    path = tmp_path / "checkpoint"

    def halve(trainer):
        trainer.optimizer.lr *= 0.5

    def made(epochs, **more):
        given = dict(optimizer_param={"lr": 0.1}, verbose=False, rng=0, callbacks=[halve])
        return Trainer(network(), *digits, epochs, 32, "Momentum", **given, **more)

    straight, first, second = made(4), made(2, checkpoint=path), made(4)
    straight.train()
    first.train()
    second.load(path)
    assert second.optimizer.lr == 0.025
    second.train()
    assert state_of(second) == state_of(straight)

    patient = Trainer(network(), *digits, 50, 32, optimizer_param={"lr": 1e-30}, verbose=False)
    patient.patience, patient.checkpoint = 2, path
    patient.train()
    done = patient.current_epoch
    assert done < 50
    patient.load(path)
    patient.train()
    assert patient.current_epoch == done


def test_what_a_trainer_keeps(digits):
    """Samples and batch size stay; so does the network's activation."""
    trainer = Trainer(network(), *digits, verbose=False)
    for name in ("x_train", "t_train", "batch_size"):
        with pytest.raises(AttributeError, match=name):
            setattr(trainer, name, getattr(trainer, name)[:10] if name != "batch_size" else 5)
    with pytest.raises(AttributeError, match="activation"):
        trainer.network.activation = "tanh"


def test_other_loss_or_scores(rng):
    """A network with another last layer, or whose predict is another, goes layer by layer."""

    class Half(layers.SoftmaxWithLoss):
        def forward(self, x, t):
            return super().forward(x, t) / 2

        def backward(self, dout=1.0):
            return super().backward(dout) / 2

    class Doubled(MultiLayerNet):
        def predict(self, x, train_flg=False):
            return 2 * super().predict(x, train_flg)

    x, t = rng.standard_normal((6, 12)), rng.integers(0, 5, 6)
    net = MultiLayerNet(*SIZES, "tanh", dtype=np.float64, rng=0)
    whole = net.gradient(x, t)
    net.last_layer = Half()
    for name, half in net.gradient(x, t).items():
        np.testing.assert_allclose(2 * half, whole[name], 1e-14, 1e-17)
    net = Doubled(12, [4], 5, "tanh", dtype=np.float64, rng=0)
    net.gradient(x, t)
    assert net.last_layer.loss == net.loss(x, t)


def test_an_import_error_under_the_bar(digits, monkeypatch):
    """What a callback raises comes out as it is, with a bar too."""
    console = pytest.importorskip("rich.console").Console
    monkeypatch.setattr(console, "is_terminal", True)

    def fails(trainer):
        raise ImportError("of the callback")

    with pytest.raises(ImportError, match="of the callback"):
        Trainer(network(), *digits, 1, callbacks=[fails]).train()


def test_interrupted(digits):
    """Ctrl-C within a batch, an evaluation or a callback: nothing is counted that was not done."""
    whole = Trainer(network(), *digits, 3, verbose=False, rng=2)
    whole.train()
    for method in ("accuracy", "gradient", "callback"):
        trainer, calls = Trainer(network(), *digits, 3, verbose=False, rng=2), []
        before = getattr(trainer.network, method, None)

        def interrupt(*arguments, do=before, calls=calls):
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return do and do(*arguments)

        if method == "callback":
            trainer.callbacks.append(interrupt)
        else:
            setattr(trainer.network, method, interrupt)
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
        trainer.train()
        assert trainer.current_epoch == 3 and trainer.current_iter == whole.current_iter
        assert len(trainer.train_loss_list) == trainer.current_iter
        assert trainer.train_loss_list == whole.train_loss_list
        assert trainer.test_acc_list == whole.test_acc_list
        assert trainer.train_acc_list == whole.train_acc_list


def state_of(trainer):
    state = {f"network.{k}": a for k, a in trainer.network.state_dict().items()}
    state |= {f"optimizer.{k}": a for k, a in trainer.optimizer.state_dict().items()}
    state |= {"key": np.array(trainer.key), "iter": np.array(trainer.current_iter)}
    return {k: (a.dtype, a.tobytes()) for k, a in state.items()}


def test_files_that_are_no_checkpoint(digits, tmp_path):
    """A clear error, and the trainer is as it was."""
    numpy = pytest.importorskip("safetensors.numpy")
    path, bad = tmp_path / "good", tmp_path / "bad"
    made = Trainer(network(), *digits, 1, 32, "Adam", verbose=False, checkpoint=path)
    made.train()
    good, cases = path.read_bytes(), {}
    for size in (0, 7, 8, 100, len(good) // 2, len(good) - 1):
        cases[f"first {size} bytes"] = good[:size]
    cases["noise"] = b"\xff" * 1000
    cases["no text"] = numpy.save({"network.W1": np.ones(2)})
    for text in ("{", "[]", "{}", '{"key": 1}'):
        cases[text] = numpy.save({"network.W1": np.ones(2)}, {"pynn.trainer": text})
    cases["other arrays"] = good.replace(b'"network.', b'"netwurk.')
    trainer = Trainer(network(), *digits, 1, 32, "Adam", verbose=False)
    before = state_of(trainer)
    for case, content in cases.items():
        bad.write_bytes(content)
        with pytest.raises(ValueError, match=r"path must be .* got .*bad"):
            trainer.load(bad)
        assert state_of(trainer) == before, case
    with pytest.raises(FileNotFoundError, match="none"):
        trainer.load(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        trainer.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="none"):
        trainer.save(tmp_path / "none" / "checkpoint")
    x, t = digits[:2]
    moments, decaying = network(), network()
    moments.layers["BatchNorm1"].momentum, decaying.weight_decay_lambda = 0.5, 0.5
    others = {
        "layer": Trainer(MultiLayerNet(12, [4], 5), x, t, None, None, 1, 32, "Adam"),
        r"W1.*\(12, 4\); got \(12, 17\)": Trainer(
            network(sizes=(12, [4, 9], 5)), x, t, None, None, 1, 32, "Adam"
        ),
        "Relu": Trainer(network(activation="tanh"), x, t, None, None, 1, 32, "Adam"),
        "W1 of float64; got float32": Trainer(
            network(dtype=np.float64), x, t, None, None, 1, 32, "Adam"
        ),
        "optimizer SGD; got Adam": Trainer(network(), x, t, mini_batch_size=32),
        "momentum 0.5": Trainer(moments, x, t, None, None, 1, 32, "Adam"),
        "weight_decay_lambda 0.5": Trainer(decaying, x, t, None, None, 1, 32, "Adam"),
        "optimizer RMSprop; got Adam": Trainer(network(), x, t, None, None, 1, 32, "RMSprop"),
        "optimizer AdamW; got Adam": Trainer(network(), x, t, None, None, 1, 32, "AdamW"),
        "'mini_batch_size': 31": Trainer(network(), x, t, None, None, 1, 31, "Adam"),
        "'samples': 150": Trainer(network(), x[:150], t[:150], None, None, 1, 32, "Adam"),
    }
    for named, other in others.items():
        before = state_of(other)
        with pytest.raises(ValueError, match=named):
            other.load(path)
        assert state_of(other) == before, named


BAD_CHECKPOINTS = {
    "current_iter": -1,
    "current_epoch": 1.5,
    "current_epoch past current_iter": 9,
    "key": 2**64,
    "train_loss_list": [1.0, "a"],
    "train_acc_list": [[0.5]],
    "test_acc_list": None,
    "test_acc_list too long": [0.5, 0.5],
    "kinds": "Adam",
    "hyperparameters": {"lr": 0.1},
    "hyperparameters of no numbers": dict.fromkeys(optimizers.Adam().hyperparameters, "a"),
    "hyperparameters out of range": dict.fromkeys(optimizers.Adam().hyperparameters, -1.0),
    "batches": None,
    "optimizer.iter": np.array(0.5),
    "optimizer.iter negative": np.array(-1),
    "optimizer.m.W1": np.ones((2, 2), np.float32),
    "optimizer.v.b1": np.ones(17),
    "optimizer.v.b2 missing": None,
    "optimizer.m.W9": np.ones(3, np.float32),
    "optimizer.v.W1 complex": np.ones((12, 17), np.complex64),
    "network.W1": np.ones((12, 17), np.float16),
    "network.BatchNorm1.running_mean": np.ones(17, np.float32),
    "network.Dropout1.drawn": np.array(0.5),
}


@pytest.mark.parametrize("case", BAD_CHECKPOINTS)
def test_bad_checkpoints(case, digits, tmp_path):
    """Whatever is taken over is checked before anything is changed."""
    pytest.importorskip("safetensors")
    path = tmp_path / "checkpoint"
    made = Trainer(network(), *digits, 1, 32, "Adam", verbose=False, checkpoint=path)
    made.train()
    arrays, text = pynn._checkpoint.load(path)
    name, value = case.split()[0], BAD_CHECKPOINTS[case]
    if "." not in name:
        text["pynn.trainer"] = json.dumps(json.loads(text["pynn.trainer"]) | {name: value})
    elif value is None:
        del arrays[name]
    else:
        arrays[name] = value
    pynn._checkpoint.save(path, arrays, text)
    trainer = Trainer(network(), *digits, 1, 32, "Adam", verbose=False)
    before, optimizer = state_of(trainer), repr(trainer.optimizer)
    with pytest.raises(ValueError, match=r"path must be|state.* must|lr must"):
        trainer.load(path)
    assert state_of(trainer) == before and repr(trainer.optimizer) == optimizer


def test_checkpoints_of_other_dtypes(tmp_path):
    """bfloat16 is not NumPy's."""
    pytest.importorskip("safetensors")
    path, header = tmp_path / "net", b'{"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(2))
    for load in (network().load, Trainer(network(), np.ones((5, 12)), np.zeros(5, int)).load):
        with pytest.raises(ValueError, match=r"path must be|state.* must"):
            load(path)


def test_states_are_rounded():
    """To the network's dtype, where that is finite; a network's own arrays can be exchanged."""
    net, wide = network(), network(dtype=np.float64)
    net.load_state_dict(wide.state_dict())
    oracles.assert_same_bits(net.params["W1"], wide.params["W1"].astype(np.float32))
    state = wide.state_dict()
    state["b2"][3] = -1e39
    before = net.state_dict()
    with pytest.raises(ValueError, match=r"state\['b2'\] must be finite in float32"):
        net.load_state_dict({k: 2 * a for k, a in state.items()})
    assert all(np.array_equal(a, before[k]) for k, a in net.state_dict().items())
    state["b2"][3] = -np.inf
    net.load_state_dict(state)
    assert net.params["b2"][3] == -np.inf
    net = network(sizes=(12, [17, 17], 5))
    before = net.state_dict()
    exchanged = before | {"beta1": net.params["gamma1"], "gamma1": net.params["beta1"]}
    net.load_state_dict(exchanged)
    assert (net.params["beta1"] == 1).all() and (net.params["gamma1"] == 0).all()


@pytest.mark.parametrize("backend", ["pynn", "numpy"])
@pytest.mark.parametrize("batchnorm", [False, True])
def test_keys_of_params(batchnorm, backend, rng):
    """Those of the network: another or a missing one is named."""
    pynn.use_backend(backend)
    x, t = rng.standard_normal((9, 12)).astype(np.float32), rng.integers(0, 5, 9)
    for change, named in (
        (lambda p: p.update(W9=np.ones(2)), "not known.*'W9'"),
        (lambda p: p.pop("W2"), "missing.*'W2'"),
    ):
        net = MultiLayerNet(*SIZES, use_batchnorm=batchnorm, weight_decay_lambda=0.1, rng=1)
        change(net.params)
        for call in (lambda net=net: net.gradient(x, t), lambda net=net: net.loss(x, t)):
            with pytest.raises(ValueError, match=f"params must have the keys.*{named}"):
                call()


def test_bad_states():
    """Refused by name, and the network is as it was."""
    net = network()
    state = net.state_dict()
    for key, value, error in (
        ("W1", state["W1"].astype(complex), TypeError),
        ("W1", state["W1"].astype(object), TypeError),
        ("W1", state["W1"].astype(str), TypeError),
        ("W1", [[1.0], [2.0, 3.0]], ValueError),
        ("Dropout1.drawn", np.array(-1), ValueError),
        ("Dropout1.key", np.array(1.5), TypeError),
        ("Dropout1.key", np.array("a"), TypeError),
        ("BatchNorm1.running_var", np.ones(3), ValueError),
    ):
        with pytest.raises(error, match=key):
            net.load_state_dict({k: 2 * a for k, a in state.items()} | {key: value})
        for k, a in net.state_dict().items():
            assert np.array_equal(a, state[k]), (key, k)
    for bad in (None, [1]):
        with pytest.raises(TypeError, match="state must be a mapping"):
            net.load_state_dict(bad)
        with pytest.raises(TypeError, match="state must be a mapping"):
            optimizers.Adam().load_state_dict(bad)
    frozen = network()
    frozen.params["b2"].flags.writeable = False
    with pytest.raises(ValueError, match=r"b2 must be writable"):
        frozen.load_state_dict({k: 2 * a for k, a in state.items()})
    assert np.array_equal(frozen.params["W1"], state["W1"])


@pytest.mark.parametrize("make", ["network", "sequential", "plain"])
@pytest.mark.parametrize("copier", [copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))])
def test_copies(make, copier, rng):
    """Copies of a network and its optimizer go their own way, to the same bits."""
    net = MultiLayerNet(*SIZES, rng=1) if make == "plain" else globals()[make]()
    x, t = rng.standard_normal((9, 12)).astype(np.float32), rng.integers(0, 5, 9)
    optimizer = optimizers.Adam()
    optimizer.update(net.params, net.gradient(x, t))
    twin, others = copier((net, optimizer)), {k: p.copy() for k, p in net.params.items()}
    for one, step in ((net, optimizer), twin):
        step.update(one.params, one.gradient(x, t))
    for k, p in net.params.items():
        oracles.assert_same_bits(p, twin[0].params[k])
        assert not np.array_equal(p, others[k]), k


def test_many_threads_one_network(rng):
    """The gradient of a network without batch normalization and dropout keeps nothing between calls."""
    net = MultiLayerNet(*SIZES, rng=1)
    batches = [
        (rng.standard_normal((9, 12)).astype(np.float32), rng.integers(0, 5, 9)) for _ in range(4)
    ]
    want = [net.gradient(*batch) for batch in batches]

    def work(i):
        return [net.gradient(*batches[i]) for _ in range(50)]

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for i, found in enumerate(pool.map(work, range(4))):
            for grads in found:
                for k, g in grads.items():
                    oracles.assert_same_bits(g, want[i][k])


def test_save_and_load(tmp_path, rng):
    pytest.importorskip("safetensors")
    x = rng.standard_normal((5, 12)).astype(np.float32)
    for make in (network, sequential):
        one, path = make(), tmp_path / "net.safetensors"
        t = rng.integers(0, 5, 5)
        optimizers.SGD(0.1).update(one.params, one.gradient(x, t))
        one.save(path)
        other = make()
        held = dict(other.params)
        other.load(path)
        oracles.assert_same_bits(one.predict(x), other.predict(x))
        oracles.assert_same_bits(one.predict(x, train_flg=True), other.predict(x, train_flg=True))
        assert all(other.params[k] is held[k] for k in held)
    wrong = MultiLayerNet(*SIZES, rng=1)
    before = wrong.state_dict()
    with pytest.raises(ValueError, match="state must have the keys"):
        wrong.load(path)
    with pytest.raises(ValueError, match=r"b1.*\(17,\).*\(2,\)"):
        wrong.load_state_dict(before | {"b1": np.ones(2), "W1": 2 * before["W1"]})
    for k, a in wrong.state_dict().items():
        assert np.array_equal(a, before[k])
    one.save(path)
    with pytest.raises(ValueError, match="checkpoint of a Trainer"):
        Trainer(one, x, np.zeros(5, int)).load(path)
    with pytest.raises((FileNotFoundError, OSError)):
        one.load(tmp_path / "none")


def test_without_safetensors(python):
    code = """
import sys; sys.modules["safetensors"] = sys.modules["safetensors.numpy"] = None
import pynn
try: pynn.networks.MultiLayerNet(2, [], 2).save("x")
except ImportError as error: print(error)
import os; print(os.listdir())
"""
    message, files = python(code).split("\n")
    assert "safetensors" in message and "pip install" in message and files == "[]"


BAD_TRAINERS = {
    "x_train": dict(t_train=np.zeros(3)),
    "x_train empty": dict(x_train=np.ones((0, 12)), t_train=np.zeros(0)),
    "t_test": dict(x_test=np.ones((3, 12))),
    "x_test": dict(x_test=np.ones((3, 12)), t_test=np.zeros(2)),
    "epochs": dict(epochs=-1),
    "mini_batch_size": dict(mini_batch_size=0),
    "optimizer": dict(optimizer="Adamax"),
    "optimizer none": dict(optimizer=3),
    "optimizer class": dict(optimizer=optimizers.SGD),
    "optimizer_param": dict(optimizer=optimizers.SGD(), optimizer_param={"lr": 1}),
    "optimizer_param none": dict(optimizer_param=3),
    "network": dict(network=None),
    "network of a layer": dict(network=layers.Relu()),
    "checkpoint": dict(checkpoint=3),
    "callbacks none": dict(callbacks=3),
    "lr": dict(optimizer_param={"lr": -1}),
    "evaluate_sample_num_per_epoch": dict(evaluate_sample_num_per_epoch=0),
    "callbacks": dict(callbacks=[3]),
    "patience": dict(patience=0),
    "rng": dict(rng="seed"),
    "network must classify": dict(
        network=Sequential([layers.Relu()], last_layer=layers.IdentityWithLoss())
    ),
    "optimizer must have state_dict": dict(
        optimizer=types.SimpleNamespace(update=lambda params, grads: None), checkpoint="a"
    ),
}


@pytest.mark.parametrize("case", BAD_TRAINERS)
def test_bad_trainers(case):
    arguments = dict(network=network(), x_train=np.ones((5, 12)), t_train=np.zeros(5, int))
    match = case if "must" in case else case.split()[0]
    with pytest.raises((TypeError, ValueError), match=match):
        Trainer(**(arguments | BAD_TRAINERS[case]))


def test_bad_networks():
    for arguments, named in (
        (dict(dropout_ratio=1.0, use_dropout=True), "dropout_ratio"),
        (dict(dropout_ratio=-1), "dropout_ratio"),
    ):
        with pytest.raises(ValueError, match=named):
            MultiLayerNet(*SIZES, **arguments)
    for net in (network(), sequential()):
        for bad, error in ((-1, ValueError), (math.nan, ValueError), ("a", TypeError)):
            with pytest.raises(error, match="weight_decay_lambda must be"):
                net.weight_decay_lambda = bad
    for bad in ([], {}, 3, [layers.Relu(), 3]):
        with pytest.raises((TypeError, ValueError), match="layers"):
            Sequential(bad)
    with pytest.raises(TypeError, match="last_layer"):
        Sequential([layers.Relu()], last_layer=3)
    relu = layers.Relu()  # which keeps the output of its last forward alone
    with pytest.raises(ValueError, match="twice"):
        Sequential([layers.Affine(np.eye(3)), relu, layers.Affine(np.eye(3)), relu])


def test_example_of_layers_by_hand(run):
    """examples/digits.py learns its digits, to what docs/porting.md shows."""
    pytest.importorskip("sklearn")
    examples = pathlib.Path(__file__).parent.parent / "examples"
    page = examples.parent / "docs" / "porting.md"
    if not (examples.exists() and page.exists()):
        pytest.skip("no examples and documentation beside the tests")
    process = run(examples / "digits.py")
    assert process.returncode == 0, process.stderr
    *epochs, seconds = process.stdout.splitlines()
    assert len(epochs) == 6 and seconds.endswith(" s")
    for epoch in epochs:
        assert epoch in page.read_text()


# ---- Memory --------------------------------------------------------------------------------------

FAULTS = """
import gc, resource, sys
import numpy as np, pynn
from pynn.networks import MultiLayerNet
extras = dict(use_batchnorm=True, use_dropout=True) if sys.argv[1:] == ["extras"] else {}
net = MultiLayerNet(784, [700] * 4, 10, rng=0, **extras)
optimizer = pynn.optimizers.Adam()
rng = np.random.default_rng(0)
x, t = rng.standard_normal((256, 784), dtype=np.float32), rng.integers(0, 10, 256)
def step():
    optimizer.update(net.params, net.gradient(x, t))
for _ in range(20): step()
gc.disable()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100): step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
for _ in range(3):
    count = faults()
    if count == 0: break
print(count)
"""


@pytest.mark.parametrize("extras", [[], ["extras"]], ids=["plain", "batchnorm and dropout"])
def test_no_new_memory_in_steady_state(extras, run, tmp_path):
    """No page faults in 100 steps of a network with 7 MB of parameters: one of three such runs, as Python's own heap may
    grow by a page once."""
    pytest.importorskip("resource")
    process = run("-c", FAULTS, *extras, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert int(process.stdout) == 0
