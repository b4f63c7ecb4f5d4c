"""Functions under the names of *Deep Learning from Scratch*'s ``common/functions.py``."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ._checks import real_array
from ._core import relu, sigmoid, sigmoid_backward, softmax
from .losses import cross_entropy_error, sum_squared_error
from .losses import softmax_cross_entropy as softmax_loss

__all__ = [
    "cross_entropy_error",
    "identity_function",
    "relu",
    "relu_grad",
    "sigmoid",
    "sigmoid_grad",
    "softmax",
    "softmax_loss",
    "step_function",
    "sum_squared_error",
]


def identity_function(x: Any) -> Any:
    """Return x itself.

    Examples
    --------
    >>> import pynn
    >>> pynn.functions.identity_function(3)
    3
    """
    return x


def step_function(x: npt.ArrayLike) -> npt.NDArray[np.int_]:
    """Return 1 where x is positive and 0 elsewhere, as integers.

    Examples
    --------
    >>> import pynn
    >>> pynn.functions.step_function([-1.0, 0.0, 2.0])
    array([0, 0, 1])
    """
    return np.asarray(real_array("x", x, None) > 0, dtype=int)


def sigmoid_grad(x: npt.ArrayLike) -> Any:
    """Return the slope of the sigmoid at x: ``(1 - sigmoid(x)) * sigmoid(x)``.

    Examples
    --------
    >>> import pynn
    >>> pynn.functions.sigmoid_grad([0.0])
    array([0.25])
    """
    y = sigmoid(x)
    return sigmoid_backward(np.ones_like(y), y)


def relu_grad(x: npt.ArrayLike) -> Any:
    """Return the slope of relu at x: 1 where ``x >= 0`` and 0 elsewhere, of the type of x.

    The book counts the slope at 0 as 1 here; its layer Relu, and `pynn.relu_backward`, as 0.

    Examples
    --------
    >>> import pynn
    >>> pynn.functions.relu_grad([-1.0, 0.0, 2.0])
    array([0., 1., 1.])
    """
    x = real_array("x", x, None)
    return (x >= 0).astype(x.dtype)
