"""How long the peers take, in units of pynn's time.

Each contender, pynn too, runs in a process of its own; they take turns round by round, so that a change in the
machine's speed meets all of them alike.
"""

import argparse
import json
import re
import statistics
import sys
from pathlib import Path

from pynn.bench import PEERS, WORKLOADS, machine, markdown, run


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

    def progress(workload, part):
        if part == 0:
            print(f"{workloads.index(workload) + 1}/{len(workloads)} {workload}", file=sys.stderr)

    complaints = []

    def complain(text):
        complaints.append(text)
        print(text, file=sys.stderr)

    times = run(workloads, args.rounds, progress, complain, args.peers, args.idle)

    about = machine()
    text = markdown(times, args.peers, min if args.best else statistics.median)
    print(f"{text}\n\n{json.dumps(about)}")
    if args.markdown:
        args.markdown.write_text(text + "\n")
    if args.json:
        args.json.write_text(json.dumps({"machine": about, "seconds": times}, indent=1) + "\n")
    return 1 if complaints else 0  # a row without a peer must not pass for a whole one


if __name__ == "__main__":
    sys.exit(main())
