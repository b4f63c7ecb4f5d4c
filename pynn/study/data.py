"""The data the study learns from: scikit-learn's digits, MNIST, or arrays of the user's own."""

from __future__ import annotations

import gzip
import math
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["BATCH", "DataError", "Dataset", "DownloadError", "load", "read_idx"]

#: Samples per training batch; the training part must hold at least one batch.
BATCH = 128
#: One sample in this many is held out of training.
HELD_OUT = 5
MAX_CLASSES = 1000

# The mirror that PyTorch uses too, and the files' well-known SHA-256.
MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_FILES = {
    "train-images-idx3": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


class DataError(ValueError):
    """The data asked for do not exist or cannot be learned from. The message is one line."""


class DownloadError(RuntimeError):
    """The data could not be fetched. The message is one line and names the offline choice."""


@dataclass(frozen=True)
class Dataset:
    """Inputs and labels, scaled and split.

    Attributes
    ----------
    description : str
        What it is, for people.
    x, t : ndarray
        Training inputs, float32 of shape (n, features), divided by the largest magnitude; labels,
        int64 of shape (n,), from 0 on.
    x_held, t_held : ndarray
        The same of the samples that are held out of training.
    classes : int
        Number of classes.
    """

    description: str
    x: Floats
    t: Labels
    x_held: Floats
    t_held: Labels
    classes: int

    def summary(self) -> dict[str, Any]:
        """Return the facts about the data that results.json states."""
        return {
            "description": self.description,
            "features": self.x.shape[1],
            "classes": self.classes,
            "training_samples": len(self.x),
            "held_out_samples": len(self.x_held),
        }


def load(name: str, seed: int, progress: Any = None) -> Dataset:
    """Load a data set.

    Parameters
    ----------
    name : str
        ``"digits"``, ``"mnist"`` or the path of an ``.npz`` file with arrays ``x`` (n, ...) and
        ``t``, which holds n labels or is one-hot of shape (n, classes).
    seed : int
        Decides which samples are held out. MNIST comes with its own split.
    progress : object, optional
        What `pooch.retrieve` takes as its progress bar.

    Raises
    ------
    DataError
        If there is no such data, or nothing can be learned from it.
    DownloadError
        If MNIST cannot be fetched.

    Notes
    -----
    The download of MNIST was tried against a local server only, not against the mirror itself.
    """
    if name == "digits":
        from sklearn.datasets import load_digits

        x, t = load_digits(return_X_y=True)
        return _split("scikit-learn's handwritten digits, 8 x 8 pixels", *_check(x, t), seed)
    if name == "mnist":
        return _mnist(progress)
    if not name.endswith(".npz"):
        raise DataError(f"unknown data {name!r}: choose digits, mnist or a file that ends in .npz")
    path = Path(name)
    return _split(path.name, *_check(*_read_npz(path), where=f"{name}: "), seed)


def _read_npz(path: Path) -> tuple[Array, Array]:
    if not path.exists():
        raise DataError(f"{path} does not exist")
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is not an .npz file: save it with np.savez(file, x=x, t=t)")
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in "xt" if key not in file]
            if not missing:
                return file["x"], file["t"]
            names = ", ".join(file) or "nothing"
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} cannot be read: {reason}") from None
    raise DataError(f"{path} has no array {missing[0]}: x and t are needed, and it holds {names}")


def _check(x: Array, t: Array, where: str = "") -> tuple[Floats, Labels, int]:
    """Return x as float32 (n, features) within [-1, 1], t as labels, and the number of classes."""
    if x.dtype.kind not in "biuf" or t.dtype.kind not in "biuf":
        raise DataError(
            f"{where}x and t must be real numbers; they are of dtype {x.dtype} and {t.dtype}"
        )
    if x.ndim < 2 or x.size == 0:
        raise DataError(
            f"{where}x must have shape (samples, features...), none of them 0; it has {x.shape}"
        )
    if t.ndim not in (1, 2) or len(t) != len(x):
        raise DataError(
            f"{where}t must have shape ({len(x)},), or ({len(x)}, classes) for one-hot, as x has "
            f"shape {x.shape}; it has {t.shape}"
        )
    wide = np.result_type(x.dtype, np.float32) != np.float32
    with np.errstate(over="ignore"):
        values: Array = x.reshape(len(x), -1).astype(np.float64 if wide else np.float32)
    if not (np.isfinite(values).all() and np.isfinite(t).all()):
        raise DataError(f"{where}x and t must be finite; they hold NaN or infinity")
    scale = np.abs(values).max()
    if scale == 0:
        raise DataError(f"{where}x is 0 throughout")
    values /= scale  # exactly rounded, so the same bits everywhere
    labels, classes = _labels(t, where)
    return values.astype(np.float32), labels, classes


def _labels(t: Array, where: str) -> tuple[Labels, int]:
    if t.ndim == 2 and t.shape[1] > 1:
        if not (((t == 0) | (t == 1)).all() and (t.sum(axis=1) == 1).all()):
            raise DataError(
                f"{where}t of shape {t.shape} must be one-hot: a single 1 in each row, else 0"
            )
        t = t.argmax(axis=1)
    t = t.reshape(len(t)) if t.size == len(t) else t
    if t.ndim != 1 or (t != np.floor(t)).any():
        raise DataError(f"{where}t must hold whole numbers, the labels of the classes")
    names, labels = np.unique(t, return_inverse=True)
    if not 2 <= len(names) <= MAX_CLASSES:
        raise DataError(
            f"{where}t must name between 2 and {MAX_CLASSES} classes; it names {len(names)}"
        )
    return labels.astype(np.int64), len(names)


def _split(description: str, x: Floats, t: Labels, classes: int, seed: int) -> Dataset:
    least = math.ceil(BATCH * HELD_OUT / (HELD_OUT - 1))
    if len(x) < least:
        raise DataError(
            f"{description}: too few samples: {len(x)}, and at least {least} are needed"
        )
    order = np.random.Generator(np.random.PCG64([seed, 0])).permutation(len(x))
    held, train = np.split(order, [len(x) // HELD_OUT])
    return Dataset(description, x[train], t[train], x[held], t[held], classes)


def _mnist(progress: Any) -> Dataset:
    import pooch

    pooch.get_logger().setLevel("ERROR")
    files: list[Array] = []
    for name, sha256 in MNIST_FILES.items():
        file = f"{name}-ubyte.gz"
        try:
            path = pooch.retrieve(
                MNIST_URL + file,
                known_hash=f"sha256:{sha256}",
                fname=file,
                path=pooch.os_cache("pynn") / "mnist",
                progressbar=progress if progress is not None else False,
            )
            files.append(read_idx(Path(path)))
        except (OSError, ValueError) as error:  # the errors of requests are OSErrors
            reason = type(error).__name__ if isinstance(error, OSError) else "wrong SHA-256"
            raise DownloadError(
                f"cannot fetch MNIST ({reason}: {MNIST_URL}{file}); --data digits needs no network"
            ) from error
    x, t, classes = _check(files[0], files[1])
    x_held, t_held, _ = _check(files[2], files[3])
    return Dataset("MNIST handwritten digits, 28 x 28 pixels", x, t, x_held, t_held, classes)


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Read a gzipped IDX file of unsigned bytes, MNIST's format.

    Parameters
    ----------
    path : Path
        The file: two zero bytes, the type (8 is unsigned byte), the number of axes, the length of
        each axis as a big-endian 32-bit number, then the values in C order.

    Returns
    -------
    ndarray of uint8, of the shape that the file states

    Raises
    ------
    ValueError
        If it is not such a file, or its length does not fit its shape.
    """
    try:
        with gzip.open(path) as file:
            content = file.read()
    except (EOFError, zlib.error) as error:
        raise ValueError(f"{path} is not a whole gzip file: {error}") from None
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path} is not an IDX file of unsigned bytes")
    start = 4 + 4 * content[3]
    shape = tuple(int.from_bytes(content[i : i + 4]) for i in range(4, start, 4))
    if len(content) != start + math.prod(shape):
        raise ValueError(f"{path} has {len(content)} bytes, which does not fit its shape {shape}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
