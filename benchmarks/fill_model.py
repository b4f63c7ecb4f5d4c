"""Fill the weights of a 7-billion-parameter transformer, shard by shard, into a memory-mapped file of bfloat16.

    python benchmarks/fill_model.py --layers 1
    python benchmarks/fill_model.py --layers 1 --with torch

Shapes: 32 layers of four 4096 x 4096 and three 4096 x 11008 matrices, two of 32000 x 4096 beside them. Fewer layers are
measured and the time of all is extrapolated from their number of weights; the last line says so.
"""

import argparse
import math
import os
import resource
import tempfile
import time

import numpy as np
from rich.progress import Progress

import pynn

LAYER = [(4096, 4096)] * 4 + [(4096, 11008)] * 3
BESIDE = [(32000, 4096)] * 2
FULL = 32
SHARD = 2**24  # weights; 32 MB of bfloat16
LIMIT = 200  # MB by which memory may grow, however large the model


def fill_with_pynn(part, shape, rows, seed):
    """Rows of the whole tensor, whatever the size of the shards: the same bits."""
    shard = (slice(*rows), slice(None))
    pynn.initializers.he_normal(shape, rng=seed, out=part, shard=shard)


def fill_with_torch(part, shape, rows, seed):
    """The same distribution; the numbers depend on the shards."""
    import torch

    torch.set_num_threads(pynn.get_num_threads())
    tensor = torch.from_numpy(part.view(np.int16)).view(torch.bfloat16)
    tensor.normal_(0, math.sqrt(2 / shape[0]))


def main():
    """Fill, and report the rate and the memory used."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=1, help=f"of {FULL}")
    parser.add_argument("--with", dest="library", choices=["pynn", "torch"], default="pynn")
    parser.add_argument("--folder", default=None, help="of the file, which is deleted at the end")
    arguments = parser.parse_args()
    import ml_dtypes

    fill = {"pynn": fill_with_pynn, "torch": fill_with_torch}[arguments.library]
    shapes = LAYER * arguments.layers
    total, full = sum(map(math.prod, shapes)), sum(map(math.prod, LAYER * FULL + BESIDE))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, filling, offset = time.perf_counter(), 0.0, 0
    with tempfile.NamedTemporaryFile(dir=arguments.folder) as file, Progress() as progress:
        os.truncate(file.name, 2 * total)
        task = progress.add_task(arguments.library, total=total)
        for seed, (rows, columns) in enumerate(shapes):
            step = max(1, SHARD // columns)
            for row in range(0, rows, step):
                stop = min(rows, row + step)
                part = np.memmap(
                    file.name, ml_dtypes.bfloat16, "r+", 2 * offset, (stop - row, columns)
                )
                start = time.perf_counter()
                fill(part, (rows, columns), (row, stop), seed)
                filling += time.perf_counter() - start
                offset += part.size
                del part  # its pages are the file's: they count no longer as this process's memory
                progress.update(task, completed=offset)
    seconds = time.perf_counter() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(
        f"{arguments.library}: {total / 1e9:.3f}e9 weights of bfloat16 in {seconds:.2f} s, of which"
    )
    print(
        f"filling {filling:.2f} s ({total / filling / 1e9:.3f}e9/s); memory grew by {grown:.0f} MB"
    )
    print(
        f"extrapolated, not run: all {full / 1e9:.2f}e9 weights of {FULL} layers in"
        f" {seconds * full / total:.1f} s"
    )
    if arguments.library == "pynn" and grown > LIMIT:
        raise SystemExit(f"memory grew by more than {LIMIT} MB")


if __name__ == "__main__":
    main()
