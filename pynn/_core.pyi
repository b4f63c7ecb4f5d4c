"""The compiled kernels, private: what is public here, pynn or one of its modules offers."""

from typing import Any, Final, Literal, overload

import numpy as np
import numpy.typing as npt

_Array = npt.NDArray[Any]
_Gradients = tuple[_Array | None, _Array | None, _Array | None]  # dx, dw, db

ACTIVATION_TABLE: Final[tuple[tuple[str, str, dict[str, float]], ...]]
OPTIMIZER_TABLE: Final[dict[str, tuple[int, str]]]

fma: np.ufunc
philox4x32: np.ufunc
prelu: np.ufunc
prelu_backward: np.ufunc
softmax: np.ufunc
softmax_backward: np.ufunc
softmin: np.ufunc
softmin_backward: np.ufunc
log_softmax: np.ufunc
log_softmax_backward: np.ufunc
logsumexp: np.ufunc
logsumexp_backward: np.ufunc
glu_halves: np.ufunc
glu_halves_backward: np.ufunc

def __getattr__(name: str) -> np.ufunc: ...  # the activations: their names come from the table

class PackedWeights:
    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> _Array: ...

def pack(w: npt.ArrayLike) -> PackedWeights: ...
def affine(
    x: npt.ArrayLike,
    w: npt.ArrayLike,
    b: npt.ArrayLike | None = None,
    activation: str | None = None,
    out: _Array | None = None,
) -> _Array: ...
@overload
def affine_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    w: npt.ArrayLike,
    y: npt.ArrayLike | None = None,
    activation: str | None = None,
    need_dx: Literal[True] = True,
    out: _Gradients | None = None,
    accumulate: bool = False,
) -> tuple[_Array, _Array, _Array]: ...
@overload
def affine_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    w: npt.ArrayLike,
    y: npt.ArrayLike | None = None,
    activation: str | None = None,
    need_dx: bool = True,
    out: _Gradients | None = None,
    accumulate: bool = False,
) -> tuple[_Array | None, _Array, _Array]: ...
def fill(
    out: _Array,
    distribution: str,
    key: int,
    *parameters: float,
    start: int = 0,
    index_strides: tuple[int, ...] | None = None,
) -> None: ...
def seed_key(seed: int) -> int: ...
def next_bits(capsule: Any) -> int: ...
def softmax_loss(x: npt.ArrayLike, t: npt.ArrayLike) -> tuple[float, _Array, _Array]: ...
def softmax_loss_backward(y: npt.ArrayLike, t: npt.ArrayLike, scale: float) -> _Array: ...
def loss(name: str, x: npt.ArrayLike, t: npt.ArrayLike, parameter: float = 0.0) -> float: ...
def loss_backward(
    name: str, x: npt.ArrayLike, t: npt.ArrayLike, scale: float = 1.0, parameter: float = 0.0
) -> _Array: ...
def dropout(x: npt.ArrayLike, key: int, start: int, ratio: float, scale: float = 1.0) -> _Array: ...
def batch_normalization(
    x: npt.ArrayLike,
    gamma: npt.ArrayLike | None,
    beta: npt.ArrayLike | None,
    mean: npt.ArrayLike | None,
    variance: npt.ArrayLike | None,
    eps: float,
) -> tuple[_Array, _Array, _Array]: ...
def batch_normalization_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    gamma: npt.ArrayLike | None,
    mean: npt.ArrayLike,
    variance: npt.ArrayLike,
    eps: float,
    fixed: bool,
) -> tuple[_Array, _Array, _Array]: ...
def layer_normalization(
    x: npt.ArrayLike,
    gamma: npt.ArrayLike | None,
    beta: npt.ArrayLike | None,
    eps: float,
    centered: bool,
) -> tuple[_Array, _Array, _Array]: ...
def layer_normalization_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    gamma: npt.ArrayLike | None,
    mean: npt.ArrayLike,
    variance: npt.ArrayLike,
    eps: float,
    centered: bool,
) -> tuple[_Array, _Array, _Array]: ...
def update(
    optimizer: str,
    params: Any,
    grads: Any,
    states: tuple[dict[Any, _Array], ...],
    step: int,
    hyperparameters: tuple[float, ...],
    weight_decay: float = 0.0,
    decoupled: bool = False,
    clip_value: float | None = None,
    clip_norm: float | None = None,
) -> None: ...
def empty(shape: Any, dtype: Any) -> _Array: ...
def network_gradient(
    params: dict[str, _Array],
    keys: tuple[str, ...],
    x: Any,
    t: npt.ArrayLike,
    activation: str,
    decay: float,
    twice: bool,
) -> tuple[dict[str, _Array], float, _Array, _Array] | None: ...

class PhiloxState:
    def __init__(self, capsule: Any, key: int, counter: int) -> None: ...
    def get(self) -> tuple[int, int, int, bool, int]: ...
    def set(self, key: int, counter: int, taken: int, has_half: bool, half: int) -> None: ...

def set_num_threads(n: int) -> None: ...
def default_threads() -> tuple[int, str]: ...
def get_num_threads() -> int: ...
def use_isa(name: str) -> None: ...
def get_isa() -> str: ...
def isas() -> dict[str, str]: ...
def build_info() -> dict[str, Any]: ...
