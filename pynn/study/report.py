"""What the study leaves behind: results.json, and report.html, which needs nothing else to open."""

from __future__ import annotations

import base64
import dataclasses
import html
import json
import math
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import pynn

from .claims import Claim, Part
from .data import BATCH
from .experiments import (
    DEEP,
    HIDDEN,
    INITS,
    LAYERS,
    LEARNING_RATE,
    SAMPLES,
    SATURATED,
    WIDTH,
    Layer,
    Results,
    Training,
)
from .figures import FIGURES, LABELS

__all__ = ["environment", "main_figures", "versions", "write_html", "write_json"]

#: The figures that show each claim, in the order of the claims.
SHOWN = (
    ("weight_decay",),
    ("equal_weights",),
    ("activations_sigmoid", "gradients"),
    ("activations_tanh",),
    ("activations_relu", "deep"),
    ("rule",),
    ("training",),
)


def versions() -> dict[str, str]:
    """Return the versions of what the results come from."""
    return {
        "pynn": pynn.__version__,
        "numpy": np.__version__,
        "scikit-learn": version("scikit-learn"),
        "python": platform.python_version(),
    }


def environment(seconds: float) -> dict[str, Any]:
    """Return what the results do not depend on: machine, instruction set, threads, time taken."""
    return {
        "isa": pynn.get_isa(),
        "threads": pynn.get_num_threads(),
        "backend": pynn.get_backend(),
        "platform": platform.platform(),
        "seconds": round(seconds, 2),
    }


# ---- results.json --------------------------------------------------------------------------------


def write_json(
    results: Results, claims: Sequence[Claim], surroundings: dict[str, Any], path: Path
) -> None:
    """Write every figure as JSON, with six significant digits; what is not finite becomes null.

    Parameters
    ----------
    results : Results
        What was computed.
    claims : sequence of Claim
        What it shows.
    surroundings : dict
        What `environment` returns.
    path : Path
        The file to write.
    """
    content = {
        "claims": [
            {
                "title": claim.title,
                "claim": claim.claim,
                "measured": claim.measured,
                "holds": claim.holds,
                "parts": [dataclasses.asdict(part) for part in claim.parts],
            }
            for claim in claims
        ],
        "seed": results.seed,
        "iterations": results.iterations,
        "versions": versions(),
        "data": results.data.summary(),
        "weights_sha256": results.weights_sha256,
        "weights_sha256_by_network": {run.name: run.sha256 for run in results.training.values()},
        "activations_and_gradients": results.layers,
        "deep": results.deep,
        "training": {run.name: _without_weights(run) for run in results.training.values()},
        "environment": surroundings,
    }
    path.write_text(json.dumps(_plain(content), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _without_weights(run: Training) -> dict[str, Any]:
    return {name: value for name, value in vars(run).items() if name != "weights"}


def _plain(value: Any) -> Any:
    """Turn into what JSON has."""
    if dataclasses.is_dataclass(value):
        return _plain(vars(value))
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


# ---- Tables, for the report and the terminal -----------------------------------------------------


def main_figures(results: Results) -> list[tuple[str, list[str], list[list[str]]]]:
    """Return the main figures as tables of (title, headings, rows)."""
    last = []
    for name, inits in results.layers.items():
        for init, layers in inits.items():
            last.append(
                [
                    LABELS[name],
                    init,
                    f"{_number(layers[0].std)} → {_number(layers[-1].std)}",
                    f"{_number(layers[-1].gradient_std)} → {_number(layers[0].gradient_std)}",
                    _share(layers[-1].saturated),
                    _share(layers[-1].dead),
                    str(layers[-1].distinct),
                ]
            )
    trained = [
        [
            run.name,
            _number(run.final["loss"]),
            _number(run.final["held_out_loss"]),
            _share(run.final["held_out_accuracy"]),
            _number(run.final["weight_norm"]),
            " ".join(map(str, run.distinct)),
        ]
        for run in results.training.values()
    ]
    return [
        (
            f"Activations and gradients, {LAYERS} layers",
            [
                "activation",
                "weights",
                "std, layer 1 → 5",
                "gradient, 5 → 1",
                "saturated",
                "dead",
                "distinct",
            ],
            last,
        ),
        (
            f"Training, {results.iterations} iterations",
            ["weights", "loss", "held-out loss", "held-out accuracy", "norm", "distinct units"],
            trained,
        ),
    ]


def _layer_row(number: int, layer: Layer) -> list[str]:
    return [
        str(number),
        _number(layer.mean),
        _number(layer.std),
        _share(layer.saturated),
        _share(layer.dead),
        str(layer.distinct),
        _number(layer.across_units),
        _number(layer.across_inputs),
        _number(layer.gradient_std),
        _number(layer.weight_gradient_std),
    ]


def _number(value: float) -> str:
    return f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e")


def _share(value: float) -> str:
    return f"{value:.1%}" if 0 < value < 1 else f"{value:.0%}"


# ---- report.html ---------------------------------------------------------------------------------

STYLE = """
:root { color-scheme: light; --ink: #1f2933; --soft: #52606d; --line: #e1e6eb; --paper: #f5f7f9;
  --yes: #00734f; --no: #b34700; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 17px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 3rem 1.25rem 5rem; }
h1 { font-size: clamp(1.9rem, 5vw, 2.7rem); line-height: 1.15; letter-spacing: -0.02em;
  margin: 0 0 0.6rem; }
h2 { font-size: 1.45rem; line-height: 1.25; letter-spacing: -0.01em; margin: 0; }
h3 { font-size: 1.1rem; margin: 2rem 0 0.5rem; }
p { margin: 0.6rem 0; max-width: 46rem; }
a { color: inherit; }
code { font: 0.86em ui-monospace, "Cascadia Mono", Menlo, Consolas, monospace; }
section { background: #fff; border: 1px solid var(--line); border-radius: 14px;
  padding: clamp(1.1rem, 3vw, 2rem); margin: 1.6rem 0; }
blockquote { margin: 0.8rem 0 1.2rem; padding-left: 1rem; border-left: 3px solid var(--line);
  color: var(--soft); max-width: 46rem; }
summary { cursor: pointer; padding: 0.5rem 0; font-weight: 620; }
.lead { font-size: 1.13rem; color: var(--soft); }
.head { display: flex; gap: 0.2rem 1rem; align-items: baseline; justify-content: space-between;
  flex-wrap: wrap; }
.verdict { font-weight: 650; font-size: 0.92rem; }
.verdict::before { margin-right: 0.35em; }
.yes { color: var(--yes); }
.yes::before { content: "✓"; }
.no { color: var(--no); }
.no::before { content: "✗"; }
.overview { margin: 0; padding-left: 1.4rem; color: var(--soft); font-size: 0.95rem;
  line-height: 1.5; }
.overview li { padding: 0.45rem 0 0.45rem 0.4rem; }
.overview li::marker, .overview a { font-weight: 620; color: var(--ink); }
.parts { list-style: none; padding: 0; margin: 0 0 1.2rem; }
.parts li { padding: 0.75rem 0 0.75rem 1.7rem; border-top: 1px solid var(--line);
  position: relative; }
.parts li::before { position: absolute; left: 0.15rem; font-weight: 700; }
.parts b { font-weight: 620; color: var(--ink); }
.parts .measured { display: block; color: var(--ink); font-variant-numeric: tabular-nums; }
.parts .criterion, .parts .instead { display: block; color: var(--soft); font-size: 0.88rem;
  line-height: 1.5; }
figure { margin: 1.4rem 0 0; }
figure img { width: 100%; min-width: 40rem; height: auto; display: block; }
figcaption { color: var(--soft); font-size: 0.88rem; margin-top: 0.3rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.86rem; line-height: 1.35; width: 100%;
  font-variant-numeric: tabular-nums; }
th, td { padding: 0.38rem 0.7rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { font-weight: 620; color: var(--soft); }
th.text, td.text { text-align: left; }
@media (max-width: 40rem) { body { font-size: 16px; } main { padding-top: 1.8rem; } }
@media print { body { background: #fff; } section { border: 0; padding: 0; } }
"""


def write_html(
    results: Results,
    claims: Sequence[Claim],
    surroundings: dict[str, Any],
    folder: Path,
    path: Path,
) -> None:
    """Write the report, with the figures in it.

    Parameters
    ----------
    results : Results
        What was computed.
    claims : sequence of Claim
        What it shows.
    surroundings : dict
        What `environment` returns.
    folder : Path
        Where the figures are.
    path : Path
        The file to write.
    """
    data = results.data.summary()
    holding = sum(claim.holds for claim in claims)
    _, trained = main_figures(results)
    body = [
        "<h1>How a network's initial weights decide whether it learns</h1>",
        '<p class="lead">Seven claims about initial weights, from section 6.2 of <i>Deep Learning '
        f"from Scratch</i>, each measured in a run of pynn. {holding} of {len(claims)} hold here; "
        "a claim of several parts holds only if every part does.</p>",
        f"<p>{_text(data['description'])}: {data['training_samples']:,} samples to learn from, "
        f"{data['held_out_samples']:,} held out, {data['features']} features, {data['classes']} "
        f"classes. Seed {results.seed}, {results.iterations:,} iterations.</p>",
        "<section>",
        _overview(claims),
        "</section>",
    ]
    for number, (claim, figures) in enumerate(zip(claims, SHOWN, strict=True), start=1):
        body.append(_claim(number, claim, figures, folder))
    body += [
        "<section><h2>How it was done</h2>",
        f"<p>{SAMPLES} random normal inputs of {WIDTH} features pass through {LAYERS} layers of "
        f"{WIDTH} units without biases; then a random normal gradient passes back through the same "
        "layers. Each way to choose the weights scales the same random numbers. The deep networks "
        f"have {DEEP} layers. <i>Saturated</i> is an activation at which the slope is below "
        f"{SATURATED:.0%} of the function's largest; for ReLU these are its zeros, half of the "
        "activations if all is well. <i>Dead</i> is a unit that is 0 for every input. Units are "
        "<i>distinct</i> if they differ for some input. <i>Skew</i> is the part of a histogram "
        "that its mirror image does not cover.</p>",
        f"<p>The trained networks have {len(HIDDEN)} hidden layers of {HIDDEN[0]} ReLU units; "
        f"stochastic gradient descent with learning rate {LEARNING_RATE:g} on batches of {BATCH} "
        "drawn at random, the same batches for all. Losses are cross-entropies without the "
        "penalty of weight decay.</p></section>",
        "<section><h2>Trained networks</h2>",
        _table(*trained[1:], text=1),
        "</section>",
        "<section><h2>Layer by layer</h2>",
        _layers(results),
        "</section>",
        "<section><h2>To reproduce it</h2>",
        "<p>The same seed, data and iterations give the same trained weights, to the last bit, "
        "whatever the number of threads and the instruction set.</p>",
        _table(
            [],
            [
                ["SHA-256 of all trained weights", results.weights_sha256],
                ["versions", ", ".join(f"{name} {number}" for name, number in versions().items())],
                *([name, str(value)] for name, value in surroundings.items()),
            ],
            text=2,
        ),
        "</section>",
    ]
    path.write_text(
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>pynn study: initial weights</title>\n<style>{STYLE}</style>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</html>\n",
        encoding="utf-8",
    )


def _overview(claims: Sequence[Claim]) -> str:
    items = (
        _tag(
            "li",
            _head(f'<a href="#claim-{number}">{_text(claim.title)}</a>', claim),
            _text(claim.claim),
        )
        for number, claim in enumerate(claims, start=1)
    )
    return _tag("ol", *items, kind="overview")


def _head(title: str, claim: Claim) -> str:
    verdict = _tag("span", _text(claim.verdict), kind="verdict " + _kind(claim))
    return _tag("div", title, verdict, kind="head")


def _kind(judged: Claim | Part) -> str:
    return "yes" if judged.holds else "no"


def _claim(number: int, claim: Claim, figures: Iterable[str], folder: Path) -> str:
    pictures = (
        '<figure><div class="scroll">'
        f'<img alt="{_text(FIGURES[name][1])}" src="data:image/png;base64,{_inline(folder, name)}">'
        f"</div><figcaption>{_text(FIGURES[name][1])}</figcaption></figure>"
        for name in figures
    )
    return "".join(
        [
            f'<section id="claim-{number}">',
            _head(f"<h2>{number}. {_text(claim.title)}</h2>", claim),
            _tag("blockquote", _text(claim.claim)),
            _tag("ul", *map(_part, claim.parts), kind="parts"),
            *pictures,
            "</section>",
        ]
    )


def _part(part: Part) -> str:
    measured = part.measured[0].upper() + part.measured[1:] + "."
    lines = [
        _tag("b", _text(part.statement)),
        _tag("span", _text(measured), kind="measured"),
        _tag("span", _text(f"Holds if: {part.criterion}"), kind="criterion"),
    ]
    if part.instead and not part.holds:
        lines.append(_tag("span", _text(part.instead), kind="instead"))
    return _tag("li", *lines, kind=_kind(part))


def _layers(results: Results) -> str:
    head = [
        "layer",
        "mean",
        "std",
        "saturated",
        "dead",
        "distinct",
        "across units",
        "across inputs",
        "gradient",
        "weights' gradient",
    ]
    content = []
    for name, inits in results.layers.items():
        content.append(f"<h3>{LABELS[name]}</h3>")
        for init in INITS:
            rows = [_layer_row(number, layer) for number, layer in enumerate(inits[init], start=1)]
            content.append(f"<details><summary>{init}</summary>{_table(head, rows)}</details>")
    return "".join(content) + "<p>Means and standard deviations of activations and gradients.</p>"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], text: int = 0) -> str:
    """Make a table whose first so many columns are text."""

    def row(tag: str, cells: Sequence[str]) -> str:
        kinds = ["text" if place < text else "" for place in range(len(cells))]
        return _tag("tr", *(_tag(tag, _text(cell), kind=kind) for cell, kind in zip(cells, kinds)))

    head = row("th", headings) if headings else ""
    return _tag("div", _tag("table", head, *(row("td", cells) for cells in rows)), kind="scroll")


def _tag(name: str, *content: str, kind: str = "") -> str:
    attribute = f' class="{kind}"' if kind else ""
    return f"<{name}{attribute}>{''.join(content)}</{name}>"


def _inline(folder: Path, name: str) -> str:
    return base64.b64encode((folder / f"{name}.png").read_bytes()).decode("ascii")


def _text(text: str) -> str:
    return html.escape(text)
