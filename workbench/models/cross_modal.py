"""The cross-modal teacher of DCLIP: a caption's words and a picture's regions attend to each other, and are
pooled into one embedding of the pair.

Everything is masked: values in the padding, even NaN, change nothing, and the embedding of a pair does not
depend on the rest of the batch (in the released code it does, down to a cosine of 0.62).
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from workbench.models.spherical_clusters import spherical_clusters

EPSILON = 1e-6  # added to a region's weight before its logarithm, because a weight of 0 must not become NaN
ROTARY_BASE = 10_000.0
GRID = 16.0  # positions per side of a picture, so that boxes rotate as far as a few words do


class CrossModalOutput(NamedTuple):
    """The embeddings of pairs, with the attention maps and pooling weights for notebooks."""

    embedding: Float[Tensor, "batch dim"]
    token_to_region: Float[Tensor, "batch heads tokens regions"]
    region_to_token: Float[Tensor, "batch heads regions tokens"]
    token_pooling: Float[Tensor, "batch tokens"]
    region_pooling: Float[Tensor, "batch regions"]


class CrossModalTeacher(nn.Module):
    """Bidirectional cross-attention between tokens T and regions R, both reading the originals, one layer.

    T' = LN(T + MHA(T, R, R)), R' = LN(R + MHA(R, T, T)); each side X is pooled by
    a = softmax(cos(x_n, mean X) / tau), g(X) = sum a_n x_n; Z = 1/2 g(T') + 1/2 g(R') with `target` "mix"
    (the released code), g(R') with "image" (the paper's words). Of dim 512 it has 2,103,296 parameters.

    `interaction` "mean" replaces attention by the mean of the other side, "none" by nothing: the paper's
    ablations. `clusters` above 1: the rows of [T'; R'] (of R' with "image") are clustered on the sphere, each
    cluster is pooled, and Z is the mean of the unit cluster vectors (for ViT-L/14). `rotary` turns queries
    and keys by their place: a token's number, and the centre of a region's box. Raises ValueError for a width
    that the heads, or the rotations, cannot share. DCLIP (arXiv 2505.21549); departures: masks everywhere,
    region weights as a bias (its code has a formula and never calls it).
    """

    def __init__(
        self,
        dim: int,
        heads: int = 8,
        pooling_temperature: float = 2.0,
        *,
        target: str = "mix",
        clusters: int = 1,
        rotary: bool = False,
        interaction: str = "attention",
    ) -> None:
        super().__init__()
        if dim < 1 or heads < 1 or dim % heads:
            raise ValueError(f"a width of {dim} cannot be shared by {heads} heads")
        if rotary and (dim // heads) % 4:
            raise ValueError(f"rotations need heads of a multiple of 4 dimensions, not {dim // heads}")
        if target not in ("mix", "image"):
            raise ValueError(f"target {target!r} is neither 'mix' nor 'image'")
        if interaction not in ("attention", "mean", "none"):
            raise ValueError(f"interaction {interaction!r} is none of 'attention', 'mean', 'none'")
        if clusters < 1 or not pooling_temperature > 0:
            raise ValueError(f"{clusters} clusters and a pooling temperature of {pooling_temperature}")
        self.heads = heads
        self.pooling_temperature = pooling_temperature
        self.target = target
        self.clusters = clusters
        self.rotary = rotary
        self.interaction = interaction
        if interaction == "attention":
            self.token_attention = nn.MultiheadAttention(dim, heads, batch_first=True)
            self.region_attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.token_norm = nn.LayerNorm(dim)
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
        """The pairs' embeddings, of any norm, with every attention map and pooling weight.

        Masks are true at valid entries. `region_weights` (see `region_weights`), zero or more, are added as
        log(weight + 1e-6) to the logits of attention and pooling, so equal weights change nothing.
        `region_boxes` are [x0, y0, x1, y1] in shares of the picture, and only used with `rotary`. Rows of the
        maps sum to 1 over the other side's valid entries. A side without valid entries is skipped: its rows
        and maps are 0, and Z is the other side's. Raises ValueError for rotary attention without boxes.
        """
        tokens = tokens.masked_fill(~token_mask.unsqueeze(-1), 0.0)
        regions = regions.masked_fill(~region_mask.unsqueeze(-1), 0.0)
        token_bias = key_bias(token_mask, None, tokens)
        region_bias = key_bias(region_mask, region_weights, regions)
        turns = None
        if self.rotary:
            if region_boxes is None:
                raise ValueError("rotary attention needs region_boxes")
            turns = self._turns(tokens, region_boxes.masked_fill(~region_mask.unsqueeze(-1), 0.0))
        reverse = turns and (turns[1], turns[0])
        seen, token_to_region = self._interact(tokens, regions, region_bias, "token_attention", turns)
        read, region_to_token = self._interact(regions, tokens, token_bias, "region_attention", reverse)
        tokens, regions = self.token_norm(tokens + seen), self.region_norm(regions + read)
        pool_rows = self._pool_clusters if self.clusters > 1 else self._pool_sides
        embedding, token_pooling, region_pooling = pool_rows(tokens, token_bias, regions, region_bias)
        return CrossModalOutput(embedding, token_to_region, region_to_token, token_pooling, region_pooling)

    def _interact(
        self, queries: Tensor, keys: Tensor, bias: Tensor, name: str, turns: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """The context of the queries, [batch, queries, dim], and the map, [batch, heads, queries, keys]."""
        if self.interaction == "attention":
            return attend(getattr(self, name), queries, keys, bias, turns)
        shape = (len(queries), self.heads, queries.shape[1], keys.shape[1])
        if self.interaction == "none":
            return torch.zeros_like(queries), queries.new_zeros(shape)
        weights = masked_softmax(bias).unsqueeze(1)
        return (weights @ keys).expand_as(queries), weights.unsqueeze(1).expand(shape)

    def _pool_sides(
        self, tokens: Tensor, token_bias: Tensor, regions: Tensor, region_bias: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        words, token_pooling = pool(tokens, token_bias, self.pooling_temperature)
        picture, region_pooling = pool(regions, region_bias, self.pooling_temperature)
        has_words, has_picture = ((bias > -math.inf).any(1, True) for bias in (token_bias, region_bias))
        share = torch.full_like(words[:, :1], 0.5 if self.target == "mix" else 0.0)  # of the words
        share = torch.where(has_words, torch.where(has_picture, share, 1.0), 0.0)
        return share * words + (1 - share) * picture, token_pooling, region_pooling

    def _pool_clusters(
        self, tokens: Tensor, token_bias: Tensor, regions: Tensor, region_bias: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        if self.target == "image":  # words count only if there is no region
            token_bias = token_bias.masked_fill((region_bias > -math.inf).any(1, keepdim=True), -math.inf)
        rows, bias = torch.cat([tokens, regions], 1), torch.cat([token_bias, region_bias], 1)
        membership = spherical_clusters(rows.detach(), bias > -math.inf, self.clusters)
        count = membership.any(2).sum(1, keepdim=True).clamp(min=1)
        embedding, pooling = torch.zeros_like(rows[:, 0]), torch.zeros_like(bias)
        for members in membership.unbind(1):
            vector, weights = pool(rows, bias.masked_fill(~members, -math.inf), self.pooling_temperature)
            embedding = embedding + F.normalize(vector, dim=-1) / count
            pooling = pooling + weights / count
        return embedding, pooling[:, : tokens.shape[1]], pooling[:, tokens.shape[1] :]

    def _turns(self, tokens: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """The rotation angles of the queries and keys of tokens and regions, [batch, entries, head / 2]."""
        half = tokens.shape[2] // self.heads // 2
        rates = ROTARY_BASE ** (-torch.arange(half // 2, device=tokens.device) / (half // 2))
        position = torch.arange(tokens.shape[1], device=tokens.device, dtype=tokens.dtype)
        words = (position[:, None] * rates).repeat(1, 2).expand(len(tokens), -1, -1)
        across = (boxes[..., 0] + boxes[..., 2]) / 2 * GRID
        down = (boxes[..., 1] + boxes[..., 3]) / 2 * GRID
        return words, torch.cat([across[..., None] * rates, down[..., None] * rates], dim=-1)


def pool(
    rows: Float[Tensor, "batch rows dim"], bias: Float[Tensor, "batch rows"], temperature: float
) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch rows"]]:
    """The sum of the rows weighted by softmax(cos(row, mean) / temperature + bias), and these weights.

    Rows with a bias of minus infinity are excluded from the mean and the sum. If all are excluded, both
    results are 0.
    """
    valid = (bias > -math.inf).to(rows.dtype).unsqueeze(-1)
    mean = (rows * valid).sum(1, keepdim=True) / valid.sum(1, keepdim=True).clamp(min=1)
    weights = masked_softmax(F.cosine_similarity(rows, mean, dim=-1) / temperature + bias)
    return (weights.unsqueeze(1) @ rows).squeeze(1), weights


def region_weights(
    confidences: Float[Tensor, "batch regions"],
    areas: Float[Tensor, "batch regions"],
    regions: Float[Tensor, "batch regions dim"],
    region_mask: Bool[Tensor, "batch regions"],
    tokens: Float[Tensor, "batch tokens dim"],
    token_mask: Bool[Tensor, "batch tokens"],
) -> Float[Tensor, "batch regions"]:
    """The weight of each region: confidence x share of the picture x max(0, its best cosine with a token).

    Weights sum to 1 over a picture's valid regions, are equal if all would be 0, and are 0 in the padding.
    `areas` are shares of the picture. This is DCLIP's formula, with shares of the picture in place of areas
    in square pixels, and without negative cosines.
    """
    regions = F.normalize(regions.masked_fill(~region_mask.unsqueeze(-1), 0.0), dim=-1)
    tokens = F.normalize(tokens.masked_fill(~token_mask.unsqueeze(-1), 0.0), dim=-1)
    cosines = (regions @ tokens.transpose(1, 2)).masked_fill(~token_mask.unsqueeze(1), 0.0)
    best = cosines.amax(dim=-1).clamp(min=0.0) if tokens.shape[1] else torch.zeros_like(confidences)
    raw = torch.where(region_mask, confidences * areas * best, 0.0)
    total = raw.sum(dim=1, keepdim=True)
    even = region_mask / region_mask.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.where(total > 0, raw / total.clamp(min=torch.finfo(raw.dtype).tiny), even)


def key_bias(mask: Tensor, weights: Tensor | None, like: Tensor) -> Tensor:
    """The bias of the logits of these keys: minus infinity in the padding, otherwise the log of the weight
    over the mean weight. The balance between regions as a whole and words thus stays as it is without
    weights."""
    bias = torch.zeros_like(like[..., 0])
    if weights is not None:
        raised = (weights + EPSILON).masked_fill(~mask, 0.0)
        mean = raised.sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
        bias = torch.where(mask, raised / mean, 1.0).log()
    return bias.masked_fill(~mask, -math.inf)


def masked_softmax(logits: Tensor) -> Tensor:
    """Softmax over the last axis, all 0 if every logit is minus infinity."""
    nothing = (logits == -math.inf).all(-1, keepdim=True)
    return logits.masked_fill(nothing, 0.0).softmax(-1).masked_fill(nothing, 0.0)


def attend(
    attention: nn.MultiheadAttention,
    queries: Tensor,
    keys: Tensor,
    bias: Tensor,
    turns: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor]:
    """Multi-head attention with a bias per key. The context is 0 if no key is valid.

    Written out because PyTorch's own cannot apply rotations between its projections and its products.
    """
    split = (attention.num_heads, attention.head_dim)
    weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
    query, key, value = (
        F.linear(rows, weight, shift).unflatten(-1, split).transpose(1, 2)
        for rows, weight, shift in zip((queries, keys, keys), weights, biases, strict=True)
    )
    if turns is not None:
        query, key = _turned(query, turns[0]), _turned(key, turns[1])
    scores = query @ key.transpose(2, 3) / math.sqrt(attention.head_dim) + bias[:, None, None]
    maps = masked_softmax(scores)
    context = attention.out_proj((maps @ value).transpose(1, 2).flatten(2))
    return context.masked_fill((bias == -math.inf).all(-1)[:, None, None], 0.0), maps


def _turned(heads: Tensor, angles: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021), which rotates the halves of each head."""
    cos, sin = angles.cos().unsqueeze(1), angles.sin().unsqueeze(1)
    first, second = heads.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
