"""`pynn accuracy`: what it measures and writes, its errors; and the tables of docs/accuracy.md."""

import hashlib
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


SPECIAL = np.float64([-np.inf, -5e-324, -0.0, 0.0, 5e-324, np.inf, np.nan])


def special_values(name):
    """The row of the table of special values; slopes at -inf, 0, inf."""
    if name == "prelu":  # with a slope of 0.25
        y, slopes = pynn.prelu(SPECIAL, 0.25), pynn.prelu_backward(1.0, SPECIAL, 0.25)[0]
    else:
        row = pynn.ACTIVATIONS[name]
        y = row.forward(SPECIAL)
        slopes = row.backward(1.0, SPECIAL if row.saves == "x" else y)
    assert np.isnan(slopes[-1])
    return [name, *(f"{v:.7g}" for v in (*y, *(slopes[[0, 3, 5]] + 0.0)))]


ROWS = {
    "NaN, 1": [np.nan, 1],
    "inf, 1": [np.inf, 1],
    "-inf, -inf": [-np.inf, -np.inf],
    "-inf, 1": [-np.inf, 1],
    "-0.0": [-0.0],
    "5e-324, 0": [5e-324, 0],
    "empty": [],
}


def special_rows(name):
    """The row of the table of what functions along an axis give for special rows."""
    cells = [getattr(pynn, name)(np.float64(row)) for row in ROWS.values()]
    return [name, *(", ".join(f"{v:.7g}" for v in np.ravel(cell)) for cell in cells)]


GATES = [(a, b) for a in (-0.0, 5e-324, 2, np.inf, np.nan) for b in (-np.inf, 0, np.inf)]


def test_the_tables_of_the_documentation():
    """Every function has its measured rows, within the bounds, and its special values."""
    tables = {
        part.split("\n")[0]: [
            [cell.strip() for cell in line.split("|")[1:-1]] for line in part.split("\n")[2:]
        ]
        for part in re.findall(r"^\| .*(?:\n\|.*)*", PAGE.read_text(), re.M)
    }
    names = list(pynn.ACTIVATIONS)

    def table(headings):
        return tables["| " + " | ".join(headings) + " |"]

    measured = table(accuracy.HEADINGS)
    assert [row[:2] for row in measured] == [[name, "all"] for name in names]
    for row in measured:
        assert float(row[2]) <= 1 and float(row[5]) <= 2, row
    measured = table(accuracy.HEADINGS_FLOAT64)
    assert [row[0] for row in measured] == names
    for row in measured:
        assert float(row[2]) <= 2 and float(row[5]) <= 2, row
    hashed = table(accuracy.HASH_HEADINGS)
    assert {"sigmoid", "tanh", "gelu", "softplus"} <= {row[0] for row in hashed} <= {*names}
    assert {row[1] for row in hashed} == {"all"}
    assert {row[2] for row in hashed} == {"avx512, avx2, portable"}
    x = [f"{v:.7g}" for v in SPECIAL]
    special = table(["function", *x, "slope at -inf", "at 0", "at inf"])
    assert special == [special_values(name) for name in (*names, "prelu")]
    along = table(["function", *ROWS])
    rows = ("softmax", "softmin", "log_softmax", "logsumexp")
    assert along == [special_rows(name) for name in rows]
    gates = table(["a", *(f"b = {b:.7g}" for _, b in GATES[:3])])
    results = [f"{pynn.glu(np.float64(pair))[0]:.7g}" for pair in GATES]
    assert gates == [[f"{GATES[i][0]:.7g}", *results[i : i + 3]] for i in range(0, 15, 3)]


def test_hashes_are_of_the_results():
    """The same under every instruction set, in another place of chunks too; another result, another hash."""
    bits = np.arange(0, 2**32, 99_991, dtype=np.uint64).astype(np.uint32)
    x = bits.view(np.float32)
    y = pynn.sigmoid(x)
    y[np.isnan(y)] = np.nan
    before = pynn.get_isa()
    for isa in [name for name, state in pynn._core.isas().items() if state == "available"]:
        forward, backward = accuracy.hashes("sigmoid", isa, 99_991)
        assert forward == hashlib.sha256(y.tobytes()).hexdigest() != backward
        assert pynn.get_isa() == before


def test_float64_sees_errors(monkeypatch):
    """An error of 3 ULP in one range, a lost NaN; and nothing where there is none."""
    if np.finfo(np.longdouble).nmant <= 52:
        pytest.skip("long double is double here")
    row = pynn.ACTIVATIONS["linear"]
    parts = []
    forward, backward = accuracy.measure_float64("linear", 1000, parts.append)
    assert forward.error == backward.error == 0 and forward.rounded == forward.count
    assert forward.count > len(accuracy.RANGES) * 1000 and parts[-1] == 1

    def wrong(x):
        return np.where((x > 2.0**-22) & (x < 2.0**-21), x + 3 * np.spacing(x), x)

    def lost(x):
        return np.nan_to_num(x, nan=0.0, posinf=np.inf, neginf=-np.inf)

    for f, error in ((wrong, 3), (lost, np.inf)):
        table = dict(pynn.ACTIVATIONS) | {"linear": row._replace(forward=f)}
        monkeypatch.setattr(accuracy, "ACTIVATIONS", table)
        got, _ = accuracy.measure_float64("linear", 1000)
        assert got.error == error and got.rounded < got.count


def test_float64_and_hashes_on_the_command_line(tmp_path, capsys):
    """Each writes its own table, and only that one."""
    headings = (accuracy.HEADINGS, accuracy.HEADINGS_FLOAT64, accuracy.HASH_HEADINGS)
    page = tmp_path / "page.md"
    page.write_text("\n\n".join("| " + " | ".join(h) + " |\n|---|" for h in headings) + "\n")
    name = ["accuracy", "relu", "--out", str(page)]
    if np.finfo(np.longdouble).nmant > 52:
        assert cli.main([*name, "--float64", "100"]) == 0
        assert "| relu | 100 | 0.0000 |" in page.read_text()
    assert cli.main([*name, "--hash", "--stride", "99991"]) == 0
    out = capsys.readouterr().out
    (line,) = [line for line in page.read_text().split("\n") if "1 in 99991" in line]
    assert line.split("|")[4].strip() in out and page.read_text().count("| relu |") == 2
    others = line.replace("portable", "portable, another")
    page.write_text(page.read_text().replace(line, others))
    assert cli.main([*name, "--hash", "--stride", "99991"]) == 0  # the same hashes: other sets stay
    assert others in page.read_text()
    digit = "1" if line[-3] == "0" else "0"
    page.write_text(page.read_text().replace(others, others[:-3] + digit + others[-2:]))
    assert cli.main([*name, "--hash", "--stride", "99991"]) == 0  # other hashes: they do not
    assert line in page.read_text() and "another" not in page.read_text()
    for bad in (
        ["--float64", "0"],
        ["--float64", "9", "--hash"],
        ["--float64", "9", "--stride", "7"],
    ):
        assert cli.main([*name, *bad]) == 2
