"""Selects the parameters of a two-tower model that are trained, by the type of a module and not its name."""

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

from open_clip.modified_resnet import AttentionPool2d, ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from workbench.errors import SettingError
from workbench.models.dual_encoder import DualEncoder
from workbench.models.low_rank import add_lora, low_rank_layers

SETTING = "student.trainable_image"
# Attention layers that keep projections as bare parameters do so under these names, as torch does.
_BARE = ("in_proj_weight", "in_proj_bias", "q_proj_weight", "k_proj_weight", "v_proj_weight")
_BIASES = ("q_bias", "k_bias", "v_bias")


def set_trainable(model: DualEncoder, image: str, text: bool) -> None:
    """Select what is trained: a part of the image tower, and all or nothing of the text tower. The scale does
    not change.

    `image` is one of
    - "all",
    - "attention": the query, key, value and output projections of every attention layer, and the visual
      projection, as DCLIP's code selects by name,
    - "last_stage": the last stage of blocks (the last block of transformers without stages), the layers after
      it, and the projection,
    - "last_blocks": the last quarter of a transformer's blocks, the layers after them, and the projection.
      Towers without attention blocks: as "last_stage",
    - "lora": LoRA adapters (Hu et al. 2021, arXiv 2106.09685) on the attention's projections and on a linear
      visual projection. Towers without attention blocks: on the linear layers and 1x1 convolutions of the
      last stage. Their first matrix is drawn from torch's global generator. `merge_lora` merges them,
    - "none".

    Parameters in `model.fixed` are never trained. A module without trained parameters is put into evaluation
    mode, and `model.train()` leaves it there. Raises SettingError for an unknown choice, or one that does not
    apply to this tower, and ValueError if the model still has adapters.
    """
    visual = model.clip.visual
    if low_rank_layers(model):
        raise ValueError("the model has LoRA adapters already; merge them first")
    if image not in CHOICES:
        raise SettingError(SETTING, image, "there is no such choice", f"Take one of {', '.join(CHOICES)}.")
    learning = {id(parameter) for parameter in CHOICES[image](visual)}
    if model.relations is not None and image != "none":
        learning |= {id(parameter) for parameter in model.relations.things.parameters()}
    fixed = {id(model.clip.get_parameter(name)) for name in model.fixed}
    parts = _parts(model)
    for parameter in parts["image"]:
        parameter.requires_grad_(id(parameter) in learning - fixed)
    for parameter in parts["text"]:
        parameter.requires_grad_(text and id(parameter) not in fixed)
    if image == "lora":
        layers = _lora_targets(visual)
        targets = [layer for layer in layers if not fixed.issuperset(map(id, layer.parameters()))]
        add_lora(visual, targets, SETTING)
    model.train(model.training)


def trainable_parameters(model: DualEncoder) -> dict[str, int]:
    """The number of trained values in each part: image, text, scale."""
    return {
        part: sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
        for part, parameters in _parts(model).items()
    }


def _parts(model: DualEncoder) -> dict[str, list[Tensor]]:
    """All parameters: the image tower's, the scale and bias of the logits, and the rest, which is the text
    tower's wherever open_clip keeps it."""
    image = list(model.clip.visual.parameters())
    if model.relations is not None:
        image += model.relations.things.parameters()
    logits = (model.clip.logit_scale, getattr(model.clip, "logit_bias", None))
    scale = [parameter for parameter in logits if parameter is not None]
    taken = {id(parameter) for parameter in (*image, *scale)}
    text = [parameter for parameter in model.clip.parameters() if id(parameter) not in taken]
    return {"image": image, "text": text, "scale": scale}


def _attention(visual: nn.Module) -> list[Tensor]:
    layers = _attention_layers(visual)
    if not layers:
        problem = "the image tower has no attention"
        raise SettingError(SETTING, "attention", problem, "Take last_stage, all, lora or none")
    return [*chain.from_iterable(map(_projections, layers)), *_visual_projection(visual)]


def _last_stage(visual: Any) -> list[Tensor]:
    if isinstance(visual, VisionTransformer):
        return [*visual.transformer.resblocks[-1].parameters(), *_after_blocks(visual)]
    if isinstance(visual, ModifiedResNet):
        return [*visual.layer4.parameters(), *visual.attnpool.parameters()]
    if isinstance(visual, TimmModel):
        return [*_timm_stage(visual.trunk), *_visual_projection(visual)]
    problem = f"the stages of a {type(visual).__name__} are not known"
    raise SettingError(SETTING, "last_stage", problem, "Take all, attention or none")


def _last_blocks(visual: Any) -> list[Tensor]:
    blocks = _blocks(visual)
    quarter = blocks[-max(1, len(blocks) // 4) :] if blocks else []
    return [*_last_stage(visual), *(parameter for block in quarter for parameter in block.parameters())]


def _blocks(visual: Any) -> list[nn.Module]:
    """A transformer's blocks in order: the innermost modules with an attention layer as a child."""
    if isinstance(visual, VisionTransformer):
        return list(visual.transformer.resblocks)
    if not isinstance(visual, TimmModel):
        return []
    attention = set(_attention_layers(visual))
    # An attention that is a child of the trunk itself only pools.
    modules = [module for module in visual.trunk.modules() if module is not visual.trunk]
    return _innermost([module for module in modules if attention.intersection(module.children())])


CHOICES: dict[str, Callable[[Any], Iterable[Tensor]]] = {
    "all": lambda visual: visual.parameters(),
    "attention": _attention,
    "last_stage": _last_stage,
    "last_blocks": _last_blocks,
    "lora": lambda visual: (),
    "none": lambda visual: (),
}


def _attention_layers(visual: nn.Module) -> list[nn.Module]:
    """The innermost modules with heads and projections. torch's, open_clip's and timm's attention classes
    have no common base, but these attributes."""
    headed = (module for module in visual.modules() if isinstance(getattr(module, "num_heads", None), int))
    return _innermost([module for module in headed if _projections(module)])


def _innermost(modules: list[nn.Module]) -> list[nn.Module]:
    known = set(modules)
    return [module for module in modules if len(known.intersection(module.modules())) == 1]


def _projections(layer: nn.Module) -> list[Tensor]:
    linear = [child for child in layer.children() if isinstance(child, nn.Linear)]
    bare = [getattr(layer, name, None) for name in (*_BARE, *_BIASES)]
    return [
        *(parameter for parameter in bare if isinstance(parameter, nn.Parameter)),
        *(parameter for child in linear for parameter in child.parameters()),
    ]


def _visual_projection(visual: Any) -> list[Tensor]:
    """The parameters that map the tower's features to the embedding. Empty if a pooling attention does it."""
    if isinstance(visual, TimmModel):
        return list(visual.head.parameters()) or list(visual.trunk.get_classifier().parameters())
    projection = getattr(visual, "proj", None)
    return [projection] if isinstance(projection, nn.Parameter) else []


def _after_blocks(visual: VisionTransformer) -> list[Tensor]:
    modules = (visual.ln_post, visual.attn_pool, getattr(visual, "attn_pool_contrastive", None))
    inside = [parameter for module in modules if module is not None for parameter in module.parameters()]
    return [*inside, *_visual_projection(visual)]


def _timm_stage(trunk: Any) -> list[Tensor]:
    """The parameters of the stage of timm's last features, and of everything after it."""
    from timm.models import group_parameters

    groups = group_parameters(trunk, trunk.group_matcher(coarse=True))
    last = f"{trunk.feature_info[-1]['module']}."
    first = max(number for number, names in groups.items() if any(name.startswith(last) for name in names))
    return [trunk.get_parameter(name) for number in groups if number >= first for name in groups[number]]


def _lora_targets(visual: nn.Module) -> list[nn.Module]:
    """The modules that get LoRA adapters.

    peft does not reach attention that uses its layers' weights directly (pooling attention, timm's layers
    with separate biases), nor torch's attention with keys of another width. These are left out.
    """
    layers = [layer for layer in _attention_layers(visual) if not isinstance(layer, AttentionPool2d)]
    targets: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, nn.MultiheadAttention):
            targets += [layer] if layer._qkv_same_embed_dim else []
        else:
            split = any(getattr(layer, name, None) is not None for name in _BIASES)
            linear = [child for child in layer.children() if isinstance(child, nn.Linear)]
            targets += linear[-1:] if split else linear
    projection = {id(parameter) for parameter in _visual_projection(visual)}
    weights = projection if targets else projection | {id(parameter) for parameter in _last_stage(visual)}
    pools = (module for module in visual.modules() if isinstance(module, AttentionPool2d))
    weights -= {id(parameter) for pool in pools for parameter in pool.parameters()}
    return targets + [
        module for module in visual.modules() if _is_linear(module) and id(module.weight) in weights
    ]


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or (
        isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1
    )
