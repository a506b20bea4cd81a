"""Masked images: a tower sees some patches of a picture, drawn from (seed, epoch, row)."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from workbench.models.dual_encoder import DualEncoder

BLOCK = 16  # pixels: side of a masked block for towers that are no plain vision transformers


def patch_grid(model: DualEncoder) -> tuple[int, int]:
    """Rows and columns of patches that a masked image is cut into: the tower's own, else of 16 pixels."""
    patches = PlainTransformer.of(model.clip.visual)
    if patches is not None:
        return patches.grid
    height, width = model.transform.size
    return math.ceil(height / BLOCK), math.ceil(width / BLOCK)


def kept_patches(
    seed: int, epoch: int, rows: Sequence[int] | np.ndarray, patches: int, ratio: float
) -> Int[Tensor, "batch kept"]:
    """Which patches each picture keeps when a share `ratio` of them is hidden, in ascending order.

    A pure function of (seed, epoch, row): neither the batch nor the number of processes changes it. At least
    one patch stays. CLIP-KD's release keeps int(patches * (1 - ratio)) of them, as here.
    """
    count = max(1, int(patches * (1 - ratio) + 1e-9))
    kept = np.empty((len(rows), count), dtype=np.int64)
    for place, row in enumerate(rows):
        # A counter of its own keeps it apart from the crop's numbers, drawn from the same key.
        bits = np.random.Philox(key=[seed, (epoch << 40) + int(row)], counter=[0, 0, 0, 1])
        kept[place] = np.sort(np.random.Generator(bits).permutation(patches)[:count])
    return torch.from_numpy(kept)


def encode_masked_image(
    model: DualEncoder, images: UInt8[Tensor, "batch 3 height width"], kept: Int[Tensor, "batch kept"]
) -> Float[Tensor, "batch dim"]:
    """Embeddings, of any norm, of pictures of which only the patches `kept` are seen.

    Plain vision transformers (open_clip's and timm's) drop the others after the position embedding, class
    token kept, and save their time. Any other tower is shown the mean colour in their place, in blocks of 16
    pixels. With all patches kept this is `encode_image`. CLIP-KD (arXiv 2307.12732), eq. 12, whose code masks
    and then overwrites the masked features.
    """
    plain = PlainTransformer.of(model.clip.visual)
    if plain is not None:
        with plain.seeing(kept):
            return model.encode_image(images)
    return model.encode_image(images, _seen(model, images, kept))


def masked_pictures(
    model: DualEncoder, images: UInt8[Tensor, "batch 3 height width"], kept: Int[Tensor, "batch kept"]
) -> UInt8[Tensor, "batch 3 height width"]:
    """The pictures with everything but the patches `kept` in the model's mean colour, to look at."""
    mean = (255 * model.mean).round().to(images.dtype)
    return torch.where(_seen(model, images, kept), images, mean.to(images.device))


def _seen(model: DualEncoder, images: Tensor, kept: Tensor) -> Bool[Tensor, "batch 1 height width"]:
    """Which pixels lie in the patches that are kept."""
    rows, columns = patch_grid(model)
    seen = torch.zeros(len(kept), rows * columns, device=images.device, dtype=torch.bool)
    seen.scatter_(1, kept.to(images.device), True)
    height, width = images.shape[2:]
    plain = PlainTransformer.of(model.clip.visual) is not None
    side = (height // rows, width // columns) if plain else (BLOCK, BLOCK)
    seen = seen.view(-1, 1, rows, columns).repeat_interleave(side[0], 2).repeat_interleave(side[1], 3)
    return seen[:, :, :height, :width]


class PlainTransformer(NamedTuple):
    """The layer that a plain vision transformer's tokens pass once they carry their positions."""

    layer: nn.Module
    grid: tuple[int, int]
    first: int  # how many tokens come before the patches

    @classmethod
    def of(cls, visual: Any) -> "PlainTransformer | None":
        from open_clip.transformer import VisionTransformer as Native
        from timm.models.vision_transformer import VisionTransformer as Timm

        if type(visual) is Native:
            return cls(visual.ln_pre, tuple(visual.grid_size), 1)
        trunk = getattr(visual, "trunk", None)
        if type(trunk) is Timm:
            return cls(trunk.norm_pre, tuple(trunk.patch_embed.grid_size), trunk.num_prefix_tokens)
        return None

    @contextlib.contextmanager
    def seeing(self, kept: Tensor) -> Iterator[None]:
        def drop(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
            tokens = inputs[0]
            patches = tokens[:, self.first :]
            index = kept.to(tokens.device).unsqueeze(-1).expand(-1, -1, tokens.shape[-1])
            return (torch.cat([tokens[:, : self.first], patches.gather(1, index)], dim=1),)

        with self.layer.register_forward_pre_hook(drop):
            yield
