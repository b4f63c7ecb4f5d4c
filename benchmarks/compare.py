"""How long the peers take, in units of pynn's time.

Each contender, pynn too, runs in a process of its own; they take turns round by round, so that a change in the
machine's speed meets all of them alike.
"""

import argparse
import json
import platform
import re
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pynn
from contenders import MODULES, PEERS
from worker import Worker
from workloads import WORKLOADS


def machine():
    """The processor, and the versions of what was compared."""
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    found = re.search(r"model name\s*: (.*)", cpuinfo)
    versions = {m: version(m) for peer in PEERS for m in MODULES[peer][1]}
    return {
        "cpu": found[1] if found else platform.processor(),
        "threads": pynn.get_num_threads(),
        "isa": pynn.get_isa(),
        "python": platform.python_version(),
        "versions": {"pynn": pynn.__version__, **versions},
    }


def wait_for_idle():
    """Wait until nothing uses the processors for 50 ms (Linux)."""
    while True:
        before = busy_ticks()
        time.sleep(0.05)
        if busy_ticks() - before <= 1:
            return


def busy_ticks():
    fields = Path("/proc/stat").read_text().split()  # "cpu", user, nice, system, idle, ...
    return sum(map(int, fields[1:4]))


def compare(workers, workload, rounds, idle):
    """Return {contender: seconds per call of each round}."""
    active = {name: worker for name, worker in workers.items() if worker.prepare(workload)}
    times = {name: [] for name in active}
    for _ in range(rounds):
        for name, worker in active.items():
            if idle:
                wait_for_idle()
            times[name].append(worker.measure())
    return times


def duration(seconds):
    unit, scale = ("µs", 1e6) if seconds < 1e-3 else ("ms", 1e3) if seconds < 1 else ("s", 1)
    return f"{seconds * scale:.3g} {unit}"


def table(times, statistic, peers):
    """Markdown: pynn's time, and how many times as long each peer takes."""
    lines = [
        f"| workload | pynn | {' | '.join(peers)} |",
        f"|:--|--:|{'--:|' * len(peers)}",
    ]
    for workload, row in times.items():
        own = statistic(row["pynn"])
        cells = [f"{statistic(row[p]) / own:.2f}×" if p in row else "" for p in peers]
        lines.append(f"| {workload} | {duration(own)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "pattern", nargs="?", default="", help="regular expression: which workloads"
    )
    parser.add_argument(
        "--peers", nargs="+", default=list(PEERS), choices=list(PEERS), metavar="PEER"
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--best", action="store_true", help="compare best rounds, not medians")
    parser.add_argument("--idle", action="store_true", help="measure only while nothing else runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round's time")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table")
    args = parser.parse_args()

    workloads = [name for name in WORKLOADS if re.search(args.pattern, name)]
    if not workloads:
        parser.error(f"no workload matches {args.pattern!r}")
    workers = {name: Worker(name) for name in ("pynn", *args.peers)}
    times = {}
    for i, workload in enumerate(workloads, 1):
        print(f"{i}/{len(workloads)} {workload}", file=sys.stderr)
        times[workload] = compare(workers, workload, args.rounds, args.idle)

    about = machine()
    text = table(times, min if args.best else statistics.median, args.peers)
    print(f"{text}\n\n{json.dumps(about)}")
    if args.markdown:
        args.markdown.write_text(text + "\n")
    if args.json:
        args.json.write_text(json.dumps({"machine": about, "seconds": times}, indent=1) + "\n")


if __name__ == "__main__":
    main()
