"""A contender in a process of its own, which is stopped whenever it is not measuring: threads that spin while they wait
for work (OpenMP's, MKL's, ONNX Runtime's) would otherwise take the processor from the next contender.
"""

import atexit
import ctypes
import multiprocessing
import os
import signal
import sys
from typing import Any

from . import contenders as untyped

contenders: Any = untyped


class DisagreementError(RuntimeError):
    """The contender's result of a workload is not the reference's."""


def serve(name: str, pipe: Any) -> None:
    """Answer requests: the name of a workload prepares it, None measures one round of it."""
    if sys.platform == "linux":  # a stopped worker must not outlive its parent (PR_SET_PDEATHSIG)
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    contender: Any = None
    run: Any = None
    while True:
        try:
            request = pipe.recv()
        except EOFError:  # the parent is gone
            return
        try:
            if request is None:
                answer = contenders.measure(run)
            else:
                contender = contender or contenders.CONTENDERS[name]()
                run = None  # its memory goes before the next comes
                run = contenders.prepare(contender, request)
                answer = run is not None
        except AssertionError as error:
            answer = DisagreementError(f"{name} is left out of {request}: {error}")
        except Exception as error:
            answer = RuntimeError(f"{name}: {error}")
        pipe.send(answer)


class Worker:
    """One contender's process."""

    def __init__(self, name: str) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")
        self.pipe, end = context.Pipe()
        self.process = context.Process(target=serve, args=(name, end), daemon=True)
        self.process.start()
        end.close()
        atexit.register(self.end)  # also when it is stopped

    def _ask(self, request: str | None) -> Any:
        pid = self.process.pid
        assert pid is not None  # it was started
        try:
            os.kill(pid, signal.SIGCONT)
            self.pipe.send(request)
            answer = self.pipe.recv()
            os.kill(pid, signal.SIGSTOP)
        except (EOFError, OSError):
            self.process.join(1)
            code = self.process.exitcode
            raise RuntimeError(f"{self.name}: its process ended, exit code {code}") from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def prepare(self, workload: str) -> bool:
        """Whether the contender takes part in this workload."""
        return bool(self._ask(workload))

    def measure(self) -> float:
        """Seconds per call, over one round."""
        return float(self._ask(None))

    def end(self) -> None:
        """End the process."""
        self.process.kill()
        atexit.unregister(self.end)
