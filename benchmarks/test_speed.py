"""pytest-benchmark's view: one group per workload, one test per contender."""

import time
from functools import lru_cache, partial

import pytest

from pynn.bench.contenders import LOCAL, PEERS, measure, prepare
from pynn.bench.worker import Worker
from pynn.bench.workloads import WORKLOADS

SECONDS = 0.3  # for the rounds of one test; slow calls have three, very slow ones one


class Clock:
    """Counts the time that contenders have measured, and nothing else."""

    seconds = 0.0

    def __call__(self):
        return self.seconds


clock = Clock()


@lru_cache
def worker(name):
    return Worker(name)


def measurer(contender, workload):
    """Return the function that measures a round, or None."""
    if contender in LOCAL:
        run = prepare(LOCAL[contender](), workload)
        return run and partial(measure, run)
    return worker(contender).measure if worker(contender).prepare(workload) else None


@pytest.mark.parametrize("contender", [*LOCAL, *PEERS])
@pytest.mark.parametrize(
    "workload",
    [pytest.param(w, marks=pytest.mark.benchmark(group=w, timer=clock)) for w in WORKLOADS],
)
def test_speed(benchmark, workload, contender):
    one_round = measurer(contender, workload)
    if one_round is None:
        pytest.skip(f"{contender} has no such function")

    def advance():
        clock.seconds += one_round()

    start = time.perf_counter()
    if benchmark.enabled:
        advance()  # the first round warms up and shows how long a round takes
    seconds = time.perf_counter() - start
    rounds = 1 if seconds > 1 else min(15, max(3, int(SECONDS / seconds)))
    benchmark.pedantic(advance, rounds=rounds)
