"""A trainer with the interface of *Deep Learning from Scratch*'s: epochs of batches, evaluated."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from . import optimizers, random
from ._checkpoint import load, package, save
from ._checks import as_float, integer, unmasked_array
from .layers import IdentityWithLoss, SigmoidWithLoss

__all__ = ["Trainer"]

Array = npt.NDArray[Any]


class Trainer:
    """Trains a network: shuffled batches, an evaluation after every epoch, checkpoints.

    Parameters
    ----------
    network : MultiLayerNet, Sequential or alike
        With ``params``, ``gradient(x, t)`` and ``accuracy(x, t)``, and a ``last_layer`` with
        ``loss``; for checkpoints with ``state_dict`` and ``load_state_dict``. It must classify: one
        that ends in `IdentityWithLoss` or `SigmoidWithLoss` has no accuracy to be evaluated.
    x_train, t_train : array of shape (n, ...)
        What to learn.
    x_test, t_test : array, optional
        What to be tested with, after every epoch.
    epochs : int, default 20
        How often all samples are seen.
    mini_batch_size : int, default 100
        Samples of a batch; the last one of an epoch may have fewer.
    optimizer : str or Optimizer, default "SGD"
        The name of a class of `pynn.optimizers`, in upper or lower case, or an optimizer.
    optimizer_param : dict, optional
        Arguments of the class, such as {"lr": 0.01}.
    evaluate_sample_num_per_epoch : int, optional
        How many samples of either part, the first ones, are evaluated after an epoch; all without.
    verbose : bool, default True
        Whether to show progress: a bar on standard error if the package rich is installed and that
        is a terminal, and a line for every epoch.
    rng : None, int, sequence of ints, SeedSequence or Generator
        Seed of the shuffling: see `pynn.random.key`.
    callbacks : sequence of callable, optional
        Called with the trainer after every epoch, when it has been evaluated; one that returns
        something true ends the training.
    patience : int, optional
        Ends the training when so many epochs in turn bring no better accuracy with the test part
        (without one, with the training part). The parameters stay the last ones.
    checkpoint : path, optional
        Where to `save` after every epoch, after the callbacks, which may have changed the optimizer's
        hyperparameters.

    Attributes
    ----------
    x_train, t_train, batch_size
        As given; to train with others, make another trainer.
    current_iter, current_epoch : int
        Batches and epochs done.
    train_loss_list : list of float
        The loss of each batch before its update, without weight decay.
    train_acc_list, test_acc_list : list of float
        The accuracies after each epoch.
    key : int
        Of the shuffling. Epoch e takes the samples in the order of the float64
        `pynn.random.uniform` numbers of the seed (key, e).

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; the message names it.

    Notes
    -----
    The book's class (``common/trainer.py``). There a batch is drawn anew each time, so that some
    samples come twice and some not at all; here an epoch has every sample once, as in PyTorch and
    Keras. There the loss is computed again after the update; here it is that of the gradient.

    Examples
    --------
    >>> import numpy as np, pynn
    >>> x, t = np.eye(4, dtype=np.float32), np.array([0, 1, 2, 0])
    >>> net = pynn.networks.MultiLayerNet(4, [8], 3, rng=0)
    >>> trainer = pynn.networks.Trainer(
    ...     net, x, t, epochs=60, mini_batch_size=2, optimizer_param={"lr": 0.5}, verbose=False, rng=0
    ... )
    >>> trainer.train()
    >>> trainer.current_iter, trainer.train_acc_list[-1]
    (120, 1.0)
    """

    def __init__(
        self,
        network: Any,
        x_train: npt.ArrayLike,
        t_train: npt.ArrayLike,
        x_test: npt.ArrayLike | None = None,
        t_test: npt.ArrayLike | None = None,
        epochs: int = 20,
        mini_batch_size: int = 100,
        optimizer: str | optimizers.Optimizer = "SGD",
        optimizer_param: Mapping[str, Any] | None = None,
        evaluate_sample_num_per_epoch: int | None = None,
        verbose: bool = True,
        *,
        rng: random.RNG = None,
        callbacks: Sequence[Callable[[Trainer], Any]] = (),
        patience: int | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> None:
        for name in ("params", "gradient", "accuracy", "last_layer"):
            if not hasattr(network, name):
                raise TypeError(f"network must have {name}; got {network!r}")
        if isinstance(network.last_layer, IdentityWithLoss | SigmoidWithLoss):
            raise ValueError(
                "network must classify, as its accuracy is evaluated;"
                f" got one that ends in {type(network.last_layer).__name__}"
            )
        self.network = network
        self._x_train, self._t_train = _samples("train", x_train, t_train)
        if (x_test is None) != (t_test is None):
            raise ValueError("x_test and t_test must be given together; got one alone")
        self.x_test: Array | None = None
        self.t_test: Array | None = None
        if x_test is not None and t_test is not None:
            self.x_test, self.t_test = _samples("test", x_test, t_test)
        if not len(self.x_train):
            raise ValueError("x_train must have at least one sample; got none")
        if self.x_test is not None and not len(self.x_test):
            raise ValueError("x_test must have at least one sample; got none")
        self.epochs = integer("epochs", epochs, least=0)
        self._batch_size = integer("mini_batch_size", mini_batch_size, least=1)
        self.optimizer = _optimizer(optimizer, optimizer_param)
        self.evaluate_sample_num_per_epoch = (
            None
            if evaluate_sample_num_per_epoch is None
            else integer("evaluate_sample_num_per_epoch", evaluate_sample_num_per_epoch, least=1)
        )
        self.verbose = bool(verbose)
        self.callbacks = list(callbacks) if np.iterable(callbacks) else []
        if not np.iterable(callbacks) or not all(map(callable, self.callbacks)):
            raise TypeError(f"callbacks must be a sequence of callables; got {callbacks!r}")
        self.patience = None if patience is None else integer("patience", patience, least=1)
        if checkpoint is not None:
            package()  # not after an epoch only
            if not isinstance(checkpoint, str | os.PathLike):
                raise TypeError(f"checkpoint must be a path; got {checkpoint!r}")
            for name, part in (("network", network), ("optimizer", self.optimizer)):
                if not hasattr(part, "state_dict") or not hasattr(part, "load_state_dict"):
                    raise TypeError(f"{name} must have state_dict for checkpoints; got {part!r}")
        self.checkpoint = checkpoint
        self.key = random.key(rng)
        self.current_iter = self.current_epoch = 0
        self.train_loss_list: list[float] = []
        self.train_acc_list: list[float] = []
        self.test_acc_list: list[float] = []
        self._order: tuple[int, Array] | None = None
        self._buffers: tuple[Array, Array] | None = None

    @property
    def x_train(self) -> Array:
        """The inputs to learn from."""
        return self._x_train

    @property
    def t_train(self) -> Array:
        """Their targets."""
        return self._t_train

    @property
    def batch_size(self) -> int:
        """The samples of a batch."""
        return self._batch_size

    @property
    def iter_per_epoch(self) -> int:
        """The batches of an epoch."""
        return -(-len(self.x_train) // self.batch_size)

    def train_step(self) -> None:
        """Take the next batch: its gradient, and a step of the optimizer."""
        epoch, batch = divmod(self.current_iter, self.iter_per_epoch)
        if self._order is None or self._order[0] != epoch:
            numbers = random.uniform(len(self.x_train), rng=(self.key, epoch), dtype=np.float64)
            self._order = epoch, np.argsort(numbers, kind="stable")
        chosen = self._order[1][batch * self.batch_size : (batch + 1) * self.batch_size]
        x, t = self._batch(chosen)
        grads = self.network.gradient(x, t)
        self.optimizer.update(self.network.params, grads)
        self.train_loss_list.append(float(self.network.last_layer.loss))
        self.current_iter += 1

    def _batch(self, chosen: Array) -> tuple[Array, Array]:
        """Gather samples in the same two arrays each time."""
        if self._buffers is None:
            n = min(self.batch_size, len(self.x_train))
            self._buffers = (
                np.empty((n, *self.x_train.shape[1:]), self.x_train.dtype),
                np.empty((n, *self.t_train.shape[1:]), self.t_train.dtype),
            )
        x, t = (buffer[: len(chosen)] for buffer in self._buffers)
        np.take(self.x_train, chosen, axis=0, out=x, mode="clip")  # "raise" would copy out
        np.take(self.t_train, chosen, axis=0, out=t, mode="clip")
        return x, t

    def train(self) -> None:
        """Train until the epochs are done, a callback says so or patience is at its end.

        Interrupted by Ctrl-C, it can be called again. Only a checkpoint continues to the same bits:
        the batch that was interrupted may have moved dropout and running moments on.
        """
        with self._progress() as advance:
            while self.current_epoch < self.epochs and not self._lost_patience():
                for _ in range(self.current_iter, (self.current_epoch + 1) * self.iter_per_epoch):
                    self.train_step()
                    advance()
                self._evaluate()
                stop = [callback(self) for callback in self.callbacks]  # all of them are called
                if self.checkpoint is not None:
                    self.save(self.checkpoint)
                if any(stop):
                    break

    def _evaluate(self) -> None:
        """End an epoch; interrupted, it is as if not begun."""
        most, tests = self.evaluate_sample_num_per_epoch, []
        accuracy = self.network.accuracy(self.x_train[:most], self.t_train[:most])
        if self.x_test is not None and self.t_test is not None:
            tests = [self.network.accuracy(self.x_test[:most], self.t_test[:most])]
        self.train_acc_list.append(accuracy)
        self.test_acc_list += tests
        self.current_epoch += 1
        if self.verbose:
            loss = np.mean(self.train_loss_list[-self.iter_per_epoch :])
            tested = f", test acc: {self.test_acc_list[-1]:.4f}" if self.test_acc_list else ""
            print(
                f"epoch {self.current_epoch}/{self.epochs}: train loss: {loss:.4f},"
                f" train acc: {accuracy:.4f}{tested}"
            )

    def _lost_patience(self) -> bool:
        accuracies = self.test_acc_list or self.train_acc_list
        if self.patience is None or not accuracies:
            return False
        return len(accuracies) - 1 - int(np.argmax(accuracies)) >= self.patience

    @contextlib.contextmanager
    def _progress(self) -> Iterator[Callable[[], None]]:
        console = None
        if self.verbose:
            with contextlib.suppress(ImportError):
                from rich.console import Console
                from rich.progress import Progress

                console = Console(stderr=True)
        if console is None or not console.is_terminal:
            yield lambda: None
            return
        with Progress(console=console, transient=True) as bar:
            total = self.epochs * self.iter_per_epoch
            task = bar.add_task("Training", total=total, completed=self.current_iter)
            yield lambda: bar.advance(task)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a checkpoint: the network, the optimizer, and where the training is.

        Parameters
        ----------
        path : path
            A file of the package safetensors, which must be installed. One that stands there stays
            whole until the new one is.
        """
        arrays = {f"network.{k}": a for k, a in self.network.state_dict().items()}
        arrays |= {f"optimizer.{k}": a for k, a in self.optimizer.state_dict().items()}
        told = {name: getattr(self, name) for name in _PROGRESS}
        told |= {"batches": self._batches(), "kinds": self._kinds()}
        told["hyperparameters"] = self._hyperparameters()
        save(path, arrays, {"pynn.trainer": json.dumps(told)})

    def _batches(self) -> dict[str, int]:
        return {"samples": len(self.x_train), "mini_batch_size": self.batch_size}

    def _kinds(self) -> dict[str, str]:
        """Return what the arrays do not tell: the optimizer's class, and the layers'."""
        kinds = {"optimizer": type(self.optimizer).__name__}
        layers = getattr(self.network, "layers", None)
        for name, layer in layers.items() if isinstance(layers, Mapping) else ():
            activation = getattr(layer, "activation", None)
            text = f" with {activation}" if isinstance(activation, str) else ""
            numbers = [f"{n} {getattr(layer, n)}" for n in _LAYER_NUMBERS if hasattr(layer, n)]
            kinds[f"layer {name}"] = ", ".join([type(layer).__name__ + text, *numbers])
        if hasattr(self.network, "weight_decay_lambda"):
            kinds["weight_decay_lambda"] = str(self.network.weight_decay_lambda)
        return kinds

    def _hyperparameters(self) -> dict[str, float | None]:
        """Return the optimizer's, which a callback may have changed."""
        names = getattr(self.optimizer, "hyperparameters", ())
        values = {name: getattr(self.optimizer, name) for name in names}
        return {name: None if value is None else float(value) for name, value in values.items()}

    def load(self, path: str | os.PathLike[str]) -> None:
        """Take over a checkpoint, to continue to the same bits.

        The optimizer takes over its hyperparameters, too, as in PyTorch: the learning rate that a
        callback had come to.

        Parameters
        ----------
        path : path
            What `save` wrote, of a network with the same layers, shapes, dtypes and weight decay, an
            optimizer of the same class, and the same number of samples and batch size.

        Raises
        ------
        OSError, ValueError
            If it cannot be read, or is no checkpoint of such a trainer; before anything is changed.
        """
        arrays, text = load(path)
        parts: dict[str, dict[str, Array]] = {"network": {}, "optimizer": {}}
        try:
            told = json.loads(text["pynn.trainer"])
            progress = {name: check(name, told[name]) for name, check in _PROGRESS.items()}
            batches, kinds = told["batches"], dict(told["kinds"])
            hyperparameters = dict(told["hyperparameters"])
            for name, array in arrays.items():
                part, _, key = name.partition(".")
                parts[part][key] = array
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(
                f"path must be a checkpoint of a Trainer; got {os.fspath(path)!r} ({error})"
            ) from None
        if batches != self._batches():
            raise ValueError(
                f"path must be a checkpoint of a training with {self._batches()}; got {batches}"
            )
        wanted = self._kinds()
        for name in [*wanted, *kinds]:
            if kinds.get(name) != wanted.get(name):
                raise ValueError(
                    f"path must be a checkpoint with {name} {wanted.get(name)};"
                    f" got {kinds.get(name)}"
                )
        if progress["current_iter"] < progress["current_epoch"] * self.iter_per_epoch or any(
            len(progress[f"{part}_list"]) > progress[count]
            for part, count in (
                ("train_loss", "current_iter"),
                ("train_acc", "current_epoch"),
                ("test_acc", "current_epoch"),
            )
        ):
            raise ValueError(
                "path must be a checkpoint of a Trainer;"
                f" got {os.fspath(path)!r} (counts and lists do not agree)"
            )
        held = self.network.state_dict()
        _check_dtypes("network", parts["network"], held)
        if isinstance(self.optimizer, optimizers.Optimizer):
            _check_optimizer(parts["optimizer"], self.network.params)
        before, values = self.optimizer.state_dict(), self._hyperparameters()
        if hyperparameters.keys() != values.keys():
            raise ValueError(
                f"path must be a checkpoint with hyperparameters {', '.join(values)};"
                f" got {', '.join(hyperparameters)}"
            )
        try:
            _set(self.optimizer, hyperparameters)
            self.optimizer.load_state_dict(parts["optimizer"])
            self.network.load_state_dict(parts["network"])
        except BaseException as error:
            _set(self.optimizer, values)
            self.optimizer.load_state_dict(before)
            if isinstance(error, TypeError):
                raise ValueError(f"path must be a checkpoint of a Trainer; {error}") from None
            raise
        for name, value in progress.items():
            setattr(self, name, value)
        self._order = None


def _floats(name: str, value: Any) -> list[float]:
    if not isinstance(value, list) or not all(type(v) in (int, float) for v in value):
        raise TypeError(f"{name} must be a list of numbers")
    return [as_float(name, v) for v in value]


_count = partial(integer, least=0, most=2**63 - 1)

# What a checkpoint tells beside arrays, and how it is checked
_PROGRESS: dict[str, Callable[[str, Any], Any]] = {
    "key": partial(integer, least=0, most=2**64 - 1),
    "current_iter": _count,
    "current_epoch": _count,
    "train_loss_list": _floats,
    "train_acc_list": _floats,
    "test_acc_list": _floats,
}


# What tells one layer of a class from another, beside its arrays and activation
_LAYER_NUMBERS = ("dropout_ratio", "inverted", "momentum", "eps")


def _set(optimizer: Any, hyperparameters: Mapping[str, float | None]) -> None:
    for name, value in hyperparameters.items():
        setattr(optimizer, name, value)
    if hyperparameters:
        optimizer.update({}, {})  # which checks them


def _check_dtypes(part: str, found: Mapping[str, Array], held: Mapping[str, Any]) -> None:
    for name, array in found.items():
        if name in held:
            wanted = np.asarray(held[name]).dtype.newbyteorder("=")
            if array.dtype != wanted:
                raise ValueError(
                    f"path must be a checkpoint with {part}.{name} of {wanted}; got {array.dtype}"
                )


def _check_optimizer(state: Mapping[str, Array], params: Mapping[str, Any]) -> None:
    """See to it that a state is of all parameters, or of none, as before the first step."""
    arrays = {text: array for text, array in state.items() if text != "iter"}
    keys = {text: text.partition(".")[2] for text in arrays}
    for text, key in keys.items():
        shape = np.shape(params[key]) if key in params else None
        if arrays[text].shape != shape:
            raise ValueError(
                f"path must be a checkpoint with optimizer.{text} of shape {shape};"
                f" got {arrays[text].shape}"
            )
    if keys and params.keys() - set(keys.values()):
        missing = sorted(params.keys() - set(keys.values()))
        raise ValueError(
            f"path must be a checkpoint with a state of all parameters; got no {missing}"
        )
    _check_dtypes("optimizer", arrays, {text: params[key] for text, key in keys.items()})


def _samples(part: str, x: npt.ArrayLike, t: npt.ArrayLike) -> tuple[Array, Array]:
    x, t = np.asarray(x), unmasked_array(f"t_{part}", t)
    if x.ndim < 1 or t.ndim < 1 or len(x) != len(t):
        raise ValueError(
            f"x_{part} and t_{part} must have as many samples; got shapes {x.shape} and {t.shape}"
        )
    return x, t


def _optimizer(
    optimizer: str | optimizers.Optimizer, arguments: Mapping[str, Any] | None
) -> optimizers.Optimizer:
    if not isinstance(optimizer, str):
        if isinstance(optimizer, type) or not hasattr(optimizer, "update"):
            raise TypeError(f"optimizer must be a name or an optimizer; got {optimizer!r}")
        if arguments:
            raise ValueError("optimizer_param must go with the name of an optimizer; got both")
        return optimizer
    if not isinstance(arguments, Mapping | None):
        raise TypeError(f"optimizer_param must be a mapping of arguments; got {arguments!r}")
    classes = {n.lower(): n for n in optimizers.__all__ if n != "Optimizer"}
    if optimizer.lower() not in classes:
        known = ", ".join(map(repr, classes.values()))
        raise ValueError(f"optimizer must be one of {known}; got {optimizer!r}")
    made: optimizers.Optimizer = getattr(optimizers, classes[optimizer.lower()])(
        **(arguments or {})
    )
    return made
