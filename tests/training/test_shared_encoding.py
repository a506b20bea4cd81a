"""Validation is bounded, and embedded by all processes to what one process finds."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import workbench
from tests.training import encoding_of_rank
from workbench.evaluation.encode import encode_pairs, encode_texts
from workbench.recipe import Recipe
from workbench.training.batch_inputs import open_pairs


@pytest.mark.slow
def test_three_processes_find_what_one_does(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "3"]
    subprocess.run([*command, "-m", "tests.training.encoding_of_rank", str(tmp_path)], check=True)
    assert [(tmp_path / f"member-{rank}").read_text() for rank in range(3)] == ["False"] * 3
    for name, pairs in encoding_of_rank.splits().items():
        alone = encode_pairs(encoding_of_rank.student(), pairs, batch=8)
        together = torch.load(tmp_path / f"{name}.pt", weights_only=True)
        torch.testing.assert_close(together["image"], alone.image, atol=1e-6, rtol=0)
        torch.testing.assert_close(together["text"], alone.text, atol=1e-6, rtol=0)
        assert together["rows"].tolist() == alone.rows.tolist()
        assert together["image_of_text"].tolist() == alone.image_of_text.tolist()
        apart = torch.load(tmp_path / f"{name}-alone.pt", weights_only=True)
        assert torch.equal(apart["image"], together["image"]) and torch.equal(apart["rows"], together["rows"])
        texts = encode_texts(encoding_of_rank.student(), encoding_of_rank.TEXTS)
        torch.testing.assert_close(apart["text"], texts, atol=1e-6, rtol=0)


def test_workers_read_the_same_pictures() -> None:
    (pairs, *_) = encoding_of_rank.splits().values()
    model = encoding_of_rank.student()
    alone, helped = (encode_pairs(model, pairs, 8, workers) for workers in (0, 2))
    assert torch.equal(alone.image, helped.image) and (alone.rows == helped.rows).all()
    assert alone.failed == helped.failed


def test_validation_takes_so_many_pairs_and_no_more() -> None:
    recipe = Recipe.load("task_only_demo", {"training.validation_pairs": 12, "data.scenes": 20})
    whole = workbench.load_pairs("scenes", recipe.data.validation_split)
    validation = open_pairs(recipe)[1]
    assert len(validation) == 12 < len(whole) and set(validation.ids) < set(whole.ids)
    every = Recipe.load("task_only_demo", {"training.validation_pairs": "null", "data.scenes": 20})
    assert len(open_pairs(every)[1]) == len(whole) <= Recipe.load("task_only_demo").training.validation_pairs
    assert recipe.fingerprint == every.fingerprint
