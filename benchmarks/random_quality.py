"""Statistical checks of the random streams, over as many draws as asked for.

    python benchmarks/random_quality.py normal --draws 2**32
    python benchmarks/random_quality.py raw --key 0 | dieharder -a -g 200

A check prints its statistic and its p value, two-sided where it is a moment's.
"""

import argparse
import contextlib
import os
import sys

import numpy as np
import scipy.integrate
import scipy.special
import scipy.stats

import pynn

STEP = 2**-9  # of the histogram
EDGE = 8
BOUNDS = {
    "normal": (-np.inf, np.inf),
    "truncated_normal": (-2.0, 2.0),
    "truncated_normal_wide": (-np.inf, np.inf),
}


def tally(name, draws, key, progress):
    """Sums of the first eight powers, and a histogram of steps STEP from -EDGE to EDGE."""
    chunk = np.empty(2**21, np.float32)
    bounds = BOUNDS[name] if name != "normal" else ()
    sums, counts = np.zeros(8), np.zeros(int(2 * EDGE / STEP), np.int64)
    for start in range(0, draws, len(chunk)):
        pynn._core.fill(chunk, name.removesuffix("_wide"), key, 0.0, 1.0, *bounds, start=start)
        bins = ((chunk + np.float32(EDGE)) * np.float32(1 / STEP)).astype(np.int32)
        counts += np.bincount(bins, minlength=len(counts))
        x = chunk.astype(np.float64)
        second = x * x
        fourth = second * second
        for i, (a, b) in enumerate(
            ((x, None), (x, x), (x, second), (second, second), (x, fourth), (second, fourth))
        ):
            sums[i] += a.sum() if b is None else a @ b
        sums[6] += (x * second) @ fourth
        sums[7] += fourth @ fourth
        if progress and start % 2**28 == 0:
            print(f"{start / draws:.0%}", end=" ", file=sys.stderr, flush=True)
    return sums / draws, counts


def report(name, draws, moments, counts):
    """Moments, Kolmogorov-Smirnov at the edges of bins, chi-square in bulk and tails."""
    lower, upper = BOUNDS[name]
    law = scipy.stats.truncnorm(lower, upper)
    grid = np.linspace(max(lower, -14), min(upper, 14), 400_001)
    density = law.pdf(grid)
    true = [scipy.integrate.simpson(grid**k * density, x=grid) for k in range(17)]
    worst = 1.0
    print(f"{name}, {draws} draws of float32")
    for k in range(1, 9):
        error = (true[2 * k] - true[k] ** 2) ** 0.5 / draws**0.5
        z = (moments[k - 1] - true[k]) / error
        p = 2 * scipy.special.ndtr(-abs(z))
        worst = min(worst, p)
        print(
            f"  moment {k}: {moments[k - 1]:.7g}, expected {true[k]:.7g}, z = {z:+.2f}, p = {p:.3f}"
        )
    edges = np.arange(len(counts) + 1) * STEP - EDGE
    if upper < EDGE:  # the bound itself belongs to the last bin
        last = int((upper + EDGE) / STEP)
        counts[last - 1], counts[last] = counts[last - 1] + counts[last], 0
    cdf, tail = law.cdf(edges), law.sf(edges)
    distance = np.abs(np.cumsum(counts)[:-1] / draws - cdf[1:-1]).max()
    p = scipy.stats.kstwobign.sf(distance * draws**0.5)
    worst = min(worst, p)
    print(f"  Kolmogorov-Smirnov: {distance:.3g}, p = {p:.3f}")
    expected = draws * np.where(edges[:-1] < 0, np.diff(cdf), -np.diff(tail))
    for part, left, right in (
        ("whole", -EDGE, EDGE),
        ("bulk, -3 to 3", -3, 3),
        ("left tail, below -3", -EDGE, -3),
        ("right tail, above 3", 3, EDGE),
        ("beyond 5 on both sides", 5, EDGE),
    ):
        inside = (edges[:-1] >= left) & (edges[:-1] < right) & ((expected > 0) | (counts > 0))
        if left == 5:
            inside |= edges[1:] <= -5
        seen, want = merged(counts[inside], expected[inside])
        if len(want) < 2:
            continue
        statistic = ((seen - want) ** 2 / want).sum()
        p = scipy.stats.chi2.sf(statistic, len(want) - (part == "whole"))
        worst = min(worst, p, 1 - p)
        print(f"  chi-square, {part}: {statistic:.1f} in {len(want)} bins, p = {p:.3f}")
    for bound in (5, 6):
        if upper > bound:
            seen = counts[np.abs(edges[:-1] + STEP / 2) > bound].sum()
            want = 2 * draws * scipy.special.ndtr(-bound)
            p = min(
                1,
                2
                * min(scipy.stats.poisson.cdf(seen, want), scipy.stats.poisson.sf(seen - 1, want)),
            )
            worst = min(worst, p)
            print(f"  beyond {bound} standard deviations: {seen}, expected {want:.1f}, p = {p:.3f}")
    print(f"  least p: {worst:.4f}")


def merged(seen, want, least=20):
    """Neighbouring bins put together until each expects that many."""
    groups = np.minimum(np.cumsum(want) // least, max(want.sum() // least - 1, 0)).astype(int)
    groups = np.unique(groups, return_inverse=True)[1]
    return np.bincount(groups, seen), np.bincount(groups, want)


def raw(keys):
    """Words of the streams of the keys, one of each by turns, to standard output, for ever."""
    block = np.arange(2**16, dtype=np.uint64)
    counter = np.zeros((len(block), 4), np.uint32)
    while True:
        counter[:, 0], counter[:, 1] = block & 0xFFFFFFFF, block >> 32
        words = [
            pynn._core.philox4x32(counter, np.array([k & 0xFFFFFFFF, k >> 32], np.uint32))
            for k in keys
        ]
        sys.stdout.buffer.write(np.stack([w.ravel() for w in words], axis=1).tobytes())
        block += len(block)


def main():
    """Parse arguments and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=[*BOUNDS, "raw"])
    parser.add_argument("--draws", default="2**28", help="as 2**32")
    parser.add_argument("--key", type=int, default=0, help="the stream's, or the first stream's")
    parser.add_argument(
        "--neighbours", type=int, default=1, help="streams of so many keys, interleaved"
    )
    arguments = parser.parse_args()
    if arguments.what == "raw":
        with contextlib.suppress(BrokenPipeError):  # whoever reads has enough
            raw(range(arguments.key, arguments.key + arguments.neighbours))
        os._exit(0)
    base, _, power = arguments.draws.partition("**")
    draws = int(base) ** int(power or 1)
    report(arguments.what, draws, *tally(arguments.what, draws, arguments.key, sys.stderr.isatty()))


if __name__ == "__main__":
    main()
