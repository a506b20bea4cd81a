import numpy as np
import pytest
import torch

from workbench.evaluation.calibration import calibrated_scale, calibration_curve, retrieval_confidence


def embedded(queries: int = 50, candidates: int = 20) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    candidate = generator.normal(size=(candidates, 6))
    right = generator.integers(candidates, size=queries)
    return candidate[right] + generator.normal(size=(queries, 6)), candidate, right


def slow_cosines(query: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    return np.array([[q @ c / np.linalg.norm(q) / np.linalg.norm(c) for c in candidate] for q in query])


def test_confidence_is_the_probability_of_what_is_retrieved(monkeypatch) -> None:
    monkeypatch.setattr("workbench.evaluation.calibration.CHUNK", 7)
    query, candidate, right = embedded()
    likely = np.exp(9.0 * slow_cosines(query, candidate))
    likely /= likely.sum(1, keepdims=True)
    for inputs in ((query, candidate), (torch.from_numpy(5 * query), torch.from_numpy(candidate))):
        sure, correct = retrieval_confidence(*inputs, right, 9.0)
        np.testing.assert_allclose(sure, likely.max(1))
        np.testing.assert_array_equal(correct, likely.argmax(1) == right)
    assert 0.3 < correct.mean() < 1


def test_a_tie_is_not_right() -> None:
    candidate = np.array([[1.0, 0], [2, 0], [0, 1]])
    sure, correct = retrieval_confidence(np.array([[1.0, 0], [0, 1]]), candidate, [0, 2], 100.0)
    np.testing.assert_allclose(sure, [0.5, 1])
    assert correct.tolist() == [False, True]
    assert retrieval_confidence(candidate[:1], candidate[:1], [0], 1.0)[1].tolist() == [True]


def test_bins_hold_equally_many_and_the_error_is_their_weighted_gap() -> None:
    generator = np.random.default_rng(0)
    sure = generator.random(103)
    correct = generator.random(103) < sure**2
    result = calibration_curve(sure, correct, bins=4)
    ordered = sorted(zip(sure, correct, strict=True))
    error, start = 0.0, 0
    for number, size in enumerate((26, 26, 26, 25)):
        part = ordered[start : start + size]
        start += size
        mean, share = sum(item for item, _ in part) / size, sum(item for _, item in part) / size
        assert result.confidence[number] == pytest.approx(mean)
        assert result.accuracy[number] == pytest.approx(share)
        error += size / 103 * abs(mean - share)
    assert result.error == pytest.approx(error) and result.queries.tolist() == [26, 26, 26, 25]
    assert len(calibration_curve(sure[:3], correct[:3]).queries) == 3


def test_the_calibrated_scale_has_the_least_cross_entropy() -> None:
    query, candidate, right = embedded(400)
    scores = slow_cosines(query, candidate)

    def loss(scale: float) -> float:
        return float(
            np.mean(
                [
                    np.log(np.exp(scale * row).sum()) - scale * row[at]
                    for row, at in zip(scores, right, strict=True)
                ]
            )
        )

    best = calibrated_scale(query, candidate, right)
    assert loss(best) < min(loss(0.97 * best), loss(1.03 * best))
    sure, correct = retrieval_confidence(query, candidate, right, best)
    assert calibration_curve(sure, correct).error < min(
        calibration_curve(*retrieval_confidence(query, candidate, right, scale)).error
        for scale in (best / 3, 3 * best)
    )
    # Nothing is in doubt, so no scale is too large.
    assert calibrated_scale(candidate, candidate, np.arange(20)) > 100


def test_bad_shapes() -> None:
    query, candidate, right = embedded()
    for inputs in (
        (query[:, :5], candidate, right),
        (query, candidate[:0], right),
        (query[:0], candidate, right[:0]),
    ):
        with pytest.raises(ValueError, match="needs queries"):
            retrieval_confidence(*inputs, 1.0)
    with pytest.raises(ValueError, match="right"):
        calibrated_scale(query, candidate, right + 20)
    for sure, correct, bins in (
        (np.ones(3), np.ones(2), 2),
        (np.ones(0), np.ones(0), 2),
        (np.ones(3), np.ones(3), 0),
    ):
        with pytest.raises(ValueError, match="bins"):
            calibration_curve(sure, correct, bins)
