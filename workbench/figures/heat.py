"""Heat maps over pictures at full resolution, and captions whose words are coloured by their weight."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Num, UInt8
from PIL import Image

from workbench.figures.boxes import SIDE, image_trace
from workbench.figures.style import IMAGE, PALETTE, QUIET, TEXT, finish, heading

WHOLE = (0.0, 0.0, 1.0, 1.0)  # left, top, width and height of a window, as shares of the picture
# The share of its darkness that a picture keeps without heat, and outside the window.
PALE, OUTSIDE = 0.55, 0.2
FOR = "#b5538a"  # words that speak for a match, on light and dark pages
ACROSS = 105  # characters in a line of text as wide as a narrow figure


class Explained(NamedTuple):
    """A picture with a heat map [rows, columns] over `window`, and words with weights, negative ones too."""

    image: Any
    heat: np.ndarray
    window: tuple[float, float, float, float]
    words: Sequence[str]
    weights: np.ndarray
    note: str = ""


def heat_over(
    image: Any,
    heats: Num[np.ndarray, "k rows columns"],
    colours: Sequence[str] = (IMAGE,),
    *,
    window: tuple[float, float, float, float] = WHOLE,
    most: float | None = None,
) -> UInt8[np.ndarray, "3 height width"]:
    """Tint a picture, uint8 [3, H, W] (torch or NumPy), by k heat maps, each in one of k `colours` (#rrggbb).

    Maps are up-sampled bilinearly to the pixels of `window`, the part of the picture that they are of. The
    full colour stands for `most`, by default the largest value, and grey for no heat, which is paler outside
    the window. Where several maps meet, their colours mix by their shares. Raises ValueError if there are not
    as many colours as maps.
    """
    if len(heats) != len(colours):
        raise ValueError(f"heat_over: {len(heats)} heat maps and {len(colours)} colours")
    pixels = np.asarray(image).astype(np.float32) / 255
    height, width = pixels.shape[1:]
    most = float(np.max(heats, initial=0)) if most is None else most
    strength = np.stack([enlarged(heat, (height, width), window) for heat in heats]) / (most or 1.0)
    strength = strength.clip(0, 1)
    light = np.tensordot(np.array([0.299, 0.587, 0.114], dtype=np.float32), pixels, 1)
    tints = np.array([_rgb(colour) for colour in colours], dtype=np.float32)
    tint = np.einsum("khw,kc->chw", strength, tints) / np.maximum(strength.sum(0), 1e-6)
    hot = tint * 0.5 + light * (tint * 0.5 + 0.35)  # keeps the picture's own light and shade
    share = strength.max(0)
    seen = enlarged(np.ones((1, 1)), (height, width), window)
    blend = (1 - share) * (1 - (OUTSIDE + (PALE - OUTSIDE) * seen) * (1 - light)) + share * hot
    return np.asarray((255 * blend.clip(0, 1)).round().astype(np.uint8))


def enlarged(
    heat: Num[np.ndarray, "rows columns"],
    size: tuple[int, int],
    window: tuple[float, float, float, float] = WHOLE,
) -> Num[np.ndarray, "height width"]:
    """A heat map at the `size` (height, width) of a picture of which it covers `window`; 0 elsewhere."""
    height, width = size
    left, top = round(window[0] * width), round(window[1] * height)
    across, down = max(1, round(window[2] * width)), max(1, round(window[3] * height))
    cells = Image.fromarray(np.asarray(heat, dtype=np.float32))
    canvas = Image.new("F", (width, height))
    canvas.paste(cells.resize((across, down), Image.Resampling.BILINEAR), (left, top))
    return np.asarray(canvas)


def word_colour(strength: float, colour: str = TEXT) -> str:
    """The text colour of a word: `colour` at a strength of 1, and grey at 0."""
    share = float(np.clip(strength, 0, 1))
    parts = (1 - share) * np.array(_rgb(QUIET)) + share * np.array(_rgb(colour))
    return "#" + "".join(f"{round(255 * part):02x}" for part in parts)


def coloured_words(words: Sequence[str], weights: Num[np.ndarray, " s"], across: int = ACROSS // 3) -> str:
    """The words as HTML for a plotly annotation, in lines of at most `across` characters.

    The larger a word's weight, relative to the largest, the stronger its colour. Large weights are bold too,
    and words with a negative weight are blue and in italics.
    """
    most = float(np.abs(weights).max(initial=0)) or 1.0
    lines, length = [""], 0
    for word, weight in zip(words, weights, strict=True):
        if length and length + len(word) > across:
            lines, length = [*lines, ""], 0
        length += len(word) + 1
        strength = abs(float(weight)) / most
        colour = word_colour(strength, FOR if weight >= 0 else PALETTE[0])
        text = f'<span style="color:{colour}">{escape(word)}</span>'
        text = f"<b>{text}</b>" if strength > 0.4 else text
        lines[-1] += (f"<i>{text}</i>" if weight < 0 else text) + " "
    return "<br>".join(line.strip() for line in lines)


def explained_pictures(panels: Mapping[str, Explained], *, title: str = "", subtitle: str = "") -> go.Figure:
    """Draw explained pictures side by side, each with its name and note above and its coloured words below.

    Each heat map is drawn relative to its own largest value, because relevance has no unit that models share.
    Raises ValueError if there are no panels.
    """
    if not panels:
        raise ValueError("explained_pictures: no panels; give at least one")
    figure, count = go.Figure(), len(panels)
    tallest = max(np.shape(panel.image)[1] / max(np.shape(panel.image)[1:]) for panel in panels.values())
    texts = [coloured_words(panel.words, panel.weights, ACROSS // count) for panel in panels.values()]
    lines = 1 + max(text.count("<br>") for text in texts)
    top, bottom, high = 132, 24 + 19 * lines, SIDE * tallest
    axes: dict[str, Any] = {}
    notes = []
    for number, (name, panel) in enumerate(panels.items()):
        pixels = heat_over(panel.image, panel.heat[None], window=panel.window)
        height, width = pixels.shape[1:]
        end = "" if number == 0 else str(number + 1)
        figure.add_trace(image_trace(pixels, xaxis=f"x{end}", yaxis=f"y{end}"))
        domain = [number / count, (number + 0.96) / count]
        fixed = {"visible": False, "constrain": "domain"}
        across = {"range": [0, width], "domain": domain, "anchor": f"y{end}", "constraintoward": "left"}
        down = {"range": [height, 0], "scaleanchor": f"x{end}", "anchor": f"x{end}", "constraintoward": "top"}
        axes |= {f"xaxis{end}": fixed | across, f"yaxis{end}": fixed | down}
        note = f'<br><span style="color:{QUIET};font-size:11px">{escape(panel.note)}</span>'
        notes.append(heading(escape(name) + note, domain[0], 1, 4))
        # Below the picture, which is smaller than its panel where the figure is narrow.
        words = heading(texts[number], 0, height, -6)
        notes.append(words | {"yanchor": "top", "xref": f"x{end}", "yref": f"y{end}"})
    height = high + top + bottom
    return finish(
        figure, title, subtitle, y=1 - 26 / height, height=height,
        margin={"l": 10, "r": 10, "t": top, "b": bottom}, dragmode=False, annotations=notes, **axes,
    )  # fmt: skip


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
