"""The seed chapter's seven points, each measured in the run and held against a stated criterion.

A claim of several parts holds only if every part does. No part is left out because it fails, and a
part that fails says what happens instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .experiments import DECAYS, HIDDEN, NETWORKS, WIDTH, Layer, Results, Signal

__all__ = ["Claim", "Part", "judge", "unevenness"]

#: The two rules the summary chooses between, and its choice for each activation.
RULES = {"relu": "He", "tanh": "Xavier", "sigmoid": "Xavier"}


@dataclass(frozen=True)
class Part:
    """One measurable statement of a claim.

    Attributes
    ----------
    statement : str
        What the chapter says.
    criterion : str
        What must be measured for it to hold.
    measured : str
        What was measured.
    holds : bool
        Whether the criterion is met.
    instead : str
        What happens instead, if it is not.
    """

    statement: str
    criterion: str
    measured: str
    holds: bool
    instead: str = ""


@dataclass(frozen=True)
class Claim:
    """One of the seven points.

    Attributes
    ----------
    title : str
        Its name.
    claim : str
        What the chapter says.
    parts : tuple of Part
        Its measurable parts.
    """

    title: str
    claim: str
    parts: tuple[Part, ...]

    @property
    def holds(self) -> bool:
        """Whether every part holds."""
        return all(part.holds for part in self.parts)

    @property
    def measured(self) -> str:
        """The figures of all parts in one line."""
        return "; ".join(part.measured for part in self.parts)

    @property
    def verdict(self) -> str:
        """The claim's verdict, with the number of parts that hold if not all do."""
        if self.holds:
            return "holds"
        holding = sum(part.holds for part in self.parts)
        return f"does not hold ({holding} of {len(self.parts)} parts do)"


def judge(results: Results) -> list[Claim]:
    """Measure the seven claims in a run's results."""
    return [
        _weight_decay(results),
        _equal(results),
        _random(results),
        _xavier(results),
        _he(results),
        _rule(results),
        _learning(results),
    ]


def unevenness(layers: Sequence[Signal]) -> tuple[float, float]:
    """Return the factors by which activations' and gradient's std differ between the two ends."""
    return (
        _factor(layers[-1].std, layers[0].std),
        _factor(layers[0].gradient_std, layers[-1].gradient_std),
    )


def _factor(a: float, b: float) -> float:
    """How many times larger the larger of two numbers is."""
    return max(a, b) / min(a, b) if min(a, b) > 0 else math.inf


def _weight_decay(results: Results) -> Claim:
    without, with_decay = DECAYS
    runs = results.training
    norms = {
        i: (runs[i, without].final["weight_norm"], runs[i, with_decay].final["weight_norm"])
        for i in NETWORKS
    }
    learners = ("Xavier", "He")
    gaps = {i: tuple(_gap(runs[i, decay].final) for decay in DECAYS) for i in learners}
    held = {i: tuple(runs[i, decay].final["held_out_loss"] for decay in DECAYS) for i in learners}
    return Claim(
        "Weight decay",
        "Weight decay is learning that aims to keep the weights small, to curb overfitting.",
        (
            Part(
                "It keeps the weights small.",
                f"After training with decay {with_decay:g} the norm of the weights is smaller in "
                "every network.",
                "norm of the weights for "
                + _each((i, f"{_g(a)} → {_g(b)}") for i, (a, b) in norms.items()),
                all(b < a for a, b in norms.values()),
            ),
            Part(
                "It curbs overfitting.",
                "The held-out loss exceeds the training loss by less with decay than without, in "
                "both networks that start from a rule.",
                "held-out minus training loss for "
                + _each((i, f"{_g(a)} → {_g(b)}") for i, (a, b) in gaps.items())
                + "; held-out loss itself for "
                + _each(
                    (i, f"{_g(a)} → {_g(b)} ({'better' if b < a else 'worse'})")
                    for i, (a, b) in held.items()
                ),
                all(b < a for a, b in gaps.values()),
                "Decay did not bring the two losses closer in this run.",
            ),
        ),
    )


def _gap(final: dict[str, float]) -> float:
    return final["held_out_loss"] - final["loss"]


def _equal(results: Results) -> Claim:
    equal, he = results.training["equal", 0.0], results.training["He", 0.0]
    return Claim(
        "Equal weights",
        "Weights must not start equal: they get the same update and stay equal, and having many "
        "of them loses its meaning. Random initial values break the symmetry.",
        (
            Part(
                "Backpropagation gives equal weights the same update.",
                "The first gradient has a single distinct column in every hidden layer.",
                f"distinct gradients per layer of {HIDDEN[0]}: {_counts(equal.distinct_gradients)}",
                all(n == 1 for n in equal.distinct_gradients),
            ),
            Part(
                "They stay equal.",
                "After training every hidden layer has a single distinct unit.",
                f"distinct units after {results.iterations} iterations: {_counts(equal.distinct)}",
                all(n == 1 for n in equal.distinct),
            ),
            Part(
                "Having many of them loses its meaning.",
                "Its held-out accuracy is below that of the same network from random values (He).",
                f"held-out accuracy: equal {_percent(equal.final['held_out_accuracy'])}, He "
                f"{_percent(he.final['held_out_accuracy'])}",
                equal.final["held_out_accuracy"] < he.final["held_out_accuracy"],
            ),
            Part(
                "Random initial values break the symmetry.",
                "From random values (He) more than half of the units of every hidden layer are "
                "distinct.",
                f"distinct units, He: {_counts(he.distinct)}",
                all(2 * n > HIDDEN[0] for n in he.distinct),
            ),
        ),
    )


def _random(results: Results) -> Claim:
    large, small = (results.layers["sigmoid"][init] for init in ("std 1", "std 0.01"))
    gain = math.sqrt(WIDTH)

    def gradient(init: str) -> str:
        layers, far = results.layers["sigmoid"][init], results.deep["sigmoid"][init]
        return (
            f"{init}: gradient {_g(layers[-1].gradient_std)} at the last layer, "
            f"{_g(layers[0].gradient_std)} at the first ({_g(far[0].gradient_std)} through "
            f"{len(far)} layers)"
        )

    def balance(layers: list[Layer], std: float) -> str:
        slope = layers[-1].slope_rms / 4  # of sigmoid, whose largest slope is 1/4
        return (
            "On its way through a layer the gradient is multiplied by the slopes, here "
            f"{_g(slope)} (root mean square), and by the weights, here √{WIDTH} · {std:g} = "
            f"{_g(gain * std)}: by {_g(slope * gain * std)} in all."
        )

    return Claim(
        "Random initial values",
        "Sigmoid with standard deviation 1: activations pile up at 0 and 1, where the slope "
        "approaches 0 and the gradient vanishes. With 0.01: they bunch around 0.5, without a "
        "vanishing gradient, but all units say nearly the same.",
        (
            Part(
                "Std 1: activations pile up at 0 and 1.",
                "In every layer more than half of them lie in the two outermost of 30 bins.",
                f"std 1: {_span(layer.ends for layer in large)} of a layer in the outermost bins",
                all(layer.ends > 0.5 for layer in large),
            ),
            Part(
                "There the slope approaches 0.",
                "In every layer the median slope is below a tenth of the largest.",
                f"std 1: median slope {_span(layer.slope_median for layer in large)} of the "
                f"largest, {_span(layer.saturated for layer in large)} of activations saturated",
                all(layer.slope_median < 0.1 for layer in large),
            ),
            Part(
                "The gradient shrinks on its way back and is finally gone.",
                "Its standard deviation at the first layer is below a tenth of that at the last.",
                gradient("std 1"),
                _vanishes(large),
                balance(large, 1) + " The large weights make up for the small slopes.",
            ),
            Part(
                "Std 0.01: activations bunch around 0.5.",
                "In every layer at least 99 % of them lie between 0.4 and 0.6.",
                f"std 0.01: {_span(layer.middle for layer in small)} between 0.4 and 0.6",
                all(layer.middle >= 0.99 for layer in small),
            ),
            Part(
                "No activation is saturated.",
                "In every layer fewer than 1 % of them have a slope below 1 % of the largest.",
                f"std 0.01: {_span(layer.saturated for layer in small)} saturated",
                all(layer.saturated < 0.01 for layer in small),
            ),
            Part(
                "The gradient does not vanish.",
                "Its standard deviation at the first layer is not below a tenth of that at the "
                "last.",
                gradient("std 0.01"),
                not _vanishes(small),
                balance(small, 0.01)
                + " The slopes are as large as they can be; the small weights do it.",
            ),
            Part(
                "The units all say nearly the same.",
                "In every layer the standard deviation across units, for one input, is below 5 % "
                "of the range.",
                f"std 0.01: across units std is {_range(layer.across_units for layer in small)}, "
                f"and across inputs {_g(small[-1].across_inputs)} in the last layer",
                all(layer.across_units < 0.05 for layer in small),
            ),
        ),
    )


def _vanishes(layers: list[Layer]) -> bool:
    return layers[0].gradient_std < 0.1 * layers[-1].gradient_std


def _xavier(results: Results) -> Claim:
    xavier = {name: results.layers[name]["Xavier"] for name in ("sigmoid", "tanh")}
    wider = {
        name: [a.std / b.std for a, b in zip(layers, results.layers[name]["std 0.01"], strict=True)]
        for name, layers in xavier.items()
    }
    saturated = [layer.saturated for layers in xavier.values() for layer in layers]
    skew = {name: [layer.asymmetry for layer in layers] for name, layers in xavier.items()}
    later = {name: sum(values[1:]) / len(values[1:]) for name, values in skew.items()}
    off = [abs(layer.mean) / layer.std for layer in xavier["tanh"]]
    return Claim(
        "Xavier",
        "With standard deviation 1/√n the activations stay spread. With sigmoid the later layers "
        "are slightly skewed; with tanh, which is symmetric about the origin, the skew improves.",
        (
            Part(
                "The activations are spread: neither saturated nor bunched.",
                "In every layer of sigmoid and tanh the standard deviation is at least 5 times "
                "that of std 0.01, and fewer than 1 % are saturated.",
                "std against that of std 0.01 for "
                + _each(
                    (name, "at least " + _g(min(factors)) + "×") for name, factors in wider.items()
                )
                + f"; at most {_percent(max(saturated))} saturated",
                min(min(factors) for factors in wider.values()) >= 5 and max(saturated) < 0.01,
            ),
            Part(
                "Sigmoid: later layers are slightly skewed.",
                "The part of the histogram without a mirror image is larger in the later layers "
                "than in the first, on average, but under one half.",
                f"skew of sigmoid {_percent(skew['sigmoid'][0])} in the first layer, "
                f"{_percent(later['sigmoid'])} in the later ones",
                skew["sigmoid"][0] < later["sigmoid"] < 0.5,
            ),
            Part(
                "Tanh: the skew improves.",
                "In the later layers that part is smaller than sigmoid's, on average.",
                f"skew of tanh {_percent(later['tanh'])} in the later layers",
                later["tanh"] < later["sigmoid"],
            ),
            Part(
                "Symmetric about the origin, tanh keeps its activations centred.",
                "In every layer of tanh the mean is within 5 % of a standard deviation of 0.",
                f"mean of tanh at most {_percent(max(off))} of a standard deviation from 0",
                max(off) <= 0.05,
            ),
        ),
    )


def _he(results: Results) -> Claim:
    shallow, deep = results.layers["relu"], results.deep["relu"]
    he, far = shallow["He"], deep["He"]
    others = [init for init in deep if init != "He"]
    forward = [_factor(layer.std, far[0].std) for layer in far]
    backward = [_factor(layer.gradient_std, far[-1].gradient_std) for layer in far]

    def compare(which: int) -> str:
        return _each((init, f"×{_g(unevenness(deep[init])[which])}") for init in others)

    return Claim(
        "He",
        "With standard deviation √(2/n), for ReLU, each layer's spread is the same, and stays so "
        "in deep networks, so that proper values also flow backward.",
        (
            Part(
                "Each layer's spread is the same.",
                "In all five layers the standard deviation is within a factor of 2 of the first "
                "layer's.",
                f"std by layer {', '.join(_g(layer.std) for layer in he)}",
                all(_factor(layer.std, he[0].std) <= 2 for layer in he),
            ),
            Part(
                "It stays so in deep networks.",
                f"In all {len(far)} layers it is within a factor of 10 of the first layer's.",
                f"through {len(far)} layers std differs by at most ×{_g(max(forward))}; "
                f"end to end for {compare(0)}",
                max(forward) <= 10,
            ),
            Part(
                "Proper values also flow backward.",
                f"In all {len(far)} layers the gradient's standard deviation is within a factor of "
                "10 of the last's.",
                f"through {len(far)} layers the gradient differs by at most "
                f"×{_g(max(backward))}; end to end for {compare(1)}",
                max(backward) <= 10,
            ),
        ),
    )


def _rule(results: Results) -> Claim:
    parts = []
    for name, choice in RULES.items():
        other = {"He": "Xavier", "Xavier": "He"}[choice]
        layers = results.layers[name]
        worst = {init: max(unevenness(layers[init])) for init in (choice, other)}
        factors = ", ".join(f"{init} ×{_g(factor)}" for init, factor in worst.items())
        measured = f"{_title(name)}, first against last layer: {factors}"
        if name != "relu":  # where half of the slopes are 0, as they should be
            most = {init: max(layer.saturated for layer in layers[init]) for init in worst}
            measured += f" (saturated {_percent(most[choice])} and {_percent(most[other])})"
        parts.append(
            Part(
                f"{_title(name)}: use {choice}.",
                f"Of Xavier and He, {choice} changes the spread of activations and gradient less "
                "from end to end of the five layers (the larger of the two factors).",
                measured,
                worst[choice] < worst[other],
                f"{other} keeps both more even.",
            )
        )
    return Claim(
        "The rule",
        "ReLU: He. Sigmoid, tanh and other S-shaped functions: Xavier.",
        tuple(parts),
    )


def _learning(results: Results) -> Claim:
    runs = {init: results.training[init, 0.0] for init in ("He", "Xavier", "std 0.01")}
    loss = {init: run.final["loss"] for init, run in runs.items()}
    chance = math.log(results.data.classes)
    reached = {
        init: next(
            (i for i, loss in zip(run.iterations, run.loss, strict=True) if loss < chance / 2),
            math.inf,
        )
        for init, run in runs.items()
    }
    fallen = 1 - loss["std 0.01"] / chance
    accuracy = _each((init, _percent(run.final["held_out_accuracy"])) for init, run in runs.items())
    return Claim(
        "Learning compared",
        "On real data the initial values decide whether a network of ReLU learns quickly: He "
        "first, then Xavier, and with standard deviation 0.01 hardly at all.",
        (
            Part(
                "He learns best, then Xavier, then std 0.01.",
                f"Their training losses after {results.iterations} iterations are in that order.",
                f"training loss for {_each((init, _g(value)) for init, value in loss.items())}; "
                f"held-out accuracy for {accuracy}",
                loss["He"] < loss["Xavier"] < loss["std 0.01"],
            ),
            Part(
                "He learns fastest.",
                f"It halves the loss of guessing, {chance:.3f}, after the fewest iterations, then "
                "Xavier.",
                "iterations to half the loss of guessing for "
                + _each(
                    (init, "not reached" if n == math.inf else str(n))
                    for init, n in reached.items()
                ),
                reached["He"] < reached["Xavier"] <= reached["std 0.01"],
            ),
            Part(
                "With std 0.01 it hardly learns at all.",
                "Its loss ends less than 5 % below that of guessing.",
                f"std 0.01 ends {_percent(fallen)} below guessing",
                fallen < 0.05,
            ),
        ),
    )


# ---- Wording -------------------------------------------------------------------------------------


def _g(value: float) -> str:
    """Format a number with three digits, as people write it."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def _percent(value: float) -> str:
    return f"{100 * value:.{2 if abs(value) < 0.1 else 3}g} %"


def _range(values: Iterable[float]) -> str:
    values = sorted(values)
    return f"{_g(values[0])} to {_g(values[-1])}"


def _span(values: Iterable[float]) -> str:
    low, *_, high = sorted(values)
    ends = _percent(low), _percent(high)
    return ends[0] if ends[0] == ends[1] else f"{ends[0].removesuffix(' %')} to {ends[1]}"


def _each(pairs: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{name}: {text}" for name, text in pairs)


def _counts(counts: list[int]) -> str:
    return ", ".join(map(str, counts))


def _title(name: str) -> str:
    return {"relu": "ReLU"}.get(name, name.capitalize())
