"""Masks images: a tower sees only some patches of each picture, chosen by (seed, epoch, row)."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from workbench.models.dual_encoder import DualEncoder
from workbench.models.rotary import is_rotary

BLOCK = 16  # side in pixels of a masked block, for towers other than plain vision transformers


def patch_grid(model: DualEncoder) -> tuple[int, int]:
    """Rows and columns of patches that a masked image is divided into: the tower's own, or 16 pixels wide."""
    patches = PlainTransformer.of(model.clip.visual)
    if patches is not None:
        return patches.grid
    height, width = model.transform.size
    return math.ceil(height / BLOCK), math.ceil(width / BLOCK)


def kept_patches(
    seed: int, epoch: int, rows: Sequence[int] | np.ndarray, patches: int, ratio: float
) -> Int[Tensor, "batch kept"]:
    """The patches that each picture keeps if the share `ratio` is masked, in ascending order.

    They are a pure function of (seed, epoch, row), whatever the batch and the number of processes. At least
    one patch stays. As in CLIP-KD's release, int(patches * (1 - ratio)) are kept.
    """
    count = max(1, int(patches * (1 - ratio) + 1e-9))
    kept = np.empty((len(rows), count), dtype=np.int64)
    for place, row in enumerate(rows):
        # The crop is drawn from the same key. Another counter makes the two independent.
        bits = np.random.Philox(key=[seed, (epoch << 40) + int(row)], counter=[0, 0, 0, 1])
        kept[place] = np.sort(np.random.Generator(bits).permutation(patches)[:count])
    return torch.from_numpy(kept)


def encode_masked_image(
    model: DualEncoder, images: UInt8[Tensor, "batch 3 height width"], kept: Int[Tensor, "batch kept"]
) -> Float[Tensor, "batch dim"]:
    """Embeddings, of any norm, of pictures of which the tower sees only the patches `kept`.

    Plain vision transformers (open_clip's and timm's) drop the other patches after the position embedding,
    which saves time. The class token stays. Other towers see the mean colour in the masked blocks of 16
    pixels. If all patches are kept, this is `encode_image`. Source: CLIP-KD (arXiv 2307.12732), eq. 12. Its
    code masks and then overwrites the masked features.
    """
    plain = PlainTransformer.of(model.clip.visual)
    if plain is not None and not is_rotary(model.clip.visual):  # whose places would move up
        with plain.seeing(kept):
            return model.encode_image(images)
    return model.encode_image(images, _seen(model, images, kept))


def masked_pictures(
    model: DualEncoder, images: UInt8[Tensor, "batch 3 height width"], kept: Int[Tensor, "batch kept"]
) -> UInt8[Tensor, "batch 3 height width"]:
    """The pictures for display, with every patch except `kept` in the model's mean colour."""
    mean = (255 * model.mean).round().to(images.dtype)
    return torch.where(_seen(model, images, kept), images, mean.to(images.device))


def _seen(model: DualEncoder, images: Tensor, kept: Tensor) -> Bool[Tensor, "batch 1 height width"]:
    """True for pixels in kept patches."""
    rows, columns = patch_grid(model)
    seen = torch.zeros(len(kept), rows * columns, device=images.device, dtype=torch.bool)
    seen.scatter_(1, kept.to(images.device), True)
    height, width = images.shape[2:]
    plain = PlainTransformer.of(model.clip.visual) is not None
    side = (height // rows, width // columns) if plain else (BLOCK, BLOCK)
    seen = seen.view(-1, 1, rows, columns).repeat_interleave(side[0], 2).repeat_interleave(side[1], 3)
    return seen[:, :, :height, :width]


class PlainTransformer(NamedTuple):
    """The layer of a plain vision transformer that follows the position embedding."""

    layer: nn.Module
    grid: tuple[int, int]
    first: int  # the number of tokens before the patches

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
