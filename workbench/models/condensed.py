"""The condensed teacher: learned queries compress the teacher's regions before a student learns from them.

A student that is much smaller than its teacher cannot follow it everywhere (the capacity gap of CLIP-KD and
DCLIP). Here the teacher is first condensed to what its captions need.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from workbench.models.cross_modal import CrossModalOutput, attend, key_bias


class CondensedTeacher(nn.Module):
    """A few learned queries q attend to the unit vectors of regions R, and each becomes
    c_q = sum_r a_qr r + MHA(q, LN(R), LN(R)).

    a_qr is the mean of the heads' attention. The embedding is the mean of the unit vectors c_q. The output
    projection of the attention starts at 0, so that each c_q starts as a mean of the teacher's own regions.
    No word is read: captions only say, in the loss, what has to be kept. For dim 512 and 4 queries it has
    1,053,696 parameters. Learned queries that read a long input are those of Perceiver (Jaegle et al., ICML
    2021). Raises ValueError for a width that the heads do not divide.
    """

    def __init__(self, dim: int, heads: int = 8, queries: int = 4) -> None:
        super().__init__()
        if dim < 1 or heads < 1 or dim % heads:
            raise ValueError(f"a width of {dim} cannot be shared by {heads} heads")
        if queries < 1:
            raise ValueError(f"{queries} queries")
        self.queries = nn.Parameter(torch.randn(queries, dim))
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        nn.init.zeros_(self.attention.out_proj.weight)
        self.region_norm = nn.LayerNorm(dim)

    def forward(
        self,
        tokens: Float[Tensor, "batch tokens dim"],
        token_mask: Bool[Tensor, "batch tokens"],
        regions: Float[Tensor, "batch regions dim"],
        region_mask: Bool[Tensor, "batch regions"],
        region_weights: Float[Tensor, "batch regions"] | None = None,
        region_boxes: Float[Tensor, "batch regions 4"] | None = None,
    ) -> CrossModalOutput:
        """The pictures' embeddings. Arguments and outputs are those of `CrossModalTeacher`.

        Words and boxes are not read, so the maps between words and regions are 0 and `region_pooling` is the
        mean attention of the queries. Everything is 0 for a picture without regions. Raises ValueError for
        region weights, which depend on words.
        """
        if region_weights is not None:
            raise ValueError("the condensed teacher takes no region weights")
        regions = F.normalize(regions.masked_fill(~region_mask.unsqueeze(-1), 0.0), dim=-1)
        bias = key_bias(region_mask, None, regions)
        queries = self.queries.expand(len(regions), -1, -1)
        wide = math.sqrt(regions.shape[-1])
        change, maps = attend(self.attention, queries, self.region_norm(wide * regions), bias, None)
        weights = maps.mean(1)
        condensed = F.normalize(weights @ regions + change / wide, dim=-1)
        between = regions.new_zeros(len(regions), 1, tokens.shape[1], regions.shape[1])
        return CrossModalOutput(
            condensed.mean(1),
            between,
            between.transpose(2, 3),
            torch.zeros_like(token_mask, dtype=regions.dtype),
            weights.mean(1),
        )
