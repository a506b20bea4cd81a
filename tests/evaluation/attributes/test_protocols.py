import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from workbench.evaluation import attribute_prediction, attributes_only_accuracy, class_name_accuracy
from workbench.evaluation.attributes.protocols import (
    ByAttributes,
    ByClassName,
    harmonic_mean,
    per_class_results,
)

CLASSES, DIM = 9, 6
UNSEEN = np.isin(np.arange(CLASSES), (1, 4, 7))


@pytest.fixture
def some():
    """Images in uneven classes, of which class 8 has none."""
    generator = np.random.default_rng(0)
    weights = generator.normal(size=(CLASSES, DIM))
    labels = generator.choice(CLASSES - 1, size=200, p=np.arange(1, CLASSES) / 36)
    return weights[labels] + 1.5 * generator.normal(size=(200, DIM)), weights, labels


def guess(row: np.ndarray, weights: np.ndarray, among: list[int]) -> int:
    """The class whose weights have the largest cosine with the image."""
    scores = {name: row @ weights[name] / np.linalg.norm(weights[name]) for name in among}
    return max(scores, key=lambda name: scores[name])


def per_class(
    rows: list[int], image: np.ndarray, weights: np.ndarray, labels: np.ndarray, among: list[int]
) -> float:
    """Mean over the classes of `rows` of the share of their images that are guessed right."""
    shares = []
    for name in sorted({int(labels[row]) for row in rows}):
        own = [row for row in rows if labels[row] == name]
        shares.append(sum(guess(image[row], weights, among) == name for row in own) / len(own))
    return sum(shares) / len(shares)


@pytest.mark.parametrize(
    ("accuracy", "kind"), [(class_name_accuracy, ByClassName), (attributes_only_accuracy, ByAttributes)]
)
def test_equals_slow_version(some, accuracy, kind) -> None:
    image, weights, labels = some
    actual = accuracy(torch.from_numpy(image), weights * 3, labels, UNSEEN)
    assert type(actual) is kind
    every, held_out = list(range(CLASSES)), [1, 4, 7]
    unseen_rows = [row for row in range(200) if labels[row] in held_out]
    seen_rows = [row for row in range(200) if labels[row] not in held_out]
    wanted = {
        "mean_per_class": per_class(list(range(200)), image, weights, labels, every),
        "seen": per_class(seen_rows, image, weights, labels, every),
        "unseen": per_class(unseen_rows, image, weights, labels, every),
        "zero_shot": per_class(unseen_rows, image, weights, labels, held_out),
    }
    for name, value in wanted.items():
        assert getattr(actual, name) == pytest.approx(value), name
    assert len(set(wanted.values())) == 4 and 0 < wanted["unseen"] < wanted["zero_shot"] < 1
    u, s = wanted["unseen"], wanted["seen"]
    assert actual.harmonic_mean == pytest.approx(2 * u * s / (u + s))
    assert actual.correct.tolist() == [guess(image[row], weights, every) == labels[row] for row in range(200)]
    assert actual.correct_among_unseen.tolist() == [
        guess(image[row], weights, held_out) == labels[row] for row in unseen_rows
    ]


def test_what_is_not_there_is_not_a_number(some) -> None:
    image, weights, labels = some
    plain = class_name_accuracy(image, weights, labels)
    whole = class_name_accuracy(image, weights, labels, UNSEEN)
    assert plain.mean_per_class == whole.mean_per_class
    assert np.isnan([plain.seen, plain.unseen, plain.harmonic_mean, plain.zero_shot]).all()
    seen_only = class_name_accuracy(image, weights, labels, np.zeros(CLASSES, dtype=bool))
    assert seen_only.seen == seen_only.mean_per_class and not len(seen_only.correct_among_unseen)
    assert np.isnan([seen_only.unseen, seen_only.harmonic_mean, seen_only.zero_shot]).all()
    all_unseen = class_name_accuracy(image, weights, labels, np.ones(CLASSES, dtype=bool))
    assert all_unseen.zero_shot == all_unseen.unseen == all_unseen.mean_per_class
    assert np.isnan([all_unseen.seen, all_unseen.harmonic_mean]).all()


def test_classes_with_the_same_sentence_are_never_told_apart() -> None:
    actual = attributes_only_accuracy(np.eye(3), np.eye(3)[[0, 0, 2]], [0, 1, 2])
    assert actual.correct.tolist() == [False, False, True] and actual.mean_per_class == pytest.approx(1 / 3)


def test_harmonic_mean() -> None:
    assert harmonic_mean(0.0, 0.0) == 0 and harmonic_mean(0.5, 0.0) == 0
    assert harmonic_mean(0.2, 0.6) == pytest.approx(0.3)


def test_per_class_results_average_to_the_mean_per_class() -> None:
    correct, labels = np.array([True, False, True, True, False]), np.array([0, 0, 0, 3, 5])
    results = per_class_results(correct, labels)
    assert results.mean() == pytest.approx((2 / 3 + 1 + 0) / 3)
    np.testing.assert_allclose(results, [5 / 9, 0, 5 / 9, 5 / 3, 0])


@pytest.mark.parametrize("unseen", [np.zeros(CLASSES - 1, dtype=bool), np.zeros(CLASSES, dtype=int)])
def test_wrong_masks(some, unseen) -> None:
    with pytest.raises(ValueError, match="unseen: expects 9 booleans"):
        class_name_accuracy(*some, unseen)


@pytest.fixture
def judged():
    """Images, texts with and without, and what is known: some unknown, one constant each way, many ties."""
    generator = np.random.default_rng(1)
    image = generator.normal(size=(80, 5))
    image[40:] = image[:40]  # every score occurs twice
    present = generator.integers(0, 2, size=(80, 6)).astype(np.float32)
    present[generator.random((80, 6)) < 0.2] = np.nan
    present[:, 4], present[:, 5] = np.where(np.isnan(present[:, 4]), np.nan, 0), 1
    return image, generator.normal(size=(6, 5)), generator.normal(size=(6, 5)), present


def slow_scores(image: np.ndarray, with_text: np.ndarray, without_text: np.ndarray) -> np.ndarray:
    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    pairs = list(zip(with_text, without_text, strict=True))
    return np.array([[round(cosine(i, w) - cosine(i, o), 9) for w, o in pairs] for i in image])


def test_average_precision_is_that_of_scikit_learn(judged) -> None:
    image, with_text, without_text, present = judged
    actual = attribute_prediction(torch.from_numpy(image), with_text * 2, without_text, present)
    scores = slow_scores(image, with_text, without_text)
    wanted, prevalence = [], []
    for number in range(4):
        known = ~np.isnan(present[:, number])
        truth = present[known, number].astype(int)
        wanted.append(average_precision_score(truth, scores[known, number]))
        prevalence.append(truth.mean())
    np.testing.assert_allclose(actual.average_precision[:4], wanted)
    assert np.isnan(actual.average_precision[4:]).all() and actual.left_out == 2
    assert actual.mean == pytest.approx(np.mean(wanted)) and actual.chance == pytest.approx(
        np.mean(prevalence)
    )


def test_the_mean_is_that_of_every_attribute_of_every_image(judged) -> None:
    actual = attribute_prediction(*judged)
    present = judged[3][:, :4]
    assert actual.result.mean() == pytest.approx(actual.mean)
    assert sorted(actual.image.tolist()) == sorted(np.argwhere(present == 1)[:, 0].tolist())
    first = actual.result[: int((present[:, 0] == 1).sum())]
    weight = len(actual.result) / 4 / len(first)
    assert first.mean() / weight / len(first) == pytest.approx(actual.average_precision[0] / len(first))


def test_a_constant_model_scores_chance(judged) -> None:
    image, with_text, without_text, present = judged
    same = attribute_prediction(np.ones_like(image) * 0.3, with_text, without_text, present)
    assert same.mean == pytest.approx(same.chance)


def test_scores_that_are_no_numbers_count_against_us() -> None:
    image = np.array([[1.0, 0], [0, 1], [1, 1], [np.nan, 0]])
    texts = np.array([[1.0, 0]]), np.array([[0.0, 1]])
    right = attribute_prediction(image[:3], *texts, np.array([[1], [0], [0]]))
    assert right.mean == 1
    assert attribute_prediction(image, *texts, np.array([[1], [0], [0], [0]])).mean == 0.5
    assert attribute_prediction(image, *texts, np.array([[0], [0], [0], [1]])).mean == 0.25


def test_no_attribute_left(judged) -> None:
    image, with_text, without_text, _ = judged
    actual = attribute_prediction(image, with_text, without_text, np.ones((80, 6)))
    assert np.isnan([actual.mean, actual.chance]).all() and actual.left_out == 6 and not len(actual.result)


def test_shapes_that_do_not_fit(judged) -> None:
    image, with_text, without_text, present = judged
    for wrong in (
        (image[0], with_text, without_text, present),
        (image[:, :4], with_text, without_text, present),
        (image, with_text, without_text[:5], present),
        (image, with_text, without_text, present[:, :5]),
        (image, with_text, without_text, present[:79]),
    ):
        with pytest.raises(ValueError, match="attribute_prediction: expects"):
            attribute_prediction(*wrong)
