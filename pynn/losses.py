"""Loss functions, as numbers: what the book calls by these names, and others' favourites.

Each takes predictions and targets and returns the mean loss of a row (sum_squared_error: the sum).
The losses that end a network, with their gradients, are layers: `pynn.layers.SoftmaxWithLoss`,
`SigmoidWithLoss`, `IdentityWithLoss`. Values are sums in float64 in a fixed order: the same bits
everywhere. The loss of an element is computed in float32 where all operands are float32 or float16,
else in float64. Integer targets go along with y where they are exact in float32, else y goes along
with them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ._backend import functions
from ._checks import number, numbers, real_array, unmasked_array
from .layers import labels_or_given, to_labels

__all__ = [
    "binary_cross_entropy",
    "cross_entropy_error",
    "huber",
    "mean_squared_error",
    "softmax_cross_entropy",
    "sum_squared_error",
]

Array = npt.NDArray[Any]

_DELTA = 1e-7  # what the book adds to probabilities


def softmax_cross_entropy(x: npt.ArrayLike, t: npt.ArrayLike) -> float:
    """Cross-entropy of the softmax of scores, in one pass.

    Parameters
    ----------
    x : array of shape (classes,) or (m, classes)
        Scores.
    t : array
        Integer labels of the shape of x without its last axis, or one-hot rows of the shape of x.

    Returns
    -------
    float
        The mean loss of a row, in nats.

    Raises
    ------
    TypeError, ValueError
        If t is neither, or a label is no class, or there are no rows.

    Notes
    -----
    The book's softmax_loss, right also where a probability underflows. PyTorch's cross_entropy.

    Examples
    --------
    >>> import numpy as np, pynn
    >>> round(pynn.losses.softmax_cross_entropy(np.zeros((2, 4)), [1, 3]), 4)
    1.3863
    """
    x = unmasked_array("x", x)
    loss: float = functions().softmax_loss(x, labels_or_given(t, x.shape))[0]
    return loss


def cross_entropy_error(y: npt.ArrayLike, t: npt.ArrayLike) -> float:
    """Cross-entropy of probabilities: ``-sum(t * log(y + 1e-7)) / m``.

    Parameters
    ----------
    y : array of shape (classes,) or (m, classes)
        Probabilities.
    t : array
        Integer labels of the shape of y without its last axis, or one-hot rows of the shape of y.

    Returns
    -------
    float
        The mean loss of a row, in nats.

    Raises
    ------
    TypeError, ValueError
        If t is neither, or a label is no class, or there are no rows.

    Notes
    -----
    The book's function (section 4.2.4). `softmax_cross_entropy` takes scores and needs no 1e-7.

    Examples
    --------
    >>> import numpy as np, pynn
    >>> round(pynn.losses.cross_entropy_error(np.array([[0.1, 0.9], [0.5, 0.5]]), [1, 0]), 4)
    0.3993
    """
    y = _operand("y", y)
    if y.ndim < 1 or y.size == 0:
        raise ValueError(f"y must have rows to have a mean loss; got shape {y.shape}")
    labels = to_labels(t, y.shape)
    chosen = y.reshape(labels.size, -1)[np.arange(labels.size), labels.ravel()]
    return _mean("cross_entropy", chosen, np.ones(labels.size, np.int8), _DELTA)


def sum_squared_error(y: npt.ArrayLike, t: npt.ArrayLike) -> float:
    """Half the sum of squared errors: ``0.5 * sum((y - t)**2)``.

    Parameters
    ----------
    y, t : array
        Predictions and targets, of one shape.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the shapes differ.

    Notes
    -----
    The book's function (section 4.2.1), which its first printings call mean_squared_error.

    Examples
    --------
    >>> import numpy as np, pynn
    >>> pynn.losses.sum_squared_error(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    2.0
    """
    return _sum("half_squared_error", *_pair(y, t))


def mean_squared_error(y: npt.ArrayLike, t: npt.ArrayLike) -> float:
    """Mean of squared errors: ``mean((y - t)**2)``.

    Parameters
    ----------
    y, t : array
        Predictions and targets, of one shape.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the shapes differ or there are no elements.

    Notes
    -----
    PyTorch's mse_loss and Keras' mean_squared_error over all axes.

    Examples
    --------
    >>> import numpy as np, pynn
    >>> pynn.losses.mean_squared_error(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    2.0
    """
    return 2 * _mean("half_squared_error", y, t)


def binary_cross_entropy(y: npt.ArrayLike, t: npt.ArrayLike) -> float:
    """Mean of ``-(t * log(y + 1e-7) + (1 - t) * log(1 - y + 1e-7))``.

    Parameters
    ----------
    y : array
        Probabilities.
    t : array of the same shape
        Targets, from 0 to 1.

    Returns
    -------
    float
        The mean over all elements.

    Raises
    ------
    ValueError
        If the shapes differ or there are no elements.

    Notes
    -----
    The 1e-7 is the book's; PyTorch bounds the logarithms by -100, Keras y by 1e-7 and its
    counterpart. `pynn.layers.SigmoidWithLoss` takes scores and needs none.

    Examples
    --------
    >>> import numpy as np, pynn
    >>> round(pynn.losses.binary_cross_entropy(np.array([0.5, 0.5]), np.array([0, 1])), 4)
    0.6931
    """
    return _mean("binary_cross_entropy", y, t, _DELTA)


def huber(y: npt.ArrayLike, t: npt.ArrayLike, delta: float = 1.0) -> float:
    """Mean of Huber's loss: half the squared error up to delta, from there on a line.

    Parameters
    ----------
    y, t : array
        Predictions and targets, of one shape.
    delta : float, default 1.0
        Where the parabola goes over into ``delta * (abs(y - t) - delta / 2)``, > 0 and finite in
        the type of y and t, too.

    Returns
    -------
    float
        The mean over all elements.

    Raises
    ------
    ValueError
        If the shapes differ, there are no elements, or delta is not positive.

    Notes
    -----
    PyTorch's huber_loss and Keras' Huber. Source: Huber (1964), Robust estimation of a location
    parameter.

    Examples
    --------
    >>> import numpy as np, pynn
    >>> pynn.losses.huber(np.array([0.5, 3.0]), np.array([0.0, 0.0]))
    1.3125
    """
    bend = number("delta", delta)
    if bend <= 0:
        raise ValueError(f"delta must be positive; got {delta!r}")
    y, t = _pair(y, t)
    single = np.result_type(y, t) in (np.float16, np.float32)
    if single and np.float32(number("delta", bend, dtype=np.dtype(np.float32))) == 0:
        raise ValueError(f"delta must be positive in float32; got {delta!r}")
    return _mean("huber", y, t, bend)


def _operand(name: str, value: npt.ArrayLike) -> Array:
    return real_array(name, numbers(name, unmasked_array(name, value)), None)


def _pair(y: npt.ArrayLike, t: npt.ArrayLike) -> tuple[Array, Array]:
    """Return predictions and targets, of one shape; whole targets do not make it float64 needlessly."""
    y, t = _operand("y", y), _operand("t", t)
    if y.shape != t.shape:
        raise ValueError(f"y and t must have one shape; got {y.shape} and {t.shape}")
    if t.dtype.kind in "iub" and y.dtype.kind == "f" and y.dtype.itemsize <= 4:
        single = t.astype(np.float32)
        t = single if (single == t.astype(np.float64)).all() else t.astype(np.float64)
    return y, t


def _mean(name: str, y: npt.ArrayLike, t: npt.ArrayLike, parameter: float = 0.0) -> float:
    y, t = _pair(y, t)
    if y.size == 0:
        raise ValueError(f"y must have elements to have a mean loss; got shape {y.shape}")
    return _sum(name, y, t, parameter) / y.size


def _sum(name: str, y: Array, t: Array, parameter: float = 0.0) -> float:
    total: float = functions().loss(name, y, t, parameter)
    return total
