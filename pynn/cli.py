"""The command line: ``pynn info``, ``bench``, ``selftest``, ``study`` and ``accuracy``."""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from . import __version__, _terminal

__all__ = ["main"]

ITERATIONS, QUICK_ITERATIONS = 2000, 300
#: Rounds of a workload that `pynn bench` takes.
ROUNDS = 5
#: What the study extra brings, by the name it is imported under.
EXTRA = ("matplotlib", "pooch", "rich", "sklearn")


class _Failure(Exception):
    """An error that the user is told in one line, and the exit code that goes with it."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:  # one line, without the usage
        self.exit(2, f"{self.prog}: error: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments, without the program's name. Those of the process by default.

    Returns
    -------
    int
        The exit code: 0 if all went well, 1 if something needed is missing or failed, 2 if the
        arguments are wrong, 130 if interrupted. Errors are one line on standard error.
    """
    try:
        options = _parser().parse_args(argv)
    except SystemExit as stop:  # argparse has said why
        return int(stop.code or 0)
    if sys.stderr is None:  # closed by whoever started this
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if sys.stdout is None:
        print(f"pynn {options.command}: error: standard output is closed", file=sys.stderr)
        return 1
    for stream in (sys.stdout, sys.stderr):  # a terminal may lack a character
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        options.run(options)
        sys.stdout.flush()
    except _Failure as failure:
        print(f"pynn {options.command}: error: {' '.join(str(failure).split())}", file=sys.stderr)
        return failure.code
    except OSError as error:  # of writing the output
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still buffered
        if not isinstance(error, BrokenPipeError):  # else nobody reads any more
            print(f"pynn {options.command}: error: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"pynn {options.command}: interrupted, {options.left}", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="pynn", description="The CPU neural-network core for NumPy users.")
    parser.add_argument("--version", action="version", version=f"pynn {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    info = commands.add_parser(
        "info",
        help="what pynn runs on: instruction sets, threads and why, versions, memory",
        description="Show versions, machine, instruction sets and threads, as pynn.show_config() does.",
    )
    info.add_argument("--json", action="store_true", help="as JSON")
    info.set_defaults(run=_info, command="info", left="nothing written")
    bench = commands.add_parser(
        "bench",
        help="time pynn beside NumPy and the peers that are installed",
        description="Time affine maps, activations, sampling and a training step side by side: pynn, NumPy, and PyTorch, "
        "JAX, ONNX Runtime and mkl_random where they are installed. A process each, in turn; results are compared "
        "before anything is timed.",
    )
    bench.add_argument(
        "pattern",
        nargs="?",
        metavar="PATTERN",
        help="a regular expression: all workloads whose names it is found in, in place of a dozen of them",
    )
    bench.add_argument(
        "--rounds", type=_whole(1), default=ROUNDS, metavar="N", help="default: %(default)s"
    )
    bench.add_argument("--plot", metavar="FILE", help="draw bars, as .png, .svg or .pdf")
    bench.add_argument("--json", action="store_true", help="every round's time, as JSON")
    bench.set_defaults(run=_bench, command="bench", left="nothing written")
    selftest = commands.add_parser(
        "selftest",
        help="whether this machine gives the published bits",
        description="Compare with known answers, with the published hashes of every function's results under every "
        "instruction set of this CPU, and a sample of float32 numbers with float64. Takes seconds.",
    )
    form = selftest.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as JSON")
    form.add_argument(
        "--hashes", action="store_true", help="only compute the hashes, and print them as JSON"
    )
    selftest.set_defaults(run=_selftest, command="selftest", left="no verdict")
    study = commands.add_parser(
        "study",
        help="show how initial weights decide whether a network learns",
        description="Run the experiments on initial weights, judge seven claims, and write "
        "figures, report.html and results.json.",
    )
    study.add_argument(
        "--out", metavar="DIR", default="pynn-study", help="where to write (default: %(default)s)"
    )
    study.add_argument(
        "--data",
        default="digits",
        metavar="digits|mnist|FILE.npz",
        help="what the networks learn from: scikit-learn's digits (the default; needs no network), "
        "MNIST (fetched once), or arrays x and t of a file",
    )
    study.add_argument(
        "--seed", type=_whole(0), default=0, metavar="N", help="default: %(default)s"
    )
    study.add_argument(
        "--iterations",
        type=_whole(1),
        metavar="N",
        help=f"updates of each network (default: {ITERATIONS})",
    )
    study.add_argument(
        "--quick", action="store_true", help=f"a short run: {QUICK_ITERATIONS} iterations"
    )
    study.set_defaults(run=_study, command="study", left="nothing written")
    accuracy = commands.add_parser(
        "accuracy",
        help="measure activations on every float32",
        description="Measure the largest error of float32 activations, forward and backward, over "
        "all 2^32 inputs, and write it into the table of a page. Takes minutes for each.",
    )
    other = accuracy.add_mutually_exclusive_group()
    other.add_argument(
        "--float64",
        nargs="?",
        type=_whole(1, 10**9),
        const=10**7,
        metavar="N",
        help="float64 instead: N random numbers, 10000000 by default, of each range of exponents, "
        "and edges; takes minutes for each",
    )
    other.add_argument(
        "--hash",
        action="store_true",
        help="instead, the SHA-256 of all results under every instruction set of this CPU, which must agree",
    )
    accuracy.add_argument(
        "names", nargs="*", metavar="NAME", help="activations, as pynn.ACTIVATIONS; all by default"
    )
    accuracy.add_argument(
        "--stride",
        type=_whole(1, 2**32 - 1),
        default=1,
        metavar="N",
        help="take every Nth input only; then nothing is written unless --out is given",
    )
    accuracy.add_argument(
        "--out", metavar="FILE", help="the page with the table (default: docs/accuracy.md)"
    )
    accuracy.set_defaults(
        run=_accuracy, command="accuracy", left="what was not measured is not written"
    )
    return parser


def _whole(least: int, most: int | None = None) -> Callable[[str], int]:
    wanted = f"from {least} on" if most is None else f"from {least} to {most}"

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least or (most is not None and number > most):
            raise argparse.ArgumentTypeError(f"must be a whole number {wanted}, not {text!r}")
        return number

    return parse


def _info(options: argparse.Namespace) -> None:
    from . import show_config

    config = show_config(mode="dicts")
    assert config is not None
    if options.json:
        print(json.dumps(config, indent=1))
    elif not _terminal.rich_on(sys.stdout):
        show_config()
    else:
        for title, entries in config.items():
            rows = [[str(name), str(value)] for name, value in entries.items()]
            if rows:
                _terminal.print_table(title, ["", ""], rows)


def _bench(options: argparse.Namespace) -> None:
    from . import bench

    names = list(bench.QUICK)
    if options.pattern is not None:
        try:
            names = [name for name in bench.WORKLOADS if re.search(options.pattern, name)]
        except re.error as error:
            raise _Failure(
                f"PATTERN {options.pattern!r} is no regular expression: {error}", 2
            ) from None
        if not names:
            raise _Failure(f"PATTERN {options.pattern!r}: no workload of that name", 2)
    picture = None if options.plot is None else _picture(options.plot)
    failed: list[str] = []
    peers = list(bench.PEERS)
    with _terminal.progress(together=True) as progress:
        try:
            times = bench.run(names, options.rounds, progress, failed.append)
        except RuntimeError as error:
            raise _Failure(str(error), 1) from None
    for message in failed:
        print(f"pynn bench: {' '.join(message.split())}", file=sys.stderr)
    peers = [peer for peer in peers if any(peer in row for row in times.values())]
    about = bench.machine()
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    title = f"{about['cpu']}, {about['threads']} threads, {about['isa']}; {versions}"
    if options.json:
        print(json.dumps({"machine": about, "seconds": times}, indent=1))
    else:
        heading = f"best of {options.rounds} round{'s' * (options.rounds > 1)}"
        _terminal.print_table("", [heading, "pynn", *peers], bench.cells(times, peers, min))
        print(f"\nThe peers' times are multiples of pynn's: above 1, pynn is faster.\n{title}")
    if picture is not None:
        beside = _beside(picture.parent).with_suffix(picture.suffix)
        try:
            bench.plot(times, peers, title, beside)
            beside.replace(picture)
        except OSError as error:
            raise _Failure(f"--plot {picture}: {error.strerror or error}", 1) from None
        finally:
            beside.unlink(missing_ok=True)
        if not options.json:
            print(f"{picture} written")


def _picture(name: str) -> Path:
    """Return the path of a picture that can be drawn and written."""
    path = Path(name)
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise _Failure(f"--plot {name}: expected a name that ends in .png, .svg or .pdf", 2)
    if path.is_dir():
        raise _Failure(f"--plot {name}: it is a folder", 2)
    if not path.parent.is_dir():
        raise _Failure(f"--plot {name}: there is no folder {path.parent}", 2)
    _writable_base(path.parent, "--plot")
    if importlib.util.find_spec("matplotlib") is None:
        raise _Failure('--plot needs matplotlib: pip install "pynn[study]"', 1)
    return path


def _selftest(options: argparse.Namespace) -> None:
    from . import selftest

    if options.hashes:
        print(json.dumps(selftest.hashes(*selftest.settings()[0]).found, indent=1))
        return
    start = time.perf_counter()
    quiet = contextlib.nullcontext(lambda stage, part: None)
    with quiet if options.json else _terminal.progress(together=True) as progress:
        progress("Known answers", 0)
        answers = selftest.known_answers()
        known = selftest.published()
        found = []
        settings = selftest.settings()
        for done, setting in enumerate(settings):
            progress("Published bits", done / len(settings))
            found.append(selftest.hashes(*setting))
        errors = selftest.sample(lambda part: progress("Accuracy", part))
    result = selftest.judge(answers, known, found, errors)
    if options.json:
        print(json.dumps(result.as_dict(), indent=1))
    else:
        print("\n".join(result.lines()))
        print(f"{time.perf_counter() - start:.1f} s")
    if not result.passed:
        raise _Failure(result.verdict, 1)


def _study(options: argparse.Namespace) -> None:
    start = time.perf_counter()
    missing = [name for name in EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise _Failure(
            f'the study needs {", ".join(missing)}: pip install "pynn[study]"',
            1,
        )
    from .study import claims, data, experiments, figures, report

    if not options.out:
        raise _Failure("--out is empty; expected the name of a folder", 2)
    out = Path(options.out)
    base = _writable_base(out)
    iterations = options.iterations or (QUICK_ITERATIONS if options.quick else ITERATIONS)
    with _terminal.progress() as progress:
        download = _terminal.Download(progress)
        try:
            dataset = data.load(options.data, options.seed, download)
        except data.DataError as error:
            raise _Failure(str(error), 2) from None
        except data.DownloadError as error:
            raise _Failure(str(error), 1) from None
        results = experiments.run(dataset, options.seed, iterations, progress)
        verdicts = claims.judge(results)
        with _folder(out, base) as folder:
            figures.draw(results, folder, progress)
            surroundings = report.environment(time.perf_counter() - start)
            report.write_json(results, verdicts, surroundings, folder / "results.json")
            report.write_html(results, verdicts, surroundings, folder, folder / "report.html")
    _show(report.main_figures(results), verdicts)
    print(f"\nSHA-256 of the trained weights: {results.weights_sha256}")
    print(
        f"{out / 'report.html'}, results.json and {len(figures.FIGURES)} figures written in "
        f"{time.perf_counter() - start:.1f} s"
    )


def _accuracy(options: argparse.Namespace) -> None:
    from . import accuracy
    from .activations import ACTIVATIONS

    names = list(dict.fromkeys(options.names)) or list(ACTIVATIONS)
    unknown = [name for name in names if name not in ACTIVATIONS]
    if unknown:
        raise _Failure(f"no activation {unknown[0]!r}; known are {', '.join(ACTIVATIONS)}", 2)
    if options.float64 and options.stride != 1:
        raise _Failure("--stride is of float32; it cannot go with --float64", 2)
    title, headings = "Largest errors, float32", accuracy.HEADINGS
    if options.float64:
        title, headings = "Largest errors, float64", accuracy.HEADINGS_FLOAT64
    if options.hash:
        title, headings = "Hashes of all results, float32", accuracy.HASH_HEADINGS
    update = functools.partial(accuracy.update, headings=headings)
    out = None
    if options.out is not None or options.stride == 1:
        out = Path("docs/accuracy.md" if options.out is None else options.out)
        _into_page(out, update, [], write=os.access(out, os.W_OK))
    rows: list[list[str]] = []
    with _terminal.progress() as progress:
        for name in names:
            rows.append(_accuracy_row(name, options, progress))
            if out is not None:
                _into_page(out, update, rows[-1:], write=True)
    _terminal.print_table(title, list(headings), rows)
    if out is not None:
        print(f"\n{out} written")


def _accuracy_row(
    name: str, options: argparse.Namespace, progress: _terminal.Progress
) -> list[str]:
    from . import accuracy, selftest

    show = functools.partial(progress, name)
    try:
        if options.float64:
            measured = accuracy.measure_float64(name, options.float64, show)
            return accuracy.cells_float64(name, options.float64, measured)
    except RuntimeError as error:
        raise _Failure(str(error), 1) from None
    if not options.hash:
        return accuracy.cells(name, options.stride, accuracy.measure(name, options.stride, show))
    found: dict[tuple[str, str], list[str]] = {}
    for isa in dict.fromkeys(isa for isa, _ in selftest.settings()):
        show = functools.partial(progress, f"{name}, {isa}")
        found.setdefault(accuracy.hashes(name, isa, options.stride, show), []).append(isa)
    if len(found) > 1:
        differing = "; ".join(f"{', '.join(isas)}: {' '.join(h)}" for h, isas in found.items())
        raise _Failure(f"{name} has other results under another instruction set: {differing}", 1)
    ((both, isas),) = found.items()
    return [name, accuracy.which(options.stride), ", ".join(isas), *both]


def _into_page(
    page: Path, update: Callable[[str, list[list[str]]], str], rows: list[list[str]], write: bool
) -> None:
    """Put rows into the table of a page, which must have one and be writeable."""
    try:
        text = update(page.read_text(encoding="utf-8"), rows)
        if not write:
            raise PermissionError(None, "it cannot be written to")
        if rows:
            beside = page.with_name(f".{page.name}-{os.getpid()}")
            beside.write_text(text, encoding="utf-8")
            beside.replace(page)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise _Failure(f"--out {page}: {reason}", 1 if rows else 2) from None


# ---- Writing -------------------------------------------------------------------------------------


def _writable_base(out: Path, option: str = "--out") -> Path:
    """Return the folder that exists already, `out` or one above it, having tried to write there."""
    base = out
    while not os.path.lexists(base) and base != base.parent:
        base = base.parent
    if not base.is_dir():
        raise _Failure(f"{option} {out}: {base} is not a folder", 2)
    try:
        _beside(base).mkdir()
        _beside(base).rmdir()
    except OSError as error:
        raise _Failure(f"{option} {out}: cannot write to {base}: {error.strerror}", 2) from None
    return base


def _beside(base: Path) -> Path:
    return base / f".pynn-study-{os.getpid()}"


@contextmanager
def _folder(out: Path, base: Path) -> Iterator[Path]:
    """Give a folder to write to; its files appear in `out` once everything is written."""
    folder = _beside(base)
    try:
        try:
            folder.mkdir()
            yield folder
            if base != out:
                out.parent.mkdir(parents=True, exist_ok=True)
                folder.rename(out)
            else:
                for file in folder.iterdir():
                    file.replace(out / file.name)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _Failure(f"cannot write to {out}: {error.strerror or error}", 1) from error


# ---- Showing -------------------------------------------------------------------------------------


def _show(tables: list[tuple[str, list[str], list[list[str]]]], verdicts: Sequence[Any]) -> None:
    """Show the main figures and the claims: as rich's tables on a terminal, else as plain text."""
    if not sys.stdout.isatty():
        for title, headings, rows in tables:
            _terminal.print_table(title, headings, rows)
        print()
        for number, claim in enumerate(verdicts, start=1):
            print(f"{number}. {claim.title}: {claim.verdict}\n   {claim.claim}")
            for part in claim.parts:
                print(f"   {'holds' if part.holds else 'fails'}: {part.measured}")
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for title, headings, rows in tables:
        table = Table(title=title, title_justify="left", title_style="bold")
        for heading in headings:
            table.add_column(heading)
        for row in rows:
            table.add_row(*row, end_section=row[1] == "equal")
        console.print(table)
    table = Table(title="Claims", title_justify="left", title_style="bold", show_lines=True)
    for heading in ("claim", "measured", ""):
        table.add_column(heading)
    marks = {True: "[green]✓[/]", False: "[red]✗[/]"}
    for number, claim in enumerate(verdicts, start=1):
        table.add_row(
            f"[bold]{number}. {claim.title}[/]\n{claim.claim}",
            "\n".join(f"{marks[part.holds]} {part.measured}" for part in claim.parts),
            f"[{'green' if claim.holds else 'red'}]{claim.verdict}[/]",
        )
    console.print(table)
