"""What the layers, networks and samplers run on: the compiled kernels, or pynn.reference."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

from . import _core

_MODULES = {"pynn": "pynn._core", "numpy": "pynn.reference"}


def use_backend(name: str) -> None:
    """Choose what layers, networks, initializers and random numbers run on, in the whole process.

    Parameters
    ----------
    name : {"pynn", "numpy"}
        "pynn", the default, is the compiled kernels; "numpy" is `pynn.reference`, to compare with.
        The environment variable ``PYNN_BACKEND`` sets it at import.

    Raises
    ------
    ValueError
        For any other name. Nothing ever falls back from one to the other.

    Notes
    -----
    ``pynn.affine``, ``pynn.softmax`` and the activation ufuncs are the compiled ones always; their
    counterparts are in `pynn.reference` under the same names.

    Examples
    --------
    >>> import numpy as np, pynn
    >>> pynn.use_backend("numpy")
    >>> pynn.layers.Relu().forward(np.array([-1.0, 2.0]))
    array([0., 2.])
    >>> pynn.use_backend("pynn")
    """
    global _name, _module
    if not isinstance(name, str) or name not in _MODULES:
        raise ValueError(f"backend must be one of {', '.join(map(repr, _MODULES))}; got {name!r}")
    _name, _module = name, importlib.import_module(_MODULES[name])


def get_backend() -> str:
    """Return the name of the backend in use, "pynn" or "numpy".

    Examples
    --------
    >>> import pynn
    >>> pynn.get_backend()
    'pynn'
    """
    return _name


def functions() -> ModuleType:
    """Return the module with affine, softmax, fill, the activations, ... of the backend in use."""
    return _module


_name = "pynn"
_module: ModuleType = _core
try:
    use_backend(os.environ.get("PYNN_BACKEND") or "pynn")
except ValueError as error:
    raise ImportError(f"environment variable PYNN_BACKEND: {error}") from None
