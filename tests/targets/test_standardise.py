import numpy as np
import pytest

from workbench.targets import Standardiser
from workbench.targets.standardise import moments


def cloud(rows: int = 400, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(rows, 5)) @ generator.normal(size=(5, 5)) + [1, -2, 3, 0, 50]


def test_one_mean_and_one_deviation() -> None:
    raw = cloud()
    result = Standardiser.fit(raw)(raw)
    expected = (raw - raw.mean(0)) / np.sqrt(raw.var(0).mean())
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, np.clip(expected, -4, 4), rtol=1e-5, atol=1e-5)
    assert np.square(result).mean() == pytest.approx(1, abs=0.01)  # so predicting the mean costs 1
    assert result.var(0).max() / result.var(0).min() > 2  # directions keep their relative size


def test_whitening_gives_the_principal_axes_with_variance_one() -> None:
    raw = cloud(4000)
    result = Standardiser.fit(raw, components=3)(raw)
    assert result.shape == (4000, 3)
    np.testing.assert_allclose(np.cov(result.T), np.eye(3), atol=0.02)
    from sklearn.decomposition import PCA

    expected = PCA(3, whiten=True).fit_transform(raw)
    inside = np.abs(expected).max(1) < 4  # the others are clipped
    np.testing.assert_allclose(np.abs(result[inside]), np.abs(expected[inside]), rtol=1e-2, atol=1e-3)


def test_what_was_fitted_on_training_is_applied_to_others(tmp_path) -> None:
    for components in (None, 2):
        fitted = Standardiser.fit(cloud(), components)
        fitted.save(tmp_path / "standardiser.npz")
        again = Standardiser.load(tmp_path / "standardiser.npz")
        other = cloud(7, seed=1) + 3
        np.testing.assert_array_equal(again(other), fitted(other))
        assert abs(again(other).mean()) > 0.1  # not centred on itself
        assert np.abs(again(other * 1e6)).max() == 4


def test_far_off_float32_embeddings_lose_no_digits() -> None:
    near = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    far = (near.astype(np.float64) + 3e4).astype(np.float32)
    _, covariance = moments(far)
    np.testing.assert_allclose(covariance, np.cov(far.astype(np.float64).T, bias=True), rtol=1e-9)
    assert (
        np.abs(Standardiser.fit(far)(far) - Standardiser.fit(near)(near)).max() < 0.01
    )  # float32's own digits


def test_rows_are_read_in_portions(tmp_path, monkeypatch) -> None:
    from workbench.targets import standardise

    np.save(tmp_path / "raw.npy", cloud(50).astype(np.float32))
    mapped = np.load(tmp_path / "raw.npy", mmap_mode="r")
    whole = moments(mapped)
    monkeypatch.setattr(standardise, "ROWS", 7)
    for one, other in zip(moments(mapped), whole, strict=True):
        np.testing.assert_allclose(one, other)


@pytest.mark.parametrize(
    "raw, components, message",
    [
        (np.ones((9, 3)), None, "all 9 embeddings are equal"),
        (np.ones((0, 3)), None, "no embeddings"),
        (np.full((9, 3), np.nan), None, "0 to 9 hold values that are not finite"),
        (cloud(), 6, "components = 6: the embeddings vary in 5 directions"),
        (cloud(3), 3, "vary in 2 directions"),
        (cloud(), 0, "components = 0"),
    ],
)
def test_what_cannot_be_standardised(raw: np.ndarray, components: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Standardiser.fit(raw, components)
