"""Builds pynn._core. Everything else is declared in pyproject.toml."""

import os
import subprocess
import sys
from glob import glob

import numpy
from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import setup
from setuptools.command.build_ext import build_ext

SOURCES = sorted(glob("csrc/**/*.cpp", recursive=True))
HEADERS = sorted([*glob("csrc/**/*.hpp", recursive=True), "pynn/include/pynn.h"])
EXPORTED = ["PyInit__core", "pynn_get_num_threads", "pynn_set_num_threads"]  # all else stays inside
FLAGS = "-O3 -ffp-contract=off -fno-math-errno -fvisibility=hidden -g0 -pthread -Wall -Wextra"  # never -ffast-math
# So that it interleaves the vectors of a loop, which activations gain 10 to 20 % from; clang knows no such options.
GCC_FLAGS = "-fschedule-insns -fsched-pressure"
if sys.platform == "win32":  # not tried yet
    FLAGS = "/O2 /clang:-O3 /clang:-ffp-contract=off /clang:-fno-math-errno"


def stale(obj: str, src: str) -> bool:
    """Whether an object is older than its source, any header or this file."""
    return os.path.getmtime(obj) <= max(map(os.path.getmtime, [src, *HEADERS, "setup.py"]))


def is_gcc(command: list[str]) -> bool:
    """Whether a compiler says so itself; one of that name may be clang."""
    try:
        about = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    except OSError:  # the build will say what is missing
        return False
    return "Free Software Foundation" in about.stdout


class BuildExtension(build_ext):
    """On Windows with clang-cl: the kernels are written in the vector types of GCC and clang."""

    def build_extensions(self) -> None:
        if self.compiler.compiler_type == "msvc":
            self.compiler.initialize()
            self.compiler.cc = "clang-cl"
        elif is_gcc(self.compiler.compiler_so):
            for extension in self.extensions:
                extension.extra_compile_args += GCC_FLAGS.split()
        super().build_extensions()


def link_flags() -> list[str]:
    """Without symbols for debuggers, and with those alone exported that others look for."""
    if sys.platform == "win32":
        return []
    if sys.platform == "darwin":
        return ["-pthread", "-Wl,-x", *(f"-Wl,-exported_symbol,_{name}" for name in EXPORTED)]
    os.makedirs("build", exist_ok=True)
    with open("build/exports.map", "w", encoding="ascii") as file:
        file.write(f"{{ global: {'; '.join(EXPORTED)}; local: *; }};\n")
    return ["-pthread", "-Wl,-s", "-Wl,--version-script=build/exports.map"]


cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
jobs = int(os.environ.get("NPY_NUM_BUILD_JOBS") or os.environ.get("MAX_JOBS") or cpus or 1)
ParallelCompile(default=jobs, needs_recompile=stale).install()

setup(
    cmdclass={"build_ext": BuildExtension},
    ext_modules=[
        Pybind11Extension(
            "pynn._core",
            SOURCES,
            depends=HEADERS,
            include_dirs=["csrc", "pynn/include", numpy.get_include()],
            cxx_std=20,
            extra_compile_args=FLAGS.split(),
            extra_link_args=link_flags(),
            export_symbols=EXPORTED,
        )
    ],
    # Objects are kept here between builds, editable ones too, so that only what changed is compiled again.
    options={"build_ext": {"build_temp": f"build/{sys.implementation.cache_tag}"}},
)
