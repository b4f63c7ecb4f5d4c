"""Optimizers with the interface of *Deep Learning from Scratch*, section 6.1.

``update(params, grads)`` takes a step: it changes the arrays in ``params`` in place, all of them in
one crossing to the kernels and one pass over memory. Every optimizer takes, by keyword,

weight_decay : float, default 0.0
    ``weight_decay * param`` is added to each gradient (L2), of biases too. `MultiLayerNet` has a
    decay of its own, of the weights alone.
clip_value : float, optional
    Each element of the gradients is brought within ``-clip_value .. clip_value``.
clip_norm : float, optional
    Where the norm of all gradients together is greater, they are scaled to that norm.

Clipping by norm comes first, then by value, then the decay. All of them may be changed between
steps, as may the learning rate. What an optimizer keeps, it keeps by the key of the parameter: each
network needs an optimizer of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from operator import attrgetter
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ._backend import functions
from ._checks import Checked, integer, real_array

__all__ = ["SGD", "AdaGrad", "Adam", "AdamW", "Momentum", "Nesterov", "Optimizer", "RMSprop"]

Array = npt.NDArray[Any]


def _values_of(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """Return what gives an object's attributes of those names, sooner than a loop does."""
    if not names:
        return lambda _: ()
    values = attrgetter(*names)
    return values if len(names) > 1 else lambda owner: (values(owner),)


class Optimizer:
    """What the optimizers share: the step, and its state for checkpoints.

    Attributes
    ----------
    iter : int
        Number of steps taken; may be set.

    Raises
    ------
    TypeError
        If it is made itself: it has no rule.

    Examples
    --------
    >>> import numpy as np, pynn
    >>> one, other = pynn.optimizers.Adam(), pynn.optimizers.Adam()
    >>> one.update({"w": np.ones(2)}, {"w": np.ones(2)})
    >>> sorted(one.state_dict())
    ['iter', 'm.w', 'v.w']
    >>> other.load_state_dict(one.state_dict())
    >>> other.iter
    1
    """

    _rule: ClassVar[str]
    _hyperparameters: ClassVar[tuple[str, ...]]
    _states: ClassVar[tuple[str, ...]] = ()
    _decoupled: ClassVar[bool] = False
    _values: ClassVar[list[Callable[[Any], tuple[Any, ...]]]]  # of the hyperparameters, the states

    _iter: int
    iter = Checked(partial(integer, least=0, most=2**63 - 1))

    def __init_subclass__(cls) -> None:
        cls._values = [_values_of(cls._hyperparameters), _values_of(cls._states)]

    def __init__(
        self, weight_decay: float, clip_value: float | None, clip_norm: float | None
    ) -> None:
        if not hasattr(self, "_rule"):
            raise TypeError("Optimizer has no rule; one of its subclasses is wanted, such as SGD")
        self.weight_decay, self.clip_value, self.clip_norm = weight_decay, clip_value, clip_norm
        self.iter = 0
        dictionaries: list[dict[Any, Array]] = [{} for _ in self._states]
        for name, dictionary in zip(self._states, dictionaries):
            setattr(self, name, dictionary)
        self.update({}, {})  # which checks the hyperparameters
        self.iter = 0

    def update(self, params: Mapping[Any, Array], grads: Mapping[Any, npt.ArrayLike]) -> None:
        """Take a step, in place.

        Parameters
        ----------
        params : mapping of str to ndarray
            The parameters, float32 or float64 of native byte order, of any strides. The arrays
            themselves are written to.
        grads : mapping of str to array
            Their gradients under the same keys, of the same shapes, converted to the parameter's
            dtype where they have another. Other keys are ignored.

        Raises
        ------
        TypeError, ValueError
            If a parameter has no gradient or cannot be written to, or a hyperparameter is out of
            range; before anything is changed.
        """
        hyperparameters, states = self._values
        held = states(self)
        for state in held:
            if type(state) is not dict:
                held = self._dictionaries()
        functions().update(
            self._rule,
            params,
            grads,
            held,
            self._iter + 1,
            hyperparameters(self),
            self.weight_decay,
            self._decoupled,
            self.clip_value,
            self.clip_norm,
        )
        self._iter += 1

    def _dictionaries(self) -> tuple[dict[Any, Array], ...]:
        """Return the states; one that is None, as the book's begin, is made."""
        for name in self._states:
            state = getattr(self, name)
            if state is None:
                setattr(self, name, {})
            elif not isinstance(state, dict):
                raise TypeError(
                    f"{name} must be a dict of arrays, or None; got a {type(state).__name__}"
                )
        return tuple(getattr(self, name) for name in self._states)

    def state_dict(self) -> dict[str, Array]:
        """Return copies of the arrays that the next step depends on, and the number of steps.

        Hyperparameters are not among them.

        Returns
        -------
        dict of str to ndarray
            Under "iter", and the state's name, a dot and the parameter's key.

        Raises
        ------
        TypeError
            If a parameter's key is no str.
        """
        state = {"iter": np.array(self.iter)}
        for name, dictionary in zip(self._states, self._dictionaries()):
            for key, array in dictionary.items():
                if not isinstance(key, str):
                    raise TypeError(f"params must have keys of str for a state_dict; got {key!r}")
                state[f"{name}.{key}"] = array.copy()
        return state

    def load_state_dict(self, state: Mapping[str, npt.ArrayLike]) -> None:
        """Take over what `state_dict` returned, of an optimizer of the same class.

        Parameters
        ----------
        state : mapping of str to array
            It is copied.

        Raises
        ------
        TypeError, ValueError
            If there are keys of another optimizer's state, one of a parameter's arrays is missing,
            or there are no real numbers, before anything is changed.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"state must be a mapping of arrays; got {type(state).__name__}")
        found: dict[str, dict[Any, Array]] = {name: {} for name in self._states}
        if "iter" not in state:
            raise ValueError(f"state must have the key 'iter'; got {', '.join(state) or 'nothing'}")
        for text, array in state.items():
            name, dot, key = str(text).partition(".")
            if dot and name in found:
                real = real_array(f"state[{text!r}]", array, None)
                found[name][key] = np.array(real, order="K")
            elif text != "iter":
                known = ", ".join(["iter", *(f"{name}.*" for name in found)])
                raise ValueError(f"state must have keys {known}; got {text!r}")
        for name, dictionary in found.items():
            for key in set().union(*found.values()) - dictionary.keys():
                raise ValueError(f"state must have the key '{name}.{key}'; got none")
        steps = np.asarray(state["iter"])
        self.iter = integer("state['iter']", steps.item() if steps.ndim == 0 else steps, least=0)
        for name, dictionary in found.items():
            setattr(self, name, dictionary)

    @property
    def hyperparameters(self) -> tuple[str, ...]:
        """The names of the attributes that say how a step is taken."""
        return (*self._hyperparameters, "weight_decay", "clip_value", "clip_norm")

    def __repr__(self) -> str:
        """Show the hyperparameters."""
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.hyperparameters)
        return f"{type(self).__name__}({values})"


class SGD(Optimizer):
    """Stochastic gradient descent: ``param -= lr * grad``.

    Parameters
    ----------
    lr : float, default 0.01
        Learning rate, >= 0.
    weight_decay, clip_value, clip_norm : float, optional
        As at the top of `pynn.optimizers`.

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

    _rule, _hyperparameters = "sgd", ("lr",)

    def __init__(
        self,
        lr: float = 0.01,
        *,
        weight_decay: float = 0.0,
        clip_value: float | None = None,
        clip_norm: float | None = None,
    ) -> None:
        self.lr = lr
        super().__init__(weight_decay, clip_value, clip_norm)


class Momentum(Optimizer):
    """Gradient descent with momentum: ``v = momentum * v - lr * grad``, then ``param += v``.

    Parameters
    ----------
    lr : float, default 0.01
        Learning rate, >= 0.
    momentum : float, default 0.9
        The share of the velocity that is kept, from 0 to below 1.
    weight_decay, clip_value, clip_norm : float, optional
        As at the top of `pynn.optimizers`.

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

    _rule: ClassVar[str] = "momentum"
    _hyperparameters, _states = ("lr", "momentum"), ("v",)
    v: dict[Any, Array]

    def __init__(
        self,
        lr: float = 0.01,
        momentum: float = 0.9,
        *,
        weight_decay: float = 0.0,
        clip_value: float | None = None,
        clip_norm: float | None = None,
    ) -> None:
        self.lr, self.momentum = lr, momentum
        super().__init__(weight_decay, clip_value, clip_norm)


class Nesterov(Momentum):
    """Nesterov's momentum: ``v = momentum * v - lr * grad``, ``param += momentum * v - lr * grad``.

    Parameters
    ----------
    lr : float, default 0.01
        Learning rate, >= 0.
    momentum : float, default 0.9
        The share of the velocity that is kept, from 0 to below 1.
    weight_decay, clip_value, clip_norm : float, optional
        As at the top of `pynn.optimizers`.

    Attributes
    ----------
    v : dict of str to ndarray
        The velocities, zero to begin with.

    Notes
    -----
    The rule of the book's code (``common/optimizer.py``), which writes the step with the old v, as
    ``momentum**2 * v - (1 + momentum) * lr * grad``; its first version took the new v there, by
    mistake. Keras' rule too; PyTorch's differs only when lr changes on the way. Source: Bengio,
    Boulanger-Lewandowski and Pascanu (2013), Advances in optimizing recurrent networks.

    Examples
    --------
    >>> import numpy as np, pynn
    >>> params, grads = {"w": np.array([1.0])}, {"w": np.array([1.0])}
    >>> pynn.optimizers.Nesterov(lr=0.5).update(params, grads)
    >>> params["w"].round(4)
    array([0.05])
    """

    _rule = "nesterov"


class AdaGrad(Optimizer):
    """AdaGrad: ``h += grad**2``, then ``param -= lr * grad / (sqrt(h) + eps)``.

    Parameters
    ----------
    lr : float, default 0.01
        Learning rate, >= 0.
    eps : float, default 1e-7
        Keeps the quotient finite, >= 0.
    weight_decay, clip_value, clip_norm : float, optional
        As at the top of `pynn.optimizers`.

    Attributes
    ----------
    h : dict of str to ndarray
        The sums of the squared gradients, zero to begin with.

    Notes
    -----
    The book's class (section 6.1.5). PyTorch's eps is 1e-10. Source: Duchi, Hazan and Singer
    (2011), Adaptive subgradient methods.

    Examples
    --------
    >>> import numpy as np, pynn
    >>> params, grads = {"w": np.array([1.0])}, {"w": np.array([1.0])}
    >>> pynn.optimizers.AdaGrad(lr=0.5).update(params, grads)
    >>> params["w"].round(4)
    array([0.5])
    """

    _rule, _hyperparameters, _states = "adagrad", ("lr", "eps"), ("h",)
    h: dict[Any, Array]

    def __init__(
        self,
        lr: float = 0.01,
        eps: float = 1e-7,
        *,
        weight_decay: float = 0.0,
        clip_value: float | None = None,
        clip_norm: float | None = None,
    ) -> None:
        self.lr, self.eps = lr, eps
        super().__init__(weight_decay, clip_value, clip_norm)


class RMSprop(Optimizer):
    """RMSprop: ``h = d * h + (1 - d) * grad**2``, then ``param -= lr * grad / (sqrt(h) + eps)``.

    Parameters
    ----------
    lr : float, default 0.01
        Learning rate, >= 0.
    decay_rate : float, default 0.99
        d, the share of the mean square that is kept, from 0 to below 1.
    eps : float, default 1e-7
        Keeps the quotient finite, >= 0.
    weight_decay, clip_value, clip_norm : float, optional
        As at the top of `pynn.optimizers`.

    Attributes
    ----------
    h : dict of str to ndarray
        The running means of the squared gradients, zero to begin with.

    Notes
    -----
    The class of the book's code (``common/optimizer.py``). PyTorch calls decay_rate alpha, and its
    eps is 1e-8; Keras' decay, rho, is 0.9, its lr 0.001, and its eps stands under the root. Source:
    Tieleman and Hinton (2012), lecture 6.5.

    Examples
    --------
    >>> import numpy as np, pynn
    >>> params, grads = {"w": np.array([1.0])}, {"w": np.array([1.0])}
    >>> pynn.optimizers.RMSprop(lr=0.1).update(params, grads)
    >>> params["w"].round(4)
    array([0.])
    """

    _rule, _hyperparameters, _states = "rmsprop", ("lr", "decay_rate", "eps"), ("h",)
    h: dict[Any, Array]

    def __init__(
        self,
        lr: float = 0.01,
        decay_rate: float = 0.99,
        eps: float = 1e-7,
        *,
        weight_decay: float = 0.0,
        clip_value: float | None = None,
        clip_norm: float | None = None,
    ) -> None:
        self.lr, self.decay_rate, self.eps = lr, decay_rate, eps
        super().__init__(weight_decay, clip_value, clip_norm)


class Adam(Optimizer):
    """Adam: ``param -= rate * m / (sqrt(v) + eps)`` with running means m and v of grad and grad**2.

    Parameters
    ----------
    lr : float, default 0.001
        Learning rate, >= 0.
    beta1, beta2 : float, default 0.9 and 0.999
        The shares of the running means that are kept, from 0 to below 1.
    eps : float, default 1e-7
        Keeps the quotient finite, >= 0.
    weight_decay, clip_value, clip_norm : float, optional
        As at the top of `pynn.optimizers`; the decay is L2, that of `AdamW` is decoupled.

    Attributes
    ----------
    m, v : dict of str to ndarray
        The running means, zero to begin with.

    Notes
    -----
    The book's class (section 6.1.6): ``m += (1 - beta1) * (grad - m)``, ``v += (1 - beta2) *
    (grad**2 - v)``, and ``rate = lr * sqrt(1 - beta2**t) / (1 - beta1**t)`` at step t. So eps is
    added before the correction of v, as in section 2 of Kingma and Ba (2015), Adam, and in Keras;
    PyTorch and Optax add theirs, 1e-8, after it: theirs is ours divided by ``sqrt(1 - beta2**t)``.
    Powers are products by squaring, so that they have the same bits everywhere.

    Examples
    --------
    >>> import numpy as np, pynn
    >>> params, grads = {"w": np.array([1.0])}, {"w": np.array([1.0])}
    >>> pynn.optimizers.Adam(lr=0.5).update(params, grads)
    >>> params["w"].round(4)
    array([0.5])
    """

    _rule = "adam"
    _hyperparameters, _states = ("lr", "beta1", "beta2", "eps"), ("m", "v")
    m: dict[Any, Array]
    v: dict[Any, Array]

    def __init__(
        self,
        lr: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-7,
        *,
        weight_decay: float = 0.0,
        clip_value: float | None = None,
        clip_norm: float | None = None,
    ) -> None:
        self.lr, self.beta1, self.beta2, self.eps = lr, beta1, beta2, eps
        super().__init__(weight_decay, clip_value, clip_norm)


class AdamW(Adam):
    """Adam with decoupled weight decay: ``param *= 1 - lr * weight_decay``, then a step of `Adam`.

    Parameters
    ----------
    lr : float, default 0.001
        Learning rate, >= 0.
    beta1, beta2 : float, default 0.9 and 0.999
        The shares of the running means that are kept, from 0 to below 1.
    eps : float, default 1e-7
        Keeps the quotient finite, >= 0.
    weight_decay : float, default 0.01
        Strength of the decay, >= 0.
    clip_value, clip_norm : float, optional
        As at the top of `pynn.optimizers`.

    Attributes
    ----------
    m, v : dict of str to ndarray
        The running means, zero to begin with.

    Notes
    -----
    As PyTorch's AdamW, but for eps, as in `Adam`; Keras' and Optax' default decay is 0.004 and
    1e-4. The book has none. Source: Loshchilov and Hutter (2019), Decoupled weight decay
    regularization.

    Examples
    --------
    >>> import numpy as np, pynn
    >>> params, grads = {"w": np.array([1.0])}, {"w": np.array([1.0])}
    >>> pynn.optimizers.AdamW(lr=0.5, weight_decay=0.1).update(params, grads)
    >>> params["w"].round(4)
    array([0.45])
    """

    _decoupled = True

    def __init__(
        self,
        lr: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-7,
        *,
        weight_decay: float = 0.01,
        clip_value: float | None = None,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(
            lr,
            beta1,
            beta2,
            eps,
            weight_decay=weight_decay,
            clip_value=clip_value,
            clip_norm=clip_norm,
        )
