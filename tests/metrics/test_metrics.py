"""One record a metric: every name that evaluation stores has one, and all that is shown derives from it."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from tests.data.labelled.zero_shot_layouts import BIRD_IMAGES, write_cub, write_proposed_split
from workbench.evaluation.probes import suite
from workbench.evaluation.results_io import read_evaluations
from workbench.evaluation.suites import evaluate, results_of_queries
from workbench.metrics import metric
from workbench.models.loading import load_dual_encoder
from workbench.recipe import Recipe

SUITES = ["retrieval", "zero_shot", "composition", "search", "questions", "attributes"]


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory):
    """What every suite writes of the embedded dataset and of a labelled set."""
    birds, folder = tmp_path_factory.mktemp("birds"), tmp_path_factory.mktemp("evaluation")
    write_cub(birds)
    files = [f"images/{name}" for name in BIRD_IMAGES]
    write_proposed_split(birds, "CUB", files, trainval=[1], test_seen=[2], test_unseen=[3, 4])
    settings = {
        "data.scenes": 64,
        "data.image_size": 32,
        "evaluation.splits": ["val"],
        "evaluation.suites": [*SUITES, "exact_match", "captioning"],
        "evaluation.labelled": [f"cub:{birds}"],
    }
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"STEPS": 1, "TRAINED_ON": 64, "JUDGED_ON": 16}.items():
            patch.setattr(suite, name, value)
        evaluate(load_dual_encoder("demo_student"), Recipe.load("task_only_demo", settings), folder)
    return read_evaluations(folder)


def test_every_metric_that_is_stored_has_a_record(evaluations):
    names = {name for split in evaluations.values() for name in split.report["scores"]}
    assert {"captioning_object_recall", "exact_match_raw", "class_name_harmonic_mean"} <= names
    assert len(names) > 40
    assert [name for name in names if not metric(name).known] == []
    assert len({metric(name).label for name in names}) == len(names)


def test_results_of_queries_are_found_by_the_record_and_their_mean_is_the_metric(evaluations):
    kept = set()
    for split in evaluations.values():
        for name, value in split.report["scores"].items():
            if result := results_of_queries(name, split.queries):
                results, images = result
                assert results.mean() == pytest.approx(value) and len(results) == len(images), name
                kept.add(name)
            assert not metric(name).share or 0 <= value <= 1, name
        keys = {metric(name).results for name in kept} | {metric(name).images for name in kept}
        assert {key for key in split.queries if not key.startswith("image_of")} <= keys
    assert {"text_to_image_r5", "image_to_text_mrr", "swap_accuracy", "zero_shot_names_top1"} <= kept


def test_what_a_record_says():
    record = metric("text_to_image_r5")
    assert (record.label, record.share, record.headline) == ("text-to-image R@5", True, None)
    assert record.of_queries(np.array([1, 5, 6])).tolist() == [True, True, False]
    assert metric("image_to_text_mrr").of_queries(np.array([1, 4])).tolist() == [1, 0.25]
    assert metric("image_to_text_median_rank").higher_is_better is False
    assert metric("attribute_prediction_left_out").higher_is_better is None
    assert [metric(name).headline for name in ("text_to_image_r1", "image_to_text_r1", "zero_shot_top1")] == [
        0,
        1,
        2,
    ]
    assert metric("captioning_object_recall").share


def test_a_name_without_a_family_is_kept_and_said_plainly():
    record = metric("somebody_s_own")
    assert (record.known, record.share, record.label) == (False, False, "somebody s own")
    assert record.results == "somebody_s_own_result"


def test_a_record_needs_neither_torch_nor_plotly():
    code = "import sys, workbench.metrics; assert not {'torch', 'plotly', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
