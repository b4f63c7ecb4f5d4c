"""The public functions that compute, as one table: every row of inputs is tried on each of them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import pynn
from pynn import _core


class Function(NamedTuple):
    """A function, its operands for a size n, and the axis of operands and result that n is."""

    name: str
    call: Callable
    operands: dict  # name -> shape, with "n" for the size
    result: tuple | None  # shape of the result; None if there are several and no out=
    slices: bool = True  # whether result[..., i:j] comes from operands[..., i:j]
    half: bool = True  # whether results of 16-bit operands are of their type, not float32

    def arrays(self, n, dtype, rng):
        """Operands of size n; saved outputs and others alike lie in (0, 1)."""
        shapes = [tuple(n if s == "n" else s for s in shape) for shape in self.operands.values()]
        return [rng.uniform(0.01, 0.99, shape).astype(dtype) for shape in shapes]

    def out_shape(self, n):
        return tuple(n if s == "n" else s for s in self.result)


def _functions():
    for name, activation in pynn.ACTIVATIONS.items():
        yield Function(name, activation.forward, {"x": ("n",)}, ("n",))
        operands = {"dy": ("n",), activation.saves: ("n",)}
        yield Function(f"{name}_backward", activation.backward, operands, ("n",))
        if activation.parameters:
            given = dict.fromkeys(activation.parameters, ("n",))
            yield Function(f"{name} given", activation.forward, {"x": ("n",)} | given, ("n",))
            row = activation.backward, operands | given, ("n",)
            yield Function(f"{name}_backward given", *row)
    yield Function("prelu", pynn.prelu, {"x": ("n",), "slope": ("n",)}, ("n",))
    operands = {"dy": ("n",), "x": ("n",), "slope": ("n",)}
    for i, result in enumerate(("dx", "dslope")):

        def gradient(dy, x, slope, out=None, i=i):
            return pynn.prelu_backward(dy, x, slope, out=(None,) * i + (out,) + (None,) * (1 - i))[
                i
            ]

        yield Function(f"prelu_backward {result}", gradient, operands, ("n",))
    yield Function("softmax", pynn.softmax, {"x": (3, "n")}, (3, "n"), slices=False)
    operands = {"dy": (3, "n"), "y": (3, "n")}
    yield Function("softmax_backward", pynn.softmax_backward, operands, (3, "n"), slices=False)
    for name in ("softmin", "log_softmax"):
        f, backward = getattr(pynn, name), getattr(pynn, f"{name}_backward")
        yield Function(name, f, {"x": (3, "n")}, (3, "n"), slices=False)
        yield Function(f"{name}_backward", backward, operands, (3, "n"), slices=False)
    yield Function("logsumexp", pynn.logsumexp, {"x": (3, "n")}, (3,), slices=False)
    operands = {"dy": (3,), "x": (3, "n"), "y": (3,)}
    yield Function("logsumexp_backward", pynn.logsumexp_backward, operands, (3, "n"))
    operands = {"a": (3, "n"), "b": (3, "n")}
    yield Function("glu_halves", _core.glu_halves, operands, (3, "n"))
    operands = {"dy": (3, "n")} | operands
    for i, result in enumerate(("da", "db")):

        def half(dy, a, b, out=None, i=i):
            out = (None,) * i + (out,) + (None,) * (1 - i)
            return _core.glu_halves_backward(dy, a, b, out=out)[i]

        yield Function(f"glu_halves_backward {result}", half, operands, (3, "n"))
    operands = {"x": (4, 11), "w": (11, "n"), "b": ("n",)}
    yield Function("affine", pynn.affine, operands, (4, "n"), half=False)

    def relu(x, w, b, out=None):
        return pynn.affine(x, w, b, activation="relu", out=out)

    operands = {"x": (4, "n"), "w": ("n", 6), "b": (6,)}
    yield Function("affine over n", relu, operands, (4, 6), slices=False, half=False)

    def packed(x, w, b, out=None):
        return pynn.affine(x, pynn.pack(w), b, out=out)

    operands = {"x": (4, 11), "w": (11, "n"), "b": ("n",)}
    yield Function("affine packed", packed, operands, (4, "n"), half=False)
    operands = {"dy": (4, "n"), "x": (4, 5), "w": (5, "n")}
    yield Function(
        "affine_backward", pynn.affine_backward, operands, None, slices=False, half=False
    )
    for i, (result, shape) in enumerate({"dx": (4, 5), "dw": (5, "n"), "db": ("n",)}.items()):

        def gradient(dy, x, w, out=None, i=i):
            return pynn.affine_backward(dy, x, w, out=(None,) * i + (out,) + (None,) * (2 - i))[i]

        row = gradient, operands, shape, result != "dx"
        yield Function(f"affine_backward {result}", *row, half=False)

    def tanh_backward(dy, x, w, y):
        return pynn.affine_backward(dy, x, w, y, activation="tanh")

    operands = {"dy": (4, 5), "x": (4, "n"), "w": ("n", 5), "y": (4, 5)}
    yield Function(
        "affine_backward over n", tanh_backward, operands, None, slices=False, half=False
    )

    def batch_normalization(x, gamma, beta):
        return pynn.layers.BatchNormalization(gamma, beta).forward(x)

    def layer_normalization(x, gamma, beta):
        return pynn.layers.LayerNormalization(gamma, beta).forward(x)

    def rms_backward(x, dout, gamma):
        layer = pynn.layers.RMSNormalization(gamma)
        layer.forward(x)
        return layer.backward(dout), layer.dgamma

    operands = {"x": (4, "n"), "gamma": ("n",), "beta": ("n",)}
    yield Function("batch_normalization", batch_normalization, operands, None, half=False)
    yield Function("layer_normalization", layer_normalization, operands, None, False, False)
    operands = {"x": (4, "n"), "dout": (4, "n"), "gamma": ("n",)}
    yield Function("rms_normalization backward", rms_backward, operands, None, False, False)

    def squared_error(y, t):
        return np.asarray(pynn.losses.sum_squared_error(y, t))

    def sigmoid_slope(x, t):
        return pynn._core.loss_backward("sigmoid_cross_entropy", x, t)

    operands = {"y": (4, "n"), "t": (4, "n")}
    yield Function("sum_squared_error", squared_error, operands, None, False, False)
    yield Function("sigmoid_cross_entropy slope", sigmoid_slope, operands, None, half=False)

    def dropout(x):
        return pynn.layers.Dropout(0.5, rng=0).forward(x)

    yield Function("dropout", dropout, {"x": ("n",)}, None, False, False)


FUNCTIONS = {f.name: f for f in _functions()}
WITH_OUT = {name: f for name, f in FUNCTIONS.items() if f.result}


def results(value):
    """The result or results of a call as a list."""
    return list(value) if isinstance(value, tuple) else [value]
