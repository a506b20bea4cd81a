"""Exports towers as torch.export programs, for use with torch alone."""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from workbench.models import mobilenet_stem, rotary
from workbench.models.dual_encoder import DualEncoder

IMAGE_PROGRAM, TEXT_PROGRAM = "image_tower.pt2", "text_tower.pt2"
CAPTIONS = ["a red apple", "two dogs left of a tree"]
TOLERANCE = 1e-4


def needs_workbench(model: DualEncoder) -> bool:
    """Whether plain open_clip cannot build the model: an image tower that this package registers with timm,
    rotary positions, or relations."""
    tower = model.config["model_cfg"]["vision_cfg"]
    own = tower.get("timm_model_name") in mobilenet_stem.default_cfgs or rotary.CONFIG_KEY in tower
    return own or model.relations is not None


def how_to_load(model: DualEncoder) -> str:
    """What a model that needs this package is loaded with, as a sentence of Markdown."""
    name = model.config["model_cfg"]["vision_cfg"].get("timm_model_name")
    if name in mobilenet_stem.default_cfgs and model.relations is None:
        return "Its image tower is this package's own: `import workbench.models.mobilenet_stem` first."
    part = "rotary positions" if model.relations is None else "relations"
    return f"It has {part}, so that only `workbench.models.loading.load_dual_encoder(FOLDER)` loads it."


def write_programs(model: DualEncoder, folder: Path) -> None:
    """Write both towers as programs for any number of pictures (uint8 [B, 3, H, W]) or captions (ids [B, L]).

    Raises RuntimeError if the embeddings of a program differ from those of the model.
    """
    height, width = model.transform.size
    pictures = torch.randint(0, 256, (3, 3, height, width), dtype=torch.uint8, generator=torch.Generator())
    for name, other, method, example in (
        (IMAGE_PROGRAM, "text", "encode_image", pictures),
        (TEXT_PROGRAM, "visual", "encode_text", model.tokenizer([*CAPTIONS, CAPTIONS[0]])),
    ):
        tower = _Tower(copy.deepcopy(model).cpu().eval(), other, method)
        program = torch.export.export(
            tower, (example[:2],), dynamic_shapes={"given": {0: torch.export.Dim("batch")}}
        )
        with open(folder / name, "wb") as stream:
            torch.export.save(program, stream)
        embeddings = torch.export.load(str(folder / name)).module()(example)
        error = float((embeddings - tower(example)).detach().abs().max())
        if not error <= TOLERANCE:
            raise RuntimeError(f"{name} differs from the model by {error:.1e}")


class _Tower(nn.Module):
    """One tower of a model, without the other."""

    def __init__(self, model: DualEncoder, other: str, method: str) -> None:
        super().__init__()
        clip: Any = model.clip
        setattr(clip, other, nn.Identity())
        self.model, self.method = model, method

    def forward(self, given: Tensor) -> Tensor:
        return getattr(self.model, self.method)(given)
