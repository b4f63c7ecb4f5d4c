"""One class per contender. Its methods, named in the table of workloads, take the inputs and return the function to be
timed, whose result NumPy can read; a contender that lacks a method, or returns None, sits that workload out.
"""

import os
from functools import lru_cache, partial
from importlib.util import find_spec
from timeit import timeit

import numpy as np

import pynn

from .workloads import WORKLOADS

CHOSEN = pynn.get_isa()  # the best, or what PYNN_ISA says
ROUND = 0.02  # seconds that a round of calls lasts at least
ADAM_EPS = 1e-7  # the book's
FIRST_EPS = (
    ADAM_EPS / 0.001**0.5
)  # the same in PyTorch's formula, at the first step, which is checked


class Pynn:
    """pynn, on a given instruction set or on the best one."""

    lib, backend = pynn, "pynn"

    def __init__(self, isa=None):
        self.isa = isa

    def activate(self):
        pynn.use_backend(self.backend)
        pynn.use_isa(self.isa or CHOSEN)

    def affine(self, x, w, b, activation):
        return partial(self.lib.affine, x, w, b, activation=activation)

    def affine_packed(self, x, w, b, activation):
        """Weights laid out in advance, where a library can: pynn and ONNX Runtime."""
        return self.affine(x, pynn.pack(w), b, activation)

    def affine_backward(self, dy, x, w, b, activation):
        y = self.lib.affine(x, w, b, activation=activation)
        return partial(self.lib.affine_backward, dy, x, w, y, activation=activation)

    def activation(self, name, x):
        return partial(self.lib.ACTIVATIONS[name].forward, x)

    def activation_backward(self, name, dy, x):
        row = self.lib.ACTIVATIONS[name]
        return partial(row.backward, dy, row.forward(x) if row.saves == "y" else x)

    def row_function(self, name, x):
        return partial(getattr(self.lib, name), x)

    def row_function_backward(self, name, dy, x):
        saved = x if name == "glu" else getattr(self.lib, name)(x)
        return partial(getattr(self.lib, f"{name}_backward"), dy, saved)

    def normal(self, size, dtype):
        rng, out = np.random.default_rng(0), np.empty(size, dtype)
        return partial(pynn.random.normal, rng=rng, out=out)

    def uniform(self, size, dtype):
        rng, out = np.random.default_rng(0), np.empty(size, dtype)
        return partial(pynn.random.uniform, rng=rng, out=out)

    def truncated_normal(self, size, dtype):
        rng, out = np.random.default_rng(0), np.empty(size, dtype)
        return partial(pynn.random.truncated_normal, rng=rng, out=out)

    def training_step(self, x, t, params, optimizer, lr):
        sizes = [params[f"W{i}"].shape[1] for i in range(1, len(params) // 2 + 1)]
        net = pynn.networks.MultiLayerNet(x.shape[1], sizes[:-1], sizes[-1])
        for name, value in params.items():
            net.params[name][...] = value
        optimizer = getattr(pynn.optimizers, optimizer)(lr)

        def run():
            optimizer.update(net.params, net.gradient(x, t))
            return net.params["W1"]

        return run


class Reference(Pynn):
    """pynn.reference: the same calls in pure NumPy."""

    lib, backend = pynn.reference, "numpy"
    affine_packed = Pynn.affine

    def normal(self, size, dtype):
        return super().normal(size, dtype) if size <= 1_000_000 else None  # minutes

    def uniform(self, size, dtype):
        return super().uniform(size, dtype) if size <= 1_000_000 else None

    def truncated_normal(self, size, dtype):
        return super().truncated_normal(size, dtype) if size <= 1000 else None

    def row_function(self, name, x):
        if name == "glu":
            return lambda: self.lib.glu_halves(*np.hsplit(x, 2))
        return super().row_function(name, x)

    def row_function_backward(self, name, dy, x):
        if name == "glu":
            return lambda: np.hstack(self.lib.glu_halves_backward(dy, *np.hsplit(x, 2)))
        return super().row_function_backward(name, dy, x)


class NumPy(Reference):
    """What NumPy itself offers: the reference's formulas, and the fastest of NumPy's generators."""

    def normal(self, size, dtype):
        rng = np.random.Generator(np.random.SFC64(0))
        return partial(rng.standard_normal, dtype=dtype, out=np.empty(size, dtype))

    def uniform(self, size, dtype):
        rng = np.random.Generator(np.random.SFC64(0))
        return partial(rng.random, dtype=dtype, out=np.empty(size, dtype))

    def truncated_normal(self, size, dtype):
        return None  # NumPy has none

    def training_step(self, x, t, params, optimizer, lr):
        params = [p.copy() for p in params.values()]
        layers, rows, update = (
            len(params) // 2,
            np.arange(len(x)),
            {
                "SGD": self.sgd,
                "Adam": self.adam,
            }[optimizer](params, lr),
        )

        def run():
            outputs = [x]
            for i in range(layers):
                h = outputs[-1] @ params[2 * i]
                h += params[2 * i + 1]
                if i < layers - 1:
                    np.maximum(h, 0, out=h)
                outputs.append(h)
            d = outputs.pop()
            d -= d.max(axis=1, keepdims=True)
            np.exp(d, out=d)
            d /= d.sum(axis=1, keepdims=True)
            d[rows, t] -= 1
            d /= len(x)
            grads = []
            for i in reversed(range(layers)):
                h = outputs.pop()
                grads += [d.sum(axis=0), h.T @ d]
                if i > 0:
                    d = d @ params[2 * i].T
                    d *= h > 0
            update(grads[::-1])
            return params[0]

        return run

    @staticmethod
    def sgd(params, lr):
        def update(grads):
            for p, g in zip(params, grads):
                g *= lr
                p -= g

        return update

    @staticmethod
    def adam(params, lr):
        m, v, t = [np.zeros_like(p) for p in params], [np.zeros_like(p) for p in params], 0

        def update(grads):
            nonlocal t
            t += 1
            rate = lr * (1 - 0.999**t) ** 0.5 / (1 - 0.9**t)
            for p, g, m_p, v_p in zip(params, grads, m, v):
                m_p += 0.1 * (g - m_p)
                np.square(g, out=g)
                g -= v_p
                g *= 0.001
                v_p += g
                np.sqrt(v_p, out=g)
                g += ADAM_EPS
                np.divide(m_p, g, out=g)
                g *= rate
                p -= g

        return update


def own_names(modules, **others):
    """{activation: a library's function}: the one of the same name, or what others says."""
    found = {None: lambda x: x}
    for name in pynn.ACTIVATIONS:
        spellings = name, name.replace("_", "")
        same = (getattr(m, n) for m in modules for n in spellings if hasattr(m, n))
        f = others.get(name) or next(same, None)
        if f:
            found[name] = f
    return found


class Framework:
    """A library that differentiates.

    It has functions, what `own_names` returned; layer(f), f after an affine map; inference(f, *arrays) and
    gradient(f, dy, *arrays), what is timed.
    """

    def affine(self, x, w, b, activation):
        f = self.functions.get(activation)
        return f and self.inference(self.layer(f), x, w, b)

    affine_packed = affine

    def affine_backward(self, dy, x, w, b, activation):
        f = self.functions.get(activation)
        return f and self.gradient(self.layer(f), dy, x, w, b)

    def activation(self, name, x):
        f = self.functions.get(name)
        return f and self.inference(f, x)

    def activation_backward(self, name, dy, x):
        f = self.functions.get(name)
        return f and self.gradient(f, dy, x)


class Torch(Framework):
    def __init__(self):
        import torch

        self.torch = torch
        self.functions = own_names(
            (torch, torch.nn.functional),
            exponential=torch.exp,
            linear=torch.clone,
            gelu_tanh=partial(torch.nn.functional.gelu, approximate="tanh"),
            threshold=lambda x: torch.nn.functional.threshold(x, 0, 0),
        )

    def inference(self, f, *arrays):
        tensors = list(map(self.torch.from_numpy, arrays))

        def run():
            with self.torch.inference_mode():
                return f(*tensors)

        return run

    def gradient(self, f, dy, *arrays):
        leaves = [self.torch.from_numpy(a).requires_grad_() for a in arrays]
        dy = self.torch.from_numpy(dy)
        return partial(self.torch.autograd.grad, f(*leaves), leaves, dy, retain_graph=True)

    def layer(self, f):
        addmm = self.torch.addmm
        return lambda x, w, b: f(addmm(b, x, w))

    def row_functions(self, name):
        f = self.torch.nn.functional.glu if name == "glu" else getattr(self.torch, name)
        return lambda x: f(x, dim=-1)

    def row_function(self, name, x):
        return self.inference(self.row_functions(name), x)

    def row_function_backward(self, name, dy, x):
        return self.gradient(self.row_functions(name), dy, x)

    def normal(self, size, dtype):
        return self.torch.from_numpy(np.empty(size, dtype)).normal_

    def uniform(self, size, dtype):
        return self.torch.from_numpy(np.empty(size, dtype)).uniform_

    def truncated_normal(self, size, dtype):
        tensor = self.torch.from_numpy(np.empty(size, dtype))
        return partial(self.torch.nn.init.trunc_normal_, tensor)

    def training_step(self, x, t, params, optimizer, lr):
        torch, relu = self.torch, self.torch.relu
        x, t = torch.from_numpy(x), torch.from_numpy(t)
        tensors = [torch.from_numpy(p).requires_grad_() for p in params.values()]
        make = {"SGD": torch.optim.SGD, "Adam": partial(torch.optim.Adam, eps=FIRST_EPS)}[optimizer]
        optimizer = make(tensors, lr, fused=True)  # faster than its default

        def run():
            h = x
            for w, b in zip(tensors[:-2:2], tensors[1:-2:2]):
                h = relu(torch.addmm(b, h, w))
            loss = torch.nn.functional.cross_entropy(torch.addmm(tensors[-1], h, tensors[-2]), t)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return tensors[0].detach()

        return run


class Jax(Framework):
    def __init__(self):
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        import jax

        self.jax = jax
        self.functions = own_names(
            (jax.nn, jax.numpy),
            exponential=jax.numpy.exp,
            gelu=partial(jax.nn.gelu, approximate=False),
            gelu_tanh=partial(jax.nn.gelu, approximate=True),
            softsign=jax.nn.soft_sign,
        )

    def inference(self, f, *arguments):
        f = self.jax.jit(f)
        arguments = self.jax.tree.map(self.jax.numpy.asarray, arguments)
        return lambda: self.jax.block_until_ready(f(*arguments))

    def gradient(self, f, dy, *arrays):
        _, pullback = self.jax.vjp(f, *map(self.jax.numpy.asarray, arrays))
        return self.inference(lambda pullback, dy: pullback(dy), pullback, dy)

    def layer(self, f):
        return lambda x, w, b: f(x @ w + b)

    def row_functions(self, name):
        f = getattr(self.jax.nn, name, None) or getattr(self.jax.scipy.special, name)
        return lambda x: f(x, axis=-1)

    def row_function(self, name, x):
        return self.inference(self.row_functions(name), x)

    def row_function_backward(self, name, dy, x):
        return self.gradient(self.row_functions(name), dy, x)

    def normal(self, size, dtype):
        if dtype == np.float32:  # JAX's default is to have no float64
            return self.inference(
                partial(self.jax.random.normal, shape=(size,)), self.jax.random.key(0)
            )

    def uniform(self, size, dtype):
        if dtype == np.float32:
            return self.inference(
                partial(self.jax.random.uniform, shape=(size,)), self.jax.random.key(0)
            )

    def truncated_normal(self, size, dtype):
        if dtype == np.float32:
            draw = partial(self.jax.random.truncated_normal, lower=-2.0, upper=2.0, shape=(size,))
            return self.inference(draw, self.jax.random.key(0))

    def training_step(self, x, t, params, optimizer, lr):
        jax, jnp = self.jax, self.jax.numpy
        x, t = jnp.asarray(x), jnp.asarray(t)
        params = [jnp.array(p, copy=True) for p in params.values()]

        def loss(params):
            h = x
            for w, b in zip(params[:-2:2], params[1:-2:2]):
                h = jax.nn.relu(h @ w + b)
            log_p = jax.nn.log_softmax(h @ params[-2] + params[-1])
            return -jnp.take_along_axis(log_p, t[:, None], 1).mean()

        def sgd(params, state):
            return [p - lr * g for p, g in zip(params, jax.grad(loss)(params))], state

        def adam(params, state):
            m, v, t = state
            g, t = jax.grad(loss)(params), t + 1
            m = [m + 0.1 * (g - m) for m, g in zip(m, g)]
            v = [v + 0.001 * (g * g - v) for v, g in zip(v, g)]
            rate = lr * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            params = [p - rate * m / (jnp.sqrt(v) + ADAM_EPS) for p, m, v in zip(params, m, v)]
            return params, (m, v, t)

        zeros = [jnp.zeros_like(p) for p in params]
        state = (zeros, [z + 0 for z in zeros], jnp.float32(0)) if optimizer == "Adam" else ()
        step = jax.jit({"SGD": sgd, "Adam": adam}[optimizer], donate_argnums=(0, 1))

        def run():
            nonlocal params, state
            params, state = jax.block_until_ready(step(params, state))
            return params[0]

        return run


class OnnxRuntime:
    """Forward only; the weights are constants of the model, as when it serves one."""

    def __init__(self):
        import onnx
        import onnxruntime

        self.onnx, self.ort = onnx, onnxruntime
        camel = {name: (name.title().replace("_", ""), {}) for name in pynn.ACTIVATIONS}
        self.operators = {name: op for name, op in camel.items() if onnx.defs.has(op[0])}
        self.operators |= {
            "exponential": ("Exp", {}),
            "gelu_tanh": ("Gelu", {"approximate": "tanh"}),
            "hard_sigmoid": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
        }

    def model(self, operators, x, **constants):
        """Run x through operators (name, attributes, constants): each takes the output of the one before."""
        make, array = self.onnx.helper, self.onnx.numpy_helper.from_array
        nodes = [
            make.make_node(op, [f"v{i}", *names], [f"v{i + 1}"], **attributes)
            for i, (op, attributes, *names) in enumerate(operators)
        ]
        ends = [
            make.make_tensor_value_info(v, self.onnx.TensorProto.FLOAT, [None, None])
            for v in ("v0", f"v{len(nodes)}")
        ]
        graph = make.make_graph(
            nodes, "g", ends[:1], ends[1:], [array(v, k) for k, v in constants.items()]
        )
        model = make.make_model(graph, opset_imports=[make.make_opsetid("", 20)], ir_version=9)
        session = self.ort.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        return lambda: session.run(None, {"v0": x})[0]

    def affine(self, x, w, b, activation):
        if activation is None or activation in self.operators:
            then = [self.operators[activation]] if activation else []
            return self.model([("Gemm", {}, "w", "b"), *then], x, w=w, b=b)

    affine_packed = affine  # constants are packed when the model is loaded

    def activation(self, name, x):
        if name in self.operators:
            return self.model([self.operators[name]], x)

    def row_function(self, name, x):
        names = {"softmax": "Softmax", "log_softmax": "LogSoftmax"}
        return self.model([(names[name], {"axis": -1})], x) if name in names else None


class MklRandom:
    """Intel MKL's generators; float64 only."""

    def __init__(self):
        import mkl_random

        self.state = mkl_random.MKLRandomState(0)

    def normal(self, size, dtype):
        if dtype == np.float64:
            return partial(self.state.standard_normal, size)

    def uniform(self, size, dtype):
        if dtype == np.float64:
            return partial(self.state.random_sample, size)


# Here, in this process: pynn on every instruction set that this CPU has, and the reference.
ISAS = [name for name, state in pynn._core.isas().items() if state == "available"]
LACKING = [name for name in pynn._core.isas() if name not in ISAS]
LOCAL = {**{f"pynn {isa}": partial(Pynn, isa) for isa in ISAS}, "reference": Reference}
# Each in a process of its own: name -> (class, modules that it needs).
MODULES = {
    "numpy": (NumPy, ["numpy"]),
    "torch": (Torch, ["torch"]),
    "jax": (Jax, ["jax"]),
    "onnxruntime": (OnnxRuntime, ["onnx", "onnxruntime"]),
    "mkl_random": (MklRandom, ["mkl_random"]),
}
PEERS = {name: make for name, (make, modules) in MODULES.items() if all(map(find_spec, modules))}
CONTENDERS = {"pynn": Pynn, **LOCAL, **PEERS}


def listed(result):
    """A result or several as a list."""
    return result if isinstance(result, tuple | list) else [result]


def results(run):
    """The result of a call as a list of arrays."""
    return [np.array(r) for r in listed(run())]


@lru_cache(maxsize=1)
def expected(name):
    """What pynn.reference says of a workload; of random numbers, which it makes slowly, the first thousand."""
    inputs = WORKLOADS[name].inputs()
    if "size" in inputs:
        inputs["size"] = min(inputs["size"], 1000)
    reference = Reference()
    reference.activate()
    return results(getattr(reference, WORKLOADS[name].method)(**inputs))


def check(contender, name, run):
    """The contender does the same work: the reference's values; of another stream of random numbers, its moments."""
    method = WORKLOADS[name].method
    moments = {"normal": (0, 1), "uniform": (0.5, 12**-0.5), "truncated_normal": (0, 0.8796256610)}
    if method in moments and type(contender) not in (Pynn, Reference):
        mean, deviation = moments[method]
        (sample,) = results(run)
        limit = 5 * deviation / sample.size**0.5
        assert abs(sample.mean() - mean) < limit and abs(sample.std() - deviation) < limit, name
    else:
        for a, b in zip(results(run), expected(name), strict=True):
            np.testing.assert_allclose(a[: len(b)], b, 1e-5, 1e-5, err_msg=name)


def returns_an_input(run, inputs):
    """Whether a call makes nothing: its result is one of the arrays it got, or a view of it."""
    arrays = [value for value in inputs.values() if isinstance(value, np.ndarray)]
    return any(np.may_share_memory(np.asarray(r), a) for r in listed(run()) for a in arrays)


def prepare(contender, name):
    """The function to be timed, checked; None if the contender sits this workload out."""
    expected(name)  # first, since it switches the backend
    if hasattr(contender, "activate"):
        contender.activate()
    method, inputs = WORKLOADS[name].method, WORKLOADS[name].inputs()
    run = getattr(contender, method, lambda **_: None)(**inputs)
    if run is not None:
        check(contender, name, run)
        if method.startswith("activation") and returns_an_input(run, inputs):
            return None  # as linear of some: there is nothing to be timed
    return run


def measure(run):
    """Seconds per call, over a round: more and more calls until they last long enough, so the last are warm."""
    number = 1
    while (seconds := timeit(run, number=number)) < ROUND:
        number = max(2 * number, int(1.2 * number * ROUND / seconds))
    return seconds / number
