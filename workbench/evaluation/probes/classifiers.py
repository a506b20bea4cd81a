"""Simple classifiers on a model's picture embeddings: a linear probe and nearest neighbours."""

from collections.abc import Callable

import numpy as np
from torch import Tensor

from workbench.data.labelled.labels import Labelled
from workbench.evaluation.encode import encode_images
from workbench.models.dual_encoder import DualEncoder
from workbench.recipe import Recipe

C = 31.6  # of the linear probe, for unit embeddings: CLIP's own 0.316 is for embeddings of norm ten
STEPS = 1000
NEIGHBOURS = 20
FOLDS = 5

Scores = dict[str, float]
Queries = dict[str, np.ndarray]


def _linear() -> object:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=C, max_iter=STEPS)


def _nearest(images: int) -> object:
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(min(NEIGHBOURS, images), algorithm="brute")


# Suite -> a function from the number of training images to the classifier.
CLASSIFIERS: dict[str, Callable[[int], object]] = {"linear_probe": lambda images: _linear(), "knn": _nearest}


def classifier_scores(
    model: DualEncoder, recipe: Recipe, labelled: Labelled, image: Tensor, rows: np.ndarray
) -> tuple[Scores, Queries, int]:
    """The accuracy of the classifiers that `evaluation.suites` names, on one labelled set, and the number of
    images that they were trained on.

    `image` [N, D] are unit embeddings of the images `rows` that results are reported on. Classifiers are
    trained on the set's other images, and tested on images of the classes among these. If the set has no
    other images, they are cross-validated: five stratified folds, fewer if a class has fewer images, drawn by
    seed 0. A class with a single image cannot be cross-validated, which gives no result.
    """
    suites = [name for name in CLASSIFIERS if name in recipe.evaluation.suites]
    if not suites:
        return {}, {}, 0
    embeddings, labels = image.numpy(), labelled.for_testing().labels[rows]
    scores: Scores = {}
    queries: Queries = {}
    if labelled.test is not None and not labelled.test.all():
        training = labelled.select(np.flatnonzero(~labelled.test))
        seen, kept, _ = encode_images(model, training.pairs, recipe.evaluation.batch)
        known = training.labels[kept]
        parts = [(seen.numpy(), known, np.flatnonzero(np.isin(labels, known)))]
    else:
        parts = _folds(embeddings, labels)
    judged = np.sort(np.concatenate([test for *_, test in parts])) if parts else np.empty(0, int)
    if not len(judged) or any(len(np.unique(truth)) < 2 for _, truth, _ in parts):
        return {}, {}, 0
    for suite in suites:
        predicted = np.full(len(labels), -1)
        for features, truth, test in parts:
            classifier = CLASSIFIERS[suite](len(truth))
            predicted[test] = classifier.fit(features, truth).predict(embeddings[test])  # type: ignore[attr-defined]
        correct = (predicted == labels)[judged]
        scores[f"{suite}_accuracy"] = float(correct.mean())
        queries |= {f"{suite}_correct": correct, f"{suite}_correct_image": judged}
    return scores, queries, max(len(truth) for _, truth, _ in parts)


def _folds(embeddings: np.ndarray, labels: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The training features and labels and the test positions of every fold. No folds if a class has a single
    image."""
    from sklearn.model_selection import StratifiedKFold

    folds = min(FOLDS, int(np.unique(labels, return_counts=True)[1].min()))
    if folds < 2:
        return []
    splits = StratifiedKFold(folds, shuffle=True, random_state=0).split(embeddings, labels)
    return [(embeddings[train], labels[train], test) for train, test in splits]
