"""The grounded cross-modal teacher: words choose regions, and only regions are pooled.

The published teacher (`cross_modal.py`) can match a caption with itself. Here no word's value reaches the
embedding of the pair: words determine the weights of regions only. With another picture's regions, nothing is
left to match.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from workbench.models.cross_modal import attend, key_bias, masked_softmax

RANK = 32  # of the learned change of the frozen towers' embeddings
NARROW, WIDE = 16, 64  # widths of the word encoder. A wider one memorises the training captions
FREQUENCIES = 2  # of the sine embedding of a box
PLACE = 4 * (1 + 2 * FREQUENCIES)  # numbers that describe a box
READERS = 4  # heads of the word encoder
LONGEST_WAVE = 100.0  # words
COMMON = 0.7  # share of a caption's mean word that is subtracted from each word


class GroundedOutput(NamedTuple):
    """The fields of a `CrossModalOutput`, with one head, and the `agreement`, which is added to the cosine of
    embedding and caption when pictures and captions are matched."""

    embedding: Float[Tensor, "batch dim"]
    token_to_region: Float[Tensor, "batch heads tokens regions"]
    region_to_token: Float[Tensor, "batch heads regions tokens"]
    token_pooling: Float[Tensor, "batch tokens"]
    region_pooling: Float[Tensor, "batch regions"]
    agreement: Float[Tensor, " batch"]


class _Words(NamedTuple):
    queries: Float[Tensor, "#pictures captions tokens dim"]  # unit vectors
    salience: Float[Tensor, "#pictures captions tokens"]  # weights in the pooling, which sum to 1
    directions: Float[Tensor, "#pictures captions tokens place"]  # the expected position of a word's object


class SeenRegions(NamedTuple):
    """Regions as `GroundedTeacher.see` describes them. A place is a box's centre (x, y) and size, from -1 to
    1, with their sines and cosines."""

    keys: Float[Tensor, "pictures regions dim"]  # unit vectors
    values: Float[Tensor, "pictures regions dim"]
    places: Float[Tensor, "pictures regions place"]
    bias: Float[Tensor, "pictures regions"]  # minus infinity in the padding


class GroundedTeacher(nn.Module):
    """Text-conditioned pooling of regions, with a score for each word at the regions that it attends to.

    A word w, minus 0.7 times its caption's mean word, attends to regions r by cosine similarity with a
    learned temperature: a_wr. Z = sum_w s_w sum_r a_wr v_r. The salience s_w is computed from the words in
    order. The values v_r come from one layer of attention among the regions and their boxes. The `agreement`
    is sum_w s_w sum_r a_wr cos(w, r) + sum_w d_w . sum_r a_wr p_r. Each word has a direction d_w, which is
    multiplied with the attended position p_r. Pictures and captions are matched by cos(Z, text) + agreement.

    For dim 512 it has 1,172,185 parameters. Text-conditioned pooling is FLAIR's (Xiao et al., CVPR 2025), a
    score for each word FILIP's (Yao et al. 2022) and ColBERT's. Our difference: words only determine weights.
    Raises ValueError for a width that the heads do not divide.
    """

    def __init__(self, dim: int, heads: int = 8) -> None:
        super().__init__()
        if dim < 1 or heads < 1 or dim % heads:
            raise ValueError(f"{heads} heads do not divide a width of {dim}")
        self.word_change, self.region_change = _low_rank(dim), _low_rank(dim)
        self.common = nn.Parameter(torch.tensor(COMMON))
        self.sharpness = nn.Parameter(torch.tensor(25.0).log())
        self.word_weight = nn.Parameter(torch.tensor(0.7).log())
        self.narrow = nn.Linear(dim, NARROW, bias=False)
        self.widen = nn.Linear(NARROW, WIDE)
        self.reading = nn.TransformerEncoderLayer(
            WIDE, READERS, 2 * WIDE, dropout=0.0, batch_first=True, norm_first=True
        )
        self.reading_norm = nn.LayerNorm(WIDE)
        self.salience = nn.Linear(WIDE, 1)
        self.direction = nn.Linear(WIDE, PLACE)
        self.box = nn.Linear(PLACE, dim)
        self.region_norm = nn.LayerNorm(dim)
        self.region_attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        nn.init.zeros_(self.region_attention.out_proj.weight)  # initially the regions' own embeddings
        self.sigmoid_bias = nn.Parameter(torch.tensor(-10.0))  # of the sigmoid loss, SigLIP's initial value

    def forward(
        self,
        tokens: Float[Tensor, "batch tokens dim"],
        token_mask: Bool[Tensor, "batch tokens"],
        regions: Float[Tensor, "batch regions dim"],
        region_mask: Bool[Tensor, "batch regions"],
        region_weights: Float[Tensor, "batch regions"] | None = None,
        region_boxes: Float[Tensor, "batch regions 4"] | None = None,
    ) -> GroundedOutput:
        """Pool each picture under its own caption. Masks, padding and boxes are as for `CrossModalTeacher`.

        The maps have one head: `token_to_region` is the attention of words, `region_to_token` the share of
        each word in the attention to a region. Everything is 0 for a picture without regions. Raises
        ValueError without boxes, and for region weights, which this teacher does not use.
        """
        if region_weights is not None:
            raise ValueError("the grounded teacher takes no region weights")
        words = _Words(*(part.unsqueeze(1) for part in self.read(tokens, token_mask)))
        embedding, agreement, chosen = self._choose(words, self.see(regions, region_mask, region_boxes))
        chosen, salience = chosen[:, 0], words.salience[:, 0]
        pooled = salience.unsqueeze(-1) * chosen
        chosen_by = pooled.transpose(1, 2)
        chosen_by = chosen_by / chosen_by.sum(-1, keepdim=True).clamp(min=torch.finfo(pooled.dtype).tiny)
        return GroundedOutput(
            embedding[:, 0],
            chosen.unsqueeze(1),
            chosen_by.unsqueeze(1),
            salience,
            pooled.sum(1),
            agreement[:, 0],
        )

    def scores(
        self,
        tokens: Float[Tensor, "captions tokens dim"],
        token_mask: Bool[Tensor, "captions tokens"],
        regions: Float[Tensor, "pictures regions dim"],
        region_mask: Bool[Tensor, "pictures regions"],
        region_boxes: Float[Tensor, "pictures regions 4"],
        text: Float[Tensor, "captions dim"],
    ) -> tuple[Float[Tensor, "pictures captions"], Float[Tensor, "pictures captions"]]:
        """cos(Z, text) and the agreement, for every picture under every caption. `text` holds the captions'
        embeddings."""
        words = _Words(*(part.unsqueeze(0) for part in self.read(tokens, token_mask)))
        embedding, agreement, _ = self._choose(words, self.see(regions, region_mask, region_boxes))
        cosines = torch.einsum("pcd,cd->pc", F.normalize(embedding, dim=-1), F.normalize(text, dim=-1))
        return cosines, agreement

    def read(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [B, S, D], salience [B, S] and directions [B, S, PLACE] of words, in context, in order."""
        unit = F.normalize(tokens.masked_fill(~mask.unsqueeze(-1), 0.0), dim=-1)
        mean = unit.sum(1, keepdim=True) / mask.sum(1)[:, None, None].clamp(min=1)
        queries = unit - self.common * mean
        queries = F.normalize(queries + self.word_change(queries), dim=-1)
        alone = mask.sum(1)[:, None, None] == 1  # a single word has no mean to differ from
        own = F.normalize(torch.where(alone, unit, unit - COMMON * mean), dim=-1) * math.sqrt(unit.shape[-1])
        rows = self.widen(self.narrow(own)) + _order(own)
        hidden = ~mask & mask.any(1, keepdim=True)  # attention over no word at all would be NaN
        rows = self.reading_norm(self.reading(rows, src_key_padding_mask=hidden))
        salience = masked_softmax(self.salience(rows).squeeze(-1) + key_bias(mask, None, tokens))
        return queries, salience, self.direction(rows) * mask.unsqueeze(-1)

    def see(self, regions: Tensor, mask: Tensor, boxes: Tensor | None) -> SeenRegions:
        if boxes is None:
            raise ValueError("the grounded teacher needs region_boxes")
        regions = regions.masked_fill(~mask.unsqueeze(-1), 0.0)
        places = _place(boxes.masked_fill(~mask.unsqueeze(-1), 0.0))
        unit, bias = F.normalize(regions, dim=-1), key_bias(mask, None, regions)
        wide = math.sqrt(unit.shape[-1])
        rows = self.region_norm(wide * unit + self.box(places))
        seen, _ = attend(self.region_attention, rows, rows, bias, None)
        return SeenRegions(
            F.normalize(unit + self.region_change(unit), dim=-1), unit + seen / wide, places, bias
        )

    def _choose(self, words: _Words, regions: SeenRegions) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings [P, C, D], agreement [P, C] and the attention of words [P, C, S, R]."""
        cosines = torch.einsum("pcsd,prd->pcsr", words.queries, regions.keys)
        chosen = masked_softmax(self.sharpness.exp() * cosines + regions.bias[:, None, None])
        weights = torch.einsum("pcs,pcsr->pcr", words.salience, chosen)
        places = torch.einsum("pcsf,prf->pcsr", words.directions, regions.places)
        agreement = self.word_weight.exp() * words.salience.unsqueeze(-1) * cosines + places / PLACE
        return weights @ regions.values, (chosen * agreement).sum((2, 3)), chosen


def _low_rank(dim: int) -> nn.Sequential:
    """A low-rank change, initially zero."""
    narrow, widen = nn.Linear(dim, RANK, bias=False), nn.Linear(RANK, dim, bias=False)
    nn.init.zeros_(widen.weight)
    return nn.Sequential(narrow, widen)


def _order(rows: Tensor) -> Tensor:
    """Sine embedding of the words' positions, [tokens, WIDE]."""
    rates = LONGEST_WAVE ** (-torch.arange(0, WIDE, 2, device=rows.device) / WIDE)
    angles = torch.arange(rows.shape[1], device=rows.device, dtype=rows.dtype)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def _place(boxes: Tensor) -> Tensor:
    """Centre and size of boxes, from -1 to 1, with sines and cosines of two frequencies, [..., PLACE]."""
    low, high = boxes[..., :2], boxes[..., 2:]
    measures = torch.cat([(low + high) / 2, high - low], dim=-1)
    angles = (
        measures.unsqueeze(-1) * math.pi * torch.arange(1, FREQUENCIES + 1, device=boxes.device)
    ).flatten(-2)
    return torch.cat([2 * measures - 1, angles.sin(), angles.cos()], dim=-1)
