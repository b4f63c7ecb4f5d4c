"""Whether this machine gives the published results: ``pynn selftest``.

Three parts: known answers from elsewhere, hashes of every function's results against those that the
package carries, and the error of a sample of float32 numbers.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

import pynn

from . import _core, accuracy
from ._backend import get_backend, use_backend
from .activations import ACTIVATIONS

__all__ = [
    "Hashes",
    "Result",
    "hashes",
    "judge",
    "known_answers",
    "published",
    "sample",
    "settings",
]

Array = npt.NDArray[Any]
Case = Callable[[], list[Array]]

HASHES = "hashes.json"
DTYPES = (np.float32, np.float64)
#: Every so many float32 numbers one is tried.
STRIDE = 4999
#: ULP, forward and backward.
LIMITS = (1.0, 2.0)
LENGTH = 50_021  # elements of an elementwise function: two threads take part, and the last vector is not full


# ---- Known answers -------------------------------------------------------------------------------


def known_answers() -> list[tuple[str, bool]]:
    """Compare with results that do not come from pynn.

    Returns
    -------
    list of (str, bool)
        What was asked, and whether the answer was right.
    """
    answers = []
    for counter, key, block in PHILOX:
        got = _core.philox4x32(np.array(counter, np.uint32), np.array(key, np.uint32))
        answers.append((f"Philox4x32-10 of {counter[0]:08x}...", got.tolist() == block))
    for dtype in DTYPES:
        x, w = _whole_numbers(dtype, 70, 300), _whole_numbers(dtype, 300, 50)
        want = x.astype(np.int64) @ w.astype(np.int64)
        name = np.dtype(dtype).name
        answers.append(
            (f"affine of whole numbers, {name}", bool((pynn.affine(x, w) == want).all()))
        )
        half = dtype(0.5)
        answers.append((f"sigmoid(0) = 1/2, {name}", bool(pynn.sigmoid(dtype(0)) == half)))
        ends = pynn.tanh(np.array([-np.inf, -0.0, np.inf], dtype))
        right = ends.tolist() == [-1, 0, 1] and bool(np.signbit(ends[1]))
        answers.append((f"tanh of -inf, -0 and inf, {name}", right))
        equal = pynn.softmax(np.zeros((1, 64), dtype))
        answers.append((f"softmax of equals, {name}", bool((equal == dtype(1 / 64)).all())))
    return answers


#: counter, key, block: the vectors that come with Random123 (Salmon et al., SC 2011).
PHILOX = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([2**32 - 1] * 4, [2**32 - 1] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


# ---- Hashes --------------------------------------------------------------------------------------


@dataclass
class Hashes:
    """What was found under one setting.

    Attributes
    ----------
    isa : str
        The instruction set.
    threads : int
        How many.
    found : dict
        name -> SHA-256 of the results.
    """

    isa: str
    threads: int
    found: dict[str, str]

    def wrong(self, known: Mapping[str, str]) -> list[str]:
        """Return the names whose hash is not the published one."""
        return [name for name, value in self.found.items() if known.get(name, value) != value]


def settings() -> list[tuple[str, int]]:
    """Return the (instruction set, threads) that `hashes` is worth running under: best set first."""
    usable = [name for name, state in _core.isas().items() if state == "available"]
    return [
        (isa, threads) for isa in usable for threads in ((1, 2, 5) if isa == usable[0] else (2,))
    ]


def published() -> dict[str, str]:
    """Return the hashes that the package carries: name -> SHA-256."""
    text = files("pynn").joinpath(HASHES).read_text(encoding="ascii")
    known: dict[str, str] = json.loads(text)
    return known


def hashes(isa: str, threads: int) -> Hashes:
    """Compute fixed inputs' results under one setting, and hash them.

    Parameters
    ----------
    isa : str
        An instruction set of this CPU.
    threads : int
        How many threads.

    Notes
    -----
    The inputs come from integer arithmetic. NaNs count as one, since their bits are left open.
    Instruction set, threads and backend are afterwards what they were.
    """
    before = pynn.get_isa(), pynn.get_num_threads(), get_backend()
    try:
        pynn.use_isa(isa)
        pynn.set_num_threads(threads)
        use_backend("pynn")
        return Hashes(isa, threads, {name: _digest(case()) for name, case in _cases()})
    finally:
        pynn.use_isa(before[0])
        pynn.set_num_threads(before[1])
        use_backend(before[2])


def _cases() -> Iterator[tuple[str, Case]]:
    for dtype in DTYPES:
        for name, case in (*_kernels(dtype), *_samplers(dtype), *_training(dtype)):
            yield f"{name} {np.dtype(dtype).name}", case


def _kernels(dtype: Any) -> Iterator[tuple[str, Case]]:
    x, dy = _mixed(dtype, 1), _mixed(dtype, 2)
    for name, row in ACTIVATIONS.items():

        def forward(row: Any = row) -> list[Array]:
            return [row.forward(x)]

        def backward(row: Any = row) -> list[Array]:
            return [row.backward(dy, x if row.saves == "x" else row.forward(x))]

        def fused(name: str = name) -> list[Array]:
            a, w, b = (_near(dtype, i, *s) for i, s in enumerate([(9, 300), (300, 40), (40,)]))
            return [pynn.affine(a, w, b, activation=name)]

        yield name, forward
        yield f"{name}_backward", backward
        yield f"affine {name}", fused
    rows, gradients = _near(dtype, 3, 40, 503), _near(dtype, 4, 40, 503)
    yield "softmax", lambda: [pynn.softmax(rows), pynn.softmax(rows, axis=0)]
    yield "softmax_backward", lambda: [pynn.softmax_backward(gradients, pynn.softmax(rows))]
    for m, k, n in ((1, 600, 100), (3, 1100, 40), (70, 65, 70), (130, 300, 190)):
        a, w, b = _near(dtype, 5, m, k), _near(dtype, 6, k, n), _near(dtype, 7, n)
        g = _near(dtype, 8, m, n)

        def products(a: Array = a, w: Array = w, b: Array = b) -> list[Array]:
            return [pynn.affine(a, w, b), pynn.affine(a, np.asfortranarray(w), b)]

        def gradient(g: Array = g, a: Array = a, w: Array = w) -> list[Array]:
            return list(pynn.affine_backward(g, a, w))

        yield f"affine {m}x{k}x{n}", products
        yield f"affine_backward {m}x{k}x{n}", gradient


def _samplers(dtype: Any) -> Iterator[tuple[str, Case]]:
    """All functions of pynn.random and pynn.initializers that need no more than a shape."""
    for module, shapes in ((pynn.random, [LENGTH]), (pynn.initializers, [(24, 36), (3, 3, 8, 12)])):
        for name in module.__all__:
            function = getattr(module, name)
            if not inspect.isfunction(function):
                continue
            parameters = inspect.signature(function).parameters
            required = [p for p in parameters.values() if p.default is p.empty]
            if not {"shape", "rng", "dtype"} <= parameters.keys() or len(required) > 1:
                continue

            def sample(function: Any = function, shapes: Any = shapes) -> list[Array]:
                return [_first_shape(function, shapes, dtype)]

            yield f"{module.__name__.removeprefix('pynn.')}.{name}", sample


def _first_shape(function: Any, shapes: list[Any], dtype: Any) -> Array:
    for shape in shapes[:-1]:
        try:
            return np.asarray(function(shape, rng=3, dtype=dtype))
        except ValueError:  # convolutions' weights have more axes
            continue
    return np.asarray(function(shapes[-1], rng=3, dtype=dtype))


def _training(dtype: Any) -> Iterator[tuple[str, Case]]:
    """A small network's weights after some steps of each optimizer."""
    x, t = _near(dtype, 9, 30, 20), np.arange(30) * 7 % 5
    for name in pynn.optimizers.__all__:
        optimizer = getattr(pynn.optimizers, name)
        if not inspect.isclass(optimizer) or not hasattr(optimizer, "update"):
            continue
        parameters = list(inspect.signature(optimizer).parameters.values())
        if inspect.isabstract(optimizer) or any(
            p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
            for p in parameters
        ):
            continue

        def train(optimizer: Any = optimizer) -> list[Array]:
            net = pynn.networks.MultiLayerNet(
                20, [40, 30], 5, weight_decay_lambda=0.01, rng=5, dtype=dtype
            )
            stepper = optimizer()
            for _ in range(5):
                stepper.update(net.params, net.gradient(x, t))
            return [net.params[name] for name in sorted(net.params)]

        yield f"training by {name}", train


def _digest(arrays: list[Array]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).copy()
        plain[np.isnan(plain)] = np.nan
        digest.update(str((plain.shape, plain.dtype.name)).encode())
        digest.update(plain.tobytes())
    return digest.hexdigest()


def _words(n: int, seed: int) -> npt.NDArray[np.uint64]:
    """Whole numbers without a pattern, by the arithmetic of SplitMix64 (Steele, Lea, Flood 2014)."""
    z = (np.arange(1, n + 1, dtype=np.uint64) + np.uint64(seed << 32)) * np.uint64(
        0x9E3779B97F4A7C15
    )
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _near(dtype: Any, seed: int, *shape: int) -> Array:
    """Numbers from -4 to 4."""
    words = _words(int(np.prod(shape)), seed)
    x: Array = (words >> np.uint64(44)).astype(dtype) * dtype(2.0**-17) - dtype(4)
    return x.reshape(shape)


def _mixed(dtype: Any, seed: int) -> Array:
    """Half of them numbers from -4 to 4, half any bits at all."""
    x = _near(dtype, seed, LENGTH)
    bits = _words(LENGTH, seed + 100)
    kinds: dict[int, Any] = {4: np.uint32, 8: np.uint64}
    any_bits = (bits >> np.uint64(64 - 8 * x.itemsize)).astype(kinds[x.itemsize]).view(dtype)
    x[::2] = any_bits[::2]
    return x


def _whole_numbers(dtype: Any, *shape: int) -> Array:
    return (_words(int(np.prod(shape)), shape[0]) % np.uint64(9)).astype(dtype).reshape(shape) - 4


# ---- Accuracy ------------------------------------------------------------------------------------


def sample(
    progress: Callable[[float], None] = lambda part: None,
) -> dict[str, tuple[accuracy.Direction, accuracy.Direction]]:
    """Measure the float32 activations on every 4999th number: name -> (forward, backward)."""
    found = {}
    for done, name in enumerate(ACTIVATIONS):
        progress(done / len(ACTIVATIONS))
        found[name] = accuracy.measure(name, STRIDE)
    return found


# ---- The verdict ---------------------------------------------------------------------------------


@dataclass
class Result:
    """All that was found.

    Attributes
    ----------
    passed : bool
        Whether everything is as published.
    verdict : str
        The same in a sentence.
    """

    passed: bool
    verdict: str
    answers: list[tuple[str, bool]]
    known: dict[str, str]
    found: list[Hashes]
    errors: dict[str, tuple[accuracy.Direction, accuracy.Direction]]

    def lines(self) -> list[str]:
        """Return what is shown: a line for each part, one for each failure, and the verdict."""
        right = sum(good for _, good in self.answers)
        lines = [f"known answers   {right} of {len(self.answers)} right"]
        lines += [f"  wrong: {name}" for name, good in self.answers if not good]
        for hashes in self.found:
            wrong = hashes.wrong(self.known)
            compared = len(hashes.found.keys() & self.known.keys())
            lines.append(
                f"published bits  {compared - len(wrong)} of {compared} equal, {hashes.isa}, "
                f"{hashes.threads} thread{'s' * (hashes.threads > 1)}"
            )
            lines += [f"  other bits: {name}" for name in wrong]
        unknown = [name for name in self.found[0].found if name not in self.known]
        if unknown:
            lines.append(f"  no published hash: {', '.join(unknown)}")
        worst = [max((d[i].error, name) for name, d in self.errors.items()) for i in (0, 1)]
        count = next(iter(self.errors.values()))[0].count
        lines.append(
            f"accuracy        {len(self.errors)} activations, {count} float32 numbers each: forward at most "
            f"{worst[0][0]:.3f} ULP ({worst[0][1]}), backward {worst[1][0]:.3f} ULP ({worst[1][1]})"
        )
        return [*lines, self.verdict]

    def as_dict(self) -> dict[str, Any]:
        """Return the same for JSON."""
        return {
            "passed": self.passed,
            "verdict": self.verdict,
            "known answers": dict(self.answers),
            "hashes": [
                {
                    "instruction set": h.isa,
                    "threads": h.threads,
                    "other than published": h.wrong(self.known),
                }
                for h in self.found
            ],
            "ULP": {name: [d.error for d in both] for name, both in self.errors.items()},
        }


def judge(
    answers: list[tuple[str, bool]],
    known: dict[str, str],
    found: list[Hashes],
    errors: dict[str, tuple[accuracy.Direction, accuracy.Direction]],
) -> Result:
    """Decide whether this machine gives what is published."""
    wrong = [name for name, good in answers if not good]
    other = {name for hashes in found for name in hashes.wrong(known)}
    missing = known.keys() - found[0].found.keys()
    large = [
        name
        for name, directions in errors.items()
        if any(d.error > limit for d, limit in zip(directions, LIMITS, strict=True))
    ]
    complaints = []
    if wrong:
        complaints.append(f"{len(wrong)} known answers are wrong")
    if other:
        complaints.append(f"{len(other)} of {len(known)} hashes are not the published ones")
    if missing:
        complaints.append(f"{len(missing)} published hashes are of functions that are not there")
    if large:
        complaints.append(f"errors are too large: {', '.join(large)}")
    if complaints:
        verdict = f"This machine does NOT give the published results: {'; '.join(complaints)}."
    else:
        verdict = "This machine gives the published bits."
    return Result(not complaints, verdict, answers, known, found, errors)
