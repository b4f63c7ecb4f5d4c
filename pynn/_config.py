"""show_config: what a bug report should say."""

from __future__ import annotations

import os
import platform
from typing import Any

import numpy as np

from . import _core
from ._backend import get_backend


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
    """
    from . import __version__

    if mode not in ("stdout", "dicts"):
        raise ValueError(f"mode must be 'stdout' or 'dicts'; got {mode!r}")
    config: dict[str, dict[str, Any]] = {
        "versions": {
            "pynn": __version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "machine": {
            "system": platform.platform(),
            "architecture": platform.machine(),
            "cpus": os.cpu_count(),
        },
        "running": {
            "backend": get_backend(),
            "instruction set": _core.get_isa(),
            "threads": _core.get_num_threads(),
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
