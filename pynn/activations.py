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

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from . import _core

__all__ = ["ACTIVATIONS", "Activation"]


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
