"""The image towers of the demo students: the first layers of MobileNetV2, as timm models.

ImageNet's MobileNetV2 has a stride of 32, at which the small things of a 64 px picture are gone; cut off at
stride 16 it keeps them, and half a million weights that know what things look like. Photographs are larger,
and one stage more is worth more there. Importing this module is what `open_clip.create_model` needs to build
the towers.
"""

from typing import Any

from timm.models import generate_default_cfgs, register_model
from timm.models.efficientnet import EfficientNet
from torch import nn

NAME, PHOTO_NAME = "mobilenetv2_stem", "mobilenetv2_six_stages"
STAGES = 5  # of seven; the fifth ends at stride 16 with 96 channels
GRID = 2  # places a side that the last map is averaged to, so that left, right, top and bottom stay apart

default_cfgs = generate_default_cfgs(
    {
        NAME: {"input_size": (3, 64, 64), "pool_size": (1, 1), "num_classes": 0},
        PHOTO_NAME: {"input_size": (3, 128, 128), "pool_size": (4, 4), "num_classes": 0},
    }
)


@register_model
def mobilenetv2_stem(pretrained: bool = False, **kwargs: Any) -> EfficientNet:
    """MobileNetV2 up to stride 16, its last map averaged to 2 x 2 places: features [batch, 384]."""
    from timm import create_model

    model: Any = create_model("mobilenetv2_100", **kwargs)
    model.default_cfg = model.pretrained_cfg = default_cfgs
    model.blocks = model.blocks[:STAGES]
    model.feature_info = [stage for stage in model.feature_info if stage["stage"] <= STAGES]
    # Places become channels, so that what follows takes the map for a single vector.
    model.conv_head = nn.Sequential(nn.AdaptiveAvgPool2d(GRID), nn.PixelUnshuffle(GRID))
    model.bn2 = nn.Identity()
    model.num_features = model.head_hidden_size = 96 * GRID**2
    model.reset_classifier(0)
    return model


@register_model
def mobilenetv2_six_stages(pretrained: bool = False, **kwargs: Any) -> EfficientNet:
    """MobileNetV2 without its last stage and the layers after it, at stride 32: features [batch, 160]."""
    from timm import create_model

    model: Any = create_model("mobilenetv2_100", **kwargs)
    model.default_cfg = model.pretrained_cfg = default_cfgs[PHOTO_NAME].default.to_dict()
    model.blocks = model.blocks[: STAGES + 1]
    model.feature_info = [stage for stage in model.feature_info if stage["stage"] <= STAGES + 1]
    model.conv_head = model.bn2 = nn.Identity()
    model.num_features = model.head_hidden_size = 160
    model.reset_classifier(0)
    return model
