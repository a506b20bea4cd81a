"""A scatter plot of embeddings in two dimensions, coloured by group."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from workbench.figures.style import IMAGE, PALETTE, QUIET, finish

MOST_NAMED = 10  # the most groups that have colours of their own and a legend
MOST_DOTS = 100_000
# Colours for more groups than the palette has; the hover text names the group.
MANY = tuple(f"hsl({(137 * n) % 360},{55 + 15 * (n % 3)}%,{42 + 8 * (n % 4)}%)" for n in range(97))

Positions = Float[np.ndarray, "n 2"]


def cluster_map(
    positions: Positions,
    groups: Sequence[Any] | np.ndarray,
    words: Sequence[str] | None = None,
    *,
    title: str,
    subtitle: str = "",
    pictures: Float[np.ndarray, "m 2"] | None = None,
    joined: Sequence[tuple[int, int]] = (),
    seed: int = 0,
) -> go.Figure:
    """Draw a dot at each of `positions`, coloured by `groups`, with `words` as its hover text.

    Up to ten groups are listed in a legend, the most common first. `pictures` are positions of pictures,
    drawn as open squares. `joined` lists pairs (dot, picture) to connect by a line. Above 100,000 dots the
    figure shows a random sample drawn with `seed`, and its subtitle says so. `customdata` holds the number of
    every dot, and -1 - number for pictures. Raises ValueError if the lengths differ.
    """
    if len(positions) != len(groups) or (words is not None and len(words) != len(positions)):
        raise ValueError(
            f"cluster_map: {len(positions)} positions, {len(groups)} groups and "
            f"{'no' if words is None else len(words)} words; give one of each for every dot"
        )
    kept = np.arange(len(positions))
    if len(kept) > MOST_DOTS:
        kept = np.sort(np.random.default_rng(seed).permutation(len(kept))[:MOST_DOTS])
        subtitle = f"{subtitle} · a sample: {MOST_DOTS:,} of {len(positions):,} dots".lstrip(" ·")
    labels = np.array([str(group) for group in groups])
    names, counts = np.unique(labels, return_counts=True)
    figure = go.Figure()
    if joined and pictures is not None:
        ends = [(*positions[dot], *pictures[picture]) for dot, picture in joined]
        x = [value for left, _, right, _ in ends for value in (left, right, None)]
        y = [value for _, left, _, right in ends for value in (left, right, None)]
        line = {"color": QUIET, "width": 1}
        figure.add_scattergl(x=x, y=y, mode="lines", line=line, name="a pair", hoverinfo="skip")
    if len(names) <= MOST_NAMED:
        for index, name in enumerate(names[np.argsort(-counts, kind="stable")]):
            rows = kept[labels[kept] == name]
            _dots(figure, positions, rows, labels, words, name, PALETTE[index % len(PALETTE)])
    else:
        numbers = np.searchsorted(names, labels[kept])
        colours = [MANY[number % len(MANY)] for number in numbers]
        _dots(figure, positions, kept, labels, words, "captions", colours)
    if pictures is not None:
        figure.add_scattergl(
            x=pictures[:, 0],
            y=pictures[:, 1],
            mode="markers",
            name="pictures",
            marker={"symbol": "square-open", "size": 7, "color": IMAGE},
            customdata=-1 - np.arange(len(pictures)),
            hovertemplate="a picture<extra></extra>",
        )
    # The axes of such a map have no meaning.
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return finish(
        figure, title, subtitle, height=560, margin={"l": 10, "r": 10, "t": 84, "b": 60},
        dragmode="lasso", hovermode="closest", showlegend=len(names) <= MOST_NAMED or pictures is not None,
        legend={"y": -0.02, "yanchor": "top", "itemsizing": "constant"},
    )  # fmt: skip


def _dots(
    figure: go.Figure,
    positions: np.ndarray,
    rows: np.ndarray,
    labels: np.ndarray,
    words: Sequence[str] | None,
    name: str,
    colour: str | list[str],
) -> None:
    text = [f"{words[row]}<br>{labels[row]}" if words is not None else labels[row] for row in rows]
    figure.add_scattergl(
        x=positions[rows, 0],
        y=positions[rows, 1],
        mode="markers",
        name=str(name),
        marker={"size": 5 if len(positions) < 5000 else 3, "opacity": 0.75, "color": colour},
        text=text,
        customdata=rows,
        hovertemplate="%{text}<extra></extra>",
        selected={"marker": {"opacity": 1}},
        unselected={"marker": {"opacity": 0.15}},
    )
