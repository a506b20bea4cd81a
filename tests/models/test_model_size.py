"""Configurations of absurd sizes are refused at once, without memory for them; open_clip's own are not."""

import copy
import json
import os
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

from tests.models.test_loading import MODEL
from workbench.errors import SettingError
from workbench.models import model_size
from workbench.models.loading import load_dual_encoder
from workbench.models.model_size import WrongSize, check_size

HUGE = 2**70
ABSURD: dict[str, list[Any]] = {
    "embed_dim": [10**9, HUGE, 0, -1, "16", 1.5],
    "vision_cfg.width": [10**6, HUGE, -32, "32", 33],
    "vision_cfg.layers": [10**5, HUGE, 0, [1, 1, 1, 10**9]],
    "vision_cfg.head_width": [10**6, 0],
    "vision_cfg.patch_size": [10**6, 0, "8"],
    "vision_cfg.image_size": [10**6, [10**6, 16], 7, -16, "16"],
    "text_cfg.context_length": [10**9, 10**6, 0, "16"],
    "text_cfg.vocab_size": [10**9, HUGE, 10, 0, "x"],
    "text_cfg.width": [10**6, -1],
    "text_cfg.heads": [3, 10**6, 0, -2, "2"],
    "text_cfg.layers": [10**9, -1, "1"],
}
CASES = [(name, value) for name, values in ABSURD.items() for value in values]


@pytest.mark.parametrize(("name", "value"), CASES)
def test_a_configuration_of_absurd_sizes_is_told(name: str, value: Any, tmp_path: Path) -> None:
    config = copy.deepcopy(MODEL)
    part = config
    *parents, last = name.split(".")
    for parent in parents:
        part = part[parent]
    part[last] = value
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    with pytest.raises(SettingError, match=r"student\.model = .*open_clip cannot build it \(.*fix its JSON"):
        load_dual_encoder(f"local-dir:{tmp_path}", setting="student")


def test_a_tower_in_a_package_with_too_many_layers_is_told(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(model_size, "MOST_TENSORS", 30)  # its layers are no size of open_clip's configuration
    vision = {"timm_model_name": "resnet18", "timm_pool": "avg", "image_size": 64}
    (tmp_path / "m.json").write_text(json.dumps({**MODEL, "vision_cfg": vision}))
    with pytest.raises(SettingError, match="more than 30 weights: too many layers"):
        load_dual_encoder(str(tmp_path / "m.json"))


@pytest.mark.parametrize("name", ["RN50", "ViT-e-14", "MobileCLIP-S2", "coca_ViT-B-32", "ViT-B-16-SigLIP"])
def test_open_clips_own_models_pass(name: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(os, "sysconf", lambda _: 1 << 20)  # a machine of 1 TiB
    before = torch.get_rng_state()
    check_size(name, open_clip.get_model_config(name))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_larger_than_the_memory_is_refused_in_seconds(monkeypatch: Any) -> None:
    monkeypatch.setattr(os, "sysconf", lambda _: 1 << 16)  # of 4 GiB; the model has 4.6 billion weights
    with pytest.raises(WrongSize, match=r"it takes more than 4 GiB, and this machine has 4"):
        check_size("ViT-e-14", open_clip.get_model_config("ViT-e-14"))


def test_every_configuration_of_open_clip_has_sizes_that_make_sense(monkeypatch: Any) -> None:
    monkeypatch.setattr(open_clip, "create_model", lambda *_, **__: None)
    for name in open_clip.list_models():
        check_size(name, open_clip.get_model_config(name))
