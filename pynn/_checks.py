"""Checks of arguments. Each names the argument, says what is wanted and what was given."""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable, Iterator, Mapping, Set
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")

_PIECE = 2**20  # elements of a piece

# The least number that becomes infinite in a type, half a unit beyond its greatest; half types are rounded from float32,
# to which half a unit of float32 less comes up. uint16 holds the bits of bfloat16.
_OVERFLOW = {
    np.dtype(np.float16): ("float16", 2.0**16 - 2.0**4 - 2.0**-9),
    np.dtype(np.uint16): ("bfloat16", 2.0**128 - 2.0**119 - 2.0**103),
    np.dtype(np.float32): ("float32", 2.0**128 - 2.0**103),
    np.dtype(np.float64): ("float64", math.inf),
}


def shown(value: Any) -> str:
    """Return what a message shows of a value: Python writes no int of more than 4300 digits."""
    try:
        return repr(value)
    except ValueError:
        return "an int of more digits than Python writes"


def as_float(name: str, value: Any) -> float:
    """Return a real number as a float; one that is too large for it as infinity."""
    kind = type(value)
    if kind is float:
        return float(value)
    try:
        # float() takes text, too, and arrays of one element
        if not (hasattr(kind, "__float__") or hasattr(kind, "__index__")):
            raise TypeError
        if (
            getattr(value, "ndim", 0)
            or getattr(getattr(value, "dtype", 0), "kind", "f") in "cSUmMO"
        ):
            raise TypeError
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number; got {shown(value)}") from None


def number(
    name: str,
    value: Any,
    least: float = -math.inf,
    below: float = math.inf,
    dtype: np.dtype[Any] | None = None,
) -> float:
    """Return a finite number, no less than least, less than below and finite in dtype, as a float."""
    found = as_float(name, value)
    if not math.isfinite(found):
        raise ValueError(f"{name} must be finite; got {shown(value)}")
    if found < least:
        raise ValueError(f"{name} must be at least {least:g}; got {shown(value)}")
    if found >= below:
        raise ValueError(f"{name} must be less than {below:g}; got {shown(value)}")
    if dtype is not None and abs(found) >= _OVERFLOW[dtype][1]:
        raise ValueError(f"{name} must be finite in {_OVERFLOW[dtype][0]}; got {shown(value)}")
    return found


def real(name: str, value: Any) -> float:
    """Return a number that may be infinite but not NaN, as a float."""
    found = as_float(name, value)
    if math.isnan(found):
        raise ValueError(f"{name} must be a number; got {shown(value)}")
    return found


def fill_value(name: str, value: Any, dtype: np.dtype[Any]) -> float:
    """Return a number as a float: infinite and NaN if it is so, but not by overflow of dtype."""
    found = as_float(name, value)
    if math.isnan(found) or (math.isinf(found) and found == value):
        return found
    return number(name, value, dtype=dtype)


def integer(name: str, value: Any, least: int | None = None, most: int | None = None) -> int:
    """Return an integer, no less than least and no more than most, as an int."""
    try:
        if isinstance(value, (bool, np.bool)):  # NumPy 2.0's has an index
            raise TypeError
        found = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int; got {shown(value)}") from None
    if least is not None and found < least:
        raise ValueError(f"{name} must be at least {least}; got {shown(value)}")
    if most is not None and found > most:
        raise ValueError(f"{name} must be at most {most}; got {shown(value)}")
    return found


class Checked(Generic[T]):
    """An attribute that is checked whenever it is set."""

    def __init__(self, check: Callable[[str, Any], T]) -> None:
        self._check = check

    def __set_name__(self, owner: type, name: str) -> None:
        self._name, self._held = name, f"_{name}"

    def __get__(self, owner: Any, kind: type) -> T:
        return self if owner is None else getattr(owner, self._held)  # type: ignore

    def __set__(self, owner: Any, value: Any) -> None:
        setattr(owner, self._held, self._check(self._name, value))


# They can be iterated over, but hold no numbers, or none in an order.
NO_SEQUENCES = (str, bytes, bytearray, memoryview, Set, Mapping)


def shape_tuple(shape: Any) -> tuple[int, ...]:
    """Return a shape, given as an int or a sequence of ints, as a tuple."""
    if shape is None:
        raise TypeError("shape, or out to be filled, must be given; got neither")
    try:
        if isinstance(shape, tuple):
            entries = shape
        elif isinstance(shape, NO_SEQUENCES):
            raise TypeError
        else:
            entries = tuple(shape) if np.iterable(shape) else (shape,)
        if bool in map(type, entries):
            raise TypeError
        found = tuple(map(operator.index, entries))
    except TypeError:
        raise TypeError(f"shape must be an int or a tuple of ints; got {shown(shape)}") from None
    if min(found, default=0) < 0:
        raise ValueError(f"shape must have no negative entry; got {shown(shape)}")
    return found


def shard_bounds(shard: Any, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return where a shard, a tuple of slices or None for all, starts and stops on each axis."""
    if shard is None:
        return [(0, n) for n in shape]
    if not isinstance(shard, tuple) or not all(isinstance(s, slice) for s in shard):
        raise TypeError(f"shard must be a tuple of slices, one per axis; got {shown(shard)}")
    steps = [1 if s.step is None else integer("the step of a shard", s.step) for s in shard]
    if len(shard) != len(shape) or any(step != 1 for step in steps):
        raise ValueError(
            f"shard must have a slice of step 1 per axis of {shape}; got {shown(shard)}"
        )
    bounds = []
    for s, n in zip(shard, shape, strict=True):
        start = 0 if s.start is None else integer("the start of a shard", s.start)
        stop = n if s.stop is None else integer("the stop of a shard", s.stop)
        if not 0 <= start <= stop <= n:
            raise ValueError(f"shard must lie within shape {shape}; got {shown(shard)}")
        bounds.append((start, stop))
    return bounds


def float_dtype(name: str, dtype: npt.DTypeLike) -> np.dtype[Any]:
    """Return float32 or float64 as a dtype."""
    try:
        if dtype is None:  # which NumPy takes for float64
            raise TypeError
        found = np.dtype(dtype)
    except (TypeError, ValueError, SyntaxError):  # the last for text with brackets
        raise TypeError(f"{name} must be float32 or float64; got {dtype!r}") from None
    if found not in (np.float32, np.float64):  # of foreign byte order, it is equal to neither
        raise TypeError(f"{name} must be float32 or float64 of native byte order; got {found!r}")
    return found


_FILLED: dict[Any, np.dtype[Any]] = {
    kind: np.dtype(type_)
    for type_ in (np.float16, np.float32, np.float64)
    for kind in (type_, np.dtype(type_))
}


def fill_dtype(name: str, dtype: npt.DTypeLike) -> np.dtype[Any]:
    """Return float16, bfloat16 (of the package ml_dtypes), float32 or float64 as a dtype."""
    wanted = "float16, bfloat16, float32 or float64"
    try:
        if dtype in _FILLED:
            return _FILLED[dtype]
        if dtype is None:  # which NumPy takes for float64
            raise TypeError
        found = np.dtype(dtype)
    except (TypeError, ValueError, SyntaxError):  # the last for text with brackets
        bfloat16 = isinstance(dtype, str) and dtype == "bfloat16"
        hint = ", which NumPy knows once ml_dtypes is imported" if bfloat16 else ""
        raise TypeError(f"{name} must be {wanted}; got {dtype!r}{hint}") from None
    if found not in (np.float16, np.float32, np.float64) and found.name != "bfloat16":
        raise TypeError(f"{name} must be {wanted} of native byte order; got {found!r}")
    return found


def bits_of(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """View an array of bfloat16 as uint16, which kernels take for it; any other as it is."""
    if array.dtype in _FILLED:
        return array
    return array.view(np.uint16) if array.dtype.name == "bfloat16" else array


def check_places(name: str, array: npt.NDArray[Any]) -> None:
    """See to it that no two elements of an array lie in one place."""
    axes = sorted(
        (abs(step), n) for step, n in zip(array.strides, array.shape, strict=True) if n > 1
    )
    reach = array.itemsize
    for step, n in axes:
        if step < reach and array.size:
            raise ValueError(f"{name} must have one place for each element; some share memory")
        reach += (n - 1) * step


def pieces(
    array: npt.NDArray[Any], *others: npt.NDArray[Any]
) -> Iterator[tuple[npt.NDArray[Any], ...]]:
    """Yield views of parts, of a few MB each, of arrays of one shape: Python handles signals between them."""
    if array.size <= _PIECE:
        yield array, *others
        return
    axis = max(range(array.ndim), key=lambda i: (array.shape[i] > 1, abs(array.strides[i])))
    n = array.shape[axis]
    step = max(1, _PIECE * n // array.size)
    for start in range(0, n, step):
        part = (slice(None),) * axis + (slice(start, start + step),)
        yield from pieces(array[part], *(other[part] for other in others))


def clamp(array: npt.NDArray[Any], least: float, most: float) -> None:
    """Keep numbers within two bounds: within those next to them in array's type, if it has any."""
    low, high = _rounded_up(least, array.dtype), -_rounded_up(-most, array.dtype)
    if low > high:
        low, high = high, low
    bits = array.dtype == np.uint16
    for (part,) in pieces(array):
        values = np.left_shift(part, 16, dtype=np.uint32).view(np.float32) if bits else part
        for bound, beyond in ((low, values < low), (high, values > high)):
            np.copyto(part, bfloat16_bits(np.asarray(bound)) if bits else bound, where=beyond)


def _rounded_up(value: float, dtype: np.dtype[Any]) -> Any:
    """Return the least number of a type that is not less than value; of bfloat16 as float32."""
    with np.errstate(over="ignore"):
        kind = np.float32 if dtype == np.uint16 else dtype.type
        near = kind(value)
        if float(near) < value:
            near = np.nextafter(near, kind(math.inf))
    if dtype == np.uint16:
        word = int(near.view(np.uint32))
        if word < 2**31 and word & 0xFFFF:  # above 0: without the lower half it is less
            word += 0x10000
        near = np.uint32(word & 0xFFFF0000).view(np.float32)
    return near


def assign(array: npt.NDArray[Any], values: npt.ArrayLike) -> None:
    """Write float64 values as the type of array wants them; half types are rounded from float32."""
    values = np.asarray(values, np.float64)
    if values.ndim == 0:
        one = _converted(values, array.dtype)
        for (part,) in pieces(array):
            part[...] = one
        return
    for part, some in pieces(array, values):
        part[...] = _converted(some, array.dtype)


def _converted(values: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    with np.errstate(over="ignore", under="ignore"):
        if dtype.itemsize == 2:
            values = values.astype(np.float32)
        return bfloat16_bits(values) if dtype == np.uint16 else values.astype(dtype, copy=False)


def bfloat16_bits(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Round float32 to bfloat16, to nearest even; return its bits as uint16."""
    word = values.view(np.uint32) if values.ndim else values.reshape(1).view(np.uint32).reshape(())
    rounded = (word.astype(np.uint64) + 0x7FFF + ((word >> 16) & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)


def unmasked_array(name: str, value: Any) -> npt.NDArray[Any]:
    """Return what is to be summed as an array: a mask says what to leave out, and would be lost."""
    if type(value) is np.ndarray:
        return value
    if isinstance(value, np.ndarray) and hasattr(value, "mask"):
        raise TypeError(f"{name} must have no mask, which would be lost; got a masked array")
    return as_array(name, value)


def real_array(name: str, value: Any, dtype: npt.DTypeLike | None) -> npt.NDArray[Any]:
    """Return real numbers as an array of a dtype, None: of their own."""
    array = as_array(name, value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be real numbers; got dtype {array.dtype}")
    return np.asarray(array, dtype)


def numbers(name: str, value: Any) -> npt.NDArray[Any]:
    """Return numbers as an array of their own dtype: bfloat16, which NumPy does not know, passes."""
    array = as_array(name, value)
    if array.dtype.kind in "cOSUmM":
        raise TypeError(f"{name} must be real numbers; got dtype {array.dtype}")
    if array.dtype.char == "g":
        raise TypeError(f"{name} must be float32 or float64; got dtype {array.dtype}")
    return array


def as_array(name: str, value: Any) -> npt.NDArray[Any]:
    """Return anything as an array; an error that names it if there is none, as of ragged lists."""
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} must be an array of numbers; {error}") from None


def writable(name: str, value: Any) -> npt.NDArray[Any]:
    """View memory to be filled as an array: never a copy, which would be filled in vain.

    bfloat16 comes as uint16, the bits.
    """
    array: npt.NDArray[Any] = (
        value if type(value) is np.ndarray and value.dtype in _FILLED else _viewed(name, value)
    )
    flags = array.flags
    if flags.behaved:  # writeable and aligned
        return array
    if not flags.writeable:
        raise ValueError(f"{name} must be writable; got a read-only {type(value).__name__}")
    raise ValueError(f"{name} must be aligned in memory to its element size")


def _from_dlpack(value: Any) -> npt.NDArray[Any]:
    try:
        return np.from_dlpack(value, copy=False)
    except TypeError:  # NumPy 2.0, or a producer of its time, does not know copy=; read-only then
        return np.from_dlpack(value)


def _viewed(name: str, value: Any) -> npt.NDArray[Any]:
    bits = False
    try:
        if isinstance(value, np.ndarray):
            array: npt.NDArray[Any] = np.asarray(value)
        elif hasattr(value, "__dlpack__"):
            if getattr(value, "requires_grad", False):  # a parameter of PyTorch: take its data
                value = value.detach()
            if any(getattr(value, bit, bool)() for bit in ("is_neg", "is_conj")):
                raise TypeError("a view that changes signs, which DLPack does not tell")
            bits = str(getattr(value, "dtype", "")) == "torch.bfloat16"
            if bits:  # a type that NumPy's side of DLPack lacks
                value = value.view(sys.modules["torch"].int16)
            array = _from_dlpack(value)
        else:
            array = np.asarray(memoryview(value))
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise TypeError(
            f"{name} must be an array, a writable buffer or a CPU tensor with DLPack;"
            f" got {type(value).__name__} ({error})"
        ) from None
    if bits:
        array = array.view(np.uint16)
    else:
        fill_dtype(name, array.dtype)
        array = bits_of(array)
    return array
