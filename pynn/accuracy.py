"""Measure the float32 activations on every float32 there is, against float64.

``python -m pynn accuracy`` runs it. The oracle is `pynn.reference` in float64, which shares no code
with the kernels; the tests hold it to 2^-47 of the value, against 240 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from . import reference
from ._core import get_num_threads
from .activations import ACTIVATIONS

__all__ = ["HEADINGS", "Direction", "cells", "measure", "update"]

Array = npt.NDArray[Any]

CHUNK = 2**17
#: Where the slope changes sign, errors count in units of 2^-27 times dy if that is more than an ULP
#: of the result: the terms that cancel there are about 1/4, and 2^-24 of that is two such units.
CROSSING = 2.0**-27
HEADINGS = (
    "function",
    "inputs",
    "forward, ULP",
    "at x",
    "correctly rounded",
    "backward, ULP",
    "at x",
    "correctly rounded",
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
    forward, backward = Direction(), Direction()
    starts = iter(range(0, 2**32, CHUNK * stride))
    total, done = -(-(2**32) // (CHUNK * stride)), 0
    crossing = _changes_sign(name)
    workers = get_num_threads()
    with ThreadPoolExecutor(workers) as pool:

        def submit(count: int) -> Iterator[Future[tuple[Direction, Direction]]]:
            for start in islice(starts, count):
                yield pool.submit(_chunk, name, start, stride, crossing)

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
    row = [name, "all" if stride == 1 else f"1 in {stride}"]
    for d in directions:
        row += [f"{d.error:.4f}", f"{d.at:.9g}", f"{100 * d.rounded / d.count:.3f} %"]
    return row


def update(text: str, rows: list[list[str]]) -> str:
    """Return a page with these rows in its table, in the place of those of the same functions.

    Raises
    ------
    ValueError
        If the page has no table with the headings.
    """
    lines = text.split("\n")
    heading = _line(list(HEADINGS))
    if heading not in lines:
        raise ValueError(f"it has no table with the line {heading!r}")
    first = lines.index(heading) + 2
    last = first
    while last < len(lines) and lines[last].startswith("|"):
        last += 1
    known = {line.split("|")[1].strip(): line for line in lines[first:last]}
    known |= {row[0]: _line(row) for row in rows}
    ordered = [known[name] for name in ACTIVATIONS if name in known]
    return "\n".join(lines[:first] + ordered + lines[last:])


def _line(row: list[str]) -> str:
    return "| " + " | ".join(row) + " |"


def _changes_sign(name: str) -> bool:
    row = reference.ACTIVATIONS[name]
    x = np.linspace(-4, 4, 801)
    slopes = row.backward(np.ones_like(x), x if row.saves == "x" else row.forward(x))
    return bool(slopes.min() < 0)


def _chunk(name: str, start: int, stride: int, crossing: bool) -> tuple[Direction, Direction]:
    kernel, formula = ACTIVATIONS[name], reference.ACTIVATIONS[name]
    bits = np.arange(start, min(start + CHUNK * stride, 2**32), stride, dtype=np.uint64)
    bits = bits.astype(np.uint32)
    x = bits.view(np.float32)
    mixed = (bits * np.uint32(2654435761)) >> np.uint32(9)
    dy = (mixed | np.uint32(0x3F800000)).view(np.float32)
    y = kernel.forward(x)
    saved = x if kernel.saves == "x" else y
    dx = kernel.backward(dy, saved)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        wide, wide_saved = x.astype(np.float64), saved.astype(np.float64)
    true = np.asarray(formula.forward(wide))
    slopes = np.asarray(formula.backward(dy.astype(np.float64), wide_saved))
    return _compare(x, y, true, None), _compare(x, dx, slopes, dy if crossing else None)


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
    error[np.isnan(error)] = np.inf
    error[np.isnan(got) & missing] = 0
    worst = int(error.argmax())
    return Direction(float(error[worst]), float(x[worst]), int(right.sum()), x.size)
