"""Layers with the interface of *Deep Learning from Scratch*: ``forward`` and ``backward``.

There is one class per activation function, named after it: `pynn.ACTIVATIONS` has the functions,
``leaky_relu`` gives `LeakyRelu`. A layer keeps what it is given and never writes into it; change
weights in place between calls as you like, but what went through ``forward`` must be unchanged when
``backward`` comes.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, overload

import numpy as np
import numpy.typing as npt

from ._backend import functions
from ._checks import (
    Checked,
    as_array,
    as_float,
    integer,
    number,
    numbers,
    real_array,
    unmasked_array,
)
from .activations import ACTIVATIONS, Activation, halves
from .random import RNG, key

__all__ = [
    "ActivationLayer",
    "Affine",
    "BatchNormalization",
    "Dropout",
    "Glu",
    "IdentityWithLoss",
    "LayerNormalization",
    "PRelu",
    "RMSNormalization",
    "SigmoidWithLoss",
    "SoftmaxWithLoss",
]

Array = npt.NDArray[Any]
T = TypeVar("T")


class Affine:
    """Fully connected layer: ``y = activation(x @ W + b)``.

    Parameters
    ----------
    W : array of shape (in, out)
        Weights, float32 or float64, C or F order. Kept as they are, not copied.
    b : array of shape (out,), optional
        Biases.
    activation : str, optional
        Name of an activation function to compute in the same pass, one of `pynn.ACTIVATIONS`.

    Attributes
    ----------
    W, b : ndarray
        The weights and biases. Changes in place count at the next call, as do new arrays put here.
    dW, db : ndarray or None
        Their gradients, after `backward`.

    Raises
    ------
    ValueError
        If the shapes do not match or the activation is unknown.

    Notes
    -----
    The book's class (section 5.6), with the bias and the activation optional. PyTorch's Linear
    keeps W transposed; Keras' Dense has the same layout as this.

    Examples
    --------
    >>> import numpy as np, pynn
    >>> layer = pynn.layers.Affine(np.eye(2), np.array([1.0, 2.0]), activation="relu")
    >>> layer.forward([[3.0, -4.0]])
    array([[4., 0.]])
    >>> layer.backward([[1.0, 1.0]])
    array([[1., 0.]])
    >>> layer.db
    array([1., 0.])
    """

    def __init__(
        self, W: npt.ArrayLike, b: npt.ArrayLike | None = None, activation: str | None = None
    ) -> None:
        self.W: Array = numbers("W", W)
        self.b: Array | None = None if b is None else numbers("b", b)
        if self.W.ndim != 2:
            raise ValueError(f"W must have shape (in, out); got {self.W.shape}")
        if self.b is not None and self.b.shape != self.W.shape[1:]:
            raise ValueError(f"b must have shape {self.W.shape[1:]}; got {self.b.shape}")
        if activation is not None and activation not in list(ACTIVATIONS):
            known = ", ".join(ACTIVATIONS)
            raise ValueError(f"activation must be None or one of {known}; got {activation!r}")
        self.activation = activation
        # The fused pass keeps no input for the activation: one whose backward wants it comes apart.
        apart = activation is not None and ACTIVATIONS[activation].saves == "x"
        self._fused = None if apart else activation
        self._apart = activation if apart else None
        self.dW: Array | None = None
        self.db: Array | None = None
        self._saved: tuple[tuple[int, ...], Array, Array] | None = None

    @property
    def params(self) -> dict[str, Array]:
        """The weights and, if any, biases: {"W": W, "b": b}, as optimizers take them."""
        return {"W": self.W} if self.b is None else {"W": self.W, "b": self.b}

    @property
    def grads(self) -> dict[str, Array]:
        """The gradients under the keys of `params`, after `backward`."""
        dW, db = _after_forward(self, self.dW), _after_forward(self, self.db)
        return {"W": dW} if self.b is None else {"W": dW, "b": db}

    def forward(self, x: npt.ArrayLike) -> Array:
        """Compute the layer's output.

        Parameters
        ----------
        x : array of shape (in,), (m, in) or (m, ...)
            Input. With more than two axes, all after the first are taken as one: images need no
            flattening.

        Returns
        -------
        ndarray of shape (out,) or (m, out)
        """
        x = as_array("x", x)
        rows = x.reshape(len(x), math.prod(x.shape[1:])) if x.ndim > 2 else x
        y: Array = functions().affine(rows, self.W, self.b, self._fused)
        self._saved = x.shape, rows, y
        return getattr(functions(), self._apart)(y) if self._apart else y

    @overload
    def backward(self, dout: npt.ArrayLike, need_dx: Literal[True] = True) -> Array: ...
    @overload
    def backward(self, dout: npt.ArrayLike, need_dx: bool) -> Array | None: ...
    def backward(self, dout: npt.ArrayLike, need_dx: bool = True) -> Array | None:
        """Compute the gradients: `dW` and `db` are kept here, that of the input is returned.

        Parameters
        ----------
        dout : array
            Gradient of the loss by the output, of its shape.
        need_dx : bool, default True
            False skips the gradient of the input, which a first layer need not have.

        Returns
        -------
        ndarray of the shape of the input, or None
        """
        shape, rows, y = _after_forward(self, self._saved)
        dout = _gradient(dout, y.shape)
        if self._apart:
            dout = getattr(functions(), f"{self._apart}_backward")(dout, y)
        dx, self.dW, self.db = functions().affine_backward(
            dout, rows, self.W, y, self._fused, need_dx
        )
        return None if dx is None else dx.reshape(shape)


class ActivationLayer:
    """An activation function as a layer; the base of the classes named after them.

    Parameters
    ----------
    *values, **named : float or ndarray
        The function's parameters, if it has any, by position or by name: ``LeakyRelu(slope=0.2)``.
        An array broadcasts against what the layer is given.

    Raises
    ------
    RuntimeError
        If `backward` is called before `forward`.

    Examples
    --------
    >>> import numpy as np, pynn
    >>> layer = pynn.layers.LeakyRelu()
    >>> isinstance(layer, pynn.layers.ActivationLayer)
    True
    >>> layer.forward([-1.0, 1.0])
    array([-0.01,  1.  ])
    >>> layer.backward([10.0, 10.0])
    array([ 0.1, 10. ])
    """

    activation: ClassVar[Activation]

    def __init__(self, *values: npt.ArrayLike, **named: npt.ArrayLike) -> None:
        known = self.activation.parameters
        given = dict(zip(known, values, strict=False)) | named
        if len(values) > len(known) or len(given) < len(values) + len(named) or {*given} - {*known}:
            raise TypeError(
                f"{type(self).__name__} takes the parameters ({', '.join(known)}), each once;"
                f" got {values!r} and {named!r}"
            )
        self.parameters = given
        self._saved: Array | None = None

    def forward(self, x: npt.ArrayLike) -> Array:
        """Compute the activation of each element of x, an array of any shape."""
        x = as_array("x", x)
        y: Array = getattr(functions(), self.activation.name)(x, **self.parameters)
        _same_shape(y, x, ", ".join(self.parameters))
        self._saved = x if self.activation.saves == "x" else y
        return y

    def backward(self, dout: npt.ArrayLike) -> Array:
        """Compute the gradient of the input from dout, that of the output."""
        saved = _after_forward(self, self._saved)
        dout = _gradient(dout, saved.shape)
        backward = getattr(functions(), f"{self.activation.name}_backward")
        dx: Array = backward(dout, saved, **self.parameters)
        return dx


for _activation in ACTIVATIONS.values():
    _name = _activation.name.title().replace("_", "")
    _doc = f"""`pynn.{_activation.name}` as a layer, with ``forward(x)`` and ``backward(dout)``.

    Examples
    --------
    >>> import numpy as np, pynn
    >>> layer, x = pynn.layers.{_name}(), np.array([-1.5, 2.5])
    >>> bool((layer.forward(x) == pynn.{_activation.name}(x)).all())
    True
    >>> layer.backward(np.ones(2)).shape
    (2,)
    """
    globals()[_name] = type(
        _name,
        (ActivationLayer,),
        {"activation": _activation, "__doc__": _doc, "__module__": __name__},
    )
    __all__.append(_name)
del _activation, _name, _doc


def activation_layer(name: str) -> ActivationLayer:
    """Make the layer of an activation function, one of `pynn.ACTIVATIONS`, by its name."""
    made: ActivationLayer = globals()[name.title().replace("_", "")]()
    return made


if TYPE_CHECKING:

    def __getattr__(name: str) -> type[ActivationLayer]: ...  # the classes just made


class PRelu:
    """`pynn.prelu` as a layer: a leaky relu whose slopes are learned.

    Parameters
    ----------
    slope : float or array, default 0.25
        The slopes: one, or as many as broadcast against the layer's input. Kept as they are, if an
        array.

    Attributes
    ----------
    slope : ndarray
        The slopes. Changes in place count at the next call, as does a new array put here.
    dslope : ndarray or None
        Their gradient, of the same shape, after `backward`.

    Notes
    -----
    torch.nn.PReLU starts with 0.25 too, keras.layers.PReLU with 0. Its gradient is summed by NumPy,
    in float64, one axis after the other.

    Examples
    --------
    >>> import numpy as np, pynn
    >>> layer = pynn.layers.PRelu(np.array([0.5, 0.25]))
    >>> layer.forward([[-2.0, -4.0], [3.0, -8.0]])
    array([[-1., -1.],
           [ 3., -2.]])
    >>> layer.backward(np.ones((2, 2)))
    array([[0.5 , 0.25],
           [1.  , 0.25]])
    >>> layer.dslope
    array([ -2., -12.])
    """

    def __init__(self, slope: npt.ArrayLike = 0.25) -> None:
        self.slope: Array = numbers("slope", slope)
        self.dslope: Array | None = None
        self._saved: Array | None = None

    @property
    def params(self) -> dict[str, Array]:
        """The slopes, as optimizers take them: {"slope": slope}."""
        return {"slope": self.slope}

    @property
    def grads(self) -> dict[str, Array]:
        """Their gradient under the same key, after `backward`."""
        return {"slope": _after_forward(self, self.dslope)}

    def forward(self, x: npt.ArrayLike) -> Array:
        """Compute the activation of each element of x."""
        x = as_array("x", x)
        y: Array = functions().prelu(x, self._operand())
        _same_shape(y, x, "slope")
        self._saved = x
        return y

    def backward(self, dout: npt.ArrayLike) -> Array:
        """Compute the gradients: `dslope` is kept here, that of the input is returned."""
        saved = _after_forward(self, self._saved)
        dout = _gradient(dout, saved.shape)
        dx: Array
        dx, each = functions().prelu_backward(dout, saved, self._operand())
        each = np.asarray(each)
        lead = each.ndim - self.slope.ndim
        axes = (
            i for i, n in enumerate(each.shape) if i < lead or self.slope.shape[i - lead] == 1 < n
        )
        with np.errstate(all="ignore"):
            total = each.sum(axis=tuple(axes), dtype=np.float64)
            kind = self.slope.dtype if self.slope.dtype.kind == "f" else each.dtype
            self.dslope = total.reshape(self.slope.shape).astype(kind)
        return dx

    def _operand(self) -> Any:
        """The slopes; a single one as a Python number, which takes the type of the input."""
        return float(self.slope) if self.slope.ndim == 0 else self.slope


class _AlongAxis:
    """A function along an axis as a layer, whose backward takes its output."""

    function: ClassVar[str]

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis
        self._saved: Array | None = None

    def forward(self, x: npt.ArrayLike) -> Array:
        """Compute the function of x, an array of at least one dimension."""
        y: Array = getattr(functions(), self.function)(x, axis=self.axis)
        self._saved = y
        return y

    def backward(self, dout: npt.ArrayLike) -> Array:
        """Compute the gradient of the input from dout, that of the output."""
        saved = _after_forward(self, self._saved)
        backward = getattr(functions(), f"{self.function}_backward")
        dx: Array = backward(_gradient(dout, saved.shape), saved, axis=self.axis)
        return dx


for _function in ("softmax", "softmin", "log_softmax"):
    _name = _function.title().replace("_", "")
    _doc = f"""`pynn.{_function}` as a layer, with ``forward(x)`` and ``backward(dout)``.

    Parameters
    ----------
    axis : int, default -1
        The axis it runs along.

    Examples
    --------
    >>> import numpy as np, pynn
    >>> layer, x = pynn.layers.{_name}(axis=0), np.array([[1.0, 2.0], [3.0, 5.0]])
    >>> bool((layer.forward(x) == pynn.{_function}(x, axis=0)).all())
    True
    >>> layer.backward(np.ones((2, 2))).shape
    (2, 2)
    """
    globals()[_name] = type(
        _name,
        (_AlongAxis,),
        {"function": _function, "__doc__": _doc, "__module__": __name__},
    )
    __all__.append(_name)
del _function, _name, _doc


class Glu:
    """`pynn.glu` as a layer, with ``forward(x)`` and ``backward(dout)``.

    Parameters
    ----------
    axis : int, default -1
        The axis that is halved.

    Examples
    --------
    >>> import numpy as np, pynn
    >>> layer = pynn.layers.Glu()
    >>> layer.forward([[4.0, 8.0, 0.0, 0.0]])
    array([[2., 4.]])
    >>> layer.backward([[1.0, 1.0]])
    array([[0.5, 0.5, 1. , 2. ]])
    """

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis
        self._saved: Array | None = None

    def forward(self, x: npt.ArrayLike) -> Array:
        """Compute glu of x, whose axis is of even length."""
        self._saved = as_array("x", x)
        y: Array = functions().glu_halves(*halves(self._saved, self.axis), axis=self.axis)
        return y

    def backward(self, dout: npt.ArrayLike) -> Array:
        """Compute the gradient of the input from dout, that of the output."""
        a, b = halves(_after_forward(self, self._saved), self.axis)
        parts = functions().glu_halves_backward(_gradient(dout, a.shape), a, b, axis=self.axis)
        return np.concatenate(parts, self.axis)


class SoftmaxWithLoss:
    """Softmax over the last axis and the mean cross-entropy loss, as one last layer.

    Attributes
    ----------
    y : ndarray or None
        The probabilities, after `forward`.
    t : ndarray or None
        The labels, after `forward`.
    loss : float
        The loss, after `forward`; NaN before.

    Notes
    -----
    The book's class (section 5.6), but the loss is taken from the scores, so that it is right also
    where the probability of a class is too small to be written down (the book adds 1e-7 to it), and
    `backward` heeds its argument. PyTorch's CrossEntropyLoss and Keras'
    CategoricalCrossentropy(from_logits=True) compute the same.

    Examples
    --------
    >>> import numpy as np, pynn
    >>> layer = pynn.layers.SoftmaxWithLoss()
    >>> round(layer.forward(np.zeros((2, 4)), [1, 3]), 4)
    1.3863
    >>> layer.backward()
    array([[ 0.125, -0.375,  0.125,  0.125],
           [ 0.125,  0.125,  0.125, -0.375]])
    """

    def __init__(self) -> None:
        self.y: Array | None = None
        self.t: Array | None = None
        self.loss = math.nan

    def forward(self, x: npt.ArrayLike, t: npt.ArrayLike) -> float:
        """Compute the loss.

        Parameters
        ----------
        x : array of shape (classes,) or (m, classes)
            Scores.
        t : array
            The right classes: integer labels of the shape of x without its last axis, or one-hot
            rows of the shape of x.

        Returns
        -------
        float
            The mean loss of a row, in nats.

        Raises
        ------
        TypeError, ValueError
            If t is neither, or a label is no class, or there are no rows.
        """
        x = unmasked_array("x", x)
        t = labels_or_given(t, x.shape)
        self.loss, self.y, self.t = functions().softmax_loss(x, t)
        return self.loss

    def backward(self, dout: float = 1.0) -> Array:
        """Compute the gradient of the scores, (y - one-hot t) / m, times dout."""
        y, t = _after_forward(self, self.y), _after_forward(self, self.t)
        dx: Array = functions().softmax_loss_backward(y, t, as_float("dout", dout) / t.size)
        return dx


class _ElementwiseLoss:
    """A last layer whose loss is a sum over elements, divided by the number of rows."""

    _loss: ClassVar[str]

    def __init__(self) -> None:
        self.y: Array | None = None
        self.t: Array | None = None
        self.loss = math.nan
        self._x: Array | None = None

    def forward(self, x: npt.ArrayLike, t: npt.ArrayLike) -> float:
        """Compute the loss.

        Parameters
        ----------
        x : array of shape (features,) or (m, ...)
            What the network computed.
        t : array of the same shape
            What it should have computed.

        Returns
        -------
        float
            The sum over the features, as a mean over the rows.

        Raises
        ------
        TypeError, ValueError
            If the shapes differ, or there are no rows.
        """
        x, t = unmasked_array("x", x), unmasked_array("t", t)
        if t.shape != x.shape:
            raise ValueError(f"t must have the shape of x, {x.shape}; got {t.shape}")
        if x.size == 0:
            raise ValueError(f"x must have rows to have a mean loss; got shape {x.shape}")
        if t.dtype != x.dtype:  # labels among them; the loss is of the type of x
            t = real_array("t", t, x.dtype if x.dtype in (np.float32, np.float64) else np.float64)
        self.loss = functions().loss(self._loss, x, t) / self._rows(x)
        self._x, self.y, self.t = x, self._output(x), t
        return self.loss

    def _output(self, x: Array) -> Array:
        return x

    def _rows(self, x: Array) -> int:
        return len(x) if x.ndim > 1 else 1

    def backward(self, dout: float = 1.0) -> Array:
        """Compute the gradient of x, times dout."""
        x, t = _after_forward(self, self._x), _after_forward(self, self.t)
        dx: Array = functions().loss_backward(
            self._loss, x, t, as_float("dout", dout) / self._rows(x)
        )
        return dx


class SigmoidWithLoss(_ElementwiseLoss):
    """Sigmoid and binary cross-entropy, as one last layer.

    Attributes
    ----------
    y : ndarray or None
        The probabilities, after `forward`.
    t : ndarray or None
        The targets, from 0 to 1, after `forward`.
    loss : float
        The loss, after `forward`; NaN before.

    Notes
    -----
    The class of the book's second volume (section 4.2), whose x has one axis or one column; with
    several columns their losses are added. It is taken from the scores, so that it is right
    also where a probability is too small to be written down. PyTorch's BCEWithLogitsLoss and Keras'
    BinaryCrossentropy(from_logits=True) take the mean over the columns, too.

    Examples
    --------
    >>> import numpy as np, pynn
    >>> layer = pynn.layers.SigmoidWithLoss()
    >>> round(layer.forward(np.zeros(2), np.array([0, 1])), 4)
    0.6931
    >>> layer.backward()
    array([ 0.25, -0.25])
    """

    _loss = "sigmoid_cross_entropy"

    def _output(self, x: Array) -> Array:
        y: Array = functions().sigmoid(x)
        return y

    def _rows(self, x: Array) -> int:
        return len(x) if x.ndim else 1

    def forward(self, x: npt.ArrayLike, t: npt.ArrayLike) -> float:
        """Compute the loss.

        Parameters
        ----------
        x : array of shape (m,) or (m, ...)
            Scores.
        t : array of the same shape
            Probabilities, mostly 0 and 1, of any real type.

        Returns
        -------
        float
            The sum over the columns, as a mean over the rows.

        Raises
        ------
        TypeError, ValueError
            If the shapes differ, or there are no rows.
        """
        return super().forward(x, t)


class IdentityWithLoss(_ElementwiseLoss):
    """Half the squared error, as a last layer for regression: ``sum((x - t)**2) / 2 / m``.

    Attributes
    ----------
    y : ndarray or None
        x, after `forward`.
    t : ndarray or None
        The targets, after `forward`.
    loss : float
        The loss, after `forward`; NaN before.

    Notes
    -----
    The counterpart of `SoftmaxWithLoss` that the book tells of in section 5.6.3: its gradient is
    (y - t) / m. PyTorch's MSELoss and Keras' MeanSquaredError have no half and take the mean over
    the features, too.

    Examples
    --------
    >>> import numpy as np, pynn
    >>> layer = pynn.layers.IdentityWithLoss()
    >>> layer.forward(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 0.0], [3.0, 4.0]]))
    1.0
    >>> layer.backward()
    array([[0., 1.],
           [0., 0.]])
    """

    _loss = "half_squared_error"


class Dropout:
    """Set a share of the elements to 0 while training.

    Parameters
    ----------
    dropout_ratio : float, default 0.5
        The share, from 0 to below 1; 0 drops none.
    rng : None, int, sequence of ints, SeedSequence or Generator
        Seed of the layer's stream, or generator to take one from: see `pynn.random.key`.
    inverted : bool, default False
        False scales when not training, by 1 - dropout_ratio, as the book does; True scales while
        training, by its inverse.

    Attributes
    ----------
    key : int
        Of the layer's stream: an element stays where its uniform number (`pynn.random.uniform` of
        float32) is not below the ratio, rounded to float32. float64 layers drop the same ones.
    drawn : int
        How many numbers of the stream are used: the next `forward` begins here. Set it to repeat
        or to skip; a checkpoint has it.

    Notes
    -----
    The book's class (section 6.4.3). PyTorch, Keras and JAX scale as with ``inverted=True``. No
    mask is kept: `backward` draws the same numbers again, with the ratio of its `forward`.

    Examples
    --------
    >>> import numpy as np, pynn
    >>> layer = pynn.layers.Dropout(0.5, rng=1)
    >>> y = layer.forward(np.ones(1000))
    >>> bool((y == layer.mask).all()), bool(450 < y.sum() < 550)
    (True, True)
    >>> layer.forward(np.ones(2), train_flg=False)
    array([0.5, 0.5])
    """

    dropout_ratio = Checked(partial(number, least=0, below=1))
    key = Checked(partial(integer, least=0, most=2**64 - 1))
    drawn = Checked(partial(integer, least=0, most=2**64 - 1))

    def __init__(
        self, dropout_ratio: float = 0.5, *, rng: RNG = None, inverted: bool = False
    ) -> None:
        self.dropout_ratio, self.inverted = dropout_ratio, bool(inverted)
        self.key, self.drawn = key(rng), 0
        # The shape of the last x, what dropout takes beside an array, and whether it drops
        self._saved: tuple[tuple[int, ...], tuple[int, int, float, float], bool] | None = None

    def forward(self, x: npt.ArrayLike, train_flg: bool = True) -> Array:
        """Drop elements of x, an array of any shape, or scale it where not training."""
        x = as_array("x", x)
        ratio = self.dropout_ratio
        if train_flg:
            how = self.key, self.drawn, ratio, 1 / (1 - ratio) if self.inverted else 1.0
        else:
            how = 0, 0, 0.0, 1.0 if self.inverted else 1 - ratio  # drops none
        y: Array = functions().dropout(x, *how)
        self._saved = x.shape, how, bool(train_flg)
        if train_flg:
            self.drawn += x.size
        return y

    def backward(self, dout: npt.ArrayLike) -> Array:
        """Compute the gradient of the input from dout, that of the output."""
        shape, how, _ = _after_forward(self, self._saved)
        dx: Array = functions().dropout(_gradient(dout, shape), *how)
        return dx

    @property
    def mask(self) -> Array | None:
        """Which elements the last `forward` left: a new bool array; None where it left all."""
        if self._saved is None or not self._saved[2]:
            return None
        shape, (stream, start, ratio, _), _ = self._saved
        kept: Array = functions().dropout(np.ones(shape, np.float32), stream, start, ratio) != 0
        return kept


def _share(name: str, value: Any) -> float:
    found = number(name, value, least=0)
    if found > 1:
        raise ValueError(f"{name} must be at most 1; got {value!r}")
    return found


class _Normalization:
    """What the normalizations share: gamma, beta and their gradients."""

    eps = Checked(partial(number, least=0))

    def __init__(self, gamma: npt.ArrayLike, beta: npt.ArrayLike | None, eps: float) -> None:
        self.gamma: Array = numbers("gamma", gamma)
        self.beta: Array | None = None if beta is None else numbers("beta", beta)
        if self.gamma.ndim != 1:
            raise ValueError(f"gamma must have shape (features,); got {self.gamma.shape}")
        if self.beta is not None and self.beta.shape != self.gamma.shape:
            raise ValueError(f"beta must have shape {self.gamma.shape}; got {self.beta.shape}")
        self.eps = eps
        self.dgamma: Array | None = None
        self.dbeta: Array | None = None

    @property
    def params(self) -> dict[str, Array]:
        """{"gamma": gamma, "beta": beta}, as optimizers take them, without beta if there is none."""
        return {"gamma": self.gamma} | ({} if self.beta is None else {"beta": self.beta})

    @property
    def grads(self) -> dict[str, Array]:
        """The gradients under the keys of `params`, after `backward`."""
        dgamma, dbeta = _after_forward(self, self.dgamma), _after_forward(self, self.dbeta)
        return {"gamma": dgamma} | ({} if self.beta is None else {"beta": dbeta})


class BatchNormalization(_Normalization):
    """Bring every feature to mean 0 and variance 1 over the batch, then to ``gamma * x + beta``.

    Parameters
    ----------
    gamma, beta : array of shape (features,)
        Scale and shift, kept as they are, not copied.
    momentum : float, default 0.9
        The share of the running mean and variance that a training batch leaves, from 0 to 1.
    running_mean, running_var : array of shape (features,), optional
        Where they start; copied. Without them they start at 0.
    eps : float, default 1e-6
        Added to the variance.

    Attributes
    ----------
    running_mean, running_var : ndarray of float64
        What `forward` takes in place of the batch's moments when not training.
    dgamma, dbeta : ndarray or None
        Gradients, after `backward`.

    Notes
    -----
    The book's class (section 6.3): its ``10e-7`` is 1e-6; the running variance is that of the batch
    divided by m, and starts at 0. PyTorch's momentum is 1 minus this one, its running variance
    starts at 1 and takes m - 1, and its eps is 1e-5; Keras' momentum is 0.99, eps 1e-3. The
    features are the last axis, and with more than two axes all others are the batch; the book
    takes all axes but the first as features there. Moments and sums are float64 inside.

    Examples
    --------
    >>> import numpy as np, pynn
    >>> layer = pynn.layers.BatchNormalization(np.ones(2), np.zeros(2))
    >>> layer.forward(np.array([[1.0, 10.0], [3.0, 30.0]])).round(3)
    array([[-1., -1.],
           [ 1.,  1.]])
    >>> layer.running_mean
    array([0.2, 2. ])
    """

    momentum = Checked(_share)

    def __init__(
        self,
        gamma: npt.ArrayLike,
        beta: npt.ArrayLike,
        momentum: float = 0.9,
        running_mean: npt.ArrayLike | None = None,
        running_var: npt.ArrayLike | None = None,
        *,
        eps: float = 1e-6,
    ) -> None:
        super().__init__(gamma, beta, eps)
        self.momentum = momentum
        start = {"running_mean": running_mean, "running_var": running_var}
        for name, value in start.items():
            array = np.zeros(self.gamma.shape) if value is None else real_array(name, value, float)
            if array.shape != self.gamma.shape:
                raise ValueError(f"{name} must have shape {self.gamma.shape}; got {array.shape}")
            setattr(self, name, array.copy())
        self.running_mean: Array
        self.running_var: Array
        self._saved: tuple[Array, Array, Array, bool] | None = None

    def forward(self, x: npt.ArrayLike, train_flg: bool = True) -> Array:
        """Normalize x.

        Parameters
        ----------
        x : array of shape (m, features) or (..., features)
            Input, at least one row if training.
        train_flg : bool, default True
            Whether to normalize by the batch's mean and variance and add them to the running ones,
            or by those.

        Returns
        -------
        ndarray of the shape of x
        """
        x = as_array("x", x)
        given = (None, None) if train_flg else (self.running_mean, self.running_var)
        y: Array
        y, mean, variance = functions().batch_normalization(
            x, self.gamma, self.beta, *given, self.eps
        )
        if train_flg:
            for running, new in ((self.running_mean, mean), (self.running_var, variance)):
                running *= self.momentum
                running += (1 - self.momentum) * new
        else:  # they may change before backward
            mean, variance = mean.copy(), variance.copy()
        self._saved = x, mean, variance, not train_flg
        return y

    def backward(self, dout: npt.ArrayLike) -> Array:
        """Compute the gradients: `dgamma` and `dbeta` are kept, that of the input is returned."""
        x, mean, variance, fixed = _after_forward(self, self._saved)
        dx: Array
        dx, self.dgamma, self.dbeta = functions().batch_normalization_backward(
            _gradient(dout, x.shape), x, self.gamma, mean, variance, self.eps, fixed
        )
        return dx


class LayerNormalization(_Normalization):
    """Bring every row to mean 0 and variance 1, then to ``gamma * x + beta``.

    Parameters
    ----------
    gamma, beta : array of shape (features,)
        Scale and shift, kept as they are, not copied; beta may be None.
    eps : float, default 1e-5
        Added to the variance.

    Attributes
    ----------
    dgamma, dbeta : ndarray or None
        Gradients, after `backward`.

    Notes
    -----
    PyTorch's LayerNorm over the last axis; Keras' eps is 1e-3. The book has none. Source: Ba, Kiros
    and Hinton (2016), Layer normalization. Moments and sums are float64 inside.

    Examples
    --------
    >>> import numpy as np, pynn
    >>> layer = pynn.layers.LayerNormalization(np.ones(2), np.zeros(2))
    >>> layer.forward(np.array([[1.0, 3.0], [10.0, 30.0]])).round(3)
    array([[-1.,  1.],
           [-1.,  1.]])
    """

    _centered: ClassVar[bool] = True

    def __init__(
        self, gamma: npt.ArrayLike, beta: npt.ArrayLike | None = None, *, eps: float = 1e-5
    ) -> None:
        super().__init__(gamma, beta, eps)
        self._saved: tuple[Array, Array, Array] | None = None

    def forward(self, x: npt.ArrayLike) -> Array:
        """Normalize x, an array of shape (..., features), by its last axis."""
        x = as_array("x", x)
        y: Array
        y, mean, variance = functions().layer_normalization(
            x, self.gamma, self.beta, self.eps, self._centered
        )
        self._saved = x, mean, variance
        return y

    def backward(self, dout: npt.ArrayLike) -> Array:
        """Compute the gradients: `dgamma` and `dbeta` are kept, that of the input is returned."""
        x, mean, variance = _after_forward(self, self._saved)
        dx: Array
        dx, self.dgamma, self.dbeta = functions().layer_normalization_backward(
            _gradient(dout, x.shape), x, self.gamma, mean, variance, self.eps, self._centered
        )
        return dx


class RMSNormalization(LayerNormalization):
    """Divide every row by its root mean square, then take ``gamma * x``.

    Parameters
    ----------
    gamma : array of shape (features,)
        Scale, kept as it is, not copied.
    eps : float, default 1e-5
        Added to the mean square.

    Attributes
    ----------
    dgamma : ndarray or None
        Gradient, after `backward`.

    Notes
    -----
    PyTorch's RMSNorm, whose default eps is the type's machine epsilon. Source: Zhang and Sennrich
    (2019), Root mean square layer normalization. Sums are float64 inside.

    Examples
    --------
    >>> import numpy as np, pynn
    >>> layer = pynn.layers.RMSNormalization(np.ones(2))
    >>> layer.forward(np.array([[1.0, 7.0]])).round(3)
    array([[0.2, 1.4]])
    """

    _centered = False

    def __init__(self, gamma: npt.ArrayLike, *, eps: float = 1e-5) -> None:
        super().__init__(gamma, eps=eps)


def labels_or_given(t: npt.ArrayLike, shape: tuple[int, ...]) -> Array:
    """Return the labels of one-hot rows; anything else as it is, for the kernels to check."""
    t = unmasked_array("t", t)
    return to_labels(t, shape) if t.shape == shape else t


def to_labels(t: npt.ArrayLike, shape: tuple[int, ...]) -> Array:
    """Return the labels, given as such or one-hot, that go with scores of a shape."""
    t = unmasked_array("t", t)
    if not shape or shape[-1] == 0:
        raise ValueError(f"x must have shape (classes,) or (m, classes); got {shape}")
    if t.shape == shape:
        if not ((t == 1).sum(axis=-1) == 1).all() or not ((t == 0) | (t == 1)).all():
            raise ValueError("t must have one 1 in each row, the rest 0, or else be labels")
        return np.asarray(t.argmax(axis=-1))
    if t.shape != shape[:-1]:
        raise ValueError(f"t must have shape {shape[:-1]}, or one-hot {shape}; got {t.shape}")
    if t.dtype.kind not in "iu":
        raise TypeError(f"t must be integer labels or one-hot rows; got labels of dtype {t.dtype}")
    if t.size and (t.min() < 0 or t.max() >= shape[-1]):
        raise ValueError(f"t must be from 0 to {shape[-1] - 1}; got {t.min()} to {t.max()}")
    return t.astype(np.intp)


def _after_forward(layer: object, saved: T | None) -> T:
    if saved is None:
        raise RuntimeError(f"{type(layer).__name__}: forward must come before backward")
    return saved


def _same_shape(y: Array, x: Array, parameters: str) -> None:
    if y.shape != x.shape:
        raise ValueError(f"{parameters} must broadcast to the shape of x, {x.shape}; got {y.shape}")


def _gradient(dout: npt.ArrayLike, shape: tuple[int, ...]) -> Array:
    dout = numbers("dout", dout)
    if dout.shape != shape:
        raise ValueError(f"dout must have the shape of the output, {shape}; got {dout.shape}")
    return dout
