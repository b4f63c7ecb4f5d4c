"""The study's pictures. They read the results and compute nothing but what a title says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .claims import RULES, unevenness
from .experiments import (
    ACTIVATIONS,
    DECADES,
    DECAYS,
    DEEP,
    HIDDEN,
    INITS,
    LAYERS,
    NETWORKS,
    Results,
)

__all__ = ["FIGURES", "draw"]

# Okabe and Ito's colours: told apart by everyone.
COLOURS = {
    "std 1": "#d55e00",
    "std 0.01": "#e69f00",
    "Xavier": "#0072b2",
    "He": "#009e73",
    "equal": "#777777",
}
LABELS = {"sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "ReLU"}
INK, FAINT = "#1f2933", "#8a949e"
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#c3cad1",
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8ebee",
    "grid.linewidth": 0.8,
    "xtick.color": "#616e7c",
    "ytick.color": "#616e7c",
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "figure.facecolor": "white",
}


def draw(results: Results, folder: Path, progress: Callable[[str, float], None]) -> None:
    """Draw every figure as a PNG file.

    Parameters
    ----------
    results : Results
        What to show.
    folder : Path
        Where the files of `FIGURES` go.
    progress : callable
        Called with the name of the stage and the part of it that is done.
    """
    with matplotlib.rc_context(STYLE):
        for done, (name, (make, _)) in enumerate(FIGURES.items()):
            progress("Figures", done / len(FIGURES))
            figure = make(results)
            FigureCanvasAgg(figure)
            figure.savefig(folder / f"{name}.png", dpi=130)
    progress("Figures", 1)


def _new(width: float, height: float, title: str, subtitle: str = "") -> Figure:
    figure = Figure(figsize=(width, height))
    figure.text(0.012, 1 - 0.13 / height, title, size=13.5, weight="bold", va="top")
    figure.text(0.012, 1 - 0.42 / height, subtitle, size=10, color="#52606d", va="top")
    return figure


def _activations(name: str, title: str) -> Callable[[Results], Figure]:
    def make(results: Results) -> Figure:
        bounds = ACTIVATIONS[name][1]
        subtitle = f"{LABELS[name]}: activations of {LAYERS} layers, a row for each initialization"
        if bounds is None:
            subtitle += ", on a scale of powers of ten"
        figure = _new(11, 8.6, title, subtitle)
        axes = figure.subplots(len(INITS), LAYERS, sharex=True, sharey="row")
        figure.subplots_adjust(
            left=0.095, right=0.985, top=0.875, bottom=0.06, hspace=0.22, wspace=0.09
        )
        for row, init in zip(axes, INITS, strict=True):
            layers = results.layers[name][init]
            low, high = bounds or DECADES
            edges = np.linspace(low, high, len(layers[0].histogram) + 1)
            top = max(max(layer.histogram) for layer in layers)
            row[0].set_ylabel(
                init,
                rotation=0,
                ha="right",
                va="center",
                weight="bold",
                size=11,
                color=COLOURS[init],
            )
            for number, (axis, layer) in enumerate(zip(row, layers, strict=True), start=1):
                axis.stairs(layer.histogram, edges, fill=True, color=COLOURS[init])
                axis.grid(visible=bounds is None, axis="x")
                axis.set(yticks=[], ylim=(0, 1.3 * top), xlim=(low, high))
                axis.spines["left"].set_visible(False)
                axis.text(
                    0.015,
                    0.97,
                    _note(bounds is None, layer),
                    transform=axis.transAxes,
                    va="top",
                    size=8.5,
                    color="#52606d",
                )
                if init == INITS[0]:
                    axis.set_title(f"Layer {number}", loc="center", size=10.5)
        for axis in axes[-1]:
            if bounds is None:
                axis.set_xticks([-6, -3, 0, 3], ["10⁻⁶", "10⁻³", "1", "10³"])
            else:
                ticks = [low, (low + high) / 2, high]
                labels = axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
                for tick, side in zip(labels, ("left", "center", "right"), strict=True):
                    tick.label1.set_horizontalalignment(side)  # clear of the neighbour's
        return figure

    return make


def _note(powers: bool, layer: Any) -> str:
    if powers:
        return f"std {_short(layer.std)}   zero {layer.zero:.0%}"
    return f"std {_short(layer.std)}" + (
        f"   saturated {layer.saturated:.0%}" if layer.saturated >= 0.005 else ""
    )


def _short(value: float) -> str:
    if value == 0 or 0.001 <= value < 1000:
        return f"{value:.2g}" if value < 100 else f"{value:.0f}"
    digits, power = f"{value:.0e}".split("e")
    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    return f"{digits}·10{str(int(power)).translate(raised)}"


def _lines(axis: Any, curves: dict[str, Sequence[float]], **options: Any) -> None:
    for init, values in curves.items():
        axis.plot(range(1, len(values) + 1), values, color=COLOURS[init], label=init, **options)


def _gradients(results: Results) -> Figure:
    figure = _new(
        11,
        4.5,
        "Small weights make the gradient vanish; large ones make it explode, but for sigmoid",
        "Standard deviation of the gradient at each layer; it starts as 1 at layer 5 and flows "
        "back to layer 1",
    )
    axes = figure.subplots(1, 3, sharey=True)
    figure.subplots_adjust(left=0.065, right=0.985, top=0.78, bottom=0.2, wspace=0.08)
    for axis, (name, inits) in zip(axes, results.layers.items(), strict=True):
        _lines(
            axis,
            {init: [layer.gradient_std for layer in layers] for init, layers in inits.items()},
            marker="o",
            markersize=5,
        )
        axis.set(yscale="log", xticks=range(1, LAYERS + 1), xlabel="layer", title=LABELS[name])
    axes[0].set_ylabel("gradient's standard deviation")
    _legend(figure, axes[0])
    return figure


def _legend(figure: Figure, axis: Any) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), bbox_to_anchor=(0.5, 0.0))


def _deep(results: Results) -> Figure:
    figure = _new(
        11,
        4.5,
        f"He keeps the signal alive through {DEEP} layers of ReLU, forward and backward",
        "Standard deviation at each layer",
    )
    axes = figure.subplots(1, 2, sharey=True)
    figure.subplots_adjust(left=0.075, right=0.985, top=0.78, bottom=0.2, wspace=0.06)
    for axis, what, title in zip(
        axes,
        ("std", "gradient_std"),
        ("Activations, on their way forward", "Gradient, on its way back from layer 20 to layer 1"),
        strict=True,
    ):
        _lines(
            axis,
            {
                init: [getattr(layer, what) for layer in layers]
                for init, layers in results.deep["relu"].items()
            },
        )
        axis.set(
            yscale="log", xticks=[1, 5, 10, 15, DEEP], xlabel="layer", title=title, xlim=(1, DEEP)
        )
    axes[0].set(ylabel="standard deviation", yticks=[10.0**power for power in range(-20, 21, 10)])
    _legend(figure, axes[0])
    return figure


def _rule(results: Results) -> Figure:
    rules = ("Xavier", "He")
    best = {
        min(rules, key=lambda init: max(unevenness(layers[init])))
        for layers in results.layers.values()
    }
    title = "Which of the two carries the signal evenly depends on the activation"
    if len(best) == 1:
        title = f"Of the two, {best.pop()} carries the signal more evenly whatever the activation"
    figure = _new(
        11,
        3.6,
        title,
        "Factor between the standard deviations of the first and the last of five layers: ×1 is "
        "even. ★ The rule's choice.",
    )
    axes = figure.subplots(1, 3, sharey=True)
    figure.subplots_adjust(left=0.075, right=0.985, top=0.73, bottom=0.12, wspace=0.12)
    for axis, (name, choice) in zip(axes, RULES.items(), strict=True):
        for place, init in enumerate(rules):
            factors = unevenness(results.layers[name][init])
            for side, (factor, what) in enumerate(
                zip(factors, ("forward", "backward"), strict=True)
            ):
                y = -(place + 0.38 * side)
                axis.barh(
                    y,
                    factor - 1,
                    left=1,
                    height=0.32,
                    color=COLOURS[init] if side == 0 else _pale(init),
                )
                axis.text(factor * 1.08, y, f"{what} ×{factor:.3g}", va="center", size=9)
        axis.set(xscale="log", xlim=(1, 6000), title=LABELS[name])
        ticks = axis.set_yticks([-(place + 0.19) for place in range(len(rules))], rules)
        for tick, init in zip(ticks, rules, strict=True):
            tick.label1.set(color=COLOURS[init], weight="bold")
        axis.grid(visible=False, axis="y")
        axis.set_xticks([1, 10, 100, 1000], ["×1", "×10", "×100", "×1000"])
        axis.text(
            0.99,
            1.02,
            f"★ {choice}",
            transform=axis.transAxes,
            ha="right",
            va="bottom",
            size=10,
            color=COLOURS[choice],
            weight="bold",
        )
    return figure


def _pale(init: str) -> Any:
    return 0.5 + 0.5 * np.array(matplotlib.colors.to_rgb(COLOURS[init]))


def _training(results: Results) -> Figure:
    runs = {init: results.training[init, 0.0] for init in NETWORKS}
    shares = ", ".join(f"{init} {run.final['held_out_accuracy']:.0%}" for init, run in runs.items())
    figure = _new(
        11,
        4.7,
        "The initial weights decide how fast a network learns, and whether it learns at all",
        f"Four hidden layers of {HIDDEN[0]} ReLU units, SGD, the same batches. Held-out accuracy "
        f"at the end: {shares}",
    )
    axes = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.06, right=0.985, top=0.79, bottom=0.2, wspace=0.14)
    for init, run in runs.items():
        line = _line(init)
        axes[0].plot(run.batch_loss, color=COLOURS[init], alpha=0.18, linewidth=0.6)
        axes[0].plot(_smooth(run.batch_loss), **line, label=init)
        axes[1].plot(run.iterations, run.held_out_accuracy, **line)
    axes[0].set(title="Loss of each batch, smoothed", xlabel="iteration")
    axes[0].set_ylim(bottom=0)
    axes[1].set(title="Accuracy on held-out data", xlabel="iteration", ylim=(0, 1.02))
    axes[1].yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1))
    _legend(figure, axes[0])
    return figure


def _line(init: str) -> dict[str, Any]:
    """Draw equal weights wide, below the others, as they often coincide with std 0.01."""
    return {"color": COLOURS[init]} | (
        {"linewidth": 5, "alpha": 0.45, "zorder": 1} if init == "equal" else {}
    )


def _smooth(values: Sequence[float], window: int = 21) -> Any:
    """Average over a window, which is narrower at the ends."""
    half = min(window, len(values)) // 2
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def _equal(results: Results) -> Figure:
    figure = _new(
        11,
        4.6,
        "Equal weights make one unit of a hundred; random weights make them differ",
        f"After {results.iterations} iterations of training on the same batches",
    )
    grid = figure.add_gridspec(
        1, 3, left=0.06, right=0.985, top=0.78, bottom=0.12, wspace=0.22, width_ratios=[1.25, 1, 1]
    )
    axis = figure.add_subplot(grid[0])
    for offset, init in zip((-0.2, 0.2), ("equal", "He"), strict=True):
        counts = results.training[init, 0.0].distinct
        places = np.arange(1, len(counts) + 1) + offset
        axis.bar(places, counts, 0.36, color=COLOURS[init], label=init)
        for place, count in zip(places, counts, strict=True):
            axis.text(place, count + 1.5, str(count), ha="center", size=9)
    axis.set(
        title="Distinct units of each hidden layer",
        xticks=range(1, len(HIDDEN) + 1),
        xlabel="hidden layer",
        ylim=(0, 1.22 * HIDDEN[0]),
    )
    axis.grid(visible=False, axis="x")
    axis.legend(loc="upper center", ncols=2)
    for place, init in enumerate(("equal", "He"), start=1):
        axis = figure.add_subplot(grid[place])
        weights = results.training[init, 0.0].weights
        spread = float(weights.std()) if init == "He" else float(np.abs(weights).max())
        axis.imshow(
            weights, cmap="RdBu_r", vmin=-3 * spread, vmax=3 * spread, interpolation="nearest"
        )
        axis.set(
            title=f"{init}: weights of the second layer",
            xticks=[],
            yticks=[],
            xlabel="unit",
            ylabel="input",
        )
        axis.grid(visible=False)
        axis.set_anchor("N")
    return figure


def _decay(results: Results) -> Figure:
    figure = _new(
        11,
        4.7,
        "Weight decay keeps the weights small",
        f"Solid: without weight decay; dashed: with a decay of {DECAYS[1]:g}",
    )
    axes = figure.subplots(1, 3)
    figure.subplots_adjust(left=0.05, right=0.985, top=0.79, bottom=0.2, wspace=0.2)
    for (init, decay), run in results.training.items():
        line = _line(init) | {"linestyle": "--" if decay else "-", "label": None if decay else init}
        axes[0].plot(run.iterations, np.divide(run.weight_norm, run.weight_norm[0]), **line)
        if init in ("Xavier", "He"):
            axes[1].plot(run.iterations, run.held_out_loss, **line)
            gap = np.subtract(run.held_out_loss, run.loss)
            axes[2].plot(run.iterations, gap, **line)
    axes[0].set_title("Norm of all weights, 1 at the start")
    axes[1].set_title("Held-out loss")
    axes[2].set_title("Overfitting: held-out minus training loss")
    for axis in axes:
        axis.set_xlabel("iteration")
    axes[1].set_ylim(bottom=0)
    _legend(figure, axes[0])
    return figure


#: Name of a figure -> how it is made, and what it shows.
FIGURES: dict[str, tuple[Callable[[Results], Figure], str]] = {
    "weight_decay": (
        _decay,
        "Norm of the weights, held-out loss and its excess over the training loss.",
    ),
    "equal_weights": (
        _equal,
        "Distinct units after training, and the weights of the second layer.",
    ),
    "activations_sigmoid": (
        _activations(
            "sigmoid", "Std 1 piles activations up at 0 and 1, std 0.01 bunches them at 0.5"
        ),
        "Sigmoid: histograms of every layer's activations over the whole range.",
    ),
    "activations_tanh": (
        _activations("tanh", "Tanh under Xavier stays spread and symmetric"),
        "Tanh: histograms of every layer's activations over the whole range, its negative half "
        "included.",
    ),
    "activations_relu": (
        _activations(
            "relu",
            "Under He each layer of ReLU keeps its spread; under the other random values it drifts",
        ),
        "ReLU: histograms of the positive activations over powers of ten; zeros are given as a "
        "share.",
    ),
    "gradients": (_gradients, "Standard deviation of the gradient at each of five layers."),
    "deep": (_deep, "Standard deviation of activations and gradient in a deep network of ReLU."),
    "rule": (
        _rule,
        "How Xavier and He change spread and gradient between the first and the last layer.",
    ),
    "training": (_training, "Loss and held-out accuracy of the four networks."),
}
