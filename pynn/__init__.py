"""pynn: the CPU neural-network core for NumPy users.

Affine maps, activations and weight initializers, forward and backward, in C++ behind a thin Python
interface: fast, exact, and the same bits on every machine, with any number of threads and any
instruction set.

>>> import numpy as np, pynn
>>> w = pynn.initializers.he_normal((784, 100), rng=0)
>>> y = pynn.affine(np.ones((8, 784), np.float32), w, activation="relu")
>>> y.shape, y.dtype
((8, 100), dtype('float32'))

`pynn.ACTIVATIONS` names the activation functions; each is a ufunc of this module, as is its
``*_backward``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _threadpoolctl, activations
from ._backend import get_backend, use_backend
from ._config import get_include, show_config
from ._core import (
    PackedWeights,
    affine,
    affine_backward,
    get_isa,
    get_num_threads,
    log_softmax,
    log_softmax_backward,
    logsumexp,
    logsumexp_backward,
    pack,
    prelu,
    prelu_backward,
    set_num_threads,
    softmax,
    softmax_backward,
    softmin,
    softmin_backward,
    use_isa,
)
from .activations import ACTIVATIONS, glu, glu_backward

__version__ = "0.1.0"

__all__ = [
    "ACTIVATIONS",
    "PackedWeights",
    "activations",
    "affine",
    "affine_backward",
    "functions",
    "get_backend",
    "get_include",
    "get_isa",
    "get_num_threads",
    "glu",
    "glu_backward",
    "initializers",
    "layers",
    "log_softmax",
    "log_softmax_backward",
    "logsumexp",
    "logsumexp_backward",
    "losses",
    "networks",
    "optimizers",
    "pack",
    "prelu",
    "prelu_backward",
    "random",
    "reference",
    "set_num_threads",
    "show_config",
    "softmax",
    "softmax_backward",
    "softmin",
    "softmin_backward",
    "use_backend",
    "use_isa",
]

for _activation in ACTIVATIONS.values():
    for _ufunc in (_activation.forward, _activation.backward):
        globals()[_ufunc.__name__] = _ufunc
        __all__.append(_ufunc.__name__)
del _activation, _ufunc

_threadpoolctl.register()
#: Loaded when they are first asked for, so that importing pynn costs next to nothing.
_LAZY = (
    "functions",
    "initializers",
    "layers",
    "losses",
    "networks",
    "optimizers",
    "random",
    "reference",
    "study",
)

if TYPE_CHECKING:
    import numpy as np

    from . import functions, initializers, layers, losses, networks, optimizers, random, reference

    def __getattr__(name: str) -> np.ufunc: ...  # the activations: their names come from the table

else:

    def __getattr__(name: str) -> object:
        if name in _LAZY:
            import importlib

            return importlib.import_module(f"pynn.{name}")
        raise AttributeError(f"module 'pynn' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *_LAZY})
