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

from collections.abc import Mapping
from types import MappingProxyType

from . import _core
from .reference import Activation

__all__ = ["ACTIVATIONS", "Activation"]

#: Every activation: a read-only mapping from name to Activation(name, forward, backward, saves).
ACTIVATIONS: Mapping[str, Activation] = MappingProxyType(
    {
        name: Activation(name, getattr(_core, name), getattr(_core, f"{name}_backward"), saves)
        for name, saves in _core.ACTIVATION_TABLE
    }
)
