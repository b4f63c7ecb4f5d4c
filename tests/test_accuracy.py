"""`pynn accuracy`: what it measures and writes, its errors; and the tables of docs/accuracy.md."""

import re
from pathlib import Path

import numpy as np
import pytest

import pynn
from pynn import accuracy, cli

PAGE = Path(__file__).parents[1] / "docs" / "accuracy.md"
HEADING = "| " + " | ".join(accuracy.HEADINGS) + " |"
EMPTY = f"before\n\n{HEADING}\n|---|\n\nafter\n"


@pytest.mark.parametrize("name", pynn.ACTIVATIONS)
def test_a_sample_of_all_inputs(name):
    """Every 997th float32: forward within 1 ULP, backward within 2."""
    parts = []
    forward, backward = accuracy.measure(name, 997, parts.append)
    assert forward.count == backward.count == -(-(2**32) // 997)
    assert forward.error <= 1 and backward.error <= 2, (forward, backward)
    assert forward.rounded <= forward.count and forward.rounded > 0.8 * forward.count
    assert parts == sorted(parts) and parts[-1] == 1


def test_it_sees_errors(monkeypatch):
    """A function that is wrong in one place by one number, and one that loses a NaN."""
    row = pynn.ACTIVATIONS["linear"]

    def wrong(x):
        return np.where(x == np.float32(997 * 2.0**-149), 2 * x, x)

    def lost(x):
        return np.nan_to_num(x, nan=0.0, posinf=np.inf, neginf=-np.inf)

    for forward, error, at in ((wrong, 997, 997 * 2.0**-149), (lost, np.inf, None)):
        table = dict(pynn.ACTIVATIONS) | {"linear": row._replace(forward=forward)}
        monkeypatch.setattr(accuracy, "ACTIVATIONS", table)
        got, _ = accuracy.measure("linear", 997)
        assert got.error == error and got.rounded < got.count
        assert at is None or got.at == at


def test_the_page(tmp_path, capsys):
    """Rows are put in the table's order, in place of what was there; the rest of the page stays."""
    page = tmp_path / "page.md"
    page.write_text(EMPTY)
    assert cli.main(["accuracy", "tanh", "relu", "--stride", "99991", "--out", str(page)]) == 0
    text = page.read_text()
    *rows, blank, after, end = text.split("\n")[4:]
    assert [row.split()[1] for row in rows] == ["relu", "tanh"]
    assert (blank, after, end) == ("", "after", "") and text.startswith("before\n")
    assert "1 in 99991" in rows[0] and " 100.000 % |" in rows[0]
    assert "tanh" in capsys.readouterr().out
    assert cli.main(["accuracy", "relu", "--stride", "199999", "--out", str(page)]) == 0
    assert page.read_text().count("| relu |") == 1 and "1 in 199999" in page.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["page.md"]


def test_a_sample_writes_nothing_unasked(run, tmp_path):
    result = run("-m", "pynn", "accuracy", "linear", "--stride", "999983", cwd=tmp_path)
    assert result.returncode == 0 and "linear" in result.stdout, result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["gauss"], "gauss"),
        (["relu", "--stride", "0"], "--stride"),
        (["relu", "--stride", "x"], "--stride"),
        (["relu", "--stride", "99999999999"], "--stride"),
        (["relu", "--out", "missing.md"], "missing.md"),
        (["relu", "--out", "."], "."),
        (["relu", "--out", "plain.md"], "no table"),
        (["relu"], "docs/accuracy.md"),
        (["--sample"], "--sample"),
    ],
)
def test_errors(arguments, said, tmp_path, monkeypatch, capsys):
    """One line on standard error, exit code 2, nothing written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain.md").write_text("a page\n")
    assert cli.main(["accuracy", *arguments]) == 2
    out, error = capsys.readouterr()
    assert said in error and error.count("\n") == 1 and not out
    assert [p.name for p in tmp_path.iterdir()] == ["plain.md"]
    assert (tmp_path / "plain.md").read_text() == "a page\n"


def special_values(name):
    """The row of the table of special values."""
    row = pynn.ACTIVATIONS[name]
    x = np.float64([-np.inf, -0.0, 0.0, np.inf])
    y = row.forward(x)
    slopes = row.backward(1.0, x if row.saves == "x" else y)[[0, 2, 3]] + 0.0
    return [name, *(f"{v:.7g}" for v in (*y, *slopes))]


def test_the_tables_of_the_documentation():
    """Every function has its measured row, within the bounds, and its special values."""
    tables = [
        [[cell.strip() for cell in line.split("|")[1:-1]] for line in part.split("\n")[2:]]
        for part in re.findall(r"^\| function .*(?:\n\|.*)*", PAGE.read_text(), re.M)
    ]
    measured, special = tables
    assert [row[0] for row in measured] == list(pynn.ACTIVATIONS)
    for row in measured:
        assert float(row[2]) <= 1 and float(row[5]) <= 2, row
    assert special == [special_values(name) for name in pynn.ACTIVATIONS]
