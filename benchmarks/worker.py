"""A contender in a process of its own, which is stopped whenever it is not measuring: threads that spin while they wait
for work (OpenMP's, MKL's, ONNX Runtime's) would otherwise take the processor from the next contender.
"""

import atexit
import ctypes
import multiprocessing
import os
import signal
import sys

from contenders import CONTENDERS, measure, prepare


def serve(name, pipe):
    """Answer requests: the name of a workload prepares it, None measures one round of it."""
    if sys.platform == "linux":  # a stopped worker must not outlive its parent (PR_SET_PDEATHSIG)
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    contender, run = None, None
    while True:
        try:
            request = pipe.recv()
        except EOFError:  # the parent is gone
            return
        try:
            if request is None:
                answer = measure(run)
            else:
                contender = contender or CONTENDERS[name]()
                run = None  # its memory goes before the next comes
                run = prepare(contender, request)
                answer = run is not None
        except Exception as error:
            answer = RuntimeError(f"{name}: {error}")
        pipe.send(answer)


class Worker:
    def __init__(self, name):
        context = multiprocessing.get_context("spawn")
        self.pipe, end = context.Pipe()
        self.process = context.Process(target=serve, args=(name, end), daemon=True)
        self.process.start()
        end.close()
        atexit.register(self.process.kill)  # also when it is stopped

    def _ask(self, request):
        os.kill(self.process.pid, signal.SIGCONT)
        self.pipe.send(request)
        answer = self.pipe.recv()
        os.kill(self.process.pid, signal.SIGSTOP)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def prepare(self, workload):
        """Whether the contender takes part in this workload."""
        return self._ask(workload)

    def measure(self):
        """Seconds per call, over one round."""
        return self._ask(None)
