"""An image tower's frozen first layers: their feature maps, and the tower without them."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.errors import SettingError

if TYPE_CHECKING:
    from workbench.models.dual_encoder import DualEncoder

SETTING = "student.cache_frozen"


def frozen_layers(model: "DualEncoder") -> list[nn.Module]:
    """The modules of the image tower that the recipe's `student.frozen` names."""
    modules = dict(model.clip.named_modules())
    return [modules[name] for name in model.frozen if name.startswith("visual.")]


@contextlib.contextmanager
def without_frozen_layers(model: "DualEncoder") -> Iterator[None]:
    """The tower takes the output of its frozen layers in place of pictures."""
    layers: list[Any] = frozen_layers(model)
    for layer in layers:
        layer.forward = nn.Identity().forward
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


@torch.no_grad()
def frozen_maps(model: "DualEncoder", images: Tensor) -> Tensor:
    """The last frozen layer's feature maps [batch, channels, height, width] of uint8 pictures."""
    maps: list[Tensor] = []
    with contextlib.ExitStack() as hooks:
        for layer in frozen_layers(model):
            hooks.enter_context(layer.register_forward_hook(lambda _, inputs, output: maps.append(output)))
        embedded = model.encode_image(images)
    if maps and maps[-1].ndim == 4:
        # If they are not the first layers, the rest cannot use their maps, or computes something else.
        with contextlib.suppress(RuntimeError):
            if torch.allclose(model.encode_maps(maps[-1]), embedded, rtol=1e-3, atol=1e-5):
                return maps[-1]
    problem = "the frozen modules are not its first layers, one after the other"
    raise SettingError(SETTING, True, problem, "false, or freeze the first layers only")
