"""How near affine is to the machine's limit, beside the fma peak measured in the same run; and what a call costs.

python benchmarks/affine_limits.py [--seconds S]

Needs a C compiler (`cc` or $CC) for the loop of fused multiply-adds.
"""

import argparse
import ctypes
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

import pynn
from pynn.bench.workloads import AFFINE

PEAK = r"""
#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
typedef float vector __attribute__((vector_size(BYTES)));
enum { chains = 12 };
/* Fused multiply-adds in independent chains: 2 * chains * BYTES / 4 operations a round. Returns operations done. */
double fused_multiply_adds(long rounds, float *result) {
    vector sums[chains], factor = {}, term = {};
    factor += 0.5f, term += *result;
#pragma GCC unroll 12
    for (int i = 0; i < chains; ++i) sums[i] = term + (float)i;
    for (long r = 0; r < rounds; ++r)
#pragma GCC unroll 12
        for (int i = 0; i < chains; ++i) sums[i] = sums[i] * factor + term;
    for (int i = 0; i < chains; ++i) *result += sums[i][0];
    return 2.0 * chains * (BYTES / 4) * rounds;
}
"""


def shortest(call, seconds):
    """Seconds of the fastest call; as many as fit into `seconds`, three at least."""
    best, end = np.inf, time.perf_counter() + seconds
    calls = 0
    while calls < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
        calls += 1
    return best


def fma_loop():
    """The compiled loop: operations done = f(rounds, pointer to a float)."""
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "peak.c", Path(folder) / "peak.so"
        source.write_text(PEAK)
        flags = [
            "-O2",
            "-march=native",
            "-ffp-contract=fast",
            "-shared",
            "-fPIC",
            "-Wno-unknown-pragmas",
        ]
        subprocess.run([os.environ.get("CC", "cc"), *flags, "-o", library, source], check=True)
        function = ctypes.CDLL(str(library)).fused_multiply_adds
    function.restype, function.argtypes = (
        ctypes.c_double,
        [ctypes.c_long, ctypes.POINTER(ctypes.c_float)],
    )
    return function


def peak(loop, threads, seconds):
    """GFLOP/s of the loop on so many threads at once, each in step with the others."""
    rounds, spans = 200_000, [[] for _ in range(threads)]
    end = time.perf_counter() + seconds

    def run(times):
        result = ctypes.c_float(1)
        while time.perf_counter() < end:
            start = time.perf_counter()
            operations = loop(rounds, result)
            times.append(operations / (time.perf_counter() - start))

    workers = [threading.Thread(target=run, args=(times,)) for times in spans]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(max(times) for times in spans) / 1e9


def rates(m, k, n, seconds):
    """GFLOP/s forward, of packed weights, and backward, with out=."""
    rng = np.random.default_rng(0)
    x, w, dy = (rng.standard_normal(shape).astype(np.float32) for shape in ((m, k), (k, n), (m, n)))
    b, y, gradients = (
        np.zeros(n, np.float32),
        np.empty_like(dy),
        (np.empty_like(x), np.empty_like(w), np.empty(n, "f4")),
    )
    packed = pynn.pack(w)
    work = 2 * m * k * n / 1e9
    return [
        work / shortest(lambda: pynn.affine(x, w, b, out=y), seconds),
        work / shortest(lambda: pynn.affine(x, packed, b, out=y), seconds),
        2 * work / shortest(lambda: pynn.affine_backward(dy, x, w, out=gradients), seconds),
    ]


def call_overhead():
    """Microseconds of 1x10x10 with bias: a fresh result, and out=."""
    x, w, b = np.ones((1, 10), "f4"), np.ones((10, 10), "f4"), np.ones(10, "f4")
    y = np.empty((1, 10), "f4")
    many = range(200)
    fresh = shortest(lambda: [pynn.affine(x, w, b) for _ in many], 0.3)
    given = shortest(lambda: [pynn.affine(x, w, b, out=y) for _ in many], 0.3)
    return fresh / len(many) * 1e6, given / len(many) * 1e6


def busy_neighbour():
    """Microseconds, mean and 99th percentile, of 1000 calls of 128x784x100: idle, and with one core busy elsewhere."""
    rng = np.random.default_rng(0)
    x, w = (
        rng.standard_normal((128, 784)).astype("f4"),
        rng.standard_normal((784, 100)).astype("f4"),
    )
    b, y = np.zeros(100, "f4"), np.empty((128, 100), "f4")

    def calls():
        times = np.empty(1000)
        for i in range(len(times)):
            start = time.perf_counter()
            pynn.affine(x, w, b, out=y)
            times[i] = time.perf_counter() - start
        return times.mean() * 1e6, np.percentile(times, 99) * 1e6

    calls()
    idle = min(calls() for _ in range(5))
    core = max(os.sched_getaffinity(0))
    busy = f"import os\nos.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", busy]) as neighbour:
        time.sleep(0.5)
        taken = sorted(calls() for _ in range(5))[2]
        neighbour.kill()
    return idle, taken


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="for each figure")
    seconds = parser.parse_args().seconds
    most = pynn.get_num_threads()
    loop = fma_loop()
    table = {}
    peaks = {}
    for threads in sorted({1, most}):
        pynn.set_num_threads(threads)
        before = peak(loop, threads, seconds)
        for shape in AFFINE:
            table[shape, threads] = rates(*shape, seconds)
        peaks[threads] = max(before, peak(loop, threads, seconds))
    print(
        f"fma peak, GFLOP/s: {', '.join(f'{value:.0f} on {t} thread(s)' for t, value in peaks.items())}\n"
    )
    print("| m x k x n | threads | forward | packed | backward | of the peak | of one thread |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for (shape, threads), (forward, packed, backward) in sorted(table.items()):
        print(
            f"| {'x'.join(map(str, shape))} | {threads} | {forward:.0f} | {packed:.0f} | {backward:.0f} "
            f"| {forward / peaks[threads]:.0%} | {forward / table[shape, 1][0]:.2f} |"
        )
    print("\n1x10x10 with bias: {:.2f} µs, with out= {:.2f} µs".format(*call_overhead()))
    if most > 1:
        (idle, idle_late), (taken, late) = busy_neighbour()
        print(
            f"1000 calls of 128x784x100: {idle:.0f} µs (99th percentile {idle_late:.0f}), "
            f"with one core busy elsewhere {taken:.0f} µs ({late:.0f}): {taken / idle:.2f} times"
        )


if __name__ == "__main__":
    main()
