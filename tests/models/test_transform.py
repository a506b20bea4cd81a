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
@pytest.mark.parametrize("size", [(90, 61), (40, 200), (64, 64), (31, 33), (640, 480), (40, 36), (480, 641)])
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


@pytest.mark.parametrize("resize_mode", ["squash", "shortest", "longest"])
@pytest.mark.parametrize(("height", "width"), [(60, 90), (90, 60), (60, 60)])
def test_what_is_visible_is_what_the_view_shows(resize_mode, height, width):
    """A picture whose grey levels tell the place: the middle pixels of the view's edges lie where it says."""
    down, across = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    picture = torch.stack([across * 200 // width, down * 200 // height, torch.full_like(down, 255)]).byte()
    transform = ImageTransform((30, 30), "bilinear", resize_mode)
    left, top, wide, high = transform.visible(height, width)
    view = transform(picture).float()
    shown = (view[2] > 128).nonzero()
    for x, y in (
        (shown[:, 1].min(), 15),
        (shown[:, 1].max(), 15),
        (15, shown[:, 0].min()),
        (15, shown[:, 0].max()),
    ):
        assert abs(left + wide * (float(x) + 0.5) / 30 - view[0, int(y), int(x)] / 200) < 0.05
        assert abs(top + high * (float(y) + 0.5) / 30 - view[1, int(y), int(x)] / 200) < 0.05
