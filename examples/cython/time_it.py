"""The chain of layers from Cython and from Python: the same bits, and how long each takes."""

import time

import numpy as np
from chain import chain

import pynn

LAYERS, BEST_OF = 200, 30


def from_python(h, w, b, z, layers):
    for _ in range(layers):
        pynn.affine(h, w, b, out=z)
        pynn.gelu(z, out=h)


def seconds(function, h, *rest):
    """The least of some runs, per layer."""
    times = []
    for _ in range(BEST_OF):
        mine = h.copy()
        start = time.perf_counter()
        function(mine, *rest)
        times.append(time.perf_counter() - start)
    return min(times) / LAYERS


for m, n in ((1, 16), (1, 64), (8, 64), (32, 256)):
    h = pynn.random.normal((m, n), rng=0)
    w = pynn.initializers.he_normal((n, n), rng=1)
    b, z = np.zeros(n, np.float32), np.empty((m, n), np.float32)
    one, other = h.copy(), h.copy()
    chain(one, w, b, z, LAYERS)
    from_python(other, w, b, z, LAYERS)
    assert one.tobytes() == other.tobytes(), "the bits differ"
    cython, python = seconds(chain, h, w, b, z, LAYERS), seconds(from_python, h, w, b, z, LAYERS)
    print(
        f"{m:3} x {n:3}: {cython * 1e6:6.2f} µs a layer from Cython, {python * 1e6:6.2f} from Python"
    )
