"""Retrieval sets beside a recipe's own data: what is measured, on how much, and where it shows."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import workbench
from tests.fake_runs import write_run
from workbench.data.load import available_splits, load_pairs
from workbench.errors import SettingError
from workbench.evaluation.encode import Embedded, encode_pairs
from workbench.evaluation.retrieval.metrics import retrieval_folds, retrieval_metrics
from workbench.evaluation.retrieval.sets import retrieval_scores, retrieval_sets
from workbench.evaluation.suites import (
    evaluate,
    evaluated_pairs,
    evaluation_splits,
    measure,
    results_of_queries,
    size_of,
)
from workbench.files import read_json
from workbench.models.loading import load_dual_encoder
from workbench.recipe import Recipe

CAPTIONS = ["a red square", "something red", "a blue field", "blue", "green grass", "a yellow sun", "black"]


@pytest.fixture(scope="module")
def student():
    torch.manual_seed(0)
    return load_dual_encoder("demo_student").eval()


def pictures(folder: Path, count: int) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number:03}.png" for number in range(count)]
    for number, name in enumerate(names):
        Image.new("RGB", (20, 20), (number * 13 % 256, 90, number * 7 % 256)).save(folder / name)
    return names


def karpathy(file: Path, images: Path, count: int, captions: int = 2, train: int = 3) -> Path:
    """A Karpathy JSON whose first pictures are for training; picture n has one caption more where 3 divides
    n."""
    names = pictures(images, count)
    records = [
        {
            "filename": name,
            "split": "train" if number < train else "test",
            "sentences": [
                {"raw": f"{CAPTIONS[(number + part) % len(CAPTIONS)]} {number}"}
                for part in range(captions + (number % 3 == 0))
            ],
        }
        for number, name in enumerate(names)
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"images": records}))
    return file


def folder_of(path: Path, count: int) -> Path:
    for number, name in enumerate(pictures(path, count)):
        (path / name).with_suffix(".txt").write_text(f"{CAPTIONS[number % len(CAPTIONS)]}\n{number}\n")
    return path


def recipe_of(**settings: object) -> Recipe:
    base = {"evaluation.suites": ["retrieval"], "evaluation.splits": ["val"]}
    changes = {name.replace("__", "."): value for name, value in settings.items()}
    return Recipe.load("task_only_demo", base | changes)


def test_coco_its_folds_and_flickr_stand_beside_the_own_splits(tmp_path: Path, student) -> None:
    coco = karpathy(tmp_path / "dataset_coco.json", tmp_path / "COCO" / "all", 24)
    flickr = karpathy(tmp_path / "dataset_flickr30k.json", tmp_path, 9)
    own = folder_of(tmp_path / "own", 30)
    entries = [
        f"{coco}@{tmp_path / 'COCO' / 'all'}",
        f"coco-1k:{coco}@{tmp_path / 'COCO' / 'all'}",
        str(flickr),
    ]
    recipe = recipe_of(data__source=str(own), evaluation__splits=None, evaluation__retrieval=entries)
    assert list(retrieval_sets(recipe)) == ["coco", "coco-1k", "flickr30k"]
    results = evaluate(student, recipe, tmp_path / "out")
    assert list(results) == ["test", "coco", "coco-1k", "flickr30k"]

    pairs = load_pairs(coco, "test", image_folder=tmp_path / "COCO" / "all")
    embedded = encode_pairs(student, pairs)
    sides = embedded.image, embedded.text, embedded.image_of_text
    for name, wanted in (("coco", retrieval_metrics(*sides)), ("coco-1k", retrieval_folds(*sides, 5))):
        for direction in ("text_to_image", "image_to_text"):
            side = getattr(wanted, direction)
            assert results[name][f"{direction}_r1"] == pytest.approx(side.recall[1], abs=1e-6)
            assert results[name][f"{direction}_map"] == pytest.approx(side.map, abs=1e-6)
    reports = {name: read_json(tmp_path / "out" / f"{name}.json") for name in results}
    assert (reports["coco"]["images"], reports["coco"]["captions"]) == (21, 49)
    assert size_of(reports["coco-1k"]) == "21 pictures in 5 folds, 49 captions"
    assert reports["flickr30k"]["images"] == 6 and reports["coco"]["data"] == pairs.fingerprint
    assert evaluated_pairs(recipe, "coco").fingerprint == pairs.fingerprint
    assert evaluated_pairs(recipe, "test").name == str(own)


def test_a_folds_number_is_the_mean_of_its_queries_whatever_their_number() -> None:
    generator = torch.Generator().manual_seed(3)
    owner = np.random.default_rng(0).permutation(np.repeat(np.arange(11), np.arange(1, 12)))
    image = torch.randn(11, 6, generator=generator)
    text = image[torch.from_numpy(owner)] + 2 * torch.randn(len(owner), 6, generator=generator)
    embedded = Embedded(image, text, owner, np.arange(11))
    scores, queries = retrieval_scores(embedded, folds=4)
    wanted = retrieval_folds(image, text, owner, 4)
    assert scores["text_to_image_r1"] == wanted.text_to_image.recall[1]
    for name in ("text_to_image_r1", "text_to_image_r5", "text_to_image_mrr", "image_to_text_r1"):
        results, images = results_of_queries(name, queries)
        assert results.mean() == pytest.approx(scores[name], abs=1e-12)
        assert len(results) == len(images)
    assert results_of_queries("text_to_image_r1", queries)[1].tolist() == owner.tolist()
    plain = (queries["t2i_ranks"] <= 1).mean()
    assert abs(plain - scores["text_to_image_r1"]) > 1e-3  # so the weights matter


def test_runs_are_compared_on_them(tmp_path: Path, student) -> None:
    coco = karpathy(tmp_path / "coco.json", tmp_path, 24)
    settings = {"evaluation.retrieval": [str(coco), f"coco-1k:{coco}"], "evaluation.splits": ["val"]}
    runs = []
    for seed in (0, 1):
        run = write_run(tmp_path / str(seed), "task_only_demo", seed, overrides=settings, steps=3)
        recipe = workbench.Run(run).recipe
        evaluate(student, recipe.model_copy(update={"data": recipe.data}), run / "evaluation")
        runs.append(run)
    table = workbench.compare(runs)
    assert {"val", "coco", "coco-1k"} <= set(table.sizes)
    assert "21 pictures in 5 folds, 49 captions" in str(table)


@pytest.mark.parametrize(
    "entries, message",
    [
        (["nowhere.json"], r"evaluation\.retrieval = 'nowhere.json': no such file"),
        (["{tmp}/coco.json", "{tmp}/b/dataset_coco.json"], "would be called 'coco'"),
        (["{tmp}/val"], "would be called 'val'"),
        (["{tmp}/coco.json@{tmp}/nowhere"], "no such folder"),
        (["coco-1k:{tmp}/small.json"], "2 pictures for 5 folds"),
        (["{tmp}/own"], "the recipe trains on this source"),
    ],
)
def test_entries_that_cannot_be_meant(tmp_path: Path, student, entries: list[str], message: str) -> None:
    karpathy(tmp_path / "coco.json", tmp_path, 6)
    karpathy(tmp_path / "b" / "dataset_coco.json", tmp_path / "b", 6)
    karpathy(tmp_path / "small.json", tmp_path, 2, train=0)
    folder_of(tmp_path / "val", 4)
    own = folder_of(tmp_path / "own", 12)
    written = [entry.replace("{tmp}", str(tmp_path)) for entry in entries]
    recipe = recipe_of(data__source=str(own), evaluation__retrieval=written)
    with pytest.raises(SettingError, match=message):
        measure(student, recipe)


def test_a_source_without_splits_is_measured_whole_unless_it_is_trained_on(tmp_path: Path, student) -> None:
    own = folder_of(tmp_path / "own", 40)
    recipe = recipe_of(data__source=str(own), evaluation__splits=None)
    assert available_splits(own) == ["train", "val", "test"] and available_splits(own, by_hash=False) == [
        "all"
    ]
    assert evaluation_splits(recipe) == ["test"] and evaluation_splits(recipe, whole=True) == ["all"]
    report = measure(student, recipe, whole=True)["all"]
    assert size_of(report) == "40 pictures, 80 captions"
    asked = recipe_of(data__source=str(own), evaluation__splits=["test"])
    assert evaluation_splits(asked, whole=True) == ["test"]
    probed = recipe_of(data__source=str(own), evaluation__splits=None, evaluation__suites=["exact_match"])
    assert evaluation_splits(probed, whole=True) == ["test"]
    larger = recipe_of(data__source=str(own), evaluation__splits=["test"], data__test_share=0.5)
    assert 10 < measure(student, larger)["test"]["images"] < 30
    with pytest.raises(SettingError, match="no such split"):
        load_pairs(karpathy(tmp_path / "k" / "coco.json", tmp_path / "k", 5), "all")
