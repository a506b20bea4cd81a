"""A picture with boxes around its regions: outlines show weights, brightness shows attention."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Num

from workbench.figures.gallery import data_uri
from workbench.figures.label_layout import free_places
from workbench.figures.style import INK, PAPER, finish

SIDE = 340  # pixels: the longer side of the picture in a figure as wide as a notebook's cell
LABEL = 18  # pixels: the height of a box's label
DIM = 0.18  # the share of its colour that an area keeps outside the highlighted boxes

Weights = Sequence[float] | np.ndarray


def picture_with_boxes(
    image: Any,
    boxes: Num[np.ndarray, "r 4"],
    weights: Weights | None = None,
    *,
    highlighted: Weights | None = None,
    most: float | None = None,
    labels: Sequence[str] | None = None,
    title: str = "",
    subtitle: str = "",
) -> go.Figure:
    """Draw a picture, uint8 [3, H, W] (torch or NumPy), with its boxes (x0, y0, x1, y1 in pixels).

    The larger a region's weight [r], the thicker its outline. Without `weights` all outlines are equal. With
    `highlighted` [r] the picture is dimmed outside the boxes, and a box keeps more of its colour the closer
    its value is to `most` (by default the largest value). Boxes are numbered from 1, or named by `labels`.
    Raises ValueError if the lengths differ or if `image` is not a picture.
    """
    names = [str(number + 1) for number in range(len(boxes))] if labels is None else list(labels)
    for values in (weights, highlighted, names):
        if values is not None and len(values) != len(boxes):
            raise ValueError(f"{len(boxes)} boxes but {len(values)} weights, highlights or labels")
    pixels = np.asarray(image)
    height, width = pixels.shape[-2:]
    if highlighted is not None:
        pixels = _lit(pixels, boxes, _relative(highlighted, most))
    figure = go.Figure(image_trace(pixels))
    thickness = np.full(len(boxes), 0.5) if weights is None else _relative(weights, most)
    for (x0, y0, x1, y1), strength in zip(boxes, thickness, strict=True):
        # A white line below the dark one is visible on every background.
        for colour, extra in ((PAPER, 2.5), (INK, 0)):
            figure.add_scatter(
                x=[x0, x1, x1, x0, x0],
                y=[y0, y0, y1, y1, y0],
                mode="lines",
                line={"color": colour, "width": 1 + 3 * float(strength) + extra},
                opacity=0.4 + 0.6 * float(strength),
                hoverinfo="skip",
                name="boxes",
                cliponaxis=False,
            )
    above = 84 if title else 20
    fixed = {"visible": False, "constrain": "domain"}
    return finish(
        figure,
        title,
        subtitle,
        height=SIDE * height / max(height, width) + above + 20,
        margin={"l": 10, "r": 10, "t": above, "b": 20},
        showlegend=False,
        dragmode=False,
        hovermode="closest",
        xaxis=fixed | {"range": [0, width], "constraintoward": "left"},
        yaxis=fixed | {"range": [height, 0], "scaleanchor": "x", "constraintoward": "top"},
        annotations=_box_labels(boxes, names, 0.4 + 0.6 * thickness, width, height),
    )


def image_trace(pixels: Any, **settings: Any) -> go.Image:
    """The trace of a picture, uint8 [3, H, W], whose coordinates are its pixels, with their edges."""
    shrunk = max(1.0, max(pixels.shape[1:]) / (2 * SIDE))
    # Boxes measure from the edge of the first pixel, plotly's image traces from its centre.
    place = {"x0": shrunk / 2, "y0": shrunk / 2, "dx": shrunk, "dy": shrunk}
    source = data_uri(pixels, 2 * SIDE)
    return go.Image(source=source, zsmooth="fast", name="picture", hoverinfo="none", **place, **settings)


def _relative(values: Weights, most: float | None) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    most = values.max(initial=0) if most is None else most
    return np.clip(values / most, 0, 1) if most > 0 else np.zeros(len(values))


def _lit(pixels: np.ndarray, boxes: np.ndarray, light: np.ndarray) -> np.ndarray:
    colour = np.full(pixels.shape[1:], DIM)
    for (x0, y0, x1, y1), value in zip(boxes, light, strict=True):
        inside = colour[max(0, int(y0)) : int(np.ceil(y1)), max(0, int(x0)) : int(np.ceil(x1))]
        np.maximum(inside, DIM + (1 - DIM) * value, out=inside)
    return np.asarray(255 - (255 - pixels.astype(np.float64)) * colour).round().astype(np.uint8)


def _box_labels(
    boxes: np.ndarray, names: list[str], opacities: np.ndarray, width: int, height: int
) -> list[dict[str, Any]]:
    """Labels around the outlines, or inside them if there is no room around."""
    if not names:
        return []
    scale = SIDE / max(width, height)
    edges = np.asarray(boxes, dtype=np.float64).reshape(-1, 4) * scale
    candidates = np.array([_around(box, 7.2 * len(name) + 8) for box, name in zip(edges, names, strict=True)])
    corners = free_places(candidates, edges, (width * scale, height * scale)) / scale
    font = {"size": 11.5, "color": PAPER, "weight": 600}
    style = {"showarrow": False, "font": font, "bgcolor": INK, "borderpad": 2}
    return [
        style | {"text": name, "x": (x0 + x1) / 2, "y": (y0 + y1) / 2, "opacity": float(opacity)}
        for name, opacity, (x0, y0, x1, y1) in zip(names, opacities, corners, strict=True)
    ]


def _around(box: np.ndarray, width: float) -> list[tuple[float, float, float, float]]:
    """Candidate rectangles of a label `width` pixels wide, the easiest to read first: at the edges, in the
    corners, then farther away."""
    x0, y0, x1, y1 = box
    across = (x0, x1 - width, (x0 + x1 - width) / 2)
    down = (y0, y1 - LABEL, (y0 + y1 - LABEL) / 2)
    corners = []
    for gap in (3, LABEL + 6, 2 * LABEL + 9):
        corners += [(x, y) for y in (y0 - gap - LABEL, y1 + gap) for x in across]
        corners += [(x, y) for x in (x1 + gap, x0 - gap - width) for y in down]
        if gap == 3:
            corners += [(x, y) for y in (y0 + gap, y1 - gap - LABEL) for x in (x0 + gap, x1 - gap - width)]
    return [(x, y, x + width, y + LABEL) for x, y in corners]
