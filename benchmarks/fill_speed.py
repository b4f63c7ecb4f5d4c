"""Random numbers a second, in 10^9, with out=, by dtype, size and threads; and what a call from Python takes.

python benchmarks/fill_speed.py [--rounds 20]
"""

import argparse
import time
from functools import partial

import numpy as np

import pynn

CASES = {
    "normal": ("normal", (0.0, 1.0)),
    "uniform": ("uniform", (0.0, 1.0)),
    "truncated ±2": ("truncated_normal", (0.0, 1.0, -2.0, 2.0)),
    "truncated ±6": ("truncated_normal", (0.0, 1.0, -6.0, 6.0)),
}
DTYPES = {
    "float32": np.float32,
    "bfloat16": np.uint16,
    "float16": np.float16,
    "float64": np.float64,
}


def best(call, number, seconds=0.3):
    """Seconds per call: the shortest of rounds of `number` calls."""
    call()
    shortest, end = np.inf, time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        for _ in range(number):
            call()
        shortest = min(shortest, (time.perf_counter() - start) / number)
    return shortest


def rates(rounds):
    """Print a row per dtype and size: one thread, two, and their ratio; and bfloat16's speed over float32's."""
    for size in (2**20, 2**24):
        targets = {kind: np.ones(size, dtype) for kind, dtype in DTYPES.items()}
        fills = {
            (kind, case, threads): partial(pynn._core.fill, out, distribution, 5, *parameters)
            for case, (distribution, parameters) in CASES.items()
            for threads in (1, 2)
            for kind, out in targets.items()
        }
        shortest = dict.fromkeys(fills, np.inf)
        for _ in range(rounds):  # in turn, as a shared machine has fast and slow minutes
            for key, fill in fills.items():
                pynn.set_num_threads(key[2])
                shortest[key] = min(shortest[key], best(fill, 2**22 // size or 1, 0.01))
        rate = {key: size / seconds / 1e9 for key, seconds in shortest.items()}
        name = f"2^{size.bit_length() - 1}"
        for kind in DTYPES:
            pairs = [(rate[kind, case, 1], rate[kind, case, 2]) for case in CASES]
            cells = [f"{one:5.2f} {two:5.2f} ({two / one:.2f}×)" for one, two in pairs]
            print(f"{kind:8} {name}  {'  '.join(cells)}")
        ratios = [[rate["bfloat16", c, t] / rate["float32", c, t] for t in (1, 2)] for c in CASES]
        print(
            f"ratio    {name}  {'  '.join(f'{one:5.2f} {two:5.2f}        ' for one, two in ratios)}"
        )


def calls():
    """Print the microseconds of calls that fill few elements."""
    for size in (10, 1000):
        out, matrix = np.empty(size, np.float32), np.empty((size // 5, 5), np.float32)
        for rng in (0, np.random.default_rng(0), None):
            functions = {
                pynn.random.normal: out,
                pynn.random.uniform: out,
                pynn.initializers.he_normal: matrix,
                pynn.initializers.glorot_uniform: matrix,
            }
            times = [
                f"{f.__name__} {best(partial(f, out=target, rng=rng), 1000) * 1e6:.2f}"
                for f, target in functions.items()
            ]
            print(f"{size:4} elements, rng={type(rng).__name__}: {', '.join(times)} µs")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rounds", type=int, default=20, help="how often each case has its turn (20)"
    )
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error(f"argument --rounds: {arguments.rounds} is less than 1")
    print(" " * 13, "".join(f"{name:21}" for name in CASES))
    rates(arguments.rounds)
    calls()
