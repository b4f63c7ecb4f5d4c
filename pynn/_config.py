"""show_config, what a bug report should say; get_include, what a C compiler should know."""

from __future__ import annotations

import os
import platform
from typing import Any

import numpy as np

from . import _core
from ._backend import get_backend


def get_include() -> str:
    """Return the folder of ``pynn.h``, the C interface, for a compiler's ``-I``.

    Returns
    -------
    str

    Examples
    --------
    >>> import os, pynn
    >>> os.listdir(pynn.get_include())
    ['pynn.h']
    """
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "include")


def show_config(mode: str = "stdout") -> dict[str, Any] | None:
    """Print, or return, what pynn runs on: versions, instruction sets, threads, backend and build.

    Parameters
    ----------
    mode : {"stdout", "dicts"}
        Print it (default), or return it as a dict of dicts. The modes are those of
        `numpy.show_config`.

    Returns
    -------
    dict or None
        The dict for mode "dicts", None for "stdout".

    Raises
    ------
    ValueError
        For any other mode.

    Examples
    --------
    >>> import pynn
    >>> sorted(pynn.show_config(mode="dicts"))
    ['build', 'environment', 'instruction sets', 'machine', 'running', 'versions']
    """
    from . import __version__

    if mode not in ("stdout", "dicts"):
        raise ValueError(f"mode must be 'stdout' or 'dicts'; got {mode!r}")
    threads, default, reason = _core.get_num_threads(), *_core.default_threads()
    config: dict[str, dict[str, Any]] = {
        "versions": {
            "pynn": __version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "machine": {
            "system": platform.platform(),
            "architecture": platform.machine(),
            "cpu": cpu_name(),
            "cpus": os.cpu_count(),
            **_memory(),
        },
        "running": {
            "backend": get_backend(),
            "instruction set": _core.get_isa(),
            "threads": threads,
            "threads because of": reason if threads == default else "set_num_threads",
        },
        "instruction sets": _core.isas(),
        "environment": {
            name: value for name, value in sorted(os.environ.items()) if name.startswith("PYNN_")
        },
        "build": _core.build_info(),
    }
    if mode == "dicts":
        return config
    for title, entries in config.items():
        print(f"{title}:" if entries else f"{title}: none")
        for name, value in entries.items():
            print(f"    {name}: {value}")
    return None


def cpu_name() -> str:
    """Return the processor's name; of its architecture where the system tells no more."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory() -> dict[str, str]:
    """What memory there is, of what the system tells of it."""
    found = {}
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        found["memory"] = _gib(page * os.sysconf("SC_PHYS_PAGES"))
        found["memory available"] = _gib(page * os.sysconf("SC_AVPHYS_PAGES"))
        with open("/proc/meminfo", encoding="ascii") as file:  # with what caches would give back
            for line in file:
                if line.startswith("MemAvailable:"):
                    found["memory available"] = _gib(1024 * int(line.split()[1]))
    except (OSError, ValueError, AttributeError):
        pass
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:
            limit = file.read().strip()
        if limit != "max":
            found["memory limit"] = _gib(int(limit))
    except (OSError, ValueError):
        pass
    try:
        with open("/sys/kernel/mm/transparent_hugepage/enabled", encoding="ascii") as file:
            found["huge pages"] = file.read().split("[")[1].split("]")[0]
    except (OSError, IndexError):
        pass
    return found


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
