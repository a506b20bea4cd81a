"""Masked images: drawn from (seed, epoch, row) alone, and seen by every kind of tower."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from workbench.models import load_dual_encoder
from workbench.models.masking import encode_masked_image, kept_patches, masked_pictures, patch_grid

NATIVE = json.loads((Path(__file__).parents[1] / "tiny_vit.json").read_text())
TIMM = {"timm_pool": "avg", "timm_proj": "linear"}
TOWERS = {
    "native": NATIVE["vision_cfg"] | {"image_size": 64},
    "timm": TIMM | {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "token", "image_size": 224},
    "convolutional": TIMM | {"timm_model_name": "resnet18", "image_size": 64},
}


@pytest.fixture(scope="module", params=TOWERS)
def model(request, tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("config") / f"{request.param}.json"
    path.write_text(json.dumps(NATIVE | {"vision_cfg": TOWERS[request.param]}))
    return load_dual_encoder(str(path)).eval()


@pytest.fixture
def images(model):
    height, width = model.transform.size
    return torch.randint(0, 256, (3, 3, height, width), dtype=torch.uint8)


def test_masks_are_a_pure_function_of_seed_epoch_and_row() -> None:
    together = kept_patches(1, 2, [5, 9, 11], 16, 0.75)
    assert together.shape == (3, 4)
    assert torch.equal(kept_patches(1, 2, np.array([9]), 16, 0.75)[0], together[1])
    assert (together.diff(dim=1) > 0).all() and together.min() >= 0 and together.max() < 16
    for other in (kept_patches(2, 2, [5, 9, 11], 16, 0.75), kept_patches(1, 3, [5, 9, 11], 16, 0.75)):
        assert not torch.equal(other, together)


@pytest.mark.parametrize(
    "patches, ratio, kept", [(196, 0.75, 49), (196, 0.0, 196), (36, 0.99, 1), (10, 0.7, 3)]
)
def test_how_many_stay(patches: int, ratio: float, kept: int) -> None:
    assert kept_patches(0, 0, [0], patches, ratio).shape == (1, kept)


@torch.no_grad()
def test_a_masked_picture_shows_what_was_kept_and_nothing_else(model, images) -> None:
    rows, columns = patch_grid(model)
    kept = kept_patches(0, 0, [0, 1, 2], rows * columns, 0.75)
    masked = encode_masked_image(model, images, kept)
    assert not torch.allclose(masked, model.encode_image(images))
    assert not torch.allclose(
        masked, encode_masked_image(model, images, kept_patches(0, 1, [0, 1, 2], rows * columns, 0.75))
    )
    # Whatever the hidden patches hold, the embedding is the same.
    side = images.shape[-1] // columns
    seen = torch.zeros(3, rows * columns, dtype=torch.bool).scatter_(1, kept, True).view(3, 1, rows, columns)
    seen = seen.repeat_interleave(side, 2).repeat_interleave(side, 3)
    scribbled = torch.where(seen, images, torch.randint_like(images, 256))
    torch.testing.assert_close(encode_masked_image(model, scribbled, kept), masked)
    shown = masked_pictures(model, images, kept)
    assert torch.equal(shown.where(seen, 0), images.where(seen, 0))
    hidden = shown[:, :, ~seen[0, 0]][0]
    torch.testing.assert_close(hidden / 255, model.mean[0, :, 0].expand_as(hidden), atol=0.5 / 255, rtol=0)


@torch.no_grad()
def test_nothing_masked_is_the_picture_itself(model, images) -> None:
    rows, columns = patch_grid(model)
    kept = kept_patches(0, 0, [0, 1, 2], rows * columns, 0.0)
    assert torch.equal(encode_masked_image(model, images, kept), model.encode_image(images))


def test_the_mask_is_gone_afterwards_and_gradients_flow(model, images) -> None:
    rows, columns = patch_grid(model)
    before = model.encode_image(images)
    encode_masked_image(model, images, kept_patches(0, 0, [0, 1, 2], rows * columns, 0.5)).sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.clip.visual.parameters())
    torch.testing.assert_close(model.encode_image(images), before)
