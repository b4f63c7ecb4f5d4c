"""Measure the float32 activations on every float32 there is, against float64; and hash the results.

``python -m pynn accuracy`` runs it. The oracle is `pynn.reference` in float64, which shares no code
with the kernels; the tests hold it to 2^-47 of the value, against 240 bits. For float64, of which
there are too many, it is the same formulas in long double, on random numbers of every size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from inspect import unwrap
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from . import reference
from ._core import get_isa, get_num_threads, use_isa
from .activations import ACTIVATIONS

__all__ = [
    "HASH_HEADINGS",
    "HEADINGS",
    "HEADINGS_FLOAT64",
    "Direction",
    "cells",
    "cells_float64",
    "hashes",
    "measure",
    "measure_float64",
    "update",
]

Array = npt.NDArray[Any]

CHUNK = 2**17
#: Where the slope changes sign, errors count in units of 2^-27 times dy if that is more than an ULP
#: of the result: the terms that cancel there are about 1/4, and 2^-24 of that is two such units.
CROSSING = 2.0**-27
#: The same of float64: two units are 2^-53 of the terms.
CROSSING_FLOAT64 = 2.0**-56
_COLUMNS = ("ULP", "at x", "correctly rounded")
_MEASURED = tuple(
    f"{d}, {c}" if c == "ULP" else c for d in ("forward", "backward") for c in _COLUMNS
)
HEADINGS = ("function", "inputs", *_MEASURED)
HEADINGS_FLOAT64 = ("function", "inputs per range", *_MEASURED)
HASH_HEADINGS = ("function", "inputs", "instruction sets", "SHA-256 of forward", "of backward")
#: Exponents of float64 numbers, [from, to): each is drawn from as often as any other. One range for
#: each power of two where exponentials turn; beyond, where functions are lines and limits, longer ones.
RANGES = (
    (-1074, -1022),
    (-1022, -60),
    (-60, -30),
    *((e, e + 1) for e in range(-30, 11)),
    (11, 1024),
)


@dataclass
class Direction:
    """What was measured of one direction.

    Attributes
    ----------
    error : float
        The largest error, in units in the last place of the true value.
    at : float
        The input that has it.
    rounded, count : int
        How many results are the correctly rounded ones, of how many.
    """

    error: float = -1.0
    at: float = 0.0
    rounded: int = 0
    count: int = 0

    def add(self, other: Direction) -> None:
        """Take in what was measured on other inputs."""
        if other.error > self.error:
            self.error, self.at = other.error, other.at
        self.rounded += other.rounded
        self.count += other.count


def measure(
    name: str, stride: int = 1, progress: Callable[[float], None] = lambda part: None
) -> tuple[Direction, Direction]:
    """Measure one activation, forward and backward.

    Parameters
    ----------
    name : str
        One of `pynn.ACTIVATIONS`.
    stride : int, default 1
        Takes every stride-th of the 2^32 bit patterns; 1 takes all.
    progress : callable, optional
        Called with the part that is done, 0 to 1.

    Returns
    -------
    forward, backward : Direction

    Notes
    -----
    The backward's ``dy`` is a number from 1 to 2 that is made from the bits of x, so that it meets
    slopes with mantissas of all kinds.
    """
    crossing = _changes_sign(name)
    starts = range(0, 2**32, CHUNK * stride)
    jobs = (partial(_chunk, name, start, stride, crossing) for start in starts)
    return _together(jobs, len(starts), progress)


def measure_float64(
    name: str, count: int, progress: Callable[[float], None] = lambda part: None
) -> tuple[Direction, Direction]:
    """Measure one activation on random float64 numbers, forward and backward.

    Parameters
    ----------
    name : str
        One of `pynn.ACTIVATIONS`.
    count : int
        How many numbers to draw from each of `RANGES`. The 33 numbers around each
        power of two and around each multiple of 1/2 to 760, zeros, infinities and NaN come to them.
    progress : callable, optional
        Called with the part that is done, 0 to 1.

    Returns
    -------
    forward, backward : Direction

    Raises
    ------
    RuntimeError
        If NumPy's long double is no wider than float64 here.
    """
    if np.finfo(np.longdouble).nmant <= np.finfo(np.float64).nmant:
        raise RuntimeError("float64 is measured against long double, which is no wider here")
    crossing = _changes_sign(name)
    edges = _edges()
    jobs: list[Callable[[], tuple[Direction, Direction]]] = [
        partial(_chunk_float64, name, edges[at : at + CHUNK], crossing)
        for at in range(0, edges.size, CHUNK)
    ]
    jobs += [
        partial(_chunk_random, name, number, start, min(CHUNK, count - start), crossing)
        for number in range(len(RANGES))
        for start in range(0, count, CHUNK)
    ]
    return _together(jobs, len(jobs), progress)


def hashes(
    name: str, isa: str, stride: int = 1, progress: Callable[[float], None] = lambda part: None
) -> tuple[str, str]:
    """Hash the results of one activation, forward and backward, of the float32 numbers in order of their bits.

    Parameters
    ----------
    name : str
        One of `pynn.ACTIVATIONS`.
    isa : str
        The instruction set to compute with; afterwards it is what it was.
    stride : int, default 1
        Takes every stride-th of the 2^32 bit patterns; 1 takes all.
    progress : callable, optional
        Called with the part that is done, 0 to 1.

    Returns
    -------
    forward, backward : str
        SHA-256 of the results, little-endian; NaN, whose bits are left open, as 0x7fc00000. The
        backward's ``dy`` is that of `measure`.
    """
    kernel, before = ACTIVATIONS[name], get_isa()
    sums = hashlib.sha256(), hashlib.sha256()
    starts = range(0, 2**32, 16 * CHUNK * stride)
    use_isa(isa)
    try:
        with ThreadPoolExecutor(2) as pool:
            for done, start in enumerate(starts, start=1):
                x, dy = _inputs(start, min(start + 16 * CHUNK * stride, 2**32), stride)
                y = kernel.forward(x)
                dx = kernel.backward(dy, x if kernel.saves == "x" else y)
                for result in (y, dx):
                    result[np.isnan(result)] = np.nan
                list(pool.map(lambda s, a: s.update(a.astype("<f4", copy=False)), sums, (y, dx)))
                progress(done / len(starts))
    finally:
        use_isa(before)
    return sums[0].hexdigest(), sums[1].hexdigest()


def _together(
    jobs: Iterable[Callable[[], tuple[Direction, Direction]]],
    total: int,
    progress: Callable[[float], None],
) -> tuple[Direction, Direction]:
    """Add up what jobs measure, some at a time."""
    forward, backward = Direction(), Direction()
    waiting, done = iter(jobs), 0
    workers = get_num_threads()
    with ThreadPoolExecutor(workers) as pool:

        def submit(count: int) -> Iterator[Future[tuple[Direction, Direction]]]:
            for job in islice(waiting, count):
                yield pool.submit(job)

        running = set(submit(2 * workers))
        try:
            while running:
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    for result, part in zip((forward, backward), future.result(), strict=True):
                        result.add(part)
                    done += 1
                running |= set(submit(len(finished)))
                progress(done / total)
        finally:
            for future in running:
                future.cancel()
    return forward, backward


def cells(name: str, stride: int, directions: tuple[Direction, Direction]) -> list[str]:
    """Return a row of the table under `HEADINGS`."""
    return _cells(name, which(stride), directions)


def cells_float64(name: str, count: int, directions: tuple[Direction, Direction]) -> list[str]:
    """Return a row of the table under `HEADINGS_FLOAT64`."""
    return _cells(name, f"{count:,}", directions)


def which(stride: int) -> str:
    """Say which of the 2^32 numbers every stride-th is."""
    return "all" if stride == 1 else f"1 in {stride}"


def _cells(name: str, inputs: str, directions: tuple[Direction, Direction]) -> list[str]:
    row = [name, inputs]
    for d in directions:
        row += [f"{d.error:.4f}", f"{d.at:.9g}", f"{100 * d.rounded / d.count:.3f} %"]
    return row


def update(text: str, rows: list[list[str]], headings: Sequence[str] = HEADINGS) -> str:
    """Return a page with these rows in its table, in the place of those of the same functions.

    A row of the same hashes keeps the instruction sets that another CPU had found them under.

    Raises
    ------
    ValueError
        If the page has no table with the headings.
    """
    lines = text.split("\n")
    heading = _line(list(headings))
    if heading not in lines:
        raise ValueError(f"it has no table with the line {heading!r}")
    first = lines.index(heading) + 2
    last = first
    while last < len(lines) and lines[last].startswith("|"):
        last += 1
    known = {line.split("|")[1].strip(): line for line in lines[first:last]}
    if heading == _line(list(HASH_HEADINGS)):
        rows = [_with_sets_of(known.get(row[0], ""), row) for row in rows]
    known |= {row[0]: _line(row) for row in rows}
    ordered = [known[name] for name in ACTIVATIONS if name in known]
    return "\n".join(lines[:first] + ordered + lines[last:])


def _line(row: list[str]) -> str:
    return "| " + " | ".join(row) + " |"


def _with_sets_of(line: str, row: list[str]) -> list[str]:
    """Return a row with the instruction sets that a line of the same hashes names too."""
    name, inputs, isas, *both = row
    before = [cell.strip() for cell in line.strip("|").split("|")]
    if before[1:2] + before[3:] != [inputs, *both]:
        return row
    return [name, inputs, ", ".join(dict.fromkeys(before[2].split(", ") + isas.split(", "))), *both]


def _changes_sign(name: str) -> bool:
    row = reference.ACTIVATIONS[name]
    x = np.linspace(-4, 4, 801)
    slopes = row.backward(np.ones_like(x), x if row.saves == "x" else row.forward(x))
    return bool(slopes.min() < 0)


def _chunk(name: str, start: int, stride: int, crossing: bool) -> tuple[Direction, Direction]:
    kernel, formula = ACTIVATIONS[name], reference.ACTIVATIONS[name]
    x, dy = _inputs(start, min(start + CHUNK * stride, 2**32), stride)
    y = kernel.forward(x)
    saved = x if kernel.saves == "x" else y
    dx = kernel.backward(dy, saved)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        wide, wide_saved = x.astype(np.float64), saved.astype(np.float64)
    true = np.asarray(formula.forward(wide))
    slopes = np.asarray(formula.backward(dy.astype(np.float64), wide_saved))
    return _compare(x, y, true, None), _compare(x, dx, slopes, dy if crossing else None)


def _inputs(start: int, stop: int, stride: int) -> tuple[Array, Array]:
    """Every stride-th float32, by its bits, and a dy for each."""
    bits = np.arange(start, stop, stride, dtype=np.uint64).astype(np.uint32)
    mixed = (bits * np.uint32(2654435761)) >> np.uint32(9)
    return bits.view(np.float32), (mixed | np.uint32(0x3F800000)).view(np.float32)


def _chunk_random(
    name: str, number: int, start: int, count: int, crossing: bool
) -> tuple[Direction, Direction]:
    """Measure numbers of a range, random in sign, exponent and mantissa."""
    rng = np.random.default_rng([number, start])
    mantissas = rng.integers(2**52, 2**53, count, np.int64).astype(np.float64)
    x = np.ldexp(mantissas, rng.integers(*RANGES[number], count) - 52)
    return _chunk_float64(name, np.where(rng.integers(0, 2, count) > 0, x, -x), crossing)


def _edges() -> Array:
    """Numbers at which a float64 function may turn, and those beside them."""
    centres = np.concatenate([np.ldexp(1.0, np.arange(-1074, 1024)), np.arange(1, 1521) / 2])
    bits = centres.view(np.int64)[:, None] + np.arange(-16, 17)
    infinity = np.float64(np.inf).view(np.int64)
    positive = np.unique(np.append(bits[(bits >= 0) & (bits <= infinity)], [0, infinity]))
    x = positive.view(np.float64)
    return np.concatenate([x, -x, [np.nan]])


def _chunk_float64(name: str, x: Array, crossing: bool) -> tuple[Direction, Direction]:
    kernel, formula = ACTIVATIONS[name], reference.ACTIVATIONS[name]
    mixed = (x.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(12)
    dy = (mixed | np.uint64(0x3FF << 52)).view(np.float64)
    y = kernel.forward(x)
    saved = x if kernel.saves == "x" else y
    dx = kernel.backward(dy, saved)
    with np.errstate(all="ignore"):
        wide, wide_dy, wide_saved = (a.astype(np.longdouble) for a in (x, dy, saved))
        true = unwrap(formula.forward)(wide)
        slopes = unwrap(formula.backward)(wide_dy, wide_saved)
    return _compare_float64(x, y, true, None), _compare_float64(
        x, dx, slopes, dy if crossing else None
    )


def _compare_float64(x: Array, got: Array, true: Array, dy: Array | None) -> Direction:
    """As `_compare`, of float64 against long double."""
    true = np.asarray(true, np.longdouble)
    limit = np.ldexp(np.longdouble(1), 1024)
    with np.errstate(all="ignore"):
        missing = np.isnan(true)
        right = (got == true.astype(np.float64)) | (np.isnan(got) & missing)
        exponents = np.frexp(np.clip(np.where(missing, 1, true), -limit, limit))[1] - 53
        unit = np.ldexp(np.longdouble(1), np.clip(exponents, -1074, 1024 - 53))
        if dy is not None:
            unit = np.where(np.abs(x) < 2, np.maximum(unit, np.abs(dy) * CROSSING_FLOAT64), unit)
        error = np.clip(got.astype(np.longdouble), -limit, limit) - np.clip(true, -limit, limit)
        error = np.abs(error / unit).astype(np.float64)
    return _worst(x, got, missing, error, right)


def _compare(x: Array, got: Array, true: Array, dy: Array | None) -> Direction:
    """Errors in ULP of the true values; infinity counts as the first power of two beyond range."""
    with np.errstate(all="ignore"):
        missing = np.isnan(true)
        right = (got == true.astype(np.float32)) | (np.isnan(got) & missing)
        exponents = (true.view(np.int64) & (0x7FF << 52)) - (23 << 52)
        unit = np.clip(exponents, (1023 - 149) << 52, (1023 + 104) << 52).view(np.float64)
        if dy is not None:
            unit = np.where(np.abs(x) < 2, np.maximum(unit, np.abs(dy) * CROSSING), unit)
        limit = 2.0**128
        error = np.clip(got.astype(np.float64), -limit, limit)
        error -= np.clip(true, -limit, limit)
        error = np.abs(error) / unit
    return _worst(x, got, missing, error, right)


def _worst(x: Array, got: Array, missing: Array, error: Array, right: Array) -> Direction:
    error[np.isnan(error)] = np.inf
    error[np.isnan(got) & missing] = 0
    worst = int(error.argmax())
    return Direction(float(error[worst]), float(x[worst]), int(right.sum()), x.size)
