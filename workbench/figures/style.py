"""The style of all figures: plotly template, colour-blind-safe palette, metric labels, downsampled curves."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import plotly.graph_objects as go

from workbench.figures.display import CLEAR, use_in_notebooks
from workbench.metrics import metric
from workbench.objectives.registry import declared_objectives

FONT = "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
INK, QUIET, GRID, PAPER = "#1f2933", "#66727f", "#e4e7eb", "#ffffff"
MIDDLE = "#707a84"  # text that can be read on a light page and on a dark one

# Paul Tol's "vibrant" set and part of his "muted" one. They remain distinguishable under all common kinds of
# colour blindness and are dark enough for thin lines on white. There is one colour per objective.
PALETTE = (
    *("#0077bb", "#ee7733", "#009988", "#ee3377", "#33a6dd", "#882255", "#999933", "#cc3311"),
    *("#332288", "#117733", "#aa4499", "#663300"),
)
BASELINE = "#59636e"  # the baseline of a comparison is grey

# HTML takes the colours of the page that it is in, so that it can be read in dark themes too.
FAINT = "color-mix(in srgb, currentColor 66%, transparent)"  # text that matters less
LINE, RULE = "rgba(128, 128, 128, 0.3)", "rgba(128, 128, 128, 0.9)"  # between rows, below headings
IMAGE, TEXT = "#009988", "#882255"

STATES = {
    "running": "#0077bb",
    "finished": "#00796b",
    "interrupted": "#b3541e",
    "failed": "#cc3311",
    "gone": "#cc3311",
    "damaged": "#cc3311",
}

MOST_POINTS = 2_000
LONGEST_ABBREVIATION = 3  # letters: CRD, FD, MFD, ICL, but task


def template() -> go.layout.Template:
    """The plotly template of all figures."""
    axis = {
        "gridcolor": GRID,
        "linecolor": "#b8c0c8",
        "zeroline": False,
        "ticks": "",
        "ticklabelstandoff": 4,
        "automargin": True,
        "exponentformat": "power",  # a learning rate is 6 x 10^-4, not "600u"
        "tickfont": {"size": 11, "color": QUIET},
        "title": {"font": {"size": 12, "color": QUIET}, "standoff": 8},
    }
    return go.layout.Template(
        layout={
            "autosize": True,  # fill the width of the cell or page
            "font": {"family": FONT, "size": 12, "color": INK},
            "paper_bgcolor": PAPER,
            "plot_bgcolor": PAPER,
            "colorway": PALETTE,
            "xaxis": axis,
            "yaxis": axis,
            "title": {
                "x": 0,
                "xref": "paper",
                "xanchor": "left",
                "yref": "container",
                "font": {"size": 16, "weight": 600},
                "subtitle": {"font": {"size": 12.5, "color": QUIET}},
            },
            "legend": {
                "orientation": "h",
                "x": 0,
                "xanchor": "left",
                "font": {"size": 12},
                "bgcolor": "rgba(0,0,0,0)",
            },
            "margin": {"l": 48, "r": 16, "t": 84, "b": 40},
            # Without a colour of its own, plotly writes in the colour that reads on the border.
            "hoverlabel": {
                "font": {"family": FONT, "size": 12, "color": INK},
                "bgcolor": PAPER,
                "bordercolor": "#b8c0c8",
            },
        }
    )


def finish(
    figure: go.Figure, title: str = "", subtitle: str = "", *, y: float | None = None, **layout: Any
) -> go.Figure:
    """Apply the template, a title (at the relative height `y`) and further layout settings to a figure.

    Figures with pictures have no background, and text of a middle grey.
    """
    use_in_notebooks()
    heading: dict[str, Any] = {"text": title, "subtitle": {"text": subtitle}}
    figure.update_layout(template=template(), title=heading | ({} if y is None else {"y": y}), **layout)
    if figure.layout.images or any(isinstance(trace, go.Image) for trace in figure.data):
        _for_any_page(figure)
    return figure


def _for_any_page(figure: go.Figure) -> None:
    """Let the page through, with text that can be read on it: pictures cannot be inverted on a dark page."""
    figure.update_layout(
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        font_color=MIDDLE,
        title_subtitle_font_color=MIDDLE,
        modebar={"bgcolor": CLEAR, "color": "#a0a8b0", "activecolor": MIDDLE},
    )
    figure.update_xaxes(tickfont_color=MIDDLE)
    figure.update_yaxes(tickfont_color=MIDDLE)
    for annotation in figure.layout.annotations:
        if not annotation.bgcolor and annotation.font.color in (None, INK, QUIET):
            annotation.font.color = MIDDLE


def heading(text: str, x: float, y: float, above: int = 6) -> dict[str, Any]:
    """A left-aligned annotation `above` pixels above the point (x, y) in paper coordinates."""
    position = {"xref": "paper", "yref": "paper", "x": x, "y": y, "xanchor": "left", "yanchor": "bottom"}
    return position | {
        "text": text,
        "yshift": above,
        "align": "left",
        "showarrow": False,
        "font": {"size": 12.5},
    }


def intervals(
    middle: np.ndarray, low: np.ndarray, high: np.ndarray, colour: str, thickness: float
) -> dict[str, Any]:
    """Plotly error bars from `low` to `high` around `middle`."""
    ends = {"array": (high - middle).astype(np.float32), "arrayminus": (middle - low).astype(np.float32)}
    return {"type": "data", "symmetric": False, "thickness": thickness, "width": 0, "color": colour} | ends


def term_colour(term: str) -> str:
    """The colour of an objective. The total loss is dark; unregistered names get a colour of the palette."""
    if term == "loss":
        return INK
    objective = declared_objectives().get(term)
    return objective.colour if objective else PALETTE[sum(term.encode()) % len(PALETTE)]


def term_label(term: str) -> str:
    """The name of an objective in legends and tables: abbreviations such as CRD in capitals."""
    return term.upper() if len(term) <= LONGEST_ABBREVIATION else term.replace("_", " ")


def state_colour(state: str) -> str:
    """The text colour of a run's state on a white background."""
    return STATES.get(state, QUIET)


def on_page(colour: str) -> str:
    """A CSS text colour near `colour` that can be read on a light and on a dark page."""
    return f"color-mix(in srgb, {colour} 70%, currentColor)"


def run_colours(names: Iterable[str]) -> dict[str, str]:
    """Assign a colour to each run or group of runs, in order. The first, the baseline, is grey."""
    colours = (BASELINE, *PALETTE)
    # Colours repeat after thirteen names.
    return {name: colours[index % len(colours)] for index, name in enumerate(names)}


def shorten(x: np.ndarray, y: np.ndarray, most: int = MOST_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Downsample the curve y(x) [N], x ascending, to at most `most` (at least 4) points, as float32.

    Points whose y is not finite are dropped. The minimum and maximum of each segment and both ends are kept,
    so a spike of a single step stays visible in a run of any length.
    """
    finite = np.isfinite(y)
    x, y = np.asarray(x)[finite], np.asarray(y, dtype=np.float64)[finite]
    if len(y) > most:
        segments = most // 2 - 1
        size = -(-len(y) // segments)
        padded = np.full(size * -(-len(y) // size), y[-1])
        padded[: len(y)] = y
        rows = padded.reshape(-1, size)
        starts = np.arange(len(rows)) * size
        kept = np.concatenate([starts + rows.argmin(1), starts + rows.argmax(1), [0, len(y) - 1]])
        kept = np.unique(np.minimum(kept, len(y) - 1))
        x, y = x[kept], y[kept]
    return x.astype(np.float32), y.astype(np.float32)


def metric_label(name: str) -> str:
    """The display name of a metric, for instance "text-to-image R@1" for `text_to_image_r1`."""
    return metric(name).label


def is_share(name: str) -> bool:
    """Whether a metric lies in [0, 1] and is shown in per cent."""
    return metric(name).share
