import numpy as np
import pytest
import torch

from workbench.evaluation import swap_accuracy


def test_equals_slow_version() -> None:
    generator = np.random.default_rng(0)
    image, true, swapped = generator.normal(size=(3, 200, 5)).astype(np.float32)
    true += 0.3 * image

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    expected = np.array([cosine(i, t) > cosine(i, s) for i, t, s in zip(image, true, swapped, strict=True)])
    for inputs in ((image, true, swapped), tuple(map(torch.from_numpy, (image, 3 * true, swapped)))):
        result = swap_accuracy(*inputs)
        np.testing.assert_array_equal(result.correct, expected)
        assert result.accuracy == pytest.approx(expected.mean())
    assert 0.5 < result.accuracy < 1


def test_ties_and_broken_embeddings_count_against_us() -> None:
    image = np.array([[1.0, 2, 3], [1, 2, 3], [np.nan, 0, 1], [0, 0, 0], [1, 0, 0], [1, 0, 0]])
    true = np.array([[3.0, 2, 1], [1, 2, 3], [0, 0, 1], [1, 0, 0], [1, 0, 0], [np.nan, 0, 0]])
    swapped = np.array([[9.0, 6, 3], [3, 2, 1], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0]])
    result = swap_accuracy(image, true, swapped)
    assert result.correct.tolist() == [False, True, False, False, True, False]
    assert result.accuracy == pytest.approx(2 / 6)


def test_bad_shapes() -> None:
    with pytest.raises(ValueError, match="one shape"):
        swap_accuracy(np.ones((2, 3)), np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(ValueError, match="one shape"):
        swap_accuracy(*np.ones((3, 0, 3)))
