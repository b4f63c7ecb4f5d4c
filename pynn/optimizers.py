"""Optimizers with the interface of *Deep Learning from Scratch*, section 6.1.

``update(params, grads)`` takes a step: it changes the arrays in ``params`` in place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ._checks import number

__all__ = ["SGD", "Momentum"]

Array = npt.NDArray[Any]


class SGD:
    """Stochastic gradient descent: ``param -= lr * grad``.

    Parameters
    ----------
    lr : float, default 0.01
        Learning rate, >= 0. It may be changed between updates.

    Notes
    -----
    The book's class (section 6.1.2). PyTorch's SGD without momentum computes the same.

    Examples
    --------
    >>> import numpy as np, pynn
    >>> params = {"w": np.array([1.0, 2.0])}
    >>> pynn.optimizers.SGD(lr=0.5).update(params, {"w": np.array([1.0, -1.0])})
    >>> params["w"]
    array([0.5, 2.5])
    """

    def __init__(self, lr: float = 0.01) -> None:
        self.lr = lr
        number("lr", lr, least=0)

    def update(self, params: Mapping[str, Array], grads: Mapping[str, npt.ArrayLike]) -> None:
        """Take a step, in place.

        Parameters
        ----------
        params : mapping of str to ndarray
            The parameters. The arrays themselves are written to.
        grads : mapping of str to array
            Their gradients under the same keys, of the same shapes. Other keys are ignored.

        Raises
        ------
        TypeError, ValueError
            If a parameter has no gradient or cannot be written to, before any is changed.
        """
        lr = number("lr", self.lr, least=0)
        for _, param, grad in list(_pairs(params, grads)):
            param -= lr * grad


class Momentum:
    """Gradient descent with momentum: ``v = momentum * v - lr * grad``, then ``param += v``.

    Parameters
    ----------
    lr : float, default 0.01
        Learning rate, >= 0. It may be changed between updates.
    momentum : float, default 0.9
        The share of the velocity that is kept, 0 <= momentum < 1.

    Attributes
    ----------
    v : dict of str to ndarray
        The velocities, zero to begin with.

    Notes
    -----
    The book's class (section 6.1.4), and Keras' rule. PyTorch keeps ``v = momentum * v + grad`` and
    takes ``lr * v``, which differs only when lr changes on the way.

    Examples
    --------
    >>> import numpy as np, pynn
    >>> params, grads = {"w": np.array([1.0])}, {"w": np.array([1.0])}
    >>> momentum = pynn.optimizers.Momentum(lr=0.5)
    >>> for _ in range(2):
    ...     momentum.update(params, grads)
    >>> params["w"]
    array([-0.45])
    """

    def __init__(self, lr: float = 0.01, momentum: float = 0.9) -> None:
        self.lr, self.momentum = lr, momentum
        number("lr", lr, least=0)
        number("momentum", momentum, least=0, below=1)
        self.v: dict[str, Array] = {}

    def update(self, params: Mapping[str, Array], grads: Mapping[str, npt.ArrayLike]) -> None:
        """Take a step, in place; arguments and errors as in `SGD.update`."""
        lr, momentum = (
            number("lr", self.lr, least=0),
            number("momentum", self.momentum, least=0, below=1),
        )
        pairs = list(_pairs(params, grads))
        for key, param, _ in pairs:
            if key not in self.v:
                self.v[key] = np.zeros_like(param)
            elif self.v[key].shape != param.shape:
                raise ValueError(
                    f"params[{key!r}] had shape {self.v[key].shape} before; got {param.shape}"
                )
        for key, param, grad in pairs:
            v = self.v[key]
            v *= momentum
            v -= lr * grad
            param += v


def _pairs(
    params: Mapping[str, Array], grads: Mapping[str, npt.ArrayLike]
) -> Iterator[tuple[str, Array, Array]]:
    """Yield each parameter, checked, with its gradient."""
    if not isinstance(params, Mapping) or not isinstance(grads, Mapping):
        got = f"{type(params).__name__} and {type(grads).__name__}"
        raise TypeError(f"params and grads must be dicts; got {got}")
    for key, param in params.items():
        if not isinstance(param, np.ndarray) or param.dtype.kind != "f":
            got = (
                f"an array of {param.dtype}"
                if isinstance(param, np.ndarray)
                else type(param).__name__
            )
            raise TypeError(
                f"params[{key!r}] must be a floating-point array, to be changed in place; got {got}"
            )
        if not param.flags.writeable:
            raise ValueError(f"params[{key!r}] must be writable; got a read-only array")
        if key not in grads:
            raise ValueError(f"grads must have every key of params; got no {key!r}")
        grad = np.asarray(grads[key])
        if grad.shape != param.shape:
            raise ValueError(f"grads[{key!r}] must have shape {param.shape}; got {grad.shape}")
        if grad.dtype.kind not in "fiub":
            raise TypeError(f"grads[{key!r}] must be real numbers; got an array of {grad.dtype}")
        yield key, param, grad
