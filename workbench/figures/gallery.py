"""A grid of pictures with captions as HTML, for search results, datasets and reports. Needs no plotly."""

import base64
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape, unescape
from typing import Any

import numpy as np
from PIL import Image

from workbench.figures.style import FAINT, FONT, LINE, PALETTE, on_page

THUMBNAIL = 160  # pixels, the longer side


@dataclass(frozen=True)
class Picture:
    """A picture with its captions and, for search results, its cosine with the query.

    `image` is uint8 [3, H, W] (torch or NumPy) or [H, W, 3], or a PIL image. `marked` says whether it is a
    picture that the query asks for: a frame and a tick for True, a cross for False, nothing for None. `note`
    is shown below the captions in small type.
    """

    image: Any
    captions: Sequence[str] = ()
    cosine: float | None = None
    note: str = ""
    marked: bool | None = None


class Gallery(str):
    """HTML that a notebook renders instead of printing it. Its text alternative are the words in it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return " ".join(unescape(re.sub(r"<[^>]*>", " ", self)).split())

    def _repr_html_(self) -> str:
        return str(self)


def gallery(pictures: Iterable[Picture], title: str = "", size: int = THUMBNAIL) -> Gallery:
    """Arrange pictures in a grid as wide as the page, as one string of HTML with embedded thumbnails.

    `size` is the width of a cell in pixels. Captions are escaped, and are the alternative texts too. Styles
    are inline because notebooks drop the style sheets of untrusted outputs.
    """
    cards = "".join(
        _card(picture, size, f"{title or 'picture'}, {number}")
        for number, picture in enumerate(pictures, start=1)
    )
    heading = _div(escape(title), "font-weight:600;font-size:14px;margin:2px 0 8px 2px") if title else ""
    inside = _div(cards) if cards else _div(_div("no pictures", f"color:{FAINT}"))
    return Gallery(_div(heading + inside, f"font-family:{escape(FONT)};padding:6px"))


def _div(content: str, style: str = "") -> str:
    return f'<div style="{style}">{content}</div>' if style else f"<div>{content}</div>"


def _card(picture: Picture, size: int, name: str) -> str:
    # A shadow takes no room, so that cells are equally wide.
    frame = f";box-shadow:0 0 0 3px {PALETTE[2]}" if picture.marked else ""
    style = f"display:block;width:{size}px;height:{size}px;object-fit:contain;border-radius:4px"
    source = data_uri(picture.image, 3 * size // 2)
    text = "".join(_div(escape(caption), "margin-bottom:4px") for caption in picture.captions)
    if picture.marked is not None:
        # Of the picture, not of where it was ranked: a right picture may be far down.
        verdict = "✓ right image" if picture.marked else "✗ wrong image"
        colour = PALETTE[2] if picture.marked else PALETTE[1]
        text = _div(verdict, f"font-weight:600;color:{on_page(colour)}") + text
    if picture.cosine is not None:
        text = _div(f"cosine {picture.cosine:.3f}", "font-variant-numeric:tabular-nums") + text
    if picture.note:
        text += _div(escape(picture.note), f"color:{FAINT};font-size:11px")
    words = escape(" / ".join(picture.captions) or name)
    return _div(
        f'<img src="{source}" alt="{words}" width="{size}" style="{style}">{_div(text, "margin-top:5px")}',
        f"display:inline-block;vertical-align:top;width:{size}px;margin:0 8px 12px 0;padding:5px;"
        f"border:1px solid {LINE};border-radius:6px;font-size:12px;line-height:1.35;"
        f"overflow-wrap:break-word{frame}",
    )


def data_uri(image: Any, longest: int = THUMBNAIL) -> str:
    """Encode a picture as a PNG in a `data:` URI, at most `longest` pixels on its longer side."""
    picture = _as_pil(image)
    picture.thumbnail((longest, longest))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _as_pil(image: Any) -> Image.Image:
    if isinstance(image, Image.Image):
        return image.convert("RGB")  # a copy, because `thumbnail` works in place
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or 3 not in (pixels.shape[0], pixels.shape[2]):
        kind = f"{pixels.dtype} {pixels.shape}"
        raise ValueError(f"gallery: expects uint8 pixels [3, H, W] or [H, W, 3], got {kind}")
    if pixels.shape[2] != 3:
        pixels = pixels.transpose(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(pixels))
