"""Linear probe and k-NN on labelled sets: equal to scikit-learn's own, and to a search by faiss."""

from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from tests.data.samples import encoded
from workbench.data.labelled.load import Labelled, load_labelled
from workbench.evaluation.encode import encode_images
from workbench.evaluation.probes.classifiers import FOLDS, NEIGHBOURS, STEPS, C, classifier_scores
from workbench.evaluation.suites import results_of_queries
from workbench.evaluation.zero_shot.sets import evaluate_set
from workbench.metrics import metric
from workbench.models.loading import load_dual_encoder
from workbench.recipe import Recipe

BOTH = Recipe.load("task_only_demo", {"evaluation.suites": ["linear_probe", "knn"]})


def several_of_each() -> Labelled:
    """Scenes of one object by category, of the categories with five or more."""
    labelled = load_labelled("scenes:val/categories", image_size=32)
    return labelled.select(np.flatnonzero(np.bincount(labelled.labels)[labelled.labels] >= 5))


@pytest.fixture(scope="module")
def student():
    torch.manual_seed(0)
    return load_dual_encoder("demo_student").eval()


def test_a_set_without_training_images_is_cross_validated(student) -> None:
    labelled = several_of_each()
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(len(labelled.class_names), 16))
    noisy = centres[labelled.labels] + 1.5 * generator.normal(size=(len(labelled), 16))
    image = torch.nn.functional.normalize(torch.from_numpy(noisy).float(), dim=1)
    scores, queries, learned_from = classifier_scores(student, BOTH, labelled, image, np.arange(len(image)))

    features, labels = image.numpy(), labelled.labels
    folds = min(FOLDS, np.unique(labels, return_counts=True)[1].min())
    splits = StratifiedKFold(folds, shuffle=True, random_state=0)
    linear = cross_val_predict(LogisticRegression(C=C, max_iter=STEPS), features, labels, cv=splits)
    nearest = np.empty_like(labels)
    for train, test in splits.split(features, labels):
        index = faiss.IndexFlatIP(features.shape[1])
        index.add(features[train])
        _, found = index.search(features[test], NEIGHBOURS)
        nearest[test] = [np.bincount(labels[train][row]).argmax() for row in found]
    assert scores == {
        "linear_probe_accuracy": (linear == labels).mean(),
        "knn_accuracy": (nearest == labels).mean(),
    }
    assert min(scores.values()) > 0.3 and max(scores.values()) < 1
    assert learned_from == len(labels) - len(labels) // folds
    for name, value in scores.items():
        results, images = results_of_queries(name, queries)
        assert results.mean() == pytest.approx(value) and images.tolist() == list(range(len(labels)))
        assert metric(name).known


def test_the_training_part_of_a_set_is_learned_from(student) -> None:
    labelled = several_of_each()
    test = np.arange(len(labelled)) % 3 == 0
    test[labelled.labels == 0] = True  # a class that is never learned is not judged
    labelled = replace(labelled, test=test)
    every = encode_images(student, labelled.pairs)[0]
    rows = np.arange(test.sum())[1:]  # the first could not be read
    scores, queries, learned_from = classifier_scores(student, BOTH, labelled, every[test][1:], rows)
    features, labels = every.numpy(), labelled.labels
    judged = np.flatnonzero(test)[1:][labels[test][1:] != 0]
    for classifier, name in (
        (LogisticRegression(C=C, max_iter=STEPS), "linear_probe"),
        (KNeighborsClassifier(NEIGHBOURS), "knn"),
    ):
        predicted = classifier.fit(features[~test], labels[~test]).predict(features[judged])
        assert queries[f"{name}_correct"].tolist() == (predicted == labels[judged]).tolist()
        assert scores[f"{name}_accuracy"] == (predicted == labels[judged]).mean()
    assert learned_from == (~test).sum()


def test_labelled_sets_have_them_where_suites_ask(student, tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
        (tmp_path / "ab"[number % 2] / f"{number}.png").write_bytes(encoded(number))
    report, queries = evaluate_set(student, BOTH, str(tmp_path))
    assert report["classifiers_learned_from"] == 6 and len(queries["knn_correct"]) == 8
    assert {"linear_probe_accuracy", "knn_accuracy", "zero_shot_top1"} <= set(report["scores"])
    plain, _ = evaluate_set(student, Recipe.load("task_only_demo"), str(tmp_path))
    assert "knn_accuracy" not in plain["scores"]


def test_a_class_of_one_image_gives_no_result(student) -> None:
    labelled = load_labelled("scenes:val/categories", image_size=32)
    first = labelled.select(np.append(np.flatnonzero(labelled.labels != labelled.labels[0]), 0))
    image = torch.randn(len(first), 8)
    assert classifier_scores(student, BOTH, first, image, np.arange(len(first))) == ({}, {}, 0)
