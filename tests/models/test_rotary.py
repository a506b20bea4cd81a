import copy
import json
from pathlib import Path

import open_clip
import pytest
import torch
from torch import Tensor, nn

from workbench.errors import SettingError
from workbench.evaluation.relevance import relevance
from workbench.export.programs import needs_workbench, write_programs
from workbench.models.dual_encoder import DualEncoder
from workbench.models.loading import load_dual_encoder
from workbench.models.masking import encode_masked_image, kept_patches, patch_grid
from workbench.models.rotary import RotaryAttention, grid_angles
from workbench.recipe import Recipe

TINY = str(Path(__file__).parents[1] / "tiny_vit.json")


@pytest.fixture(scope="module")
def absolute() -> DualEncoder:
    torch.manual_seed(0)
    return load_dual_encoder(TINY).eval()


@pytest.fixture(scope="module")
def rotary(absolute: DualEncoder, tmp_path_factory: pytest.TempPathFactory) -> DualEncoder:
    folder = absolute.save(tmp_path_factory.mktemp("absolute"))
    return load_dual_encoder(str(folder), rotary_positions=True).eval()


def pictures(model: DualEncoder, count: int = 2) -> Tensor:
    height, width = model.transform.size
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def test_attention_equals_complex_rotation() -> None:
    torch.manual_seed(0)
    plain, grid = nn.MultiheadAttention(24, 3, batch_first=True), (2, 3)
    tokens = torch.randn(4, 7, 24)
    seen, _ = RotaryAttention(plain, grid)(tokens, tokens, tokens)

    rows = nn.functional.linear(tokens, plain.in_proj_weight, plain.in_proj_bias)
    query, key, value = (part.unflatten(-1, (3, 8)).transpose(1, 2) for part in rows.chunk(3, dim=-1))
    angles = torch.zeros(7, 4)
    for patch in range(6):  # a quarter of a head by the row, a quarter by the column
        for number in range(2):
            angles[1 + patch, number] = (patch // 3) * 100 ** (-number / 2)
            angles[1 + patch, 2 + number] = (patch % 3) * 100 ** (-number / 2)
    turn = torch.polar(torch.ones_like(angles), angles)
    query, key = (torch.complex(side[..., :4], side[..., 4:]) * turn for side in (query, key))
    scores = (query @ key.conj().transpose(2, 3)).real / 8**0.5
    expected = plain.out_proj((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(seen, expected)


def test_without_a_place_to_go_it_is_the_attention_that_it_replaces() -> None:
    plain = nn.MultiheadAttention(16, 2, batch_first=True)
    tokens = torch.randn(3, 2, 16)
    expected, _ = plain(tokens, tokens, tokens, need_weights=False)
    torch.testing.assert_close(RotaryAttention(plain, (1, 1))(tokens, tokens, tokens)[0], expected)
    assert not grid_angles((1, 1), 8).any()


def test_weights_are_kept_and_places_still_count(absolute: DualEncoder, rotary: DualEncoder) -> None:
    before, after = absolute.clip.state_dict(), rotary.clip.state_dict()
    assert before.keys() == after.keys()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed == ["visual.positional_embedding"]
    assert "visual.positional_embedding" in rotary.fixed

    without = copy.deepcopy(absolute)  # no positions at all
    with torch.no_grad():
        without.clip.visual.positional_embedding[1:] = 0
    whole = pictures(rotary)
    side = rotary.transform.size[0] // rotary.clip.visual.grid_size[0]
    turned = torch.roll(whole, side, dims=-1)
    embed = torch.no_grad()(lambda model, images: model.encode_image(images))
    torch.testing.assert_close(embed(without, whole), embed(without, turned), atol=1e-5, rtol=1e-4)
    assert (embed(rotary, whole) - embed(rotary, turned)).abs().max() > 1e-3


def test_saved_it_is_loaded_again_and_plain_open_clip_refuses_it(rotary: DualEncoder, tmp_path: Path) -> None:
    folder = rotary.save(tmp_path / "rotary")
    again = load_dual_encoder(str(folder)).eval()
    torch.testing.assert_close(
        again.encode_image(pictures(again)), rotary.encode_image(pictures(rotary)), atol=0, rtol=0
    )
    with pytest.raises(TypeError, match="rotary_positions"):
        open_clip.create_model(f"local-dir:{folder}")
    assert needs_workbench(again)
    write_programs(again, tmp_path)


def test_masked_patches_are_hidden_by_their_colour(rotary: DualEncoder) -> None:
    rows, columns = patch_grid(rotary)
    kept = kept_patches(0, 0, [0, 1], rows * columns, 0.5)
    assert encode_masked_image(rotary, pictures(rotary), kept).isfinite().all()


def test_a_run_keeps_its_rotary_positions(recipe, tmp_path: Path) -> None:
    import workbench

    run = workbench.train(recipe(student__rotary_positions=True, training__steps=3), tmp_path / "run")
    model = run.model()
    assert not model.clip.visual.positional_embedding[1:].any()
    assert isinstance(model.clip.visual.transformer.resblocks[0].attn, RotaryAttention)


@pytest.mark.parametrize("name", ["demo_student", "demo_resnet18"])
def test_other_towers_are_refused(name: str) -> None:
    with pytest.raises(SettingError, match=r"student\.rotary_positions.*plain vision transformers"):
        load_dual_encoder(name, rotary_positions=True, setting="student")


def test_patches_that_are_left_out_are_refused(tmp_path: Path) -> None:
    config = json.loads(Path(TINY).read_text())
    config.get("model_cfg", config)["vision_cfg"]["patch_dropout"] = 0.5
    (tmp_path / "tiny.json").write_text(json.dumps(config))
    with pytest.raises(SettingError, match=r"student\.rotary_positions.*patch_dropout"):
        load_dual_encoder(str(tmp_path / "tiny.json"), rotary_positions=True, setting="student")


def test_gradient_weighted_attention_explains_it(rotary: DualEncoder) -> None:
    explained = relevance(rotary, pictures(rotary)[0], "a cat left of a dog")
    assert explained.method == "gradient-weighted attention"
    assert explained.heat.max() > 0


def test_lora_is_refused(settings) -> None:
    changes = {"student.rotary_positions": True, "student.trainable_image": "lora"}
    with pytest.raises(SettingError, match=r"rotary_positions"):
        Recipe.from_settings(settings, changes)


def test_the_setting_leaves_other_fingerprints_alone(settings) -> None:
    plain, rotary = (Recipe.from_settings(settings, {"student.rotary_positions": on}) for on in (False, True))
    assert Recipe.from_settings(settings).fingerprint == plain.fingerprint != rotary.fingerprint
