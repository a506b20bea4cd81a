"""Transforms equal open_clip's own within a grey level; crops are pure functions in range."""

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from workbench.models.transform import ImageTransform, random_crop


def picture(width, height):
    """A smooth picture with some texture, as PIL and as tensor."""
    y, x = np.mgrid[0:height, 0:width]
    values = np.stack([x * 255 / width, y * 255 / height, 128 + 100 * np.sin(x / 7) * np.cos(y / 5)], -1)
    array = values.astype(np.uint8)
    return Image.fromarray(array), torch.from_numpy(array).permute(2, 0, 1)


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", [(90, 61), (40, 200), (64, 64), (31, 33)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_equal_to_open_clip(size, resize_mode, interpolation):
    pil, tensor = picture(*size)
    config = {"size": 32, "interpolation": interpolation, "resize_mode": resize_mode, "fill_color": 0}
    theirs = open_clip.image_transform(
        32,
        is_train=False,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        resize_mode=resize_mode,
        interpolation=interpolation,
    )(pil)
    ours = ImageTransform.from_preprocess(config)(tensor)
    assert ours.dtype == torch.uint8 and ours.shape == (3, 32, 32)
    # Pillow rounds between its two passes, so a grey level of difference is its noise.
    assert (ours.float() - theirs * 255).abs().max() <= 2.01
    assert (ours.float() - theirs * 255).abs().mean() < 0.6


def test_crop_is_what_it_says():
    _, tensor = picture(100, 80)
    whole = ImageTransform((20, 25))(tensor, crop=(0.2, 0.25, 0.25, 0.25))
    part = ImageTransform((20, 25), resize_mode="squash")(tensor[:, 20:40, 20:45])
    assert torch.equal(whole, part)


def test_random_crop_is_a_pure_function_in_range():
    crops = [random_crop(3, epoch, index, (0.5, 0.9)) for epoch in range(3) for index in range(200)]
    assert crops == [random_crop(3, epoch, index, (0.5, 0.9)) for epoch in range(3) for index in range(200)]
    assert len(set(crops)) == len(crops)
    for left, top, width, height in crops:
        assert left >= 0 and top >= 0 and left + width <= 1 + 1e-9 and top + height <= 1 + 1e-9
        assert 0.5 - 1e-9 <= width * height <= 0.9 + 1e-9


def test_no_crop_for_the_whole_picture():
    assert random_crop(0, 0, 0, (1.0, 1.0)) is None
