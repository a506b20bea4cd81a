"""Prepares pictures for a tower: the plain view or a given crop, resized, still uint8."""

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
    """A tower's own view of a picture, as described by its open_clip preprocessing configuration.

    `size` is (height, width) in pixels. `resize_mode` is open_clip's: "shortest" (then centre crop),
    "longest" (then padding with `fill_color`) or "squash". The transform maps uint8 [3, H, W] to uint8 [3,
    height, width]. A `crop` is cut out and squashed to the size, like a random resized crop. The result
    equals that of open_clip's PIL pipeline within one grey level.
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
            # Resizing is fastest in the memory format channels_last, which it preserves.
            return self._resize(part.permute(1, 2, 0).contiguous().permute(2, 0, 1), self.size)
        if self.resize_mode == "squash":
            return self._resize(image, self.size)
        ratio = self._ratio(height, width)
        # For a square view open_clip uses torchvision's Resize, which truncates the longer side.
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
        """The part of a picture of this size in the plain view. It exceeds the picture where it is padded."""
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
    """The random crop of picture `index` in `epoch`, with an area share in `scale` and an aspect ratio
    between 3:4 and 4:3.

    It is a pure function of its arguments. It is measured in shares of the picture, so that teacher and
    student see the same view at different resolutions. None (the plain view) if `scale` is (1, 1).
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
    else:  # A share near 1 leaves no room for another aspect ratio. Keep the picture's own, like torchvision.
        width = height = np.sqrt(area)
    return (draw.uniform(0, 1 - width), draw.uniform(0, 1 - height), float(width), float(height))


def normalised(
    images: UInt8[Tensor, "batch 3 height width"],
    mean: Float[Tensor, "1 3 1 1"],
    std: Float[Tensor, "1 3 1 1"],
) -> Float[Tensor, "batch 3 height width"]:
    """Standardise pictures by mean and standard deviation of values in [0, 1]. The memory format is
    channels_last.

    Works in place on rows of pixels, because a copy of a batch costs more than the arithmetic.
    """
    rows = images.permute(0, 2, 3, 1).flatten(2)
    means, deviations = (values.flatten().repeat(images.shape[3]) for values in (mean, std))
    pixels = rows.to(mean.dtype, copy=True).div_(255).sub_(means).div_(deviations)
    return pixels.unflatten(2, (images.shape[3], 3)).permute(0, 3, 1, 2)
