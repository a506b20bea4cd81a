"""Regions: the tower's own embeddings of crops, looked up; a picture without boxes is its own region."""

import numpy as np
import pytest
import torch

from workbench.data.load import load_pairs
from workbench.errors import SettingError
from workbench.models.loading import load_dual_encoder
from workbench.models.tokens import patch_tokens
from workbench.recipe import Recipe
from workbench.targets.caption_tokens import token_targets
from workbench.targets.image_text import Teacher
from workbench.targets.regions import WHOLE, region_targets

SCENES = 20


@pytest.fixture(scope="module")
def frozen() -> Teacher:
    torch.manual_seed(0)
    return Teacher(load_dual_encoder("demo_student_plain"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> None:
    drawn = load_pairs("scenes", "train", scenes=SCENES)  # before the cache moves: drawn once for all tests
    monkeypatch.setattr("workbench.targets.cached.store_folder", lambda _, name: tmp_path / name)
    assert len(drawn) == SCENES


def recipe(**changes) -> Recipe:
    settings = {
        "name": "regions",
        "data": {"scenes": SCENES},
        "student": {"model": "demo_student_plain"},
        "teacher": {"model": "demo_student_plain"},
        "regions": {"proposer": "ground_truth", "limit": 4},
        "targets": {"batch": 8},
    }
    return Recipe.from_settings(settings, {name.replace("__", "."): value for name, value in changes.items()})


def pairs():
    return load_pairs("scenes", "train", scenes=SCENES)


def test_embeddings_are_those_of_the_crops(frozen: Teacher) -> None:
    result = region_targets(recipe(), pairs(), frozen, say=None)
    rows = np.array([3, 0, 7])
    looked_up = result.rows(rows)
    assert looked_up.embeddings.shape[0] == 3 and not result.unreadable and result.without_box == 0
    for at, row in enumerate(rows):
        boxes = np.array(pairs().details(int(row))["boxes"])
        assert looked_up.mask[at].sum() == len(boxes)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) / 64**2
        for place, number in enumerate(np.argsort(-areas, kind="stable")):
            left, top, right, bottom = boxes[number] / 64
            np.testing.assert_allclose(looked_up.boxes[at, place], boxes[number] / 64, atol=1e-6)
            np.testing.assert_allclose(looked_up.areas[at, place], areas[number], atol=1e-6)
            crop = frozen.model.transform(pairs().image(int(row)), (left, top, right - left, bottom - top))
            with torch.no_grad():
                expected = frozen.model.encode_image(crop[None])[0].numpy()
            np.testing.assert_allclose(looked_up.embeddings[at, place], expected, atol=2e-3, rtol=2e-2)


def test_a_picture_without_boxes_is_its_own_region(frozen: Teacher) -> None:
    said: list[str] = []
    result = region_targets(recipe(regions__proposer="whole_image"), pairs(), frozen, say=said.append)
    looked_up = result.rows(np.arange(SCENES))
    assert result.without_box == 1.0 and any("100.0%" in line for line in said)
    assert looked_up.mask.sum() == SCENES and (looked_up.classes == WHOLE).all()
    assert (looked_up.boxes == np.array([0, 0, 1, 1])).all() and (looked_up.areas == 1).all()


def test_patches_are_places_of_the_feature_map(frozen: Teacher) -> None:
    result = region_targets(recipe(regions__proposer="patches"), pairs(), frozen, say=None).rows([5])
    ready = frozen.model.transform(pairs().image(5))[None]
    expected = patch_tokens(frozen.model, ready)[0].numpy()
    np.testing.assert_allclose(result.embeddings[0], expected, atol=2e-3, rtol=2e-2)
    side = round(len(expected) ** 0.5)
    np.testing.assert_allclose(result.boxes[0, 1], [1 / side, 0, 2 / side, 1 / side], atol=1e-6)
    np.testing.assert_allclose(result.areas.sum(), 1, atol=1e-5)


def test_another_proposer_or_limit_is_another_store(frozen: Teacher) -> None:
    region_targets(recipe(), pairs(), frozen, say=None)
    with pytest.raises(SettingError, match="fingerprint"):
        region_targets(recipe(regions__proposer="grid"), pairs(), frozen, say=None)


def test_tokens_are_those_of_each_caption(frozen: Teacher) -> None:
    from workbench.models.tokens import caption_tokens

    result = token_targets(recipe(), pairs(), frozen, say=None)
    chosen = np.array([40, 2, 99])
    tokens, mask = result.rows(chosen)
    captions = pairs().all_captions
    for at, caption in enumerate(chosen):
        alone = caption_tokens(frozen.model, frozen.model.tokenize([captions[caption]]))
        expected = alone.tokens[0][alone.mask[0]].numpy()
        assert mask[at].sum() == len(expected)
        np.testing.assert_allclose(tokens[at][mask[at]], expected, atol=2e-3, rtol=2e-2)
        assert not tokens[at][~mask[at]].any()
