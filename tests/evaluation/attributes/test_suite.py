"""The suite "attributes" on the embedded dataset, with embeddings made by hand that know what they should."""

import numpy as np
import pytest
import torch

import workbench.evaluation.attributes.suite as suite
from workbench.data.labelled.scene_labels import scene_labels
from workbench.data.load import load_pairs
from workbench.data.pairs import Pairs
from workbench.data.scenes.catalogue import concepts
from workbench.evaluation.encode import Embedded
from workbench.evaluation.suites import results_of_queries
from workbench.models.loading import load_dual_encoder
from workbench.recipe import Recipe

RECIPE = Recipe.load("task_only_demo")
NAMES = [concept.name for concept in concepts()]
DIM = 1000


def vector(words: str) -> torch.Tensor:
    """A direction of its own for every word: one that is nearly at right angles to all others."""
    seed = sum(ord(letter) * 257**place for place, letter in enumerate(words)) % 2**31
    return torch.nn.functional.normalize(
        torch.randn(DIM, generator=torch.Generator().manual_seed(seed)), dim=0
    )


def picture(row: dict) -> torch.Tensor:
    shown = [*row["objects"], *row["categories"], *row["sizes"], row["background"]]
    return torch.nn.functional.normalize(torch.stack([vector(word) for word in shown]).sum(0), dim=0)


def text(sentence: str) -> torch.Tensor:
    """What a sentence names, by the longest phrase it can be."""
    known = [*NAMES, *{concept.category for concept in concepts()}, "small", "large"]
    known += ["white", "grey", "red", "yellow", "green", "blue", "purple", "pink"]
    words = f" {sentence.replace('.', '')} "
    result = []
    for phrase in sorted(set(known), key=len, reverse=True):
        if f" {phrase} " in words:
            result.append(vector(phrase))
            words = words.replace(f" {phrase} ", "  ")
    return torch.nn.functional.normalize(torch.stack(result or [vector("nothing")]).sum(0), dim=0)


@pytest.fixture
def knowing(monkeypatch: pytest.MonkeyPatch) -> None:
    def images(model: object, pairs: Pairs, batch: int) -> tuple:
        rows = pairs.table.to_pylist()
        return torch.stack([picture(row) for row in rows]), np.arange(len(rows)), {}

    def texts(model: object, sentences: list[str]) -> torch.Tensor:
        return torch.stack([text(sentence) for sentence in sentences])

    monkeypatch.setattr(suite, "encode_texts", texts)
    monkeypatch.setattr(suite, "encode_images", images)


def embedded(pairs: Pairs, rows: list[int]) -> Embedded:
    scenes = pairs.table.to_pylist()
    image = torch.stack([picture(scenes[row]) for row in rows])
    return Embedded(image, torch.empty(0, DIM), np.empty(0, np.int64), np.array(rows))


@pytest.fixture(scope="module")
def student():
    return load_dual_encoder("demo_student")


@pytest.fixture(scope="module")
def unseen() -> Pairs:
    return load_pairs("scenes", "test_concepts").select(np.arange(50))


def test_who_knows_everything_is_right(student, knowing: None, unseen: Pairs) -> None:
    result, _ = suite.scene_attribute_scores(student, RECIPE, unseen, embedded(unseen, list(range(50))))
    for name in ("mean_per_class", "seen_mean_per_class", "unseen_mean_per_class", "harmonic_mean"):
        assert result[f"class_name_{name}"] > 0.97, name
    assert result["class_name_zero_shot_mean_per_class"] > 0.97
    assert result["attributes_only_mean_per_class"] > 0.97
    assert result["attribute_prediction_map"] > 0.97 > 0.3 > result["attribute_prediction_chance"]
    assert result["attribute_prediction_left_out"] == 0
    assert not any(name.startswith("attributes_only_") and "seen" in name for name in result)


def test_every_number_is_the_mean_of_the_queries_beside_it(student, knowing: None, unseen: Pairs) -> None:
    rows = [row for row in range(50) if row % 3]  # some pictures could not be read
    known = embedded(unseen, rows)
    known.image = torch.nn.functional.normalize(
        known.image + 0.16 * torch.randn(known.image.shape, generator=torch.Generator().manual_seed(0)), dim=1
    )
    result, queries = suite.scene_attribute_scores(student, RECIPE, unseen, known)
    assert 0 < result["class_name_unseen_mean_per_class"] < 1
    without = {"class_name_harmonic_mean", "attribute_prediction_chance", "attribute_prediction_left_out"}
    for name in set(result) - without:
        results, images = results_of_queries(name, queries)
        assert results.mean() == pytest.approx(result[name]) and len(results) == len(images), name
    single = [at for at, row in enumerate(rows) if len(unseen.details(row)["objects"]) == 1]
    assert queries["class_name_unseen_mean_per_class_image"].tolist() == single
    assert set(queries["attribute_prediction_map_image"].tolist()) == set(single)
    seen = queries["class_name_seen_mean_per_class_image"]
    assert seen.min() >= len(rows) and len(set(seen.tolist())) == len(seen)
    assert len(seen) == len(scene_labels(load_pairs("scenes", "test")))


def test_seen_names_alone_have_no_harmonic_mean(student, knowing: None) -> None:
    pairs = load_pairs("scenes", "val").select(np.arange(30))
    result, _ = suite.scene_attribute_scores(student, RECIPE, pairs, embedded(pairs, list(range(30))))
    assert result["class_name_seen_mean_per_class"] == result["class_name_mean_per_class"] > 0.97
    assert not any("unseen" in name or "harmonic" in name or "zero_shot" in name for name in result)


def test_other_data_has_no_attributes(student, unseen: Pairs) -> None:
    bare = Pairs(unseen.table.select(["id", "captions"]), unseen.image, name="bare", split="test")
    assert suite.scene_attribute_scores(student, RECIPE, bare, embedded(unseen, [0])) == ({}, {})
    several = [row for row in range(50) if len(unseen.details(row)["objects"]) > 1][:3]
    assert suite.scene_attribute_scores(student, RECIPE, unseen, embedded(unseen, several)) == ({}, {})
