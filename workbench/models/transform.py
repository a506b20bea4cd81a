"""Pictures prepared for a tower: a plain view or a given crop, resized, still uint8."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

Crop = tuple[float, float, float, float]  # left, top, width, height as shares of the picture


@dataclass(frozen=True)
class ImageTransform:
    """A tower's own view of a picture, as its open_clip preprocessing configuration has it.

    `size` is (height, width) in pixels; `resize_mode` is open_clip's: "shortest" (then centre crop),
    "longest" (then pad with `fill_color`) or "squash". Called with uint8 [3, H, W], returns uint8 [3, height,
    width]. A `crop` is cut out first and then squashed to the size, as a random resized crop does. Equal to
    open_clip's PIL pipeline within one grey level.
    """

    size: tuple[int, int]
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    fill_color: int = 0

    @classmethod
    def from_preprocess(cls, config: dict[str, Any]) -> "ImageTransform":
        """The transform that an open_clip `preprocess_cfg` describes."""
        size = config["size"]
        height, width = (size, size) if isinstance(size, int) else size
        names = ("interpolation", "resize_mode", "fill_color")
        return cls((int(height), int(width)), *(config[name] for name in names))

    def __call__(self, image: torch.Tensor, crop: Crop | None = None) -> torch.Tensor:
        _, height, width = image.shape
        if crop is not None:
            left, top = round(crop[0] * width), round(crop[1] * height)
            across, down = max(1, round(crop[2] * width)), max(1, round(crop[3] * height))
            part = image[:, top : top + down, left : left + across]
            # Copied with the channels of a pixel together, which resizing is fastest on, and which it keeps.
            return self._resize(part.permute(1, 2, 0).contiguous().permute(2, 0, 1), self.size)
        if self.resize_mode == "squash":
            return self._resize(image, self.size)
        ratio = self._ratio(height, width)
        # For a square view open_clip takes torchvision's Resize, which cuts the longer side's fraction off.
        whole = int if self.resize_mode == "shortest" and self.size[0] == self.size[1] else round
        short = min(height, width)
        sides = [
            self.size[0] if side == short and whole is int else max(1, whole(side * ratio))
            for side in (height, width)
        ]
        image = self._resize(image, (sides[0], sides[1]))
        if self.resize_mode == "longest":
            down, across = self.size[0] - image.shape[1], self.size[1] - image.shape[2]
            padding = [across // 2, down // 2, across - across // 2, down - down // 2]
            return F.pad(image, padding, fill=float(self.fill_color))
        return F.center_crop(image, list(self.size))

    def visible(self, height: int, width: int) -> Crop:
        """The part of a picture of this size that the plain view shows; larger than it where it is padded."""
        if self.resize_mode == "squash":
            return 0.0, 0.0, 1.0, 1.0
        ratio = self._ratio(height, width)
        across, down = self.size[1] / (width * ratio), self.size[0] / (height * ratio)
        return (1 - across) / 2, (1 - down) / 2, across, down

    def _ratio(self, height: int, width: int) -> float:
        ratios = (self.size[0] / height, self.size[1] / width)
        return min(ratios) if self.resize_mode == "longest" else max(ratios)

    def _resize(self, image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        if tuple(image.shape[1:]) == size:
            return image
        mode = InterpolationMode.BILINEAR if self.interpolation == "bilinear" else InterpolationMode.BICUBIC
        return F.resize(image, list(size), interpolation=mode, antialias=True)


def random_crop(seed: int, epoch: int, index: int, scale: tuple[float, float]) -> Crop | None:
    """The crop of picture `index` in `epoch`: area share in `scale`, aspect within 3:4 and 4:3, anywhere in
    the picture.

    A pure function of its arguments, in shares of the picture, so that a teacher and a student of other
    resolutions see the same view. None (the plain view) when `scale` is (1, 1).
    """
    if tuple(scale) == (1.0, 1.0):
        return None
    draw = np.random.Generator(np.random.Philox(key=[seed, (epoch << 40) + index]))
    for _ in range(10):
        area = draw.uniform(*scale)
        aspect = np.exp(draw.uniform(np.log(3 / 4), np.log(4 / 3)))
        width, height = np.sqrt(area * aspect), np.sqrt(area / aspect)
        if width <= 1 and height <= 1:
            break
    else:  # A share near 1 leaves no room for another aspect: keep the picture's own, as torchvision does.
        width = height = np.sqrt(area)
    return (draw.uniform(0, 1 - width), draw.uniform(0, 1 - height), float(width), float(height))


def normalised(
    images: UInt8[Tensor, "batch 3 height width"],
    mean: Float[Tensor, "1 3 1 1"],
    std: Float[Tensor, "1 3 1 1"],
) -> Float[Tensor, "batch 3 height width"]:
    """Pictures as shares of 255 less the mean, in standard deviations; in memory a pixel's channels together.

    In rows of pixels and in place, since a copy of a batch costs more than the arithmetic.
    """
    rows = images.permute(0, 2, 3, 1).flatten(2)
    means, deviations = (values.flatten().repeat(images.shape[3]) for values in (mean, std))
    pixels = rows.to(mean.dtype, copy=True).div_(255).sub_(means).div_(deviations)
    return pixels.unflatten(2, (images.shape[3], 3)).permute(0, 3, 1, 2)
