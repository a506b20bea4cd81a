"""The panels of training curves, one per recorded quantity."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import plotly.graph_objects as go
from pandas import DataFrame

from workbench.figures.style import (
    BASELINE,
    INK,
    MOST_POINTS,
    PALETTE,
    metric_label,
    run_colours,
    shorten,
    term_colour,
    term_label,
)

FLAT = 100  # a curve is flat if the highest point of another is that many times its own
FEW = 40  # a curve with at most this many points has markers
SMOOTH_POINTS = 500  # points of a running mean over 2 % of the steps; more would draw the same line
TICKS = [digit * 10.0**power for power in range(-9, 10) for digit in (1, 3)]
LOGARITHMIC = {"type": "log", "tickvals": TICKS}
# Of the two directions and the two towers: unlike every term's colour, which stands in the same legend.
PICTURES, WORDS = "#2222ff", "#cc11cc"
IMAGE_TOWER, TEXT_TOWER = "#b8860b", BASELINE
REGIONS = (
    ("whole", "as they are", PICTURES),
    ("emptied", "taken away", BASELINE),
    ("shuffled", "of another picture", WORDS),
)
FROM_ZERO, THOUSANDS = {"rangemode": "tozero"}, {"exponentformat": "SI"}
# At least to 1 %, else several ticks have one name; from zero, else a first value alone gets -50 to 150 %.
PER_CENT = {"tickformat": ".1~%", "autorangeoptions": {"include": [0, 0.01]}} | FROM_ZERO
LOSSES = ("Loss", "Task")  # what titles of panels begin with whose axis may become logarithmic
SKIPPED, VALIDATION = "skipped step", "Validation recall@1"
TOP1 = "zero_shot_top1"
ZERO_SHOT = f"Validation {metric_label(TOP1)}"


@runtime_checkable
class Recorded(Protocol):
    """An object with a run's records, such as a `workbench.Run` or `Curves`."""

    @property
    def metrics(self) -> DataFrame: ...
    @property
    def validations(self) -> DataFrame: ...


class Curves(NamedTuple):
    """A run's records as plain tables, with one row per training step and one per validation."""

    metrics: DataFrame
    validations: DataFrame


Runs = Recorded | Mapping[str, Recorded | Sequence[Recorded]]


@dataclass(frozen=True)
class Curve:
    """One line of a panel."""

    name: str
    x: np.ndarray
    y: np.ndarray
    colour: str
    dash: str = "solid"
    legend: str = ""  # its name in the legend, and the group that a click on the legend hides
    mode: str = "lines"
    behind: bool = False  # pale and without hover text, for the single steps behind their running mean

    def trace(self, **settings: Any) -> go.Scatter:
        """The plotly trace; `settings` are further settings of it, such as `showlegend`."""
        marker = {"symbol": "x", "size": 8} if self.name == SKIPPED else {"size": 5}
        return go.Scatter(
            x=self.x,
            y=self.y,
            name=self.name,
            mode=self.mode,
            line={"color": self.colour, "dash": self.dash, "width": 1 if self.behind else 1.8},
            marker={"color": self.colour, **marker},
            opacity=0.3 if self.behind else 1,
            legendgroup=self.legend,
            hovertemplate=None if self.behind else "%{y:.4g}",
            hoverinfo="skip" if self.behind else None,
            **settings,
        )


@dataclass(frozen=True)
class Panel:
    """One small plot against the training step."""

    title: str
    curves: list[Curve]
    axis: dict[str, Any] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether no curve has a point yet."""
        return not any(len(curve.x) for curve in self.curves)


def training_panels(runs: Runs, *, live: bool = False) -> list[Panel]:
    """The panels of `training_figure` that have points. With `live` the validation panel is kept empty."""
    if not isinstance(runs, Mapping):
        runs = {"": runs}
    groups: dict[str, list[Any]] = {
        name: list(run) if isinstance(run, list | tuple) and not isinstance(run, Curves) else [run]
        for name, run in runs.items()
    }
    members = [run for group in groups.values() for run in group]
    panels = _one_run(members[0]) if len(members) == 1 else _several_runs(groups)
    full = [panel for panel in panels if not panel.is_empty]
    if live and full:
        full = [panel for panel in panels if panel in full or panel.title == VALIDATION]
    return full


def _one_run(run: Recorded) -> list[Panel]:
    metrics, validations = run.metrics, run.validations
    terms = {
        name.removeprefix("weighted/"): term_colour(name.removeprefix("weighted/"))
        for name in metrics.columns
        if name.startswith("weighted/")
    }

    def noisy_terms(prefix: str = "") -> list[Curve]:
        return [
            curve
            for term, colour in terms.items()
            for curve in _noisy(metrics, prefix + term, colour, term_label(term))
        ]

    # A single term equals the total loss, and its line would hide the total's.
    weighted = noisy_terms("weighted/") if len(terms) > 1 else []
    recalls = [
        _curve(validations, column, colour, metric_label(column), points=True)
        for column, colour in (("text_to_image_r1", WORDS), ("image_to_text_r1", PICTURES))
    ]
    unused = [colour for colour in PALETTE if colour not in terms.values()]
    accuracies = [
        _curve(validations, column, colour, name, points=True)
        for (column, name), colour in zip(_zero_shot(validations).items(), unused, strict=False)
    ]
    cosines = [
        _curve(metrics, f"cosine_to_teacher_{side}", colour, f"{side} tower", dash="dot")
        for side, colour in (("image", IMAGE_TOWER), ("text", TEXT_TOWER))
    ]
    regression = [
        *_noisy(metrics, "embedding_r2", term_colour("embedding")),
        replace(_curve(metrics, "embedding_r2_best", BASELINE, dash="dash"), mode="lines"),
    ]
    recalls_of_z = [
        _curve(validations, f"recall_of_z_{name}", colour, f"regions {words}", points=True)
        for name, words, colour in REGIONS
    ]
    unweighted = noisy_terms()
    shares = [_shares(metrics, term, colour) for term, colour in terms.items()]
    losses = [*_noisy(metrics, "loss", INK, "loss"), *weighted, _skipped(metrics)]
    return [
        Panel("Loss and weighted terms", losses),
        Panel("Loss terms, unweighted", unweighted, LOGARITHMIC if _far_apart(unweighted) else {}),
        Panel(
            "Gradient share of each term",
            shares,
            {"tickformat": ".0%", "autorangeoptions": {"include": [0, 0.1]}},
        ),
        Panel(VALIDATION, recalls, PER_CENT),
        Panel(ZERO_SHOT, accuracies, PER_CENT),
        Panel("Cosine to teacher", cosines),
        Panel("Regression R² and its bound", regression),
        Panel("Recall@1 of the cross-modal teacher", recalls_of_z, PER_CENT),
        Panel("Logit scale", [_curve(metrics, "scale", BASELINE)]),
        Panel("Gradient norm", _noisy(metrics, "gradient_norm", BASELINE), LOGARITHMIC),
        Panel("Learning rate", [_curve(metrics, "lr", BASELINE)], FROM_ZERO),
        Panel("Samples per second", _noisy(metrics, "samples_per_second", BASELINE), FROM_ZERO | THOUSANDS),
        Panel("Share of time waiting for data", _noisy(metrics, "waiting", BASELINE), PER_CENT),
        Panel("GPU memory, peak in GiB", [_curve(metrics, "gpu_memory", BASELINE)], FROM_ZERO),
    ]


def _several_runs(groups: Mapping[str, list[Recorded]]) -> list[Panel]:
    colours = run_colours(groups)
    members = [(name, colours[name], run) for name, runs in groups.items() for run in runs]

    def lines(column: str, smooth: bool = False, dash: str = "solid") -> list[Curve]:
        return [
            _curve(run.metrics, column, colour, name, dash=dash, smooth=smooth)
            for name, colour, run in members
        ]

    recalls = [
        _curve(run.validations, column, colour, name, dash=dash, points=True)
        for name, colour, run in members
        for column, dash in (("text_to_image_r1", "solid"), ("image_to_text_r1", "dot"))
    ]
    dashes = ("solid", "dot", "dash", "dashdot")
    accuracies = [
        _curve(run.validations, column, colour, name, dash=dash, points=True)
        for name, colour, run in members
        for column, dash in zip(_zero_shot(run.validations), dashes, strict=False)
    ]
    cosines = [*lines("cosine_to_teacher_image"), *lines("cosine_to_teacher_text", dash="dot")]
    return [
        Panel("Loss, running mean", lines("loss", smooth=True)),
        Panel("Task term, running mean", lines("task", smooth=True)),
        Panel("Recall@1 (image to text dotted)", recalls, PER_CENT),
        Panel(ZERO_SHOT, accuracies, PER_CENT),
        Panel("Cosine to teacher (text dotted)", cosines),
        Panel("R² of the regression, running mean", lines("embedding_r2", smooth=True)),
        Panel("Logit scale", lines("scale")),
        Panel("Gradient norm, running mean", lines("gradient_norm", smooth=True), LOGARITHMIC),
        Panel("Learning rate", lines("lr"), FROM_ZERO),
        Panel("Samples/s, running mean", lines("samples_per_second", smooth=True), FROM_ZERO | THOUSANDS),
        Panel("Time waiting for data, running mean", lines("waiting", smooth=True), PER_CENT),
    ]


def _zero_shot(validations: DataFrame) -> dict[str, str]:
    """The columns of accuracies on zero-shot sets, with the names of the sets."""
    prefix = f"{TOP1}/"
    return {name: name.removeprefix(prefix) for name in validations.columns if name.startswith(prefix)}


def _noisy(table: DataFrame, column: str, colour: str, name: str = "") -> list[Curve]:
    """The running mean of a noisy column, with the single steps pale behind it."""
    mean = _curve(table, column, colour, name, smooth=True)
    steps = _curve(table, column, colour, name)
    if "markers" in mean.mode:  # too few points for a running mean
        steps = replace(steps, x=steps.x[:0], y=steps.y[:0])
    return [replace(steps, behind=True), mean]


def _far_apart(curves: list[Curve]) -> bool:
    """Whether one curve would press the others flat: then a logarithmic axis shows all of them."""
    values = [curve.y for curve in curves if len(curve.y) and not curve.behind]
    most = [float(y.max()) for y in values]
    return len(values) > 1 and min(float(y.min()) for y in values) > 0 and max(most) > FLAT * min(most)


def _shares(metrics: DataFrame, term: str, colour: str) -> Curve:
    """A term's share of the gradient at the steps at which it was measured."""
    column = f"gradient_share/{term}"
    measured = metrics.dropna(subset=column) if column in metrics else metrics.iloc[:0]
    return _curve(measured, column, colour, term_label(term))


def _skipped(metrics: DataFrame) -> Curve:
    """Markers at the skipped steps, whose loss or gradient was not finite."""
    x = y = np.zeros(0, dtype=np.float32)
    if "loss" in metrics and "gradient_norm" in metrics:
        loss = metrics["loss"].astype(float)
        bad = ~np.isfinite(loss + metrics["gradient_norm"].astype(float)).to_numpy()
        nearest = loss.where(np.isfinite(loss)).ffill().bfill().fillna(0).to_numpy()
        x, y = shorten(metrics["step"].to_numpy()[bad], nearest[bad])
    return Curve(SKIPPED, x, y, term_colour("gd"), legend=SKIPPED, mode="markers")


def _curve(
    table: DataFrame,
    column: str,
    colour: str,
    name: str = "",
    *,
    dash: str = "solid",
    points: bool = False,
    smooth: bool = False,
) -> Curve:
    """A column against the step, empty if the table lacks it. `smooth` takes a running mean over 2 % of the
    steps."""
    x = y = np.zeros(0, dtype=np.float32)
    if column in table and "step" in table:
        values = table[column].astype(float)
        if smooth and len(values) > FEW:
            window = values.rolling(max(5, len(values) // 50), center=True, min_periods=1)
            values = window.mean().where(values.notna())
        x, y = shorten(table["step"].to_numpy(), values.to_numpy(), SMOOTH_POINTS if smooth else MOST_POINTS)
    # A line through a single point would be invisible.
    mode = "lines+markers" if points or len(x) <= FEW else "lines"
    return Curve(name or column, x, y, colour, dash, name, mode)
