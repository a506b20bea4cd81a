"""The depth of each parameter in its tower, for learning rates that decrease with depth."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from open_clip.timm_model import TimmModel
from timm.models import group_parameters
from torch import nn

from workbench.errors import SettingError

# A block by its place in a list (open_clip's, transformers'), or in a stage of open_clip's ResNet.
_BLOCK = re.compile(r"(?:^|\.)((?:resblocks|blocks?|layers?|h)\.\d+|layer\d\.\d+)\.")
_STEM = re.compile(
    r"^(?:transformer\.)?(?:conv\d|bn\d|ln_pre|patch|class_embedding|cls_emb|token_embedding|"
    r"positional_embedding|embeddings?\b|embed_tokens|wte|wpe|shared)"
)


def layer_factors(clip: nn.Module, decay: float) -> dict[str, float]:
    """The learning-rate factor of each parameter of open_clip's module: `decay` to the power of its distance
    from the top of its tower.

    Layers after the last block have the factor 1, the last block `decay`, and layers before the first block
    the smallest factor. Scale and bias of the logits have 1. Bao et al. 2022 (BEiT, arXiv 2106.08254). Raises
    SettingError for a tower without blocks.
    """
    names = [name for name, _ in clip.named_parameters()]
    image = {name.removeprefix("visual."): name for name in names if name.startswith("visual.")}
    text = {name.removeprefix("text."): name for name in names if not name.startswith(("visual.", "logit_"))}
    factors = {name: 1.0 for name in names}
    for side, tower, inside in (("image", clip.get_submodule("visual"), image), ("text", None, text)):
        depth = _timm_depth(tower) if isinstance(tower, TimmModel) else _depth(inside)
        top = max(depth.values(), default=0)
        if top < 2:
            problem = f"the {side} tower has no blocks, one after the other"
            raise SettingError("training.layer_decay", decay, problem, "null, or training.lr_multipliers")
        factors |= {name: decay ** (top - depth.get(short, top)) for short, name in inside.items()}
    return factors


def _depth(names: Iterable[str]) -> dict[str, int]:
    blocks: dict[str, int] = {}
    depth: dict[str, int | None] = {}
    for name in names:
        block = _BLOCK.search(name)
        if block:
            depth[name] = blocks.setdefault(name[: block.end()], len(blocks) + 1)
        else:
            depth[name] = 0 if _STEM.match(name) else None
    return {name: len(blocks) + 1 if place is None else place for name, place in depth.items()}


def _timm_depth(tower: Any) -> Mapping[str, int]:
    trunk = tower.trunk
    groups = group_parameters(trunk, trunk.group_matcher(coarse=False), reverse=True)
    head = max(groups.values()) + 1
    classifier = {id(parameter) for parameter in trunk.get_classifier().parameters()}
    depth = {
        f"trunk.{name}": head if id(trunk.get_parameter(name)) in classifier else place
        for name, place in groups.items()
    }
    return depth | {name: head for name, _ in tower.named_parameters() if not name.startswith("trunk.")}
