from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.labelled.zero_shot_layouts import BIRD_IMAGES, write_awa2, write_cub, write_proposed_split
from tests.data.samples import encoded
from workbench.data.labelled.load import load_labelled
from workbench.errors import SettingError
from workbench.evaluation.suites import evaluate, results_of_queries
from workbench.evaluation.zero_shot.sets import evaluate_set, labelled_scores, zero_shot_sets
from workbench.files import read_json
from workbench.models.loading import load_dual_encoder
from workbench.recipe import Recipe


def recipe(*sources: object, **more: object) -> Recipe:
    return Recipe.load("task_only_demo", {"evaluation.labelled": [str(source) for source in sources], **more})


@pytest.fixture(scope="module")
def student():
    torch.manual_seed(0)
    return load_dual_encoder("demo_student").eval()


def test_names_of_sets(tmp_path: Path) -> None:
    (tmp_path / "my birds").mkdir()
    sources = [f"{tmp_path}/my birds/", f"cub:{tmp_path}/my birds", "scenes:test/names", "../../etc"]
    names = list(zero_shot_sets(recipe(*sources), ["test"]))
    assert names == ["my-birds", "cub-my-birds", "scenes-test-names", "etc"]
    for twice, taken in (([sources[0], "/other/my birds"], []), (["/data/test"], ["test"])):
        with pytest.raises(SettingError, match=r"evaluation\.labelled = .*like those of another"):
            zero_shot_sets(recipe(*twice), taken)


def test_a_plain_folder(student, tmp_path: Path) -> None:
    for number, name in enumerate(("cat/a.jpg", "cat/b.jpg", "dog/a.jpg", "dog/empty.jpg")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"" if "empty" in name else encoded(number))
    report, queries = evaluate_set(student, recipe(), str(tmp_path))
    assert set(report["scores"]) == {"zero_shot_top1", "zero_shot_top5", "zero_shot_mean_per_class"}
    assert report["scores"]["zero_shot_top5"] == 1 and report["failed"] == {"empty file": 1}
    assert (report["images"], report["captions"], report["classes"]) == (3, 0, 2)
    assert report["data"] == load_labelled(tmp_path).pairs.fingerprint
    for name, value in report["scores"].items():
        results, images = results_of_queries(name, queries)
        assert results.mean() == pytest.approx(value) and images.tolist() == [0, 1, 2]


def test_only_test_images_count_and_the_harmonic_mean_is_there(student, tmp_path: Path) -> None:
    write_cub(tmp_path)
    files = [f"images/{name}" for name in BIRD_IMAGES]
    write_proposed_split(tmp_path, "CUB", files, trainval=[1], test_seen=[2], test_unseen=[3, 4])
    report, queries = evaluate_set(student, recipe(), f"cub:{tmp_path}")
    scores = report["scores"]
    assert report["images"] == 3
    for protocol in ("class_name", "attributes_only"):
        for name in ("mean_per_class", "seen_mean_per_class", "unseen_mean_per_class", "harmonic_mean"):
            assert 0 <= scores[f"{protocol}_{name}"] <= 1
        assert scores[f"{protocol}_zero_shot_mean_per_class"] == 1  # there is one unseen class
        assert queries[f"{protocol}_seen_mean_per_class_image"].tolist() == [0]
        assert queries[f"{protocol}_unseen_mean_per_class_image"].tolist() == [1, 2]
    assert scores["class_name_mean_per_class"] == scores["zero_shot_mean_per_class"]
    # Of five attributes, all are known of some test image and absent from another.
    assert scores["attribute_prediction_left_out"] == 0 and 0 < scores["attribute_prediction_map"] <= 1


def test_images_that_fail_take_their_attributes_with_them(student, tmp_path: Path) -> None:
    base = write_awa2(tmp_path)
    labelled = load_labelled(base)
    image = torch.nn.functional.normalize(torch.randn(6, student.dim), dim=1)
    whole, _ = labelled_scores(student, labelled, image)
    (base / "JPEGImages" / labelled.pairs.ids[0]).write_bytes(b"")
    report, _ = evaluate_set(student, recipe(), str(base))
    assert report["images"] == 5 and report["failed"] == {"empty file": 1}
    assert set(report["scores"]) == set(whole)
    assert whole["attribute_prediction_left_out"] == 2  # every animal is black here, and none flies
    assert whole["attribute_prediction_chance"] == pytest.approx(1 / 3)


def test_sets_are_evaluated_after_the_splits_and_written_alike(student, tmp_path: Path) -> None:
    base = write_awa2(tmp_path / "data")
    suites = {"evaluation.splits": ["val"], "evaluation.suites": ["attributes"]}
    results = evaluate(student, recipe(base, **suites), tmp_path / "out")
    assert list(results) == ["val", "Animals_with_Attributes2"]
    assert {"class_name_seen_mean_per_class", "attribute_prediction_map"} < set(results["val"])
    report = read_json(tmp_path / "out" / "Animals_with_Attributes2.json")
    assert report["split"] == "Animals_with_Attributes2"
    assert report["scores"] == results["Animals_with_Attributes2"] and report["images"] == 6
    with np.load(tmp_path / "out" / "Animals_with_Attributes2.npz") as queries:
        assert len(queries["zero_shot_correct"]) == 6


def test_what_is_wrong_with_a_set_is_said_of_the_setting(student, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"evaluation\.labelled = .*no such file or folder"):
        evaluate_set(student, recipe(), str(tmp_path / "nowhere"))
    with pytest.raises(SettingError, match=r"evaluation\.labelled = 'cub:.*does not contain this set"):
        evaluate_set(student, recipe(), f"cub:{tmp_path}")
