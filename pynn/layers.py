"""Layers with the interface of *Deep Learning from Scratch*: ``forward`` and ``backward``.

There is one class per activation function, named after it: `pynn.ACTIVATIONS` has the functions,
``leaky_relu`` gives `LeakyRelu`. A layer keeps what it is given and never writes into it; change
weights in place between calls as you like, but what went through ``forward`` must be unchanged when
``backward`` comes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, overload

import numpy as np
import numpy.typing as npt

from ._backend import functions
from .activations import ACTIVATIONS, Activation, halves

__all__ = ["ActivationLayer", "Affine", "Glu", "PRelu", "SoftmaxWithLoss"]

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
        self.W: Array = np.asarray(W)
        self.b: Array | None = None if b is None else np.asarray(b)
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
        x = np.asarray(x)
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
        x = np.asarray(x)
        y: Array = getattr(functions(), self.activation.name)(x, **self.parameters)
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
        self.slope: Array = np.asarray(slope)
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
        self._saved = np.asarray(x)
        y: Array = functions().prelu(self._saved, self._operand())
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
        self._saved = np.asarray(x)
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
    where the probability of a class is too small to be written down (the book adds 1e-7 to it).
    PyTorch's CrossEntropyLoss and Keras' CategoricalCrossentropy(from_logits=True) compute the
    same. The loss is NumPy's arithmetic, whose last bit may differ from CPU to CPU; the gradient
    has the same bits everywhere.

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
        x = np.asarray(x)
        labels = to_labels(t, x.shape)
        if labels.size == 0:
            raise ValueError(f"x must have rows to have a mean loss; got shape {x.shape}")
        y: Array = functions().softmax(x)
        # -log(softmax(x)[t]) = max(x) - x[t] - log(max(softmax(x))), where nothing underflows
        rows = x.astype(np.float64).reshape(labels.size, -1)
        chosen = rows[np.arange(labels.size), labels.ravel()]
        with np.errstate(all="ignore"):
            likeliest = np.log(y.max(axis=-1).ravel(), dtype=np.float64)
            losses = rows.max(axis=1) - chosen - likeliest
        self.y, self.t, self.loss = y, labels, float(losses.mean())
        return self.loss

    def backward(self, dout: float = 1.0) -> Array:
        """Compute the gradient of the scores, (y - one-hot t) / m, times dout."""
        y, t = _after_forward(self, self.y), _after_forward(self, self.t)
        dx = y.copy()
        dx.reshape(t.size, -1)[np.arange(t.size), t.ravel()] -= 1
        dx *= float(dout) / t.size
        return dx


def to_labels(t: npt.ArrayLike, shape: tuple[int, ...]) -> Array:
    """Return the labels, given as such or one-hot, that go with scores of a shape."""
    t = np.asarray(t)
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


def _gradient(dout: npt.ArrayLike, shape: tuple[int, ...]) -> Array:
    dout = np.asarray(dout)
    if dout.shape != shape:
        raise ValueError(f"dout must have the shape of the output, {shape}; got {dout.shape}")
    return dout
