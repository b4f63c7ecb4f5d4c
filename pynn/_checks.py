"""Checks of arguments. Each names the argument, says what is wanted and what was given."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
import numpy.typing as npt


def number(name: str, value: Any, least: float = -math.inf) -> float:
    """Return a finite number, no less than least, as a float."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number; got {value!r}") from None
    if not math.isfinite(found):
        raise ValueError(f"{name} must be finite; got {value!r}")
    if found < least:
        raise ValueError(f"{name} must be at least {least:g}; got {value!r}")
    return found


def integer(name: str, value: Any, least: int | None = None) -> int:
    """Return an integer, no less than least, as an int."""
    try:
        found = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int; got {value!r}") from None
    if least is not None and found < least:
        raise ValueError(f"{name} must be at least {least}; got {value!r}")
    return found


def shape_tuple(shape: Any) -> tuple[int, ...]:
    """Return a shape, given as an int or a sequence of ints, as a tuple."""
    if shape is None:
        raise TypeError("shape, or out to be filled, must be given; got neither")
    try:
        found = tuple(operator.index(n) for n in (shape if np.iterable(shape) else (shape,)))
    except TypeError:
        raise TypeError(f"shape must be an int or a tuple of ints; got {shape!r}") from None
    if min(found, default=0) < 0:
        raise ValueError(f"shape must have no negative entry; got {shape!r}")
    return found


def shard_bounds(shard: Any, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return where a shard, a tuple of slices or None for all, starts and stops on each axis."""
    if shard is None:
        return [(0, n) for n in shape]
    if not isinstance(shard, tuple) or not all(isinstance(s, slice) for s in shard):
        raise TypeError(f"shard must be a tuple of slices, one per axis; got {shard!r}")
    if len(shard) != len(shape) or any(s.step not in (None, 1) for s in shard):
        raise ValueError(f"shard must have a slice of step 1 per axis of {shape}; got {shard!r}")
    bounds = []
    for s, n in zip(shard, shape, strict=True):
        start = 0 if s.start is None else integer("the start of a shard", s.start)
        stop = n if s.stop is None else integer("the stop of a shard", s.stop)
        if not 0 <= start <= stop <= n:
            raise ValueError(f"shard must lie within shape {shape}; got {shard!r}")
        bounds.append((start, stop))
    return bounds


def float_dtype(name: str, dtype: npt.DTypeLike) -> np.dtype[Any]:
    """Return float32 or float64 as a dtype."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"{name} must be float32 or float64; got {dtype!r}") from None
    if found not in (np.float32, np.float64):  # of foreign byte order, it is equal to neither
        raise TypeError(f"{name} must be float32 or float64 of native byte order; got {found!r}")
    return found


def real_array(name: str, value: Any, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return real numbers as an array of a dtype."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be real numbers; got dtype {array.dtype}")
    return np.asarray(array, dtype)


def writable(name: str, value: Any) -> npt.NDArray[Any]:
    """View memory to be filled as an array: never a copy, which would be filled in vain."""
    try:
        if isinstance(value, np.ndarray):
            array: npt.NDArray[Any] = np.asarray(value)
        elif hasattr(value, "__dlpack__"):
            if getattr(value, "requires_grad", False):  # a parameter of PyTorch: take its data
                value = value.detach()
            if any(getattr(value, bit, bool)() for bit in ("is_neg", "is_conj")):
                raise TypeError("a view that changes signs, which DLPack does not tell")
            array = np.from_dlpack(value)
        else:
            array = np.asarray(memoryview(value))
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise TypeError(
            f"{name} must be an array, a writable buffer or a CPU tensor with DLPack;"
            f" got {type(value).__name__} ({error})"
        ) from None
    float_dtype(name, array.dtype)
    if not array.flags.writeable:
        raise ValueError(f"{name} must be writable; got a read-only {type(value).__name__}")
    if not array.flags.aligned:
        raise ValueError(f"{name} must be aligned in memory to its element size")
    return array
