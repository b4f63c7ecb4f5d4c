"""How long the peers take, in units of pynn's time: ``pynn bench``.

Each contender, pynn too, runs in a process of its own; they take turns round by round, so that a
change in the machine's speed meets all of them alike.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pynn
from pynn._config import cpu_name

from .contenders import MODULES, PEERS
from .worker import DisagreementError, Worker
from .workloads import WORKLOADS

__all__ = [
    "PEERS",
    "QUICK",
    "WORKLOADS",
    "Times",
    "cells",
    "duration",
    "machine",
    "markdown",
    "plot",
    "run",
]

#: workload -> contender -> seconds per call of each round
Times = dict[str, dict[str, list[float]]]
Statistic = Callable[[Sequence[float]], float]

#: What `pynn bench` runs unless it is told: of each kind something small, or what fits in a cache.
QUICK = (
    "affine 1x784x100 relu",
    "affine 128x784x100 relu",
    "affine backward 128x784x100 relu",
    "affine 512x1024x1024 relu",
    "relu 100x1000",
    "tanh 100x1000",
    "sigmoid 100x1000",
    "gelu 100x1000",
    "gelu backward 100x1000",
    "normal float32 1M",
    "uniform float32 1M",
    "training step SGD 128x784-100-100-100-100-10",
)


def machine() -> dict[str, Any]:
    """Return the processor, and the versions of what is compared."""
    versions = {}
    for module in (m for peer in PEERS for m in MODULES[peer][1]):
        try:
            versions[module] = version(module)
        except PackageNotFoundError:  # not installed from a distribution
            versions[module] = "?"
    return {
        "cpu": cpu_name(),
        "threads": pynn.get_num_threads(),
        "isa": pynn.get_isa(),
        "python": platform.python_version(),
        "versions": {"pynn": pynn.__version__, **versions},
    }


def wait_for_idle() -> None:
    """Wait until nothing uses the processors for 50 ms (Linux)."""
    while True:
        before = _busy_ticks()
        time.sleep(0.05)
        if _busy_ticks() - before <= 1:
            return


def _busy_ticks() -> int:
    fields = Path("/proc/stat").read_text().split()  # "cpu", user, nice, system, idle, ...
    return sum(map(int, fields[1:4]))


def run(
    workloads: Iterable[str],
    rounds: int,
    progress: Callable[[str, float], None],
    complain: Callable[[str], None],
    peers: Iterable[str] = tuple(PEERS),
    idle: bool = False,
) -> Times:
    """Compare pynn with its peers.

    Parameters
    ----------
    workloads : iterable of str
        Names from `WORKLOADS`.
    rounds : int
        Of each workload and contender.
    progress : callable
        Called with the name of a workload and the part of it that is done, 0 to 1.
    complain : callable
        Told of a peer that fails, which takes no further part, or whose result is wrong, which sits
        that workload out.
    peers : iterable of str
        Which; all that are installed by default.
    idle : bool, default False
        Measure only while nothing else runs (Linux).

    Raises
    ------
    RuntimeError
        If pynn itself fails.
    """
    workers = {name: Worker(name) for name in ("pynn", *peers)}
    times: Times = {}
    try:
        for workload in workloads:
            progress(workload, 0)
            active: dict[str, list[float]] = {}

            def ask(name: str, question: str, *arguments: str) -> Any:
                try:
                    return getattr(workers[name], question)(*arguments)
                except RuntimeError as error:
                    if name == "pynn":
                        raise
                    complain(str(error))
                    if not isinstance(error, DisagreementError):
                        workers.pop(name).end()
                    return None

            for name in list(workers):
                if ask(name, "prepare", workload):
                    active[name] = []
            for done in range(rounds):
                for name in [name for name in active if name in workers]:
                    if idle:
                        wait_for_idle()
                    seconds = ask(name, "measure")
                    if seconds is not None:
                        active[name].append(seconds)
                progress(workload, (done + 1) / rounds)
            times[workload] = {name: row for name, row in active.items() if name in workers and row}
    finally:
        for worker in workers.values():
            worker.end()
    return times


def duration(seconds: float) -> str:
    """Write seconds with a unit, to three digits."""
    unit, scale = ("µs", 1e6) if seconds < 1e-3 else ("ms", 1e3) if seconds < 1 else ("s", 1)
    return f"{seconds * scale:.3g} {unit}"


def cells(
    times: Times, peers: Sequence[str], statistic: Statistic = statistics.median
) -> list[list[str]]:
    """Return a row per workload: its name, pynn's time, how many times as long each peer takes."""
    rows = []
    for workload, row in times.items():
        own = statistic(row["pynn"])
        rows.append(
            [
                workload,
                duration(own),
                *(f"{statistic(row[p]) / own:.2f}×" if p in row else "" for p in peers),
            ]
        )
    return rows


def markdown(times: Times, peers: Sequence[str], statistic: Statistic = statistics.median) -> str:
    """Return the table in Markdown."""
    lines = [
        f"| workload | pynn | {' | '.join(peers)} |",
        f"|:--|--:|{'--:|' * len(peers)}",
        *(f"| {' | '.join(row)} |" for row in cells(times, peers, statistic)),
    ]
    return "\n".join(lines)


def plot(times: Times, peers: Sequence[str], title: str, file: Path) -> None:
    """Draw the peers' shortest times in units of pynn's as bars, on a logarithmic scale.

    Parameters
    ----------
    times : dict
        What `run` returned.
    peers : sequence of str
        Which of them.
    title : str
        What stands above.
    file : Path
        Its suffix says the format.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [name for name, row in times.items() if "pynn" in row]
    figure = Figure(figsize=(9, 1.2 + 0.16 * len(names) * (len(peers) + 1.5)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for i, peer in enumerate(peers):
        taking_part = [(y, times[n]) for y, n in enumerate(names) if peer in times[n]]
        ratios = [min(row[peer]) / min(row["pynn"]) for _, row in taking_part]
        offset = 0.8 * ((i + 0.5) / len(peers) - 0.5)
        # Bars begin at 1, pynn's time: to the right the peer takes longer, to the left it is faster.
        bars = axes.barh(
            [y + offset for y, _ in taking_part],
            [ratio - 1 for ratio in ratios],
            0.8 / len(peers),
            left=1,
            label=peer,
        )
        axes.bar_label(bars, [f"{ratio:.2g}×" for ratio in ratios], padding=2, fontsize=7)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.margins(x=0.12, y=0.02)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("time in units of pynn's (to the right of the line pynn is faster)")
    axes.set_title(title, fontsize=9)
    axes.legend(fontsize=8)
    figure.savefig(file, dpi=150)
