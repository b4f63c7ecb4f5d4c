"""Random numbers a second, in 10^9, with out=, by dtype, size and threads; and what a call from Python takes.

python benchmarks/fill_speed.py
"""

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


def rates():
    """Print a row per dtype and size: one thread, two, and their ratio."""
    for size in (2**20, 2**24):
        for kind, dtype in DTYPES.items():
            out, cells = np.ones(size, dtype), []
            for distribution, parameters in CASES.values():
                rate = []
                for threads in (1, 2):
                    pynn.set_num_threads(threads)
                    fill = partial(pynn._core.fill, out, distribution, 5, *parameters)
                    seconds = best(fill, 2**24 // size)
                    rate.append(size / seconds / 1e9)
                cells.append(f"{rate[0]:5.2f} {rate[1]:5.2f} ({rate[1] / rate[0]:.2f}×)")
            print(f"{kind:8} 2^{size.bit_length() - 1}  {'  '.join(cells)}")


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


print(" " * 13, "".join(f"{name:21}" for name in CASES))
rates()
calls()
