"""What the commands show: tables and progress, by rich on a terminal, else as plain text."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

__all__ = ["Download", "Progress", "print_table", "progress", "rich_on"]

#: Told the name of a stage and the part of it that is done, 0 to 1.
Progress = Callable[[str, float], None]


def rich_on(stream: TextIO) -> bool:
    """Whether output to a stream goes by rich: it is a terminal, and rich is installed."""
    return stream.isatty() and importlib.util.find_spec("rich") is not None


class Download:
    """A download's progress bar, with the methods that pooch calls."""

    def __init__(self, show: Progress) -> None:
        self._show, self._done, self.total = show, 0, 0

    def update(self, count: int) -> None:
        self._done += count
        self._show("Download", self._done / self.total if self.total else 0)

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None:
        self._done = 0  # another file may follow


@contextmanager
def progress(together: bool = False) -> Iterator[Progress]:
    """Give a function that shows how far a stage is: bars on a terminal, else a line per stage.

    On standard error, so that it does not mix with results.

    Parameters
    ----------
    together : bool, default False
        One line on a terminal, that says the stage, in place of a bar for each.
    """
    stream = sys.stderr
    if not rich_on(stream):
        said: list[str] = []

        def say(stage: str, part: float) -> None:
            if stage not in said:
                said.append(stage)
                print(f"{stage} ...", file=stream, flush=True)

        yield say
        return
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TimeElapsedColumn

    columns = (*Bars.get_default_columns()[:3], TimeElapsedColumn())
    with Bars(*columns, console=Console(file=stream), transient=together) as bars:
        tasks: dict[str, Any] = {}

        def show(stage: str, part: float) -> None:
            if together and stage not in tasks:
                for task in tasks.values():
                    bars.update(task, visible=False)
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=1.0)
            bars.update(tasks[stage], completed=part)

        yield show


def print_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; an empty title is left out. Cells that are numbers stand to the right."""
    right = [_numbers([row[i] for row in rows]) for i in range(len(headings))]
    if rich_on(sys.stdout):
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        table = Table(
            title=title or None, title_justify="left", title_style="bold", show_header=any(headings)
        )
        for heading, is_number in zip(headings, right, strict=True):
            table.add_column(heading, justify="right" if is_number else "left", overflow="fold")
        for row in rows:
            table.add_row(*map(escape, row))
        Console().print(table)
        return
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    if title:
        print(f"\n{title}")
    for row in (headings, *rows):
        cells = [
            cell.rjust(width) if is_number else cell.ljust(width)
            for cell, width, is_number in zip(row, widths, right, strict=True)
        ]
        print("  ".join(cells).rstrip())


def _numbers(cells: Sequence[str]) -> bool:
    return all(not cell or cell.lstrip("+-")[:1].isdigit() for cell in cells)
