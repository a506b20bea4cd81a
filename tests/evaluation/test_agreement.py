import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from workbench.evaluation.agreement import neighbour_overlap, teacher_agreement


def pair(rows: int = 15, dim: int = 5, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).normal(size=(2, rows, dim)))


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_equals_slow_version_whatever_the_width() -> None:
    teacher = pair(dim=7, seed=1)
    student = [3 * side[:, :5] + noise for side, noise in zip(teacher, pair(), strict=True)]
    ours, theirs = (unit(image) @ unit(text).T for image, text in (student, teacher))
    rank, same = [], []
    for a, b in ((ours, theirs), (ours.T, theirs.T)):
        rank += [spearmanr(one, other).statistic for one, other in zip(a, b, strict=True)]
        same += [np.argmax(one) == np.argmax(other) for one, other in zip(a, b, strict=True)]
    for inputs in ([*student, *teacher], [torch.from_numpy(item) for item in (*student, *teacher)]):
        result = teacher_agreement(*inputs)
        assert result.rank == pytest.approx(np.mean(rank))
        assert result.same_first == pytest.approx(np.mean(same))
        assert np.isnan(result.image_cosine) and np.isnan(result.text_cosine)
    assert 0.3 < result.rank < 0.99 and 0.2 < result.same_first < 1


def test_cosines_where_widths_are_one() -> None:
    student, teacher = pair(seed=2), pair(seed=3)
    result = teacher_agreement(*student, *teacher)
    expected = [(unit(a) * unit(b)).sum(1).mean() for a, b in zip(student, teacher, strict=True)]
    assert (result.image_cosine, result.text_cosine) == pytest.approx(tuple(expected))
    assert teacher_agreement(*teacher, *[2 * side for side in teacher]) == pytest.approx((1, 1, 1, 1))


def test_a_turned_student_ranks_as_its_teacher_does() -> None:
    teacher = pair()
    turn = np.linalg.qr(np.random.default_rng(4).normal(size=(5, 5)))[0]
    result = teacher_agreement(*[side @ turn for side in teacher], *teacher)
    assert result.rank == pytest.approx(1) and result.same_first == 1 and result.image_cosine < 0.9
    flat = [np.ones((15, 5))] * 2
    assert teacher_agreement(*flat, *teacher).rank == pytest.approx(0)


def test_bad_shapes() -> None:
    for sides in (
        [*pair(), *pair(rows=14)],
        [*pair(rows=1), *pair(rows=1)],
        [*pair(), pair(dim=7)[0], pair()[1]],
        [np.ones(3)] * 4,
    ):
        with pytest.raises(ValueError, match="teacher_agreement"):
            teacher_agreement(*sides)


def test_neighbours_shared_with_the_teacher() -> None:
    left, right = pair(40)
    assert neighbour_overlap(left, 3 * left, 5) == pytest.approx((1, 5 / 39))
    overlap, chance = neighbour_overlap(left, right, 5)
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (left, right)]
    nearest = [[set(np.argsort(-row)[1:6]) for row in side @ side.T] for side in unit]
    assert overlap == pytest.approx(np.mean([len(a & b) / 5 for a, b in zip(*nearest, strict=True)]))
    assert chance == pytest.approx(5 / 39) and abs(overlap - chance) < 0.15
    assert neighbour_overlap(left[:3], left[:3]) == (1, 0.5)
    with pytest.raises(ValueError, match="40 and 3 rows"):
        neighbour_overlap(left, right[:3])
