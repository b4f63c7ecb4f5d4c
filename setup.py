"""Builds pynn._core. Everything else is declared in pyproject.toml."""

import os
import sys
from glob import glob

import numpy
from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import setup

SOURCES = sorted(glob("csrc/**/*.cpp", recursive=True))
HEADERS = sorted([*glob("csrc/**/*.hpp", recursive=True), "pynn/include/pynn.h"])
EXPORTED = ["PyInit__core", "pynn_get_num_threads", "pynn_set_num_threads"]  # all else stays inside
FLAGS = "-O3 -ffp-contract=off -fno-math-errno -fvisibility=hidden -g0 -pthread -Wall -Wextra"  # never -ffast-math


def stale(obj: str, src: str) -> bool:
    """Whether an object is older than its source, any header or this file."""
    return os.path.getmtime(obj) <= max(map(os.path.getmtime, [src, *HEADERS, "setup.py"]))


def link_flags() -> list[str]:
    """Without symbols for debuggers, and with those alone exported that others look for."""
    if sys.platform == "darwin":
        return ["-Wl,-x", *(f"-Wl,-exported_symbol,_{name}" for name in EXPORTED)]
    if sys.platform != "linux":
        return []
    os.makedirs("build", exist_ok=True)
    with open("build/exports.map", "w", encoding="ascii") as file:
        file.write(f"{{ global: {'; '.join(EXPORTED)}; local: *; }};\n")
    return ["-Wl,-s", "-Wl,--version-script=build/exports.map"]


cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
jobs = int(os.environ.get("NPY_NUM_BUILD_JOBS") or os.environ.get("MAX_JOBS") or cpus or 1)
ParallelCompile(default=jobs, needs_recompile=stale).install()

setup(
    ext_modules=[
        Pybind11Extension(
            "pynn._core",
            SOURCES,
            depends=HEADERS,
            include_dirs=["csrc", "pynn/include", numpy.get_include()],
            cxx_std=20,
            extra_compile_args=FLAGS.split(),
            extra_link_args=["-pthread", *link_flags()],
        )
    ],
    # Objects are kept here between builds, editable ones too, so that only what changed is compiled again.
    options={"build_ext": {"build_temp": f"build/{sys.implementation.cache_tag}"}},
)
