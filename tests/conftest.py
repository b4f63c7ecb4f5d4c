"""Fixtures: instruction set, threads, dtype; state is restored after every test."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `import oracles` under any import mode

import pynn
from pynn import _core

ISAS = _core.isas()
LACKING = [name for name, state in ISAS.items() if state != "available"]
SOURCE = Path(pynn.__file__).parents[1]
_errors = {}


def pytest_report_header(config):
    return (
        f"pynn {pynn.__version__} from {SOURCE}; instruction sets: {', '.join(ISAS)}; "
        f"not supported by this CPU: {', '.join(LACKING) or 'none'}"
    )


def pytest_terminal_summary(terminalreporter):
    if _errors:
        terminalreporter.section("largest errors measured, in ULP")
        for name in sorted(_errors):
            terminalreporter.write_line(f"{name:40s} {_errors[name]:.4f}")


def pytest_collection_modifyitems(config, items):
    """Tests marked slow run when asked for: pytest -m slow."""
    if "slow" not in config.option.markexpr:
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow; run with -m slow"))


@pytest.fixture
def record_ulp():
    """Note an error for the summary; the largest of each name is kept."""

    def record(name, error):
        _errors[name] = max(float(error), _errors.get(name, 0.0))

    return record


@pytest.fixture(autouse=True)
def restore():
    """Instruction set, threads and backend after each test are those before it."""
    before = pynn.get_isa(), pynn.get_num_threads(), pynn.get_backend()
    yield
    pynn.use_isa(before[0])
    pynn.set_num_threads(before[1])
    pynn.use_backend(before[2])


def require_isa(name):
    """Skip, naming the instruction set, if this CPU lacks it."""
    if name in LACKING:
        pytest.skip(f"{name}: {ISAS[name]}")


@pytest.fixture(params=list(ISAS))
def isa(request, restore):
    require_isa(request.param)
    pynn.use_isa(request.param)
    return request.param


@pytest.fixture(params=[1, 2, 5], ids=lambda n: f"threads{n}")
def threads(request, restore):
    pynn.set_num_threads(request.param)
    return request.param


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.fixture
def rng():
    return np.random.default_rng(20240229)


@pytest.fixture
def every_setting(restore):
    """Iterate over (instruction set, threads) of this machine, setting each; the best set first."""

    def settings():
        for name in ISAS:
            if name in LACKING:
                continue
            pynn.use_isa(name)
            for n in (1, 2, 5):
                pynn.set_num_threads(n)
                yield f"{name}, {n} threads"

    return settings


def _environment(**variables):
    keep = {k: v for k, v in os.environ.items() if not k.startswith("PYNN_")}
    path = [str(SOURCE), os.environ.get("PYTHONPATH", "")]
    pynn_of_this_process = {
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "PYTHONSAFEPATH": "1",  # not one that lies in the current folder
    }
    return keep | pynn_of_this_process | variables


@pytest.fixture(scope="session")
def run():
    """Run python with arguments in a fresh process: (returncode, stdout, stderr)."""

    def run(*arguments, cwd=None, timeout=120, **variables):
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=cwd,
            env=_environment(**variables),
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    run.source = SOURCE
    return run


@pytest.fixture
def python(run, tmp_path):
    """Run code that must succeed in a fresh process from an empty folder; its standard output."""

    def python(code, **variables):
        result = run("-c", code, cwd=tmp_path, **variables)
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    return python


@pytest.fixture(scope="session")
def quick_study(run, tmp_path_factory):
    """`pynn study --quick`, run once: its process, folder and results."""
    cwd = tmp_path_factory.mktemp("study")
    for module in ("matplotlib", "sklearn", "rich"):
        pytest.importorskip(module)
    process = run("-m", "pynn", "study", "--quick", "--out", "out", cwd=cwd, timeout=240)
    assert process.returncode == 0, process.stderr
    folder = cwd / "out"
    results = json.loads((folder / "results.json").read_text())
    return SimpleNamespace(process=process, folder=folder, results=results)
