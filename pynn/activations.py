"""The activation functions, by name.

``ACTIVATIONS`` maps a name to its two ufuncs and to what the forward one must save for the backward
one:

>>> from pynn.activations import ACTIVATIONS
>>> f = ACTIVATIONS["relu"]
>>> y = f.forward([-1.0, 2.0])
>>> f.saves, f.backward([1.0, 1.0], y)
('y', array([0., 1.]))
"""

from __future__ import annotations

import contextlib
import inspect
import math
import operator
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import _core

__all__ = ["ACTIVATIONS", "Activation", "glu", "glu_backward"]


class Activation(NamedTuple):
    """An activation function: its two directions, and what forward must save for backward.

    Attributes
    ----------
    name : str
        The function's name; ``name + "_backward"`` is its backward.
    forward : callable
        ``y = forward(x)``.
    backward : callable
        ``dx = backward(dy, saved)``.
    saves : {"x", "y"}
        What ``saved`` is: the input or the output of ``forward``.
    parameters : mapping
        The names of what both take beside their operands, by position or by name, and the
        defaults: ``{"slope": 0.01}``. They are operands too, which broadcast.

    Examples
    --------
    >>> import numpy as np, pynn
    >>> f = pynn.ACTIVATIONS["tanh"]
    >>> x = np.array([0.0, 1.0])
    >>> f.backward(np.ones(2), f.forward(x) if f.saves == "y" else x).round(4)
    array([1.  , 0.42])
    """

    name: str
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    saves: str
    parameters: Mapping[str, float] = MappingProxyType({})


#: Every activation: a read-only mapping from name to Activation(name, forward, backward, saves,
#: parameters).
ACTIVATIONS: Mapping[str, Activation] = MappingProxyType(
    {
        name: Activation(
            name,
            getattr(_core, name),
            getattr(_core, f"{name}_backward"),
            saves,
            MappingProxyType(parameters),
        )
        for name, saves, parameters in _core.ACTIVATION_TABLE
    }
)


def _sign(function: Any, operands: tuple[str, ...], parameters: Mapping[str, float]) -> None:
    """Let help() and editors see parameters in a ufunc's signature, which NumPy makes without them."""
    kind = inspect.Parameter
    names = [kind(name, kind.POSITIONAL_ONLY) for name in operands]
    names += [kind(n, kind.POSITIONAL_OR_KEYWORD, default=v) for n, v in parameters.items()]
    others = {"out": None, "where": True, "casting": "same_kind", "order": "K", "dtype": None}
    names += [kind(n, kind.KEYWORD_ONLY, default=v) for n, v in others.items()]
    names.append(kind("others", kind.VAR_KEYWORD))
    signature = inspect.Signature(names)
    body = function.__doc__.partition("\n\n")[2]
    with contextlib.suppress(AttributeError):  # NumPy before 2.4 has no place for them
        function.__signature__ = signature
        function.__doc__ = f"{function.__name__}{signature}\n\n{body}"


for _row in ACTIVATIONS.values():
    if _row.parameters:
        _sign(_row.forward, ("x",), _row.parameters)
        _sign(_row.backward, ("dy", _row.saves), _row.parameters)


def glu(x: npt.ArrayLike, axis: int = -1, out: Any = None) -> Any:
    """Gated linear unit: a * sigmoid(b), with a and b the halves of x along an axis.

    Parameters
    ----------
    x : array_like
        At least one-dimensional, of even length along the axis. Types are those of `relu`.
    axis : int, default -1
        The axis that is halved.
    out : ndarray, optional
        Where to write the result.

    Returns
    -------
    y : ndarray
        Half as long as `x` along the axis. float32 is within 1 ULP of the exact value, float64
        within 2.

    Raises
    ------
    ValueError
        If `x` has no axes, or an odd length along this one.

    Notes
    -----
    As torch.nn.functional.glu, jax.nn.glu and keras.activations.glu, whose axis is the last one by
    default too. An infinite a gives NaN where b is -inf. Source: Dauphin, Fan, Auli and Grangier
    (2017), Language modeling with gated convolutional networks.

    Examples
    --------
    >>> import numpy as np, pynn
    >>> pynn.glu(np.array([4.0, 8.0, 0.0, 0.0]))
    array([2., 4.])
    """
    a, b = halves(x, axis)
    target: Any = out[0] if isinstance(out, tuple) and len(out) == 1 else out
    if target is None and isinstance(x, np.ndarray) and x.dtype.kind in "fV":
        target = np.empty_like(a, order="C") if _rows(a, axis, x) else None
    shape = _rows(a, axis, x, target)
    if shape is None or np.shape(target) != a.shape:
        return _core.glu_halves(a, b, axis=axis, out=out)
    _core.glu_halves(
        a.reshape(shape), b.reshape(shape), axis=_along(shape), out=target.reshape(shape)
    )
    return target


def glu_backward(dy: npt.ArrayLike, x: npt.ArrayLike, axis: int = -1, out: Any = None) -> Any:
    """Gradient of glu by its input, from dy, that by its output.

    Parameters
    ----------
    dy : array_like
        Gradient with respect to the output of `glu`, of its shape.
    x : array_like
        The input of `glu`.
    axis : int, default -1
        The axis that is halved.
    out : ndarray, optional
        Where to write the result.

    Returns
    -------
    dx : ndarray
        The shape of `x`: dy * sigmoid(b), then dy * a * sigmoid(b) * sigmoid(-b).

    Raises
    ------
    ValueError
        If `x` has no axes, or an odd length along this one, or shapes do not match.
    TypeError
        If `out` is no NumPy array.

    Examples
    --------
    >>> import numpy as np, pynn
    >>> pynn.glu_backward(np.array([1.0, 1.0]), np.array([4.0, 8.0, 0.0, 0.0]))
    array([0.5, 0.5, 1. , 2. ])
    """
    a, b = halves(x, axis)
    if np.shape(dy) != np.shape(a):
        raise ValueError(f"dy must have the shape of the output, {np.shape(a)}; got {np.shape(dy)}")
    if out is None and isinstance(x, np.ndarray) and x.dtype == getattr(dy, "dtype", None):
        out = np.empty(x.shape, x.dtype) if x.dtype.kind in "fV" and x.dtype.isnative else None
    if out is None:
        parts = _core.glu_halves_backward(dy, a, b, axis=axis)
        return np.concatenate(parts, axis)
    if not isinstance(out, np.ndarray):  # a copy would be written to
        raise TypeError(f"out must be a NumPy array; got {type(out).__name__}")
    if np.shape(out) != np.shape(x):
        raise ValueError(f"out must have the shape of x, {np.shape(x)}; got {np.shape(out)}")
    if np.may_share_memory(out, x):  # the gradient of one half would be read as the other
        a, b = a.copy(), b.copy()
    if np.may_share_memory(out, dy):
        dy = np.array(dy)
    parts = halves(out, axis)
    shape = _rows(a, axis, x, dy, out)
    if shape is None:
        _core.glu_halves_backward(dy, a, b, axis=axis, out=parts)
    else:
        views: list[Any] = [np.reshape(v, shape) for v in (dy, a, b, *parts)]
        _core.glu_halves_backward(*views[:3], axis=_along(shape), out=tuple(views[3:]))
    return out


def _rows(half: Any, axis: int, *operands: Any) -> tuple[int, int] | None:
    """Shape of a half with all axes from this one on as one, for kernels to run along; None where that is no view or no gain."""
    if half.size == 0 or (axis % half.ndim == half.ndim - 1 and half.shape[-1] >= 8):
        return None
    for v in operands:
        if type(v) is not np.ndarray or v.dtype != half.dtype or not v.flags.c_contiguous:
            return None
    if not half.dtype.isnative:
        return None
    rows = math.prod(half.shape[:axis])
    return rows, half.size // rows


def _along(shape: tuple[int, int]) -> int:
    """Choose the axis of rows along which kernels run: short rows are taken across."""
    return 0 if shape[1] < min(8, shape[0]) else 1


def halves(x: npt.ArrayLike, axis: int) -> tuple[Any, Any]:
    """View the two halves of x along an axis."""
    array: Any = x if hasattr(x, "shape") else np.asarray(x)
    try:
        axis = operator.index(axis)
    except TypeError:
        raise TypeError(f"axis must be a whole number; got {axis!r}") from None
    if array.ndim == 0:
        raise ValueError("x must have at least one dimension; got shape ()")
    if not -array.ndim <= axis < array.ndim:
        raise np.exceptions.AxisError(axis, array.ndim)
    length = array.shape[axis]
    if length % 2:
        raise ValueError(f"x must have an even length along axis {axis}; got shape {array.shape}")
    lead = (slice(None),) * (axis % array.ndim)
    return array[(*lead, slice(length // 2))], array[(*lead, slice(length // 2, None))]
