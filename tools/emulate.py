"""Run a wheel on processors that are not there, by Debian's qemu-user, and compare the bits.

    python tools/emulate.py dist/*aarch64.whl dist/*x86_64.whl

An AArch64 wheel is installed into a folder with Debian's Python and PyPI's NumPy of that architecture; there selftest, the tests
of equal bits and the quick study run. An x86-64 wheel is imported on a Nehalem (no AVX) and a Haswell (AVX2), selftest runs.
Every hash must be that of this machine. Needs apt-get, for qemu-user-static and the AArch64 Python; nothing is installed
outside build/tools.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from debian import fetch

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "tools"
VERSION = "3.11"  # bookworm's Python
NEEDED = ["hypothesis", "matplotlib", "mpmath", "numpy>=2", "pooch", "pytest", "pytest-benchmark"]
NEEDED += ["rich", "scikit-learn", "scipy", "threadpoolctl"]
PLATFORMS = [f"manylinux_2_{n}_aarch64" for n in range(17, 37)] + ["manylinux2014_aarch64"]
#: CPU -> the instruction set that must be chosen there.
CPUS = {"Nehalem": "portable", "Haswell": "avx2"}
#: What runs within minutes there, as pytest chooses tests.
TESTS = ["test_bits.py", "test_fma.py", "test_softmax.py"]
CHOICE = (
    "any_values or batch_splits or loss or slices or test_fma or test_softmax and not hypothesis"
)
STARTER = """#!/bin/sh
exec {qemu} -L {root} -E LD_LIBRARY_PATH={libraries} -E PYTHONHOME={root}/usr -E PYTHONPATH={site} \\
    -E PYTHONDONTWRITEBYTECODE=1 {root}/usr/bin/python{version} "$@"
"""


def say(text):
    print(f"==> {text}", flush=True)


def run(*command, **options):
    return subprocess.run([*map(str, command)], check=True, **options)


def output(*command, **options):
    return run(*command, stdout=subprocess.PIPE, text=True, **options).stdout


def qemu(machine):
    """The emulator of a machine's user programs: installed, or fetched."""
    name = f"qemu-{machine}-static"
    if found := shutil.which(name):
        return found
    root = FOLDER / "qemu"
    if not root.exists():
        say("fetching qemu-user-static")
        host = output("dpkg", "--print-architecture").strip()
        fetch(["qemu-user-static"], host, root, FOLDER, dependencies=False)
    return root / "usr" / "bin" / name


def aarch64_python(wheel):
    """A command that starts AArch64's Python with the wheel, NumPy and what the tests need."""
    root, site, own = FOLDER / "root-aarch64", FOLDER / "site-aarch64", FOLDER / "wheel-aarch64"
    if not root.exists():
        say("fetching AArch64's Python")
        fetch([f"python{VERSION}", "libstdc++6", "libgomp1"], "arm64", root, FOLDER)
    into = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--only-binary",
        ":all:",
        "--upgrade",
    ]
    into += ["--python-version", VERSION, "--implementation", "cp"]
    into += [part for platform in PLATFORMS for part in ("--platform", platform)]
    if not site.exists():
        say("fetching NumPy and the tests' requirements for AArch64")
        run(*into, "--target", site, *NEEDED)
    shutil.rmtree(own, ignore_errors=True)
    run(*into, "--no-deps", "--target", own, wheel)
    starter = own / "python"
    # Programs that tests start are started the same way.
    (own / "sitecustomize.py").write_text(f"import sys\nsys.executable = {str(starter)!r}\n")
    multiarch = ":".join(f"{root}{part}/lib/aarch64-linux-gnu" for part in ("", "/usr"))
    starter.write_text(
        STARTER.format(
            qemu=qemu("aarch64"),
            root=root,
            libraries=multiarch,
            site=f"{own}:{site}",
            version=VERSION,
        )
    )
    starter.chmod(0o755)
    return [starter]


def x86_64_python(wheel, cpu):
    """A command that starts this Python, with the wheel, on an older CPU."""
    own = FOLDER / "wheel-x86_64"
    if not own.exists():
        run(sys.executable, "-m", "pip", "install", "--quiet", "--target", own, wheel)
    # OpenBLAS would take what the variable says for what the CPU has.
    return [
        "env",
        "-u",
        "OPENBLAS_CORETYPE",
        f"PYTHONPATH={own}",
        qemu("x86_64"),
        "-cpu",
        cpu,
        sys.executable,
    ]


def native(*arguments):
    """Output of this machine's pynn, that which the Python running this has installed."""
    return output(sys.executable, "-m", "pynn", *arguments, cwd=FOLDER)


def compare(name, python, want, isa=None):
    """The hashes of every function and the verdict of selftest, on the other CPU."""
    config = json.loads(output(*python, "-m", "pynn", "info", "--json", cwd=FOLDER))
    chosen = config["running"]["instruction set"]
    say(f"{name}: {config['machine']['architecture']}, {chosen}")
    assert isa is None or chosen == isa, f"{name} chose {chosen}; expected {isa}"
    run(*python, "-m", "pynn", "selftest", cwd=FOLDER, stderr=subprocess.DEVNULL)
    got = json.loads(output(*python, "-m", "pynn", "selftest", "--hashes", cwd=FOLDER))
    assert got == want, f"{name}: {sorted(k for k in want if got.get(k) != want[k])}"
    print(f"all {len(got)} hashes equal those of this machine")


def study(python, folder):
    shutil.rmtree(folder, ignore_errors=True)
    lines = output(*python, "-m", "pynn", "study", "--quick", "--out", folder, cwd=FOLDER)
    return next(line.split()[-1] for line in lines.splitlines() if "SHA-256" in line)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheels", nargs="+", type=Path, metavar="WHEEL")
    parser.add_argument("--hashes", action="store_true", help="print them")
    parser.add_argument("--no-tests", action="store_true", help="hashes and study alone")
    arguments = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    want = json.loads(native("selftest", "--hashes"))
    say(f"this machine: {json.loads(native('info', '--json'))['running']['instruction set']}")
    if arguments.hashes:
        for name, value in want.items():
            print(f"{value}  {name}")
    for wheel in (path.resolve() for path in arguments.wheels):
        if "aarch64" not in wheel.name:
            shutil.rmtree(FOLDER / "wheel-x86_64", ignore_errors=True)
            for cpu, isa in CPUS.items():
                compare(cpu, x86_64_python(wheel, cpu), want, isa)
            continue
        python = aarch64_python(wheel)
        compare("AArch64", python, want, "neon")
        if not arguments.no_tests:
            tests = [ROOT / "tests" / name for name in TESTS]
            options = ["-q", "-x", "-p", "no:cacheprovider", "-k", CHOICE]
            run(*python, "-m", "pytest", *options, *tests, cwd=FOLDER, env={**os.environ})
        hashes = [study(command, FOLDER / "study") for command in ([sys.executable], python)]
        for name, value in zip(("this machine", "AArch64"), hashes, strict=True):
            print(f"SHA-256 of the quick study's weights, {name}: {value}")
        assert hashes[0] == hashes[1]
    say(f"equal, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    try:
        main()
    except (AssertionError, subprocess.CalledProcessError) as error:
        sys.exit(f"tools/emulate.py: error: {error}")
