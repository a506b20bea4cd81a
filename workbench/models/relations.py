"""Relations in a two-tower model: which thing lies where, in embeddings that picture and caption have apart.

The grounded teacher adds, for each word, the product of the direction in which its thing should lie and the
position of the region that it attends to. With the cosine of word and region in the place of the attention,
that sum is a dot product of two embeddings, one of the picture and one of the caption. They are the tensor
products of things and places (Smolensky 1990, Artificial Intelligence 46).
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from workbench.errors import SettingError, reason
from workbench.models.grounded import PLACE, GroundedTeacher

CONFIG_KEY = "relations"  # of `model_cfg`; open_clip refuses a configuration with it
AXES = 2  # right and down
PARTS = 1 + AXES  # of an embedding: what there is, how far right it lies, how far down
# The teacher divides by PLACE. Cosines are smaller than attention, so that both sides are enlarged; chosen on
# the validation split of the embedded dataset.
STRENGTH = 2.5 * PLACE**-0.5


class Relations(nn.Module):
    """The parts of the embeddings that say where things lie; each is as wide as the model's own embedding.

    A caption's are those of `words`, a grounded teacher, which does not learn. A picture's are learned: a
    linear map `things` of the tower's last feature map, times the places, summed over the places.
    """

    def __init__(self, dim: int, channels: int, heads: int = 8) -> None:
        super().__init__()
        self.words = GroundedTeacher(dim, heads).requires_grad_(False)
        self.things = nn.Conv2d(channels, dim, 1)

    def join_image(
        self, embedding: Float[Tensor, "batch dim"], maps: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch joined"]:
        """The picture's unit embedding, and what its feature map says of right and down."""
        things = self.things(maps)
        parts = torch.einsum("bdhw,ahw->bad", things, places(things)) / maps.shape[2:].numel() ** 0.5
        return joined(embedding, parts)

    def join_text(
        self,
        embedding: Float[Tensor, "batch dim"],
        tokens: Float[Tensor, "batch tokens dim"],
        mask: Bool[Tensor, "batch tokens"],
    ) -> Float[Tensor, "batch joined"]:
        """The caption's unit embedding, and what its words say of right and down."""
        return joined(embedding, caption_relations(self.words, tokens, mask))


def joined(
    embedding: Float[Tensor, "batch dim"], parts: Float[Tensor, "batch axes dim"]
) -> Float[Tensor, "batch joined"]:
    """Unit embeddings and relations side by side. Their dot product is the cosine of the embeddings plus the
    teacher's score of directions and positions."""
    unit = F.normalize(embedding, dim=-1)
    return torch.cat([unit, STRENGTH * parts.flatten(1).to(unit.dtype)], dim=-1)


def places(maps: Float[Tensor, "batch dim height width"]) -> Float[Tensor, "axes height width"]:
    """How far right and how far down the centres of a map's places lie, from -1 to 1."""
    middles = [2 * torch.arange(side, device=maps.device, dtype=maps.dtype) + 1 for side in maps.shape[2:]]
    down, right = (middle / len(middle) - 1 for middle in middles)
    return torch.stack(torch.meshgrid(right, down, indexing="xy"))


def caption_relations(
    teacher: GroundedTeacher, tokens: Float[Tensor, "batch tokens dim"], mask: Bool[Tensor, "batch tokens"]
) -> Float[Tensor, "batch axes dim"]:
    """sum_w s_w d_w q_w: what each word names, times the direction in which it should lie."""
    queries, salience, directions = teacher.read(tokens, mask)
    return torch.einsum("bs,bsa,bsd->bad", salience, directions[..., :AXES], queries)


def picture_relations(
    teacher: GroundedTeacher,
    regions: Float[Tensor, "batch regions dim"],
    mask: Bool[Tensor, "batch regions"],
    boxes: Float[Tensor, "batch regions 4"],
) -> Float[Tensor, "batch axes dim"]:
    """sum_r p_r k_r: what each region shows, times the position of its centre, from -1 to 1."""
    seen = teacher.see(regions, mask, boxes)
    return torch.einsum("br,bra,brd->bad", mask.to(regions.dtype), seen.places[..., :AXES], seen.keys)


def add_relations(clip: Any, setting: str) -> None:
    """Give an open_clip model untrained `relations` for its width and for the last map of its image tower.

    Raises SettingError, naming `setting`, for a tower whose last map is not what its embedding is made of.
    """
    size = clip.visual.image_size
    pixels = torch.zeros(1, 3, *(size if isinstance(size, tuple) else (size, size)))
    try:
        with torch.no_grad():
            embedding, maps = last_map(clip.visual.eval(), pixels)
            if not torch.allclose(embedding, clip.encode_image(pixels), atol=1e-4):
                raise ValueError("the map leads to another embedding")
            clip.relations = Relations(embedding.shape[1], maps.shape[1])
    except (RuntimeError, ValueError, IndexError, AttributeError) as error:
        problem = f"this image tower does not give its last map ({reason(error)})"
        remedy = "Use demo_teacher, or a vision transformer, whose width 8 divides."
        raise SettingError(setting, True, problem, remedy) from None


def last_map(visual: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The embedding that an image tower of open_clip makes of pictures, and its last feature map."""
    seen = visual.forward_intermediates(pixels, indices=1, output_fmt="NCHW")
    return seen["image_features"], seen["image_intermediates"][-1]
