"""Adds LoRA adapters to layers with peft, and merges them into plain layers."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from workbench.errors import SettingError
from workbench.models.dual_encoder import DualEncoder

RANK = 16
SCALING = 1.0  # of the product of the two matrices


def add_lora(module: nn.Module, targets: Sequence[nn.Module], setting: str) -> None:
    """Add LoRA adapters of rank `RANK`, initially zero, to the layers `targets` inside `module`, and freeze
    the rest of it.

    Source: Hu et al. 2021, arXiv 2106.09685. Raises SettingError, naming `setting`, if peft is missing.
    """
    try:
        import peft
    except ImportError:
        remedy = "`pip install 'workbench[lora]'`, or make another choice"
        raise SettingError(setting, "lora", "it needs peft, which is not installed", remedy) from None
    inside = set(targets)
    names = [re.escape(name) for name, child in module.named_modules() if child in inside]
    config = peft.LoraConfig(r=RANK, lora_alpha=int(RANK * SCALING), target_modules="|".join(names))
    config._register_custom_module({nn.MultiheadAttention: _exact_attention()})
    peft.inject_adapter_in_model(config, module)


@torch.no_grad()
def merge_lora(model: DualEncoder) -> DualEncoder:
    """Merge the adapters into the weights, in place, and return the model.

    The result is a plain open_clip model with the original state dict's names. Its embeddings are the same
    and its image tower is frozen.
    """
    for name, layer in low_rank_layers(model).items():
        if hasattr(layer, "unload_and_optionally_merge_module"):  # torch's attention: two layers in one
            plain = layer.unload_and_optionally_merge_module(merge=True, safe_merge=False, adapter_names=None)
        else:
            layer.merge()
            plain = layer.get_base_layer()
        parent, _, child = name.rpartition(".")
        setattr(model.clip.get_submodule(parent), child, plain)
    return model


def low_rank_layers(model: DualEncoder) -> dict[str, Any]:
    """The outermost modules of `model.clip` that hold adapters, by name."""
    layers: dict[str, Any] = {}
    for name, module in model.clip.named_modules():
        if hasattr(module, "lora_A") and not any(name.startswith(f"{outer}.") for outer in layers):
            layers[name] = module
    return layers


def _exact_attention() -> type[nn.Module]:
    from peft.tuners.lora.layer import MultiheadAttention

    class ExactMultiheadAttention(MultiheadAttention):
        """peft's layer, with two faults corrected.

        peft adds the products to the weights before each pass and subtracts them afterwards. It counts the
        product of the output projection twice. Rounding also changes the frozen weights in every pass, so
        that validation would change training. This class restores the original tensors instead.
        """

        def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
            names = adapter_names or self.active_adapters
            outer: Any = self.get_base_layer()
            inner = outer.out_proj.get_base_layer()
            kept = outer.in_proj_weight, inner.weight
            whole: tuple[Any, ...] = (outer, "in_proj_weight", self), (inner, "weight", outer.out_proj)
            for owner, parameter, layer in whole:
                summed = getattr(owner, parameter).detach() + sum(map(layer.get_delta_weight, names))
                delattr(owner, parameter)
                setattr(owner, parameter, summed)
                layer.merged_adapters += names
            self.__dict__["_kept"] = kept

        def unmerge(self) -> None:
            outer: Any = self.get_base_layer()
            outer.in_proj_weight, outer.out_proj.get_base_layer().weight = self.__dict__.pop("_kept")
            self.merged_adapters.clear()
            outer.out_proj.merged_adapters.clear()

    return ExactMultiheadAttention
