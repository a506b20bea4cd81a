"""A scatter plot of embeddings in two dimensions, coloured by group."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from workbench.figures.region_names import RegionName
from workbench.figures.style import INK, PALETTE, QUIET, finish

MOST_NAMED = 10  # the most groups that have a colour of their own in the legend
MOST_DOTS = 100_000
FAINT = "#c3cad1"  # dots of groups that say little
LAST = 2000  # the rank of an entry that stands behind all others in the legend

Positions = Float[np.ndarray, "n 2"]


def cluster_map(
    positions: Positions,
    groups: Sequence[Any] | np.ndarray,
    words: Sequence[str] | None = None,
    *,
    title: str,
    subtitle: str = "",
    colours: Mapping[str, str] | None = None,
    quiet: Collection[str] = (),
    regions: Sequence[RegionName] = (),
    selected: Collection[int] = (),
    pictures: Float[np.ndarray, "m 2"] | None = None,
    joined: Sequence[tuple[int, int]] = (),
    placed: Sequence[RegionName] = (),
    thumbnails: Sequence[dict[str, Any]] = (),
    seed: int = 0,
) -> go.Figure:
    """Draw a dot at each of `positions`, coloured by `groups`, with `words` as its hover text.

    A legend lists the ten most common groups; the others, and those in `quiet`, are grey. With `colours`, a
    colour for every group, all groups are coloured, and more than ten have no legend: write their names on
    the map, as `regions`. Dots other than the `selected` ones are faint, if there are any. `pictures` are
    positions of pictures, drawn as open squares, and `joined` lists pairs (dot, picture) to connect by a
    line. `placed` are further points, drawn as stars with their names, and `thumbnails` plotly's layout
    images. Above 100,000 dots the figure shows a random sample drawn with `seed`, and its subtitle says so.
    `customdata` holds the number of every dot, and -1 - number for pictures. Raises ValueError if the lengths
    differ.
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
    texts = [f"{words[row]}<br>{labels[row]}" if words is not None else labels[row] for row in kept.tolist()]
    lit = np.isin(kept, list(selected)) if selected else None
    figure = go.Figure()
    if joined and pictures is not None:
        figure.add_trace(_lines(positions, pictures, joined))
    for name, inside, colour in _layers(labels[kept], colours, quiet):
        figure.add_scattergl(
            x=positions[kept[inside], 0],
            y=positions[kept[inside], 1],
            mode="markers",
            name=name,
            marker={"size": 5 if len(positions) < 5000 else 3, "opacity": 0.75, "color": colour},
            text=[texts[row] for row in inside],
            customdata=kept[inside],
            hovertemplate="%{text}<extra></extra>",
            selectedpoints=None if lit is None else np.flatnonzero(lit[inside]),
            selected={"marker": {"opacity": 1}},
            unselected={"marker": {"opacity": 0.12}},
            legendrank=legend_rank(colour),
        )
    if pictures is not None:
        figure.add_scattergl(
            x=pictures[:, 0],
            y=pictures[:, 1],
            mode="markers",
            name="pictures",
            marker={"symbol": "square-open", "size": 7, "color": INK, "line": {"width": 1}},
            customdata=-1 - np.arange(len(pictures)),
            hovertemplate="a picture<extra></extra>",
        )
    if placed:
        figure.add_trace(_stars(placed))
    # The axes of such a map have no meaning.
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return finish(
        figure, title, subtitle, height=560, margin={"l": 10, "r": 10, "t": 64, "b": 70},
        dragmode="lasso", hovermode="closest", images=thumbnails,
        annotations=[*map(_name, regions), *map(_placed_name, placed)],
        showlegend=len(figure.data) > 1, legend={"y": -0.01, "yanchor": "top", "itemsizing": "constant"},
    )  # fmt: skip


def legend_colours(
    labels: Sequence[Any] | np.ndarray, quiet: Collection[str] = ()
) -> list[tuple[str, list[str], str]]:
    """The entries of a legend, what says little first: name, the groups behind it, colour.

    The ten most common groups have a colour each. The others share one entry, and so does each in `quiet`.
    """
    counts = Counter(str(label) for label in labels)
    loud = [name for name, _ in counts.most_common() if name not in quiet]
    rest = loud[MOST_NAMED:] if len(loud) > MOST_NAMED else []
    entries = [(name, [name], FAINT) for name in counts if name in quiet]
    if rest:
        entries.append((f"{len(rest)} others", rest, QUIET))
    named = loud[: len(loud) - len(rest)]
    return entries + [(name, [name], colour) for name, colour in zip(named, PALETTE, strict=False)]


def legend_rank(colour: Any) -> int | None:
    """The place of an entry with this colour in a legend: last, if it says little."""
    return LAST if colour in (FAINT, QUIET) else None


def _layers(
    labels: np.ndarray, colours: Mapping[str, str] | None, quiet: Collection[str]
) -> list[tuple[str, np.ndarray, Any]]:
    """The dots drawn together: name, their places in `labels`, their colour or colours."""
    if colours is not None and len(colours) > MOST_NAMED:
        return [("captions", np.arange(len(labels)), [colours[label] for label in labels])]
    if colours is not None:
        entries = [(name, [name], colour) for name, colour in colours.items()]
    else:
        entries = legend_colours(labels, quiet)
    return [(name, np.flatnonzero(np.isin(labels, inside)), colour) for name, inside, colour in entries]


def _lines(positions: np.ndarray, pictures: np.ndarray, joined: Sequence[tuple[int, int]]) -> go.Scattergl:
    ends = [(*positions[dot], *pictures[picture]) for dot, picture in joined]
    x = [value for left, _, right, _ in ends for value in (left, right, None)]
    y = [value for _, left, _, right in ends for value in (left, right, None)]
    line = {"color": QUIET, "width": 1}
    return go.Scattergl(x=x, y=y, mode="lines", line=line, name="a pair", hoverinfo="skip")


def _stars(placed: Sequence[RegionName]) -> go.Scatter:
    return go.Scatter(
        x=[point.x for point in placed],
        y=[point.y for point in placed],
        mode="markers",
        name="your captions",
        marker={"symbol": "star", "size": 15, "color": INK, "line": {"color": "white", "width": 1.5}},
        unselected={"marker": {"opacity": 1}},
        text=[point.text for point in placed],
        hovertemplate="%{text}<extra></extra>",
    )


def _name(region: RegionName) -> dict[str, Any]:
    font = {"size": 11.5, "color": INK}
    box = {"bgcolor": "rgba(255,255,255,0.7)", "borderpad": 0, "yanchor": "bottom"}
    return {"x": region.x, "y": region.y, "text": region.text, "showarrow": False, "font": font} | box


def _placed_name(point: RegionName) -> dict[str, Any]:
    """Above its star and on top of the names of regions."""
    return _name(point) | {"text": f"<b>{point.text}</b>", "bgcolor": "rgba(255,255,255,0.92)", "yshift": 8}
