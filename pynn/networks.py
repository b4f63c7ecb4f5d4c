"""Networks with the interface of *Deep Learning from Scratch*."""

from __future__ import annotations

import copy
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from . import initializers
from ._backend import get_backend
from ._checkpoint import load, save
from ._checks import Checked, float_dtype, integer, number, real_array, unmasked_array
from ._core import network_gradient
from .activations import ACTIVATIONS
from .layers import (
    Affine,
    BatchNormalization,
    Dropout,
    SoftmaxWithLoss,
    activation_layer,
    to_labels,
)
from .random import RNG, key
from .trainer import Trainer

__all__ = ["MultiLayerNet", "Sequential", "Trainer"]

Array = npt.NDArray[Any]
Layer = Any  # what has forward and backward

_VARIANCES = {"xavier": 1.0, "sigmoid": 1.0, "he": 2.0, "relu": 2.0}  # times 1 / fan_in


class MultiLayerNet:
    """Fully connected network for classification, with softmax and loss at its end.

    Parameters
    ----------
    input_size : int
        Number of features.
    hidden_size_list : sequence of int
        Number of units of each hidden layer.
    output_size : int
        Number of classes.
    activation : str, default "relu"
        Of the hidden layers: one of `pynn.ACTIVATIONS`, in upper or lower case.
    weight_init_std : float or str, default "relu"
        How the weights start. A number is the standard deviation of a normal distribution; "xavier"
        or "sigmoid" stands for 1 / sqrt(fan_in), "he" or "relu" for sqrt(2 / fan_in), "equal" sets
        every weight of a layer to 1 / fan_in, which shows why weights must not start equal. Upper
        or lower case. Biases start at 0.
    weight_decay_lambda : float, default 0.0
        Strength of weight decay: ``lambda / 2 * sum(W**2)`` over all weights is added to the loss.
    use_dropout : bool, default False
        Whether a `Dropout` follows every activation.
    dropout_ratio : float, default 0.5
        Its share of elements.
    use_batchnorm : bool, default False
        Whether a `BatchNormalization` stands before every activation.
    rng : None, int, sequence of ints, SeedSequence or Generator
        Seed, or generator to take one from: see `pynn.random.key`.
    dtype : dtype, default float32
        Of the parameters and of all computing: float32 or float64.

    Attributes
    ----------
    params : dict of str to ndarray
        W1 (in, out), b1 (out,), W2, ..., and with batch normalization gamma1, beta1, ... Change the
        arrays in place, or put others here: the next call uses them. Their keys stay.
    layers : dict of str to layer
        Affine1, BatchNorm1, Activation_function1, Dropout1, Affine2, ...; an activation that needs
        no layer of its own is computed within Affine1. Not to be changed.
    last_layer : SoftmaxWithLoss
        Softmax and loss.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; the message names it.

    Notes
    -----
    The book's classes MultiLayerNet and MultiLayerNetExtend (chapter 6). New here: "equal", any
    activation, seeds, and float32. The book's dropout_ration is dropout_ratio.

    `gradient` of a network without batch normalization and dropout is one call of the kernels,
    which gives the same bits as the layers one by one. Arrays that are returned are new ones, so
    they stay as they are; those given up are used again, so that training takes no new memory.

    Examples
    --------
    >>> import numpy as np, pynn
    >>> net = pynn.networks.MultiLayerNet(4, [8, 8], 3, rng=0)
    >>> optimizer = pynn.optimizers.SGD(lr=0.1)
    >>> x, t = np.eye(4, dtype=np.float32), np.array([0, 1, 2, 0])
    >>> before = net.loss(x, t)
    >>> for _ in range(20):
    ...     optimizer.update(net.params, net.gradient(x, t))
    >>> bool(net.loss(x, t) < before)
    True
    """

    _weight_decay_lambda: float
    weight_decay_lambda = Checked(partial(number, least=0))

    def __init__(
        self,
        input_size: int,
        hidden_size_list: Sequence[int],
        output_size: int,
        activation: str = "relu",
        weight_init_std: float | str = "relu",
        weight_decay_lambda: float = 0.0,
        use_dropout: bool = False,
        dropout_ratio: float = 0.5,
        use_batchnorm: bool = False,
        *,
        rng: RNG = None,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        if not np.iterable(hidden_size_list):
            raise TypeError(
                f"hidden_size_list must be a sequence of ints; got {hidden_size_list!r}"
            )
        sizes = [
            integer("input_size", input_size, least=1),
            *(integer("each of hidden_size_list", size, least=1) for size in hidden_size_list),
            integer("output_size", output_size, least=1),
        ]
        if str(activation).lower() not in ACTIVATIONS:
            raise ValueError(
                f"activation must be one of {', '.join(ACTIVATIONS)}; got {activation!r}"
            )
        self._activation = str(activation).lower()
        self.weight_init_std = weight_init_std
        self.weight_decay_lambda = number("weight_decay_lambda", weight_decay_lambda, least=0)
        self.use_dropout, self.use_batchnorm = bool(use_dropout), bool(use_batchnorm)
        self.dropout_ratio = number("dropout_ratio", dropout_ratio, least=0)
        self.dtype = float_dtype("dtype", dtype)
        root = key(rng)
        self.params: dict[str, Array] = {}
        self.layers: dict[str, Layer] = {}
        # The parameters that a layer has: their keys, and the layer's names for them.
        self._held: list[tuple[Layer, list[tuple[str, str]]]] = []
        hidden = len(sizes) - 2
        for i, shape in enumerate(itertools.pairwise(sizes), start=1):
            W = self.params[f"W{i}"] = _weights(shape, weight_init_std, (root, i), self.dtype)
            b = self.params[f"b{i}"] = initializers.zeros(shape[1], dtype=self.dtype)
            fused = self.activation if i <= hidden and not self.use_batchnorm else None
            affine = self.layers[f"Affine{i}"] = Affine(W, b, fused)
            self._held.append((affine, [(f"W{i}", "W"), (f"b{i}", "b")]))
            if i > hidden:
                break
            if self.use_batchnorm:
                gamma = self.params[f"gamma{i}"] = initializers.ones(shape[1], dtype=self.dtype)
                beta = self.params[f"beta{i}"] = initializers.zeros(shape[1], dtype=self.dtype)
                norm = self.layers[f"BatchNorm{i}"] = BatchNormalization(gamma, beta)
                self._held.append((norm, [(f"gamma{i}", "gamma"), (f"beta{i}", "beta")]))
                self.layers[f"Activation_function{i}"] = activation_layer(self.activation)
            if self.use_dropout:
                self.layers[f"Dropout{i}"] = Dropout(self.dropout_ratio, rng=(root, i, 1))
        self.last_layer = SoftmaxWithLoss()
        plain = not (self.use_batchnorm or self.use_dropout)
        self._keys = tuple(self.params) if plain else None
        self._names = frozenset(self.params)
        self._twice = self.dtype == np.float64

    @property
    def activation(self) -> str:
        """The hidden layers' activation."""
        return self._activation

    def predict(self, x: npt.ArrayLike, train_flg: bool = False) -> Array:
        """Compute the scores of the classes, before the softmax.

        Parameters
        ----------
        x : array of shape (input_size,), (m, input_size) or (m, ...)
            Inputs, converted to the network's dtype. With more than two axes, all after the first
            are features.
        train_flg : bool, default False
            Whether batch normalization and dropout work as in training.

        Returns
        -------
        ndarray of shape (output_size,) or (m, output_size)
        """
        self._check_names()
        y = real_array("x", x, self.dtype)
        for layer, names in self._held:
            for name, attribute in names:
                setattr(layer, attribute, self.params[name])
        for layer in self.layers.values():
            if isinstance(layer, BatchNormalization | Dropout):
                y = layer.forward(y, train_flg)
            else:
                y = layer.forward(y)
        return y

    def _check_names(self) -> None:
        if self.params.keys() != self._names:
            missing, strange = self._names - self.params.keys(), self.params.keys() - self._names
            raise ValueError(
                f"params must have the keys of this network; missing {sorted(missing) or 'none'},"
                f" not known {sorted(map(str, strange)) or 'none'}"
            )

    def loss(self, x: npt.ArrayLike, t: npt.ArrayLike, train_flg: bool = False) -> float:
        """Compute the mean cross-entropy loss of a batch, plus the weight decay.

        Parameters
        ----------
        x : array
            Inputs, as in `predict`.
        t : array of shape (m,) or (m, output_size)
            Integer labels or one-hot rows.
        train_flg : bool, default False
            As in `predict`.

        Returns
        -------
        float
        """
        loss = self.last_layer.forward(self.predict(x, train_flg), t)
        if self.weight_decay_lambda:
            weights = [param for name, param in self.params.items() if name.startswith("W")]
            squares = sum(float(np.sum(np.square(W, dtype=np.float64))) for W in weights)
            loss += self.weight_decay_lambda / 2 * squares
        return loss

    def accuracy(self, x: npt.ArrayLike, t: npt.ArrayLike) -> float:
        """Compute the share of inputs whose highest score is the right class's.

        Parameters
        ----------
        x, t : array
            As in `loss`.

        Returns
        -------
        float
            From 0 to 1.
        """
        return accuracy(self.predict(x), t)

    def gradient(self, x: npt.ArrayLike, t: npt.ArrayLike) -> dict[str, Array]:
        """Compute the gradient of the loss in training by every parameter, by backpropagation.

        Parameters
        ----------
        x, t : array
            As in `loss`.

        Returns
        -------
        dict of str to ndarray
            New arrays, under the keys of `params`. The loss, without the decay, is
            ``last_layer.loss``.
        """
        if (
            self._keys is not None
            and type(self.last_layer) is SoftmaxWithLoss
            and type(self).predict is MultiLayerNet.predict
            and get_backend() == "pynn"
        ):
            if len(self.params) != len(self._names):
                self._check_names()
            t = unmasked_array("t", t)
            try:
                done = t.ndim == 1 and network_gradient(
                    self.params,
                    self._keys,
                    x,
                    t,
                    self._activation,
                    self._weight_decay_lambda,
                    self._twice,
                )
            except KeyError:  # one of as many keys is another
                self._check_names()
                raise
            if done:
                grads: dict[str, Array]
                last = self.last_layer
                grads, last.loss, last.y, last.t = done
                return grads
        self._check_names()
        self.last_layer.forward(self.predict(x, train_flg=True), t)
        dout: Array | None = self.last_layer.backward()
        for layer in reversed(self.layers.values()):
            if layer is self.layers["Affine1"]:
                dout = layer.backward(dout, need_dx=False)
            else:
                dout = layer.backward(dout)
        grads = {}
        for layer, names in self._held:
            for name, attribute in names:
                grads[name] = layer.grads[attribute]
        if self.weight_decay_lambda:
            for name in grads:
                if name.startswith("W"):
                    grads[name] = grads[name] + self.weight_decay_lambda * self.params[name]
        return {name: grads[name] for name in self.params}

    def numerical_gradient(self, x: npt.ArrayLike, t: npt.ArrayLike) -> dict[str, Array]:
        """Compute the gradient of the loss in training by central differences, to check `gradient`.

        Parameters
        ----------
        x, t : array
            As in `loss`.

        Returns
        -------
        dict of str to ndarray
            float64 arrays, under the keys of `params`. The differences are taken in float64 with
            steps of 1e-4, whatever the network's dtype, and leave the network as it is. Dropout
            drops what the next call of `gradient` will.
        """
        twin = copy.deepcopy(self)
        twin.dtype = np.dtype(np.float64)
        twin.params = {name: param.astype(np.float64) for name, param in self.params.items()}
        drawn = [
            (layer, layer.drawn) for layer in twin.layers.values() if isinstance(layer, Dropout)
        ]
        x, step = real_array("x", x, self.dtype), 1e-4

        def loss() -> float:
            for layer, start in drawn:
                layer.drawn = start
            return twin.loss(x, t, train_flg=True)

        grads = {name: np.empty_like(param) for name, param in twin.params.items()}
        for name, param in twin.params.items():
            for index in np.ndindex(param.shape):
                value = param[index]
                param[index] = value + step
                above = loss()
                param[index] = value - step
                grads[name][index] = (above - loss()) / (2 * step)
                param[index] = value
        return grads

    def state_dict(self) -> dict[str, Array]:
        """Return copies of all that a checkpoint needs: parameters, running moments, streams.

        Returns
        -------
        dict of str to ndarray
            Under the keys of `params`, and a layer's name, a dot and an attribute.
        """
        state = {name: param.copy() for name, param in self.params.items()}
        return state | _layer_state(self.layers)

    def load_state_dict(self, state: Mapping[str, npt.ArrayLike]) -> None:
        """Take over what `state_dict` returned, of a network of the same shape, in place.

        Parameters
        ----------
        state : mapping of str to array
            It is copied into the arrays of `params`, and rounded to their dtypes.

        Raises
        ------
        TypeError, ValueError
            If keys or shapes differ, there are no real numbers, or one becomes infinite by
            rounding, before anything is changed.
        """
        _load_state(self.params, self.layers, state)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `state_dict` to a file of the package safetensors, which must be installed."""
        save(path, self.state_dict())

    def load(self, path: str | os.PathLike[str]) -> None:
        """Take over what `save` wrote, of a network of the same shape, in place; else a ValueError."""
        self.load_state_dict(load(path)[0])


class Sequential:
    """Layers one after the other, with a loss at the end.

    Parameters
    ----------
    layers : sequence of layers, or mapping of str to layer
        Anything with ``forward(x)`` and ``backward(dout)``; with ``params`` and ``grads`` if it has
        parameters. `Dropout` and `BatchNormalization` get train_flg, too. They are named Layer1,
        Layer2, ... where no names are given.
    last_layer : layer, optional
        With ``forward(x, t)`` that gives the loss, and ``backward()``; `SoftmaxWithLoss` without.
    weight_decay_lambda : float, default 0.0
        As of `MultiLayerNet`; W are the weights.

    Attributes
    ----------
    layers : dict of str to layer
        The layers by name.
    params : dict of str to ndarray
        The parameters of the layers, under the layer's name, a dot and the layer's name for it.
        Change them in place; to have others, put them into the layers.
    last_layer : layer
        The loss.

    Raises
    ------
    TypeError, ValueError
        If there is no layer, or one of them is none, or stands twice: a layer keeps what it needs
        for `backward` of its last `forward` alone.

    Notes
    -----
    The book builds its networks by hand. As Keras' Sequential, but with the sizes given by the
    layers' arrays.

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import initializers, layers, networks
    >>> net = networks.Sequential([
    ...     layers.Affine(initializers.he_normal((4, 8), rng=0), np.zeros(8, np.float32)),
    ...     layers.LayerNormalization(np.ones(8, np.float32), np.zeros(8, np.float32)),
    ...     layers.Gelu(),
    ...     layers.Affine(initializers.he_normal((8, 3), rng=1), np.zeros(3, np.float32)),
    ... ])
    >>> net.predict(np.ones((2, 4), np.float32)).shape
    (2, 3)
    >>> list(net.params)
    ['Layer1.W', 'Layer1.b', 'Layer2.gamma', 'Layer2.beta', 'Layer4.W', 'Layer4.b']
    """

    weight_decay_lambda = Checked(partial(number, least=0))

    def __init__(
        self,
        layers: Sequence[Layer] | Mapping[str, Layer],
        last_layer: Any = None,
        weight_decay_lambda: float = 0.0,
    ) -> None:
        if not isinstance(layers, Mapping):
            if not np.iterable(layers):
                raise TypeError(f"layers must be a sequence or mapping of layers; got {layers!r}")
            layers = {f"Layer{i}": layer for i, layer in enumerate(layers, start=1)}
        self.layers: dict[str, Layer] = dict(layers)
        if not self.layers:
            raise ValueError("layers must have at least one layer; got none")
        self.last_layer = SoftmaxWithLoss() if last_layer is None else last_layer
        for name, layer in [*self.layers.items(), ("last_layer", self.last_layer)]:
            if not (hasattr(layer, "forward") and hasattr(layer, "backward")):
                raise TypeError(
                    f"layers must have forward and backward; got {layer!r} for {name!r}"
                )
        if len({id(layer) for layer in self.layers.values()}) < len(self.layers):
            raise ValueError("layers must differ; got one that stands twice")
        self.weight_decay_lambda = number("weight_decay_lambda", weight_decay_lambda, least=0)

    @property
    def params(self) -> dict[str, Array]:
        """The parameters of all layers, by the layer's name, a dot and its name for them."""
        return {
            f"{text}.{name}": param
            for text, layer in self.layers.items()
            for name, param in getattr(layer, "params", {}).items()
        }

    def predict(self, x: npt.ArrayLike, train_flg: bool = False) -> Array:
        """Send x through all layers but the last; train_flg as in `MultiLayerNet.predict`."""
        y: Any = x
        for layer in self.layers.values():
            if isinstance(layer, BatchNormalization | Dropout):
                y = layer.forward(y, train_flg)
            else:
                y = layer.forward(y)
        return np.asarray(y)

    def loss(self, x: npt.ArrayLike, t: npt.ArrayLike, train_flg: bool = False) -> float:
        """Compute the last layer's loss of a batch, plus the weight decay."""
        loss = float(self.last_layer.forward(self.predict(x, train_flg), t))
        if self.weight_decay_lambda:
            weights = [param for name, param in self.params.items() if name.endswith(".W")]
            squares = sum(float(np.sum(np.square(W, dtype=np.float64))) for W in weights)
            loss += self.weight_decay_lambda / 2 * squares
        return loss

    def accuracy(self, x: npt.ArrayLike, t: npt.ArrayLike) -> float:
        """Compute the share of inputs whose highest score is the right class's, from 0 to 1."""
        return accuracy(self.predict(x), t)

    def gradient(self, x: npt.ArrayLike, t: npt.ArrayLike) -> dict[str, Array]:
        """Compute the gradient of the loss in training by every parameter, under their keys."""
        self.last_layer.forward(self.predict(x, train_flg=True), t)
        dout = self.last_layer.backward()
        first = next(iter(self.layers.values()))
        for layer in reversed(self.layers.values()):
            if layer is first and isinstance(layer, Affine):
                layer.backward(dout, need_dx=False)
            else:
                dout = layer.backward(dout)
        grads = {}
        for text, layer in self.layers.items():
            for name, grad in (layer.grads if getattr(layer, "params", {}) else {}).items():
                if self.weight_decay_lambda and name == "W":
                    grad = grad + self.weight_decay_lambda * layer.params[name]
                grads[f"{text}.{name}"] = grad
        return grads

    def state_dict(self) -> dict[str, Array]:
        """Return copies of all that a checkpoint needs, as `MultiLayerNet.state_dict`."""
        state = {name: param.copy() for name, param in self.params.items()}
        return state | _layer_state(self.layers)

    def load_state_dict(self, state: Mapping[str, npt.ArrayLike]) -> None:
        """Take over what `state_dict` returned, in place, as `MultiLayerNet.load_state_dict`."""
        _load_state(self.params, self.layers, state)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `state_dict` to a file of the package safetensors, which must be installed."""
        save(path, self.state_dict())

    def load(self, path: str | os.PathLike[str]) -> None:
        """Take over what `save` wrote, of a network of the same shape, in place; else a ValueError."""
        self.load_state_dict(load(path)[0])


def accuracy(y: Array, t: npt.ArrayLike) -> float:
    """Return the share of rows of scores whose highest is that of the right class."""
    labels = to_labels(t, y.shape)
    if labels.size == 0:
        raise ValueError("x must have at least one row to have an accuracy; got none")
    return float(np.mean(y.argmax(axis=-1) == labels))


# What a checkpoint has of layers beside parameters
_LAYER_STATE = {BatchNormalization: ("running_mean", "running_var"), Dropout: ("key", "drawn")}


def _state_of(layers: Mapping[str, Layer]) -> Iterator[tuple[str, Layer, str]]:
    for text, layer in layers.items():
        for kind, attributes in _LAYER_STATE.items():
            if isinstance(layer, kind):
                yield from ((f"{text}.{name}", layer, name) for name in attributes)


def _layer_state(layers: Mapping[str, Layer]) -> dict[str, Array]:
    return {
        text: np.array(value, np.uint64 if isinstance(value, int) else None)
        for text, layer, name in _state_of(layers)
        for value in [getattr(layer, name)]
    }


def _load_state(
    params: Mapping[str, Array], layers: Mapping[str, Layer], state: Mapping[str, npt.ArrayLike]
) -> None:
    others = {text: (layer, name) for text, layer, name in _state_of(layers)}
    wanted: dict[str, Any] = dict(params)
    wanted |= {text: getattr(layer, name) for text, (layer, name) in others.items()}
    if not isinstance(state, Mapping):
        raise TypeError(f"state must be a mapping of arrays; got {type(state).__name__}")
    if wanted.keys() != state.keys():
        missing, strange = wanted.keys() - state.keys(), state.keys() - wanted.keys()
        raise ValueError(
            "state must have the keys of this network's state_dict;"
            f" missing {sorted(missing) or 'none'}, not known {sorted(strange) or 'none'}"
        )
    found: dict[str, Any] = {}
    for name, held in wanted.items():
        text, array = f"state[{name!r}]", real_array(f"state[{name!r}]", state[name], None)
        if array.shape != np.shape(held):
            raise ValueError(f"{text} must have shape {np.shape(held)}; got {array.shape}")
        if isinstance(held, int):
            found[name] = integer(text, array.item(), least=0, most=2**64 - 1)
        else:
            with np.errstate(over="ignore"):
                found[name] = np.array(array, held.dtype)  # a copy: it may be another one's memory
            if array.dtype != held.dtype and (np.isinf(found[name]) & np.isfinite(array)).any():
                raise ValueError(f"{text} must be finite in {held.dtype}; got greater numbers")
            if not held.flags.writeable:
                raise ValueError(f"{name} must be writable to be loaded; got a read-only array")
    for name, held in wanted.items():
        if isinstance(held, int):
            layer, attribute = others[name]
            setattr(layer, attribute, found[name])
        else:
            held[...] = found[name]


def _weights(
    shape: tuple[int, int], std: float | str, rng: tuple[int, int], dtype: np.dtype[Any]
) -> Any:
    """Make the first weights of a layer of shape (in, out)."""
    if not isinstance(std, str):
        return initializers.normal(
            shape, 0.0, number("weight_init_std", std, least=0), rng=rng, dtype=dtype
        )
    rule = std.lower()
    if rule == "equal":
        return initializers.constant(shape, 1 / shape[0], dtype=dtype)
    if rule not in _VARIANCES:
        known = ", ".join(map(repr, [*_VARIANCES, "equal"]))
        raise ValueError(f"weight_init_std must be a number or one of {known}; got {std!r}")
    return initializers.variance_scaling(shape, _VARIANCES[rule], rng=rng, dtype=dtype)
