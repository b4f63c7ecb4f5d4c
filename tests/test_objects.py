"""The instruction sets' objects: one symbol each, nothing that the linker could share among them.

An AVX copy of an inline function that the linker picks for all crashes older CPUs at import.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ISAS
from pynn import _core

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "csrc" / "isa").glob("*.cpp"))
COMPILER = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")
# what an object may want from outside: memory, and no mathematical library
WANTED = {"memcpy", "memset", "memmove", "memcmp", "__stack_chk_fail", "_GLOBAL_OFFSET_TABLE_"}
# what libm has, and a compiler might call
MATHEMATICS = [
    "exp",
    "exp2",
    "expm1",
    "log",
    "log2",
    "log1p",
    "log10",
    "pow",
    "sin",
    "cos",
    "sincos",
    "tan",
    "tanh",
    "sinh",
    "cosh",
    "erf",
    "erfc",
    "fma",
    "sqrt",
    "ceil",
    "floor",
    "round",
]

pytestmark = [
    pytest.mark.skipif(not SOURCES, reason="no C++ sources beside the tests"),
    pytest.mark.skipif(not COMPILER, reason="no C++ compiler"),
    pytest.mark.skipif(not shutil.which("nm") or not shutil.which("readelf"), reason="no binutils"),
]


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def built(source):
    """The object of the last build, if it is newer than all that it is made of."""
    inputs = [*ROOT.glob("csrc/**/*.[ch]pp"), ROOT / "setup.py"]
    newest = max(p.stat().st_mtime for p in inputs)
    objects = [
        p for p in ROOT.glob(f"build/**/csrc/isa/{source.stem}.o") if p.stat().st_mtime > newest
    ]
    return max(objects, key=lambda p: p.stat().st_mtime, default=None)


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """Source name -> object: just built, or compiled here with the flags of setup.py, side by side."""
    folder = tmp_path_factory.mktemp("objects")
    flags = re.search(r'^FLAGS = "(.*?)"', (ROOT / "setup.py").read_text(), re.M).group(1)
    command = [COMPILER, "-std=c++20", "-fPIC", *flags.split(), f"-I{ROOT / 'csrc'}", "-c"]
    found = {source.stem: built(source) for source in SOURCES}
    compiling = []
    for source in SOURCES:
        if not found[source.stem]:
            found[source.stem] = target = folder / f"{source.stem}.o"
            compiling.append(subprocess.Popen([*command, str(source), "-o", str(target)]))
    codes = [process.wait() for process in compiling]
    assert not any(codes)
    return found


@pytest.fixture(params=SOURCES, ids=lambda p: p.stem)
def isa_object(request, objects):
    """The name of an instruction set and its object."""
    return request.param.stem, objects[request.param.stem]


def test_one_symbol(isa_object):
    """One global definition, none weak or unique, and nothing from a mathematical library."""
    name, path = isa_object
    symbols = [line.split()[-2:] for line in output("nm", str(path)).splitlines() if line.strip()]
    defined = [(kind, symbol) for kind, symbol in symbols if kind not in "Uw"]
    shared = [(kind, symbol) for kind, symbol in defined if kind.isupper() or kind in "uv"]
    weak = [symbol for kind, symbol in symbols if kind in "VvWwu"]
    assert not weak
    assert len(shared) == (name in ISAS), shared
    assert all(name in symbol for _, symbol in shared)
    assert {symbol for kind, symbol in symbols if kind == "U"} <= WANTED


def test_no_static_initialisers(isa_object):
    """Nothing runs at load, before the CPU is known."""
    _, path = isa_object
    sections = output("readelf", "--sections", "--wide", str(path))
    assert not re.search(r"\.(init_array|preinit_array|ctors)", sections)
    assert "_GLOBAL__sub_I" not in output("nm", str(path))


def test_every_instruction_set_was_looked_at():
    assert {*ISAS} <= {p.stem for p in SOURCES}


def test_the_extension_exports_no_more_than_it_must():
    """What Python and threadpoolctl look for; not pybind11's classes, nor std's inline functions."""
    library = _core.__file__
    if sys.platform != "linux":
        pytest.skip("nm as on Linux")
    defined = output("nm", "-D", "--defined-only", library).split("\n")
    names = {line.split()[-1] for line in defined if line}
    assert names == {"PyInit__core", "pynn_get_num_threads", "pynn_set_num_threads"}


def test_the_extension_asks_no_mathematical_library():
    if sys.platform != "linux":
        pytest.skip("nm as on Linux")
    wanted = output("nm", "-D", "--undefined-only", _core.__file__).split("\n")
    names = {line.split()[-1].split("@")[0] for line in wanted if line}
    assert "memcpy" in names
    assert not {f"{f}{t}" for f in MATHEMATICS for t in ("", "f", "l", "f128")} & names
