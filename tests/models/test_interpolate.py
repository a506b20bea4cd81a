"""Models between two others: a weighted sum, the ends themselves at the ends, nothing between strangers."""

from pathlib import Path

import pytest
import torch

from workbench.errors import SettingError
from workbench.models.interpolate import interpolate
from workbench.models.loading import load_dual_encoder

TINY = Path(__file__).parents[1] / "tiny_vit.json"


def changed(name, seed):
    """A model of random weights, its batch statistics and counters random too."""
    torch.manual_seed(seed)
    model = load_dual_encoder(name)
    for key, tensor in model.clip.state_dict().items():
        if "running_" in key:
            tensor.uniform_(0.5, 2.0)
        elif "num_batches" in key:
            tensor.fill_(seed)
    return model


def state(model):
    return {key: value.clone() for key, value in model.clip.state_dict().items()}


@pytest.fixture(scope="module")
def ends():
    return changed("demo_student", 3), changed("demo_student", 5)


def test_weights_and_batch_statistics_are_the_weighted_sum(ends):
    a, b = (state(model) for model in ends)
    between = interpolate(*ends, 0.25)
    assert not between.clip.training
    integers = 0
    for key, value in between.clip.state_dict().items():
        if value.is_floating_point():
            expected = 0.75 * a[key].double() + 0.25 * b[key].double()
            torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-6, msg=key)
        else:
            assert torch.equal(value, b[key]), key
            integers += int("num_batches" in key)
    assert integers
    assert any("running_var" in key and not torch.equal(a[key], b[key]) for key in a)
    for model, before in zip(ends, (a, b), strict=True):
        assert all(torch.equal(value, before[key]) for key, value in model.clip.state_dict().items())


def test_the_ends_are_the_models_themselves(ends):
    for alpha, end in zip((0.0, 1.0), ends, strict=True):
        got = interpolate(*ends, alpha).clip.state_dict()
        for key, value in end.clip.state_dict().items():
            assert torch.equal(got[key], value) or not value.is_floating_point(), key


def test_half_precision_is_summed_in_float32():
    a, b = (changed(str(TINY), seed) for seed in (0, 1))
    expected = interpolate(a, b, 0.3).clip.visual.proj
    b.clip.half()
    got = interpolate(a, b, 0.3).clip.visual.proj
    assert got.dtype == torch.float16
    torch.testing.assert_close(got.float(), expected, rtol=1e-3, atol=1e-3)


def test_what_is_saved_between_loads_in_open_clip(ends, tmp_path):
    between = interpolate(*ends, 0.5)
    again = load_dual_encoder(str(between.save(tmp_path)))
    assert again.fingerprint() == between.fingerprint()


@pytest.mark.parametrize("alpha", [-0.1, 1.5, float("nan")])
def test_alphas_beyond_the_ends_are_refused(ends, alpha):
    with pytest.raises(SettingError, match="alpha = "):
        interpolate(*ends, alpha)


def test_strangers_are_refused(ends, tmp_path):
    with pytest.raises(SettingError, match=r"B = '.*another architecture than A, where this is"):
        interpolate(ends[0], load_dual_encoder(str(TINY)), 0.5)
    other = load_dual_encoder("demo_student")
    other.config["preprocess_cfg"]["interpolation"] = "bicubic"
    with pytest.raises(SettingError, match="the transform of B is configured unlike that of A"):
        interpolate(ends[0], other, 0.5)
