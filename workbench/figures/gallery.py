"""Pictures with captions as a grid of HTML: for search results, scenes and reports; needs no plotly."""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from workbench.figures.style import FONT, GRID, INK, PALETTE, QUIET

THUMBNAIL = 160  # pixels, the longer side


@dataclass(frozen=True)
class Picture:
    """A picture with its captions and, for search results, its score.

    `image` is uint8 [3, H, W] (torch or NumPy) or [H, W, 3], or a PIL image. `marked` puts a frame around it
    (a right answer); `note` stands below the captions in small letters.
    """

    image: Any
    captions: Sequence[str] = ()
    score: float | None = None
    note: str = ""
    marked: bool = False


class Gallery(str):
    """HTML that a notebook shows as what it is, not as text."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return str(self)


def gallery(pictures: Iterable[Picture], title: str = "", size: int = THUMBNAIL) -> Gallery:
    """The pictures side by side in as many columns as the page is wide, thumbnails and all in one piece of
    HTML.

    `size` is the width of a picture's place in pixels. Captions are shown as the text they are, whatever they
    hold. The styles stand in the elements, since notebooks drop style sheets of outputs they do not trust.
    """
    cards = [_card(picture, size) for picture in pictures]
    heading = (
        f'<div style="font-weight:600;font-size:14px;margin:2px 0 8px 2px">{escape(title)}</div>'
        if title
        else ""
    )
    inside = "".join(cards) or f'<div style="color:{QUIET}">no pictures</div>'
    return Gallery(
        f'<div style="font-family:{escape(FONT)};color:{INK};background:#fff;padding:6px">{heading}<div>{inside}</div></div>'
    )


def _card(picture: Picture, size: int) -> str:
    frame = f"3px solid {PALETTE[2]}" if picture.marked else f"1px solid {GRID}"
    image = (
        f'<img src="{data_uri(picture.image, 3 * size // 2)}" alt="" width="{size}" '
        f'style="display:block;width:{size}px;height:{size}px;object-fit:contain;border-radius:4px">'
    )
    lines = []
    if picture.score is not None:
        lines.append(
            f'<div style="font-weight:600;font-variant-numeric:tabular-nums">{picture.score:.3f}</div>'
        )
    lines += [f"<div>{escape(caption)}</div>" for caption in picture.captions]
    if picture.note:
        lines.append(f'<div style="color:{QUIET};font-size:11px">{escape(picture.note)}</div>')
    return (
        f'<div style="display:inline-block;vertical-align:top;width:{size}px;margin:0 8px 12px 0;padding:5px;border:{frame};'
        f'border-radius:6px;font-size:12px;line-height:1.35;overflow-wrap:break-word;background:#fff">{image}'
        f'<div style="margin-top:5px">{"".join(lines)}</div></div>'
    )


def data_uri(image: Any, longest: int = THUMBNAIL) -> str:
    """The picture as a PNG in a `data:` address, at most `longest` pixels on its longer side."""
    picture = _as_pil(image)
    picture.thumbnail((longest, longest))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _as_pil(image: Any) -> Image.Image:
    if isinstance(image, Image.Image):
        return image.convert("RGB")  # a copy, so that `thumbnail` leaves the caller's alone
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or 3 not in (pixels.shape[0], pixels.shape[2]):
        raise ValueError(
            f"gallery: wants uint8 pixels [3, H, W] or [H, W, 3], got {pixels.dtype} {pixels.shape}"
        )
    if pixels.shape[2] != 3:
        pixels = pixels.transpose(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(pixels))
