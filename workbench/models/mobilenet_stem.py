"""The image towers of the demo students, as timm models made of MobileNetV2's layers.

MobileNetV2 has a stride of 32, which loses the small objects of a 64 px picture. Cut off at stride 16, it
keeps them, together with half a million weights trained on ImageNet. Photographs are larger, so that their
student keeps one stage more. Importing this module registers the towers, so that `open_clip.create_model` can
build them.
"""

from typing import Any

import torch
from jaxtyping import Float
from timm.models import generate_default_cfgs, register_model
from timm.models.efficientnet import EfficientNet
from torch import Tensor, nn

NAME, PHOTO_NAME, SPATIAL_NAME = "mobilenetv2_stem", "mobilenetv2_six_stages", "mobilenetv2_spatial"
STAGES = 5  # of seven; the fifth ends at stride 16 with 96 channels
GRID = 2  # side of the grid that the last map is averaged to, so that left, right, top and bottom stay apart
CHANNELS, PLACES, WIDTH, HEADS = 320, 4, 128, 8  # the last map at 128 px, and the attention among its places

default_cfgs = generate_default_cfgs(
    {
        NAME: {"input_size": (3, 64, 64), "pool_size": (1, 1), "num_classes": 0},
        PHOTO_NAME: {"input_size": (3, 128, 128), "pool_size": (4, 4), "num_classes": 0},
        SPATIAL_NAME: {"input_size": (3, 128, 128), "pool_size": (PLACES, PLACES), "num_classes": 0},
    }
)


@register_model
def mobilenetv2_stem(pretrained: bool = False, **kwargs: Any) -> EfficientNet:
    """MobileNetV2 up to stride 16, with the last map averaged to 2 x 2 places. Features: [batch, 384]."""
    from timm import create_model

    model: Any = create_model("mobilenetv2_100", **kwargs)
    model.default_cfg = model.pretrained_cfg = default_cfgs
    model.blocks = model.blocks[:STAGES]
    model.feature_info = [stage for stage in model.feature_info if stage["stage"] <= STAGES]
    # Places become channels, so that the next layers read the map as a single vector.
    model.conv_head = nn.Sequential(nn.AdaptiveAvgPool2d(GRID), nn.PixelUnshuffle(GRID))
    model.bn2 = nn.Identity()
    model.num_features = model.head_hidden_size = 96 * GRID**2
    model.reset_classifier(0)
    return model


@register_model
def mobilenetv2_six_stages(pretrained: bool = False, **kwargs: Any) -> EfficientNet:
    """MobileNetV2 without its last stage and the layers after it, at stride 32. Features: [batch, 160]."""
    from timm import create_model

    model: Any = create_model("mobilenetv2_100", **kwargs)
    model.default_cfg = model.pretrained_cfg = default_cfgs[PHOTO_NAME].default.to_dict()
    model.blocks = model.blocks[: STAGES + 1]
    model.feature_info = [stage for stage in model.feature_info if stage["stage"] <= STAGES + 1]
    model.conv_head = model.bn2 = nn.Identity()
    model.num_features = model.head_hidden_size = 160
    model.reset_classifier(0)
    return model


class SpatialAttention(nn.Module):
    """Attention among the places of a map, with learned positions, added to the map.

    It is initially the identity, so that a tower with trained weights keeps its output until training starts.
    """

    def __init__(self, channels: int, places: int, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.narrow = nn.Linear(channels, width)
        self.positions = nn.Parameter(torch.randn(places**2, width) * width**-0.5)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.widen = nn.Linear(width, channels)
        nn.init.zeros_(self.widen.weight)
        nn.init.zeros_(self.widen.bias)

    def forward(
        self, maps: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """The map, of any values, plus what each place attends to."""
        rows = self.narrow(self.norm(maps.flatten(2).transpose(1, 2))) + self.positions
        seen, _ = self.attention(rows, rows, rows, need_weights=False)
        return maps + self.widen(seen).transpose(1, 2).reshape(maps.shape)


@register_model
def mobilenetv2_spatial(pretrained: bool = False, **kwargs: Any) -> EfficientNet:
    """MobileNetV2 for 128 px, with attention among the 4 x 4 places of its last map before they are averaged.
    Features: [batch, 1280]."""
    from timm import create_model

    model: Any = create_model("mobilenetv2_100", **kwargs)
    model.default_cfg = model.pretrained_cfg = default_cfgs[SPATIAL_NAME].default.to_dict()
    model.blocks.append(SpatialAttention(CHANNELS, PLACES, WIDTH, HEADS))  # the others keep their names
    return model
