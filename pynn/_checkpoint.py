"""Checkpoints: arrays by name in a safetensors file, with text beside them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def save(
    path: str | os.PathLike[str],
    arrays: Mapping[str, Array],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a file; one that stood there stays whole until the new one is."""
    safetensors = package()
    contiguous = {name: np.ascontiguousarray(a).reshape(a.shape) for name, a in arrays.items()}
    path = os.fspath(path)
    new = f"{path}.{os.getpid()}.new"
    try:
        with open(new, "wb"):
            pass  # which tells better what is wrong with a path
        safetensors.save_file(contiguous, new, None if metadata is None else dict(metadata))
        os.replace(new, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(new)
        raise


def load(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, str]]:
    """Read the arrays of a file, and its text."""
    package()
    from safetensors import SafetensorError, safe_open

    with open(path, "rb"):
        pass  # which tells better what is wrong with a path
    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, TypeError) as error:  # TypeError: a dtype that NumPy lacks
        raise ValueError(
            f"path must be a whole safetensors file of NumPy's dtypes; got {os.fspath(path)!r} ({error})"
        ) from None


def package() -> Any:
    """Return the package that reads and writes, or say how to get it."""
    try:
        import safetensors.numpy
    except ImportError:
        raise ImportError(
            "saving and loading need the package safetensors: pip install 'pynn[train]'"
        ) from None
    return safetensors.numpy
