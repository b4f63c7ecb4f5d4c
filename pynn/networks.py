"""Networks with the interface of *Deep Learning from Scratch*."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from . import initializers
from ._checks import float_dtype, integer, number, real_array
from .activations import ACTIVATIONS
from .layers import Affine, SoftmaxWithLoss, to_labels
from .random import RNG, key

__all__ = ["MultiLayerNet"]

Array = npt.NDArray[Any]

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
    rng : None, int, sequence of ints, SeedSequence or Generator
        Seed, or generator to take one from: see `pynn.random.key`.
    dtype : dtype, default float32
        Of the parameters and of all computing: float32 or float64.

    Attributes
    ----------
    params : dict of str to ndarray
        W1 (in, out), b1 (out,), W2, ... Change the arrays in place, or put others here: the next
        call uses them.
    layers : list of Affine
        The layers, the activations within them.
    last_layer : SoftmaxWithLoss
        Softmax and loss.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; the message names it.

    Notes
    -----
    The book's class (chapter 6). New here: "equal", any activation, seeds, and float32.

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

    def __init__(
        self,
        input_size: int,
        hidden_size_list: Sequence[int],
        output_size: int,
        activation: str = "relu",
        weight_init_std: float | str = "relu",
        weight_decay_lambda: float = 0.0,
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
        self.activation = str(activation).lower()
        self.weight_init_std = weight_init_std
        self.weight_decay_lambda = number("weight_decay_lambda", weight_decay_lambda, least=0)
        self.dtype = float_dtype("dtype", dtype)
        root = key(rng)
        self.params: dict[str, Array] = {}
        self.layers: list[Affine] = []
        for i, shape in enumerate(itertools.pairwise(sizes), start=1):
            W = self.params[f"W{i}"] = _weights(shape, weight_init_std, (root, i), self.dtype)
            b = self.params[f"b{i}"] = initializers.zeros(shape[1], dtype=self.dtype)
            self.layers.append(Affine(W, b, self.activation if i < len(sizes) - 1 else None))
        self.last_layer = SoftmaxWithLoss()

    def predict(self, x: npt.ArrayLike) -> Array:
        """Compute the scores of the classes, before the softmax.

        Parameters
        ----------
        x : array of shape (input_size,), (m, input_size) or (m, ...)
            Inputs, converted to the network's dtype. With more than two axes, all after the first
            are features.

        Returns
        -------
        ndarray of shape (output_size,) or (m, output_size)
        """
        y = real_array("x", x, self.dtype)
        for i, layer in enumerate(self.layers, start=1):
            layer.W, layer.b = self.params[f"W{i}"], self.params[f"b{i}"]
            y = layer.forward(y)
        return y

    def loss(self, x: npt.ArrayLike, t: npt.ArrayLike) -> float:
        """Compute the mean cross-entropy loss of a batch, plus the weight decay.

        Parameters
        ----------
        x : array
            Inputs, as in `predict`.
        t : array of shape (m,) or (m, output_size)
            Integer labels or one-hot rows.

        Returns
        -------
        float
        """
        loss = self.last_layer.forward(self.predict(x), t)
        if self.weight_decay_lambda:
            squares = sum(
                float(np.sum(np.square(layer.W, dtype=np.float64))) for layer in self.layers
            )
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
        y = self.predict(x)
        labels = to_labels(t, y.shape)
        if labels.size == 0:
            raise ValueError("x must have at least one row to have an accuracy; got none")
        return float(np.mean(y.argmax(axis=-1) == labels))

    def gradient(self, x: npt.ArrayLike, t: npt.ArrayLike) -> dict[str, Array]:
        """Compute the gradient of `loss` by every parameter, by backpropagation.

        Parameters
        ----------
        x, t : array
            As in `loss`.

        Returns
        -------
        dict of str to ndarray
            New arrays, under the keys of `params`.
        """
        self.last_layer.forward(self.predict(x), t)
        dout: Array | None = self.last_layer.backward()
        grads: dict[str, Array] = {}
        for i, layer in reversed(list(enumerate(self.layers, start=1))):
            assert dout is not None
            dout = layer.backward(dout, need_dx=i > 1)
            dW, db = layer.grads["W"], layer.grads["b"]
            grads[f"W{i}"] = (
                dW + self.weight_decay_lambda * layer.W if self.weight_decay_lambda else dW
            )
            grads[f"b{i}"] = db
        return {name: grads[name] for name in self.params}

    def numerical_gradient(self, x: npt.ArrayLike, t: npt.ArrayLike) -> dict[str, Array]:
        """Compute the gradient of `loss` by central differences: slow, to check `gradient`.

        Parameters
        ----------
        x, t : array
            As in `loss`.

        Returns
        -------
        dict of str to ndarray
            float64 arrays, under the keys of `params`. The differences are taken in float64 with
            steps of 1e-4, whatever the network's dtype, and leave the network as it is.
        """
        twin = copy.copy(self)
        twin.dtype = np.dtype(np.float64)
        twin.params = {name: param.astype(np.float64) for name, param in self.params.items()}
        twin.layers = [copy.copy(layer) for layer in self.layers]
        twin.last_layer = SoftmaxWithLoss()
        x, step = real_array("x", x, self.dtype), 1e-4
        grads = {name: np.empty_like(param) for name, param in twin.params.items()}
        for name, param in twin.params.items():
            for index in np.ndindex(param.shape):
                value = param[index]
                param[index] = value + step
                above = twin.loss(x, t)
                param[index] = value - step
                grads[name][index] = (above - twin.loss(x, t)) / (2 * step)
                param[index] = value
        return grads


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
