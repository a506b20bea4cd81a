import numpy as np
import pytest
import torch

from workbench.evaluation import zero_shot_metrics, zero_shot_weights


def test_weights_are_normalised_averaged_normalised() -> None:
    prompts = torch.tensor([[[3.0, 0.0], [0.0, 0.5]], [[2.0, 0.0], [4.0, 0.0]]])
    weights = zero_shot_weights(prompts)
    torch.testing.assert_close(weights, torch.tensor([[0.5**0.5, 0.5**0.5], [1.0, 0.0]]))
    frozen = prompts.half().numpy()
    frozen.setflags(write=False)
    torch.testing.assert_close(zero_shot_weights(frozen), weights)
    with pytest.raises(ValueError, match="classes, templates, D"):
        zero_shot_weights(prompts[0])


def test_equals_slow_version() -> None:
    generator = np.random.default_rng(0)
    weights = generator.normal(size=(12, 6))
    labels = generator.integers(0, 11, 300)  # class 11 has no image
    image = weights[labels] + 2 * generator.normal(size=(300, 6))
    ranks = []
    for row, label in zip(image, labels, strict=True):
        scores = [row @ item / np.linalg.norm(row) / np.linalg.norm(item) for item in weights]
        ranks.append(1 + sum(s > scores[label] for s in scores))
    ranks = np.array(ranks)
    per_class = [np.mean(ranks[labels == c] == 1) for c in range(11)]
    for inputs in (
        (image, weights, labels),
        (torch.from_numpy(image), torch.from_numpy(weights), torch.from_numpy(labels)),
        (image * 7, weights * generator.uniform(0.5, 2, (12, 1)), labels.tolist()),
    ):
        result = zero_shot_metrics(*inputs)
        np.testing.assert_array_equal(result.ranks, ranks)
        assert result.top1 == pytest.approx(np.mean(ranks == 1))
        assert result.top5 == pytest.approx(np.mean(ranks <= 5))
        assert result.mean_per_class == pytest.approx(np.mean(per_class))
    assert result.mean_per_class != pytest.approx(result.top1, abs=1e-4)


def test_ties_count_against_us() -> None:
    weights = np.array([[1.0, 0], [3.0, 0], [0, 1]])
    result = zero_shot_metrics(np.array([[1.0, 0], [0, 1], [0, 0]]), weights, [0, 2, 1])
    np.testing.assert_array_equal(result.ranks, [2, 1, 3])
    assert result.top1 == pytest.approx(1 / 3)


def test_classes_of_one_name_are_ties_that_count_as_argmax_has_them() -> None:
    """To the last bit the weights of one name may differ; the first class of the name is taken whatever they
    are."""
    weights = np.array([[1.0, 0], [0, 1], [1.0, 1e-7], [-1, 0]])
    image = np.array([[1.0, 1e-3], [1.0, 1e-3], [1e-3, 1.0], [-1, 1e-3]])
    labels, names = [0, 2, 1, 3], ["missile", "kite", "missile", "dog"]
    result = zero_shot_metrics(image, weights, labels, names)
    assert result.ranks.tolist() == [1, 2, 1, 1]
    assert zero_shot_metrics(image, weights[[2, 1, 0, 3]], labels, names).ranks.tolist() == [1, 2, 1, 1]
    field = np.array([(image @ weights[[0, 1, 0, 3]].T).argmax(1)[n] == labels[n] for n in range(4)])
    assert result.top1 == field.mean() == 0.75
    # An image of another class has both of the name before it, as topk does.
    wrong = zero_shot_metrics(image[:1], weights, [1], names)
    assert wrong.ranks.tolist() == [3]
    # Ties of other names, as of a text tower that gives one embedding for everything, still count against us.
    same = np.ones((4, 2))
    assert zero_shot_metrics(image, same, labels, names).ranks.tolist() == [3, 4, 4, 4]
    broken = np.array([[np.nan, 1.0]])
    assert zero_shot_metrics(broken, weights, [0], names).ranks.tolist() == [6]
    with pytest.raises(ValueError, match="4 classes need as many names, got 1"):
        zero_shot_metrics(image, weights, labels, ["one"])


def test_few_classes_and_broken_embeddings() -> None:
    image = np.array([[1.0, 0], [np.nan, 1], [1, 0]])
    result = zero_shot_metrics(image, np.eye(2), [0, 1, 1])
    assert result.top1 == pytest.approx(1 / 3)
    assert result.top5 == pytest.approx(2 / 3)  # the broken one is no hit, few classes or not
    assert result.mean_per_class == pytest.approx((1 + 0) / 2)
    assert zero_shot_metrics(np.eye(2), np.array([[1.0, 0], [np.nan, 1]]), [0, 1]).ranks.tolist() == [1, 6]


@pytest.mark.parametrize(
    "image, weights, labels, message",
    [
        (np.eye(2), np.eye(3), [0, 1], "image .*N, D"),
        (np.ones((0, 2)), np.eye(2), [], "N, D"),
        (np.eye(2), np.eye(2), [0], "labels: expects 2 integers"),
        (np.eye(2), np.eye(2), [0, 2], r"labels\[1\] = 2: expects a number from 0 to 1"),
        (np.eye(2), np.eye(2), np.array([0.0, 1.0]), "float64"),
    ],
)
def test_bad_inputs(image: np.ndarray, weights: np.ndarray, labels: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        zero_shot_metrics(image, weights, labels)
