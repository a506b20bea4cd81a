"""Relevance beside slow versions that are written by hand, and where the truth is known."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from workbench.data.load import load_pairs
from workbench.errors import SettingError
from workbench.evaluation.relevance import attention_relevance, grad_cam, relevance, word_drops
from workbench.models.loading import load_dual_encoder
from workbench.models.masking import patch_grid

NATIVE = json.loads((Path(__file__).parents[1] / "tiny_vit.json").read_text())
TIMM = {"timm_model_name": "vit_tiny_patch16_224", "timm_proj": "linear", "image_size": 224}
TOWERS = {
    "native": NATIVE["vision_cfg"] | {"image_size": 64, "layers": 3},
    "native_average": NATIVE["vision_cfg"] | {"image_size": 64, "layers": 2, "pool_type": "avg"},
    "timm": TIMM | {"timm_pool": "token"},
    "timm_average": TIMM | {"timm_pool": "avg"},
    "convolutional": {"timm_model_name": "resnet18", "timm_pool": "avg", "timm_proj": "linear"}
    | {"image_size": 128},
    "resnet": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 64, "head_width": 16},
    "swin": {"timm_model_name": "swin_tiny_patch4_window7_224", "timm_pool": "avg", "timm_proj": "linear"}
    | {"image_size": 224},
}


def model_of(tower: str, folder: Path):
    torch.manual_seed(0)
    path = folder / f"{tower}.json"
    path.write_text(json.dumps(NATIVE | {"vision_cfg": TOWERS[tower]}))
    return load_dual_encoder(str(path)).eval()


def given(model, batch: int = 2):
    height, width = model.transform.size
    torch.manual_seed(1)
    return torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8), torch.randn(batch, model.dim)


def chefer(model, image, text, tower: str) -> np.ndarray:
    """One picture, layer by layer and head by head, with weights taken from the layers' own slow path."""
    layers, kept = [], []
    if tower.startswith("native"):
        layers = [block.attn for block in model.clip.visual.transformer.resblocks]
        for layer in layers:
            layer.forward = own_attention(layer, kept)
    else:
        for block in model.clip.visual.trunk.blocks:
            block.attn.fused_attn = False
            block.attn.attn_drop.register_forward_pre_hook(lambda _, inputs: keep(kept, inputs[0]))
    score = model.scale * F.cosine_similarity(model.encode_image(image[None]), text[None])
    score.backward()
    size = kept[0].shape[-1]
    total = np.eye(size)
    for weights in kept:
        heads = [
            np.maximum(0, (w * w_grad).numpy())
            for w, w_grad in zip(weights.detach()[0], weights.grad[0], strict=True)
        ]
        total = total + np.mean(heads, axis=0) @ total
    row = total[1:].mean(0) if tower.endswith("average") else total[0]
    return row[1:]


def keep(kept: list, weights: torch.Tensor) -> None:
    weights.retain_grad()
    kept.append(weights)


def own_attention(layer, kept):
    def forward(query, key, value, **_):
        wide, heads = query.shape[-1], layer.num_heads
        parts = (query @ layer.in_proj_weight.T + layer.in_proj_bias).split(wide, dim=-1)
        q, k, v = (part.view(*part.shape[:2], heads, -1).transpose(1, 2) for part in parts)
        weights = torch.softmax(torch.einsum("bhqd,bhkd->bhqk", q, k) / q.shape[-1] ** 0.5, -1)
        keep(kept, weights)
        mixed = torch.einsum("bhqk,bhkd->bqhd", weights, v).flatten(2)
        return mixed @ layer.out_proj.weight.T + layer.out_proj.bias, None

    return forward


@pytest.mark.parametrize("tower", ["native", "native_average", "timm", "timm_average"])
def test_attention_relevance_is_chefers_rule(tower: str, tmp_path: Path) -> None:
    model = model_of(tower, tmp_path)
    images, text = given(model)
    fast = attention_relevance(model, images, text)
    assert fast.shape == (2, *patch_grid(model)) and (fast > 0).any()
    assert all(parameter.grad is None for parameter in model.parameters())
    slow = chefer(model, images[1], text[1], tower)
    np.testing.assert_allclose(fast[1].flatten(), slow, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("tower", ["convolutional", "resnet", "swin"])
def test_grad_cam_is_its_definition(tower: str, tmp_path: Path) -> None:
    model = model_of(tower, tmp_path)
    model.requires_grad_(False)  # a frozen tower is explained too
    images, text = given(model)
    fast = grad_cam(model, images, text)
    visual = model.clip.visual
    layer = {"convolutional": "trunk.layer4", "resnet": "layer3", "swin": "trunk.norm"}[tower]
    maps = []
    handle = visual.get_submodule(layer).register_forward_hook(
        lambda _, __, output: maps.append(output.requires_grad_()) or output
    )
    model.requires_grad_(True)
    score = F.cosine_similarity(model.encode_image(images), text).mul(model.scale.detach())
    handle.remove()
    gradient = torch.autograd.grad(score[1], maps[0])[0][1].detach().numpy()
    features = maps[0][1].detach().numpy()
    if tower == "swin":
        gradient, features = np.moveaxis(gradient, -1, 0), np.moveaxis(features, -1, 0)
    slow = np.zeros(features.shape[1:])
    for channel, slope in zip(features, gradient, strict=True):
        slow += slope.mean() * channel
    assert fast.shape[1:] == slow.shape
    np.testing.assert_allclose(fast[1], np.maximum(slow, 0), rtol=1e-3, atol=1e-6)


def test_words_are_left_out_one_at_a_time(tmp_path: Path) -> None:
    model = model_of("native", tmp_path)
    images, _ = given(model, 1)
    words, drops, cosine = word_drops(model, images, "a red apple")
    image = model.encode_image(images)
    captions = ("a red apple", "red apple", "a apple", "a red")
    texts = [model.encode_text(model.tokenize([caption])) for caption in captions]
    slow = [F.cosine_similarity(image, text).item() for text in texts]
    assert words == ["a", "red", "apple"] and cosine == pytest.approx(slow[0], abs=1e-6)
    np.testing.assert_allclose(drops, slow[0] - np.array(slow[1:]), atol=1e-6)
    assert word_drops(model, images, "apple")[0] == ["apple"] and len(word_drops(model, images, "")[1]) == 1


def test_a_trained_tower_looks_at_the_thing_that_is_named() -> None:
    """In scenes of two things, the hottest place is nearer to the named one, far above chance (half)."""
    model = load_dual_encoder("demo_teacher", "demo_teacher").eval()
    pairs = load_pairs("scenes", "test", image_size=64)
    rows = [row for row in range(40) if len(pairs.details(row)["objects"]) == 2]
    images = torch.stack([model.transform(pairs.image(row)) for row in rows])
    centres = np.array([pairs.details(row)["boxes"] for row in rows]).reshape(-1, 2, 2, 2).mean(2) / 64
    right = []
    for number in (0, 1):
        names = [pairs.details(row)["objects"][number] for row in rows]
        with torch.no_grad():
            text = model.encode_text(model.tokenize(names))
        heat = grad_cam(model, images, text).flatten(1)
        y, x = np.divmod(heat.argmax(1).numpy(), 4)
        places = (np.stack([x, y], axis=1) + 0.5) / 4
        right += list(np.linalg.norm(centres - places[:, None], axis=2).argmin(1) == number)
    assert len(right) > 20 and np.mean(right) > 0.7
    explained = relevance(model, pairs.image(rows[0]), pairs.captions(rows[0])[0])
    assert explained.method == "Grad-CAM" and explained.window == (0, 0, 1, 1)
    assert explained.heat.shape == (4, 4) and len(explained.words) == len(explained.word_drops)


def test_what_cannot_be_explained_is_refused(tmp_path: Path) -> None:
    model = model_of("timm", tmp_path)
    images, text = given(model)
    with pytest.raises(SettingError, match="no map of places"):
        grad_cam(model, images, text)
    model = model_of("convolutional", tmp_path)
    with pytest.raises(SettingError, match="grad_cam"):
        attention_relevance(model, *given(model))
