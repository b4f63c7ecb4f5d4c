"""pynn's threads under threadpoolctl, if that is installed: ``threadpool_limits`` limits them too."""

from __future__ import annotations

import sys


def register() -> None:
    """Tell threadpoolctl of pynn; without threadpoolctl, do nothing.

    Notes
    -----
    threadpoolctl finds the libraries that are loaded by their file names, and those among them that
    a controller is for by their symbols. Importing it takes some two milliseconds.
    """
    try:
        from threadpoolctl import LibController
        from threadpoolctl import register as add
    except ImportError:
        return

    class PynnController(LibController):  # type: ignore[misc]
        """The threads of pynn's kernels."""

        user_api = "pynn"
        internal_api = "pynn"
        filename_prefixes = ("_core.",)
        check_symbols = ("pynn_get_num_threads", "pynn_set_num_threads")

        def get_num_threads(self) -> int:
            return int(self.dynlib.pynn_get_num_threads())

        def set_num_threads(self, num_threads: int) -> None:
            self.dynlib.pynn_set_num_threads(int(num_threads))

        def get_version(self) -> str:
            return str(sys.modules["pynn"].__version__)

    add(PynnController)
