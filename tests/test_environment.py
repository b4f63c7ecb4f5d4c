"""The process around pynn: floating-point modes, fork, threads, environment variables."""

import ctypes
import os
import platform
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import oracles
import pynn
from conftest import ISAS, LACKING
from functions import FUNCTIONS, results
from pynn import _core

ROUNDING = {
    "x86_64": {"nearest": 0, "down": 0x400, "up": 0x800, "zero": 0xC00},
    "aarch64": {"nearest": 0, "down": 0x800000, "up": 0x400000, "zero": 0xC00000},
}.get(platform.machine(), {})
needs_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="reads x86-64's MXCSR")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
MODES = 0xFFC0  # MXCSR without its exception flags
FLUSH = 0x8040  # flush to zero, denormals are zero


class Environment:
    """The C library's floating-point environment of this thread."""

    def __init__(self):
        self.libc = ctypes.CDLL(None)
        self.memory = (ctypes.c_uint8 * 64)()

    def mxcsr(self):
        assert self.libc.fegetenv(self.memory) == 0
        return int.from_bytes(bytes(self.memory)[28:32], "little") & MODES

    def set_mxcsr(self, value):
        assert self.libc.fegetenv(self.memory) == 0
        self.memory[28:32] = list(value.to_bytes(4, "little"))
        assert self.libc.fesetenv(self.memory) == 0

    def rounding(self, mode=None):
        if mode is not None:
            assert self.libc.fesetround(mode) == 0
        return self.libc.fegetround()


def everything(dtype=np.float32, n=5000):
    """Something that calls every function of the table on fixed operands; a list of results."""
    rng = np.random.default_rng(1)
    calls = [(f.call, f.arrays(n, dtype, rng)) for f in FUNCTIONS.values()]

    def run():
        values = [v for call, operands in calls for v in results(call(*operands))]
        for distribution, bounds in (
            ("normal", ()),
            ("uniform", ()),
            ("truncated_normal", (-1, 9)),
        ):
            values.append(np.empty(5 * n, dtype))
            _core.fill(values[-1], distribution, 1, 0.25, 1.1, *bounds)
        half = np.empty(5 * n, np.float16)
        _core.fill(half, "normal", 1, 0.25, 1.1)
        values.append(half.astype(dtype))
        return values

    return run


@needs_x86
def test_modes_are_left_alone(threads):
    """Rounding mode, flush-to-zero and exception masks are after use what they were."""
    run, environment = everything(), Environment()
    before = environment.mxcsr()
    run()
    assert environment.mxcsr() == before
    found = []

    def elsewhere():
        own = Environment()
        first = own.mxcsr()
        run()
        found.append((first, own.mxcsr()))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found[0][0] == found[0][1]


@pytest.mark.skipif(not ROUNDING, reason="rounding modes of this machine are unknown")
@pytest.mark.parametrize("mode", ["down", "up", "zero"])
def test_callers_rounding_mode(mode, dtype, isa, threads):
    """Results do not depend on it, and it stays."""
    run, environment = everything(dtype), Environment()
    want = run()
    try:
        environment.rounding(ROUNDING[mode])
        got = run()
        after = environment.rounding()
    finally:
        environment.rounding(ROUNDING["nearest"])
    assert after == ROUNDING[mode]
    for one, other in zip(got, want, strict=True):
        oracles.assert_same_bits(one, other)


@pytest.mark.skipif(not ROUNDING, reason="rounding modes of this machine are unknown")
@pytest.mark.parametrize("name", [n for n in pynn.optimizers.__all__ if n != "Optimizer"])
def test_callers_rounding_mode_of_a_step(name, dtype):
    """The constants of an optimizer, too, are rounded to nearest."""
    rng, environment, found = np.random.default_rng(2), Environment(), []
    start, grad = rng.standard_normal((2, 231)).astype(dtype)
    for mode in ("nearest", "up", "down"):
        w = start.copy()
        optimizer = getattr(pynn.optimizers, name)(
            0.7, weight_decay=0.3, clip_value=0.7, clip_norm=9.1
        )
        try:
            environment.rounding(ROUNDING[mode])
            for _ in range(3):
                optimizer.update({"w": w}, {"w": grad})
        finally:
            environment.rounding(ROUNDING["nearest"])
        found.append(w)
    for other in found[1:]:
        oracles.assert_same_bits(other, found[0])


@pytest.mark.skipif(not ROUNDING, reason="rounding modes of this machine are unknown")
def test_callers_rounding_mode_of_conversions(rng):
    """Nor does it reach gradients that are converted, or the scale of a loss's gradient."""
    grad, scales, environment = rng.standard_normal(231), rng.random(20).tolist(), Environment()
    y, found = rng.random((7, 5), np.float32), []
    for mode in ("nearest", "up", "down"):
        w = np.zeros(231, np.float32)
        try:
            environment.rounding(ROUNDING[mode])
            pynn.optimizers.SGD(1.0).update({"w": w}, {"w": grad})
            slopes = [_core.softmax_loss_backward(y, np.zeros(7, int), s) for s in scales]
        finally:
            environment.rounding(ROUNDING["nearest"])
        found.append(np.concatenate([w, np.ravel(slopes)]))
    for other in found[1:]:
        oracles.assert_same_bits(other, found[0])


@needs_x86
def test_callers_flush_to_zero(dtype, isa, threads):
    """Subnormals are kept although the caller flushes them, and the caller goes on flushing."""
    environment = Environment()
    before = environment.mxcsr()
    x = np.full(100_000, np.finfo(dtype).tiny / 4, dtype)
    small, ones = x[:400].reshape(20, 20), np.eye(20, dtype=dtype)
    try:
        environment.set_mxcsr(before | FLUSH)
        y, z = pynn.tanh(x), pynn.affine(small, ones)
        after = environment.mxcsr()
    finally:
        environment.set_mxcsr(before)
    assert after == before | FLUSH
    assert (y == x).all() and (z == small).all()


WORKERS = """
import ctypes, hashlib, numpy as np
libc = ctypes.CDLL(None)
memory = (ctypes.c_uint8 * 64)()
def mxcsr(change=0):
    libc.fegetenv(memory)
    value = int.from_bytes(bytes(memory)[28:32], "little") | change
    memory[28:32] = list(value.to_bytes(4, "little"))
    libc.fesetenv(memory)
    return value & 0xffc0
before = mxcsr({change})
import pynn
assert mxcsr() == before, "import changed the modes"
pynn.set_num_threads(5)
tiny = np.finfo(np.float32).tiny
x = np.full((512, 300), tiny, np.float32)
w = np.full((300, 400), 0.1, np.float32)
digest = hashlib.sha256()
for _ in range(5):
    for y in (pynn.affine(x, w), pynn.tanh(x), pynn.sigmoid(-90 - np.arange(300000) % 13 * np.float32(1))):
        digest.update(y.tobytes())
assert mxcsr() == before, "use changed the modes"
print(digest.hexdigest())
"""


@needs_x86
def test_modes_of_worker_threads(python):
    """Threads inherit the modes of whoever starts them; pynn's compute in the standard ones."""
    plain = python(WORKERS.format(change=0))
    assert python(WORKERS.format(change=0x8040 | 0x4000)) == plain


FORK = """
import os, signal, threading, numpy as np, pynn
pynn.set_num_threads(3)
x = np.random.default_rng(0).standard_normal((400, 300)).astype(np.float32)
def work():
    return pynn.affine(x, x.T).tobytes(), pynn.softmax(x).tobytes(), pynn.random.normal(200000, rng=0).tobytes()
want = work()
tasks = "/proc/self/task" if os.path.exists("/proc/self/task") else ""
stop = threading.Event()
def busy():
    while not stop.is_set():
        work()
others = [threading.Thread(target=busy, daemon=True) for _ in range({busy})]
for t in others: t.start()
children = []
for depth in range(12):
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        code = 1
        try:
            ok = work() == want and (not tasks or len(os.listdir(tasks)) > 1)  # threads of its own
            grandchild = os.fork()
            if grandchild == 0:
                signal.alarm(20)
                os._exit(0 if work() == want else 1)
            ok = ok and work() == want and os.waitpid(grandchild, 0)[1] == 0
            code = 0 if ok else 1
        finally:
            os._exit(code)
    children.append(child)
    assert work() == want
assert all(os.waitpid(child, 0)[1] == 0 for child in children)
stop.set()
for t in others: t.join()
assert work() == want
print("right")
"""


@needs_fork
@pytest.mark.parametrize("busy", [0, 2], ids=["quiet", "while other threads compute"])
def test_fork_after_use(busy, run):
    """Both processes go on computing, with threads, right up to grandchildren."""
    result = run("-W", "ignore", "-c", FORK.format(busy=busy), timeout=60)
    assert result.stdout.strip() == "right", result.stderr


def test_many_threads_at_once():
    """Calls from many Python threads, while others change the threads and instruction sets."""
    rng = np.random.default_rng(2)
    jobs = []
    for function in FUNCTIONS.values():
        operands = function.arrays(3000, np.float32, rng)
        jobs.append((function.call, operands, results(function.call(*operands))))
    x = rng.standard_normal((200, 300)).astype(np.float32)
    jobs.append((pynn.affine, (x, x.T), [pynn.affine(x, x.T)]))
    jobs.append(
        (lambda: pynn.random.normal(50_000, rng=4), (), [pynn.random.normal(50_000, rng=4)])
    )
    available = [name for name in ISAS if name not in LACKING]
    stop = threading.Event()

    def disturb():
        for i in range(10**9):
            pynn.set_num_threads(1 + i % 7)
            pynn.use_isa(available[i % len(available)])
            if stop.wait(0.0005):
                return

    def job(i):
        call, operands, want = jobs[i % len(jobs)]
        for one, other in zip(results(call(*operands)), want, strict=True):
            oracles.assert_same_bits(one, other)

    other = threading.Thread(target=disturb)
    other.start()
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(job, range(40 * len(jobs))))  # raises what a job raised
    finally:
        stop.set()
        other.join()


def test_idle_threads_sleep():
    pynn.set_num_threads(5)
    everything()()
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.05


HELPED = """
import os, sys, time, numpy as np, pynn
def spent():
    return {{t: int(open(f"/proc/self/task/{{t}}/schedstat").read().split()[0]) for t in os.listdir("/proc/self/task")}}
m, k, n = {size}
x, w = np.ones((m, k), np.float32), np.ones((k, n), np.float32, {order!r})
for n in {numbers}:
    pynn.set_num_threads(n)
    for _ in range(5): pynn.affine(x, w)
shares = []
for attempt in range(20):  # other processes may be busy
    before = spent()
    for _ in range(40):
        time.sleep(0.003)  # the workers go to sleep
        pynn.affine(x, w)
    times = sorted(time - before.get(thread, 0) for thread, time in spent().items())
    shares.append(times[-2] / sum(times))
    if shares[-1] > 0.2: break
print(max(shares))
"""
CPUS = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()


needs_times = pytest.mark.skipif(
    not os.path.exists("/proc/self/schedstat") or len(CPUS) < 2, reason="no CPU time of two threads"
)


@needs_times
@pytest.mark.parametrize("numbers", [(2,), (5, 2), (16, 2), (2, 5, 1, 2)], ids=str)
def test_a_worker_helps(numbers, python):
    """A second thread computes some half, whichever threads there were before.

    If one of four sleeping workers were woken, whichever it is, the share would be an eighth.
    """
    code = HELPED.format(numbers=numbers, size=(256, 1024, 1024), order="C")
    assert float(python(code)) > 0.2


@needs_times
@pytest.mark.parametrize("m", [128, 256])
def test_a_worker_helps_with_turned_products(m, python):
    """A few rows and weights in column order, where a block has whole rows: others are cut, and none is empty."""
    code = HELPED.format(numbers=(2,), size=(m, 2000, 90), order="F")
    assert float(python(code)) > 0.2


def test_set_num_threads():
    for n in (1, 2, 5, 64):
        pynn.set_num_threads(n)
        assert pynn.get_num_threads() == n
        assert pynn.affine(np.ones((300, 300)), np.ones((300, 300)))[299, 299] == 300
    for bad in (0, -1, 10**6, 2**70, 1.5, "2", None, True):
        with pytest.raises((TypeError, ValueError)):
            pynn.set_num_threads(bad)
        assert pynn.get_num_threads() == 64


def test_use_isa():
    for name, state in ISAS.items():
        if state == "available":
            pynn.use_isa(name)
            assert pynn.get_isa() == name
        else:
            with pytest.raises(ValueError, match=f"{name}.*not support"):
                pynn.use_isa(name)
    assert "portable" in ISAS and ISAS["portable"] == "available"
    before = pynn.get_isa()
    for bad in ("sse9", "", "AVX2"):
        with pytest.raises(ValueError, match="portable"):
            pynn.use_isa(bad)
    with pytest.raises(TypeError):
        pynn.use_isa(None)
    assert pynn.get_isa() == before


def test_best_isa_is_the_default(python):
    best = next(name for name, state in ISAS.items() if state == "available")
    assert python("import pynn; print(pynn.get_isa())") == best


@pytest.mark.parametrize("name", ISAS)
def test_isa_from_the_environment(name, run):
    result = run("-c", "import pynn; print(pynn.get_isa())", PYNN_ISA=name)
    if name in LACKING:
        assert result.returncode and "PYNN_ISA" in result.stderr and name in result.stderr
    else:
        assert result.stdout.strip() == name


BAD_VARIABLES = {
    "PYNN_ISA": ["sse9", "AVX2", "avx2,portable"],
    "PYNN_NUM_THREADS": ["0", "-1", "two", "1.5", "99999999999999999999", "3 "],
    "PYNN_BACKEND": ["torch", "Numpy"],
}


@pytest.mark.parametrize("name, value", [(n, v) for n, row in BAD_VARIABLES.items() for v in row])
def test_bad_environment_variables(name, value, run):
    """One clear error at import that names the variable and its value; never a fall back."""
    result = run("-c", "import pynn", **{name: value})
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode == 1 and name in last and value in last
    assert "Error" in last.split(":")[0]


def test_good_environment_variables(python):
    show = "import pynn; print(pynn.get_num_threads(), pynn.get_backend())"
    assert python(show, PYNN_NUM_THREADS="3", PYNN_BACKEND="numpy") == "3 numpy"
    assert python(show, PYNN_NUM_THREADS="", PYNN_ISA="", PYNN_BACKEND="").split()[1] == "pynn"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no CPU affinity on this system")
def test_default_threads_are_the_cpus_allowed(python):
    show = """
import os; os.sched_setaffinity(0, {{{0}}}); import pynn
print(pynn.get_num_threads(), pynn._core.default_threads()[1])"""
    cpus = sorted(os.sched_getaffinity(0))
    assert python(show.format(cpus[0])).split()[0] == "1"
    count, reason = python(show.format(", ".join(map(str, cpus)))).split(" ", 1)
    assert 1 <= int(count) <= len(cpus)
    assert (int(count) == len(cpus)) == (reason == "the CPUs that this process may use")


def seconds(call):
    """The shortest of a few runs."""
    times = []
    for _ in range(20):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.mark.skipif(len(ISAS) == len(LACKING) + 1, reason="one instruction set only")
def test_override_takes_effect():
    """Not only its name: portable, whose fma is software, is plainly slower than the best."""
    pynn.set_num_threads(1)
    x, y = np.ones((64, 64)), np.empty((64, 64))
    times = {}
    for name in ISAS:
        if name not in LACKING:
            pynn.use_isa(name)
            times[name] = seconds(lambda: pynn.affine(x, x, out=y))
    assert times.pop("portable") > 4 * max(times.values())


def test_numpy_backend(python):
    """PYNN_BACKEND=numpy runs layers on pynn.reference, and nothing falls back to it."""
    code = """
import numpy as np, pynn
from pynn import _core, reference
calls = []
def count(module, name):
    original = getattr(module, name)
    def counted(*a, **k):
        calls.append(module.__name__)
        return original(*a, **k)
    setattr(module, name, counted)
for module in (_core, reference):
    for name in ("affine", "affine_backward", "softmax", "fill"):
        count(module, name)
net = pynn.networks.MultiLayerNet(4, [5], 3, rng=0)
net.gradient(np.ones((2, 4)), np.array([0, 1]))
print(*set(calls))
"""
    assert python(code, PYNN_BACKEND="numpy") == "pynn.reference"
    assert python(code) == "pynn._core"


def test_import_is_light(python):
    """Nothing is imported that was not asked for; the study's libraries by the study alone."""
    code = (
        "import sys, numpy; before = {*sys.modules}; import pynn; print(*{*sys.modules} - before)"
    )
    loaded = set(python(code).split())
    expected = "pynn", "_core", "_threadpoolctl", "_config", "_backend", "activations"
    assert {m for m in loaded if m.startswith("pynn")} == {
        m if m == "pynn" else f"pynn.{m}" for m in expected
    }
    heavy = {"matplotlib", "sklearn", "rich", "pooch", "statistics", "numpy.random", "argparse"}
    assert not heavy & loaded
    code = "import sys, pynn, pynn.cli; print({'matplotlib', 'sklearn', 'rich', 'pooch'} & {*sys.modules})"
    assert python(code) == "set()"


def test_import_is_quick(run):
    """At most 25 ms beyond NumPy: the quickest of several, as python -X importtime counts, for others may use the CPU."""
    times = []
    for _ in range(7):
        lines = run("-X", "importtime", "-c", "import numpy; import pynn").stderr.splitlines()
        times += [int(line.split("|")[1]) for line in lines if line.endswith("| pynn")]
    assert len(times) == 7 and min(times) < 25_000


def test_lazy_modules(python):
    code = """
import pynn
for name in ("initializers", "layers", "networks", "optimizers", "random", "reference"):
    assert name in dir(pynn) and name in pynn.__all__, name
    assert getattr(pynn, name).__name__ == "pynn." + name
from pynn import *
try:
    pynn.nothing
except AttributeError as error:
    print(error)
"""
    assert python(code) == "module 'pynn' has no attribute 'nothing'"


SUBINTERPRETER = """
import warnings, test.support
warnings.simplefilter("ignore")
test.support.run_in_subinterp('''
import warnings
warnings.simplefilter("ignore")
try:
    import pynn
except ImportError as error:
    print(error)
''')
"""


def test_subinterpreters_are_refused(python):
    """Where NumPy lets itself be imported: it never waits for ever."""
    pytest.importorskip("test.support")
    said = python(SUBINTERPRETER)
    assert "main interpreter" in said or "numpy" in said.lower()


LIMITED = """
import {0}, {1}
import pynn, threadpoolctl
pynn.set_num_threads(3)
with threadpoolctl.threadpool_limits(1):
    assert pynn.get_num_threads() == 1
with threadpoolctl.threadpool_limits(2, user_api="pynn"):
    assert pynn.get_num_threads() == 2
with threadpoolctl.threadpool_limits(1, user_api="blas"):
    assert pynn.get_num_threads() == 3
(info,) = [i for i in threadpoolctl.threadpool_info() if i["user_api"] == "pynn"]
print(info["num_threads"], info["version"] == pynn.__version__, pynn.get_num_threads())
"""


@pytest.mark.parametrize("order", [("pynn", "threadpoolctl"), ("threadpoolctl", "pynn")])
def test_threadpoolctl(order, python):
    pytest.importorskip("threadpoolctl")
    assert python(LIMITED.format(*order)) == "3 True 3"


def test_without_threadpoolctl(python, tmp_path):
    (tmp_path / "threadpoolctl.py").write_text("raise ImportError('not installed')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import pynn; print(pynn.get_num_threads())"
    assert int(python(code)) >= 1


def test_show_config(capsys):
    pynn.show_config()
    text = capsys.readouterr().out
    for part in (pynn.__version__, pynn.get_isa(), np.__version__, *ISAS):
        assert part in text
    config = pynn.show_config(mode="dicts")
    assert config["running"]["threads"] == pynn.get_num_threads()
    with pytest.raises(ValueError, match="mode"):
        pynn.show_config(mode="xml")


def test_unloaded_cleanly(run):
    """A process that used every thread ends at once, whatever is still running."""
    code = (
        "import threading, numpy as np, pynn\n"
        "pynn.set_num_threads(5)\n"
        "x = np.ones((300, 300), np.float32)\n"
        "def forever():\n"
        "    while True: pynn.affine(x, x)\n"
        "threading.Thread(target=forever, daemon=True).start()\n"
        "pynn.affine(x, x)\n"
    )
    for _ in range(3):
        result = run("-c", code, timeout=30)
        assert result.returncode == 0 and not result.stderr
