"""Rotary positions in the place of a vision transformer's absolute ones; all other weights are kept."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from workbench.errors import SettingError

CONFIG_KEY = "rotary_positions"  # of `vision_cfg`; open_clip refuses a configuration with it
LONGEST_WAVE = 100.0  # in radians of a patch, as Heo et al. have it for axial positions


class RotaryAttention(nn.MultiheadAttention):
    """Self-attention that knows the patches' places in a grid by turning queries and keys (2-D axial RoPE).

    A quarter of a head's dimensions is turned by the row and a quarter by the column, each against the
    dimension half a head farther (Su et al. 2021; Heo et al., ECCV 2024, arXiv 2403.13298). The class token
    before the patches is not turned. The parameters are those of the attention that it replaces.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, attention: nn.MultiheadAttention, grid: tuple[int, int]) -> None:
        super().__init__(attention.embed_dim, attention.num_heads, batch_first=True)
        self.load_state_dict(attention.state_dict())
        angles = grid_angles(grid, self.head_dim)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(  # type: ignore[override]  # open_clip asks for no weights
        self,
        query: Float[Tensor, "batch tokens width"],
        key: Tensor,
        value: Tensor,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Float[Tensor, "batch tokens width"], None]:
        """Attention of the tokens of each picture among themselves; `key` and `value` are `query`."""
        rows = F.linear(query, self.in_proj_weight, self.in_proj_bias)
        queries, keys, values = rows.unflatten(-1, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(self._turned(queries), self._turned(keys), values, attn_mask)
        return self.out_proj(seen.transpose(1, 2).flatten(2)), None

    def _turned(self, heads: Tensor) -> Tensor:
        first, second = heads.chunk(2, dim=-1)
        cos, sin = self.cos.to(heads.dtype), self.sin.to(heads.dtype)
        return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


def grid_angles(grid: tuple[int, int], dim: int) -> Float[Tensor, "tokens half"]:
    """Angles in radians of the class token, which are 0, and of the patches row by row. `half` is `dim` / 2:
    the first half of the angles grows with the row, the second with the column."""
    rates = LONGEST_WAVE ** (-torch.arange(dim // 4) / (dim // 4))
    rows, columns = (torch.arange(side, dtype=torch.float32)[:, None] * rates for side in grid)
    sides = rows[:, None].expand(-1, grid[1], -1), columns[None].expand(grid[0], -1, -1)
    places = torch.cat(sides, dim=-1)
    return F.pad(places.flatten(0, 1), (0, 0, 1, 0))


def is_rotary(visual: nn.Module) -> bool:
    """Whether the image tower has rotary positions."""
    return any(isinstance(module, RotaryAttention) for module in visual.modules())


def use_rotary_positions(visual: Any, setting: str) -> None:
    """Replace the absolute positions of an open_clip vision transformer by rotary ones, in every block.

    The learned position of the class token stays, those of the patches become 0, and none of them learns.
    Raises SettingError, naming `setting`, for other towers and for heads that four does not divide.
    """
    blocks = visual.transformer.resblocks if type(visual) is VisionTransformer else ()
    attentions: list[Any] = [getattr(block, "attn", None) for block in blocks]
    if not attentions or not all(type(attention) is nn.MultiheadAttention for attention in attentions):
        problem = "only open_clip's plain vision transformers can take rotary positions"
        raise SettingError(setting, True, problem, "Take a model such as ViT-B-16, or false.")
    if not isinstance(visual.patch_dropout, nn.Identity):
        problem = "rotary positions cannot follow patches that vision_cfg.patch_dropout leaves out"
        raise SettingError(setting, True, problem, "Take a model without it, or false.")
    if attentions[0].head_dim % 4:
        problem = f"rotary positions need heads of a multiple of 4 dimensions, not {attentions[0].head_dim}"
        raise SettingError(setting, True, problem, "Take another model, or false.")
    for block in blocks:
        block.attn = RotaryAttention(block.attn, tuple(visual.grid_size))
    with torch.no_grad():
        visual.positional_embedding[1:] = 0
    visual.positional_embedding.requires_grad_(False)
