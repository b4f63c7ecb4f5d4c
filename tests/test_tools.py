"""`pynn info`, `pynn bench` and `pynn selftest`: what they say, and their exit codes."""

import json
import os
import re
import sys

import numpy as np
import pytest

import pynn
from conftest import ISAS, LACKING
from pynn import cli, selftest

AVAILABLE = [name for name in ISAS if name not in LACKING]


@pytest.fixture(scope="module")
def found():
    """Hashes under the best instruction set, and a sample's errors."""
    return selftest.hashes(AVAILABLE[0], 1), selftest.sample()


def test_info(run, tmp_path):
    result = run("-m", "pynn", "info", cwd=tmp_path, PYNN_NUM_THREADS="3")
    assert result.returncode == 0 and not result.stderr
    for part in (pynn.__version__, np.__version__, "threads: 3", "because of: PYNN_NUM_THREADS"):
        assert part in result.stdout
    result = run("-m", "pynn", "info", "--json", cwd=tmp_path)
    config = json.loads(result.stdout)
    assert config["instruction sets"] == ISAS and config["versions"]["pynn"] == pynn.__version__
    assert config["running"]["threads"] == pynn._core.default_threads()[0]


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_tables_on_a_terminal(tmp_path):
    """rich draws them there, without losing a word."""
    pytest.importorskip("rich")
    import pty

    shown = bytearray()

    def read(fd):
        shown.extend(data := os.read(fd, 4096))
        return data

    code = "import sys; from pynn import cli; sys.exit(cli.main(['info']))"
    environment = f"import os; os.environ.update(TERM='xterm', COLUMNS='120'); {code}"
    assert pty.spawn([sys.executable, "-c", environment], read) == 0
    text = shown.decode()
    assert "│" in text and "instruction sets" in text and pynn.__version__ in text


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("line", ["info", "info --json", "accuracy relu --stride 100000007"])
def test_output_that_cannot_be_written(line, run, tmp_path):
    """A full disk, a closed output: one line of error, exit code 1."""
    launch = f"import os; os.execl('/bin/sh', 'sh', '-c', '{sys.executable} -m pynn {line} %s')"
    for redirection, said in ((">/dev/full", "No space"), (">&-", "output is closed")):
        result = run("-c", launch % redirection, cwd=tmp_path)
        (error,) = (said for said in result.stderr.splitlines() if not said.endswith(" ..."))
        assert result.returncode == 1 and said in error
    assert not list(tmp_path.iterdir())


def test_why_so_many_threads():
    running = pynn.show_config(mode="dicts")["running"]
    assert running["threads because of"] == pynn._core.default_threads()[1]
    pynn.set_num_threads(pynn.get_num_threads() + 1)
    running = pynn.show_config(mode="dicts")["running"]
    assert running["threads because of"] == "set_num_threads"


def test_selftest_passes(run, tmp_path):
    """On this machine, in a process of its own; the best set under three numbers of threads."""
    result = run("-m", "pynn", "selftest", cwd=tmp_path, PYNN_BACKEND="numpy")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "\nThis machine gives the published bits.\n" in result.stdout
    assert not re.search("wrong|other bits|no published hash", result.stdout)
    for name in AVAILABLE:
        assert f"equal, {name}" in result.stdout
    assert float(result.stdout.split()[-2]) < 20
    assert not list(tmp_path.iterdir())


def test_every_function_has_a_published_hash(found):
    """After a change of the tables: `make hashes`. A hash that changes is a breaking change."""
    hashes, _ = found
    assert hashes.found == selftest.published()
    assert len(set(hashes.found.values())) > 0.8 * len(hashes.found)  # aliases have the same
    assert pynn.get_isa() == AVAILABLE[0]


def test_selftest_fails_where_it_should(found):
    """One wrong answer, one other bit, one function gone or one large error is enough."""
    hashes, errors = found
    known = selftest.published()
    answers = selftest.known_answers()
    assert selftest.judge(answers, known, [hashes], errors).passed
    name = next(iter(known))
    large = selftest.accuracy.Direction(1.001, 0.5, 0, 1)
    broken = {
        "known answers": ([("2 + 2", False)], known, [hashes], errors),
        "hashes": (answers, {**known, name: "0" * 64}, [hashes], errors),
        "not there": (answers, {**known, "gone float32": "0" * 64}, [hashes], errors),
        "too large": (answers, known, [hashes], {**errors, "relu": (large, large)}),
    }
    for words, arguments in broken.items():
        result = selftest.judge(*arguments)
        assert not result.passed and "NOT" in result.verdict and words in result.verdict
        assert result.lines()[-1] == result.verdict and json.dumps(result.as_dict())


def test_a_flipped_bit_changes_the_hash(monkeypatch, found):
    """So that hashes would notice: one bit of one element of one function."""
    row = pynn.ACTIVATIONS["tanh"]

    def other(x):
        y = row.forward(x)
        y.view(np.uint32 if y.itemsize == 4 else np.uint64)[-1] ^= 1
        return y

    wrong = {**pynn.ACTIVATIONS, "tanh": row._replace(forward=other)}
    monkeypatch.setattr(selftest, "ACTIVATIONS", wrong)
    names = selftest.hashes(AVAILABLE[0], 1).wrong(found[0].found)
    assert "tanh float32" in names and "tanh float64" in names and "relu float32" not in names


def test_selftest_exit_code(monkeypatch, capsys):
    monkeypatch.setattr(selftest, "published", lambda: {"tanh float32": "0" * 64})
    monkeypatch.setattr(selftest, "STRIDE", 2**24 + 1)
    assert cli.main(["selftest"]) == 1
    output = capsys.readouterr()
    assert "other bits: tanh float32" in output.out
    assert output.err.splitlines()[-1].startswith("pynn selftest: error: This machine does NOT")
    assert cli.main(["selftest", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["passed"] is False


def test_bench(run, tmp_path):
    pytest.importorskip("matplotlib")
    arguments = "^(affine 1x784x100 relu|relu 10x100)$", "--rounds", "2"
    result = run("-m", "pynn", "bench", *arguments, "--plot", "b.png", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    heading, *rows = result.stdout.splitlines()
    assert heading.split()[:6] == ["best", "of", "2", "rounds", "pynn", "numpy"]
    assert rows[0].startswith("affine 1x784x100 relu") and rows[1].startswith("relu 10x100")
    assert all(float(row.split("µs")[1].split("×")[0]) > 0 for row in rows[:2])
    from matplotlib.image import imread

    image = imread(tmp_path / "b.png")
    assert min(image.shape[:2]) > 200 and image[..., :3].std() > 0.02
    assert [p.name for p in tmp_path.iterdir()] == ["b.png"]
    result = run("-m", "pynn", "bench", "^relu 10x100$", "--rounds", "1", "--json", cwd=tmp_path)
    times = json.loads(result.stdout)["seconds"]["relu 10x100"]
    assert len(times["pynn"]) == len(times["numpy"]) == 1 and times["pynn"][0] > 0


def test_bench_goes_on_without_a_peer_that_fails(run, tmp_path):
    """One whose import fails, one whose process dies, one that is wrong: reported, and left out."""
    (tmp_path / "torch.py").write_text("raise RuntimeError('not today')")
    (tmp_path / "mkl_random.py").write_text("import os; os._exit(7)")
    for module in ("onnx.py", "onnxruntime.py"):
        (tmp_path / module).write_text("raise AssertionError('other numbers')")
    arguments = "-m", "pynn", "bench", "^normal float64 1k$", "--rounds", "1", "--json"
    path = f"{tmp_path}:{run.source}"
    result = run(*arguments, cwd=tmp_path, PYTHONPATH=path)
    assert result.returncode == 0
    assert "torch: not today" in result.stderr
    assert "mkl_random: its process ended, exit code 7" in result.stderr
    assert "onnxruntime is left out of normal float64 1k: other numbers" in result.stderr
    peers = json.loads(result.stdout)["seconds"]["normal float64 1k"]
    assert {"pynn", "numpy"} <= peers.keys() and not {
        "torch",
        "mkl_random",
        "onnxruntime",
    } & peers.keys()


BAD = [
    "bench (",
    "bench nothing-of-that-name",
    "bench --rounds 0",
    "bench --plot bars.txt",
    "bench --plot no/such/folder/bars.png",
    "bench --plot .",
    "info --xml",
    "selftest now",
    "selftest --json --hashes",
]


@pytest.mark.parametrize("line", BAD)
def test_bad_command_lines(line, capsys, tmp_path, monkeypatch):
    """One line that says what is wrong, exit code 2, nothing written."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(line.split(" ")) == 2
    output = capsys.readouterr()
    assert not output.out and output.err.count("\n") == 1 and "error" in output.err
    assert not list(tmp_path.iterdir())


def test_quick_workloads_exist():
    from pynn import bench

    assert set(bench.QUICK) <= bench.WORKLOADS.keys()
