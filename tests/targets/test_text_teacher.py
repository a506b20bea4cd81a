"""The language model's targets: computed beforehand, by several processes, and looked up from files."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import workbench
from workbench.errors import SettingError
from workbench.files import cache_folder, sha256_of_json, sha256_of_strings
from workbench.recipe import Recipe
from workbench.targets import text_embeddings, text_teacher
from workbench.targets.build import teachers_answers
from workbench.targets.text_teacher import text_teacher_targets

SMALL: dict[str, Any] = {
    "data.scenes": 20,
    "training.device": "cpu",
    "concepts.clusters": 6,
    "concepts.reduce": 4,
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, where nothing is yet but the drawn scenes."""
    drawn = cache_folder("scenes")
    workbench.load_pairs("scenes", "train", scenes=20)
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "scenes").symlink_to(drawn)
    return tmp_path / "cache"


@pytest.mark.slow
def test_embed_shares_the_captions_and_training_loads_no_language_model(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe.load("knowledge_clip_demo", SMALL)
    recipe.save(tmp_path / "recipe.yaml")
    command = [sys.executable, "-m", "workbench", "embed", str(tmp_path / "recipe.yaml")]
    processes = [
        subprocess.Popen(
            command, env={**os.environ, "RANK": rank, "WORLD_SIZE": "2"}, stdout=subprocess.PIPE, text=True
        )
        for rank in "01"
    ]
    lines = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert "language model: " in lines[0] and lines[1] == ""
    monkeypatch.setattr(text_embeddings, "load_text_teacher", None)
    pairs = workbench.load_pairs("scenes", "train", scenes=20)
    targets = text_teacher_targets(recipe, pairs, tmp_path / "run")
    assert targets is not None and len(targets.raw) == len(pairs.all_captions)


def test_a_recipe_without_teachers_has_nothing_to_embed() -> None:
    with pytest.raises(SettingError, match="no teacher to ask"):
        list(teachers_answers(Recipe.load("task_only_demo")))


@pytest.mark.parametrize("kind", ["soft", "hard", "shuffled"])
def test_labels_are_those_of_the_concepts_and_computed_once(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_teacher, "ROWS", 16)
    recipe = Recipe.load("knowledge_clip_demo", {**SMALL, "concepts.labels": kind})
    pairs = workbench.load_pairs("scenes", "train", scenes=20)
    targets = text_teacher_targets(recipe, pairs, tmp_path)
    assert targets is not None and targets.concepts is not None
    whole = targets.concepts.soft_labels(targets.raw)
    captions = np.array([7, 0, 33, 7])
    expected = {
        "soft": whole.dense(6),
        "hard": np.eye(6, dtype=np.float32)[whole.indices[:, 0]],
        "shuffled": whole.dense(6)[np.random.default_rng(recipe.seed).permutation(len(whole.indices))],
    }[kind]
    np.testing.assert_allclose(targets.soft_labels(captions), expected[captions], atol=1e-6)

    def again(*_: Any) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(text_teacher.Concepts, "soft_labels", again)
    repeated = text_teacher_targets(recipe, pairs, tmp_path)
    assert repeated is not None
    np.testing.assert_array_equal(repeated.soft_labels(captions), targets.soft_labels(captions))


def test_digests_of_strings_are_those_of_the_list() -> None:
    for strings in ([], ["one"], ["東京", 'a "quoted" one', "", "\n"]):
        assert sha256_of_strings(iter(strings)) == sha256_of_json(strings)
