import numpy as np
import pytest
import torch

from workbench.errors import SettingError
from workbench.evaluation import maps


@pytest.mark.slow
def test_a_map_is_made_once_and_kept(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(size=(30, 5)) + 9 * side for side in (np.eye(5)[0], np.eye(5)[1])])
    said: list[str] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    result = maps.umap_map(points, {"test": "blobs"}, neighbours=8, say=said.append)
    after = torch.get_num_threads()
    torch.set_num_threads(threads)
    assert after == 1, "numba changed torch's threads"
    assert result.shape == (60, 2) and result.dtype == np.float32 and "60 embeddings" in said[0]
    centres = result[:30].mean(0), result[30:].mean(0)
    spread = max(result[:30].std(), result[30:].std())
    assert np.linalg.norm(centres[0] - centres[1]) > spread  # blobs stay apart

    import umap

    def never(*_, **__):
        raise AssertionError("laid out again")

    monkeypatch.setattr(umap, "UMAP", never)
    np.testing.assert_array_equal(maps.umap_map(points, {"test": "blobs"}, neighbours=8), result)
    # Other settings, and other embeddings of the same name.
    changes = {"neighbours": 9}, {"neighbours": 8, "seed": 1}
    others = [*((points, change) for change in changes), (points[::-1], {"neighbours": 8})]
    for embeddings, change in others:
        try:
            maps.umap_map(embeddings, {"test": "blobs"}, say=None, **change)
        except AssertionError as error:
            assert "laid out again" in str(error)
        else:
            raise AssertionError("another map was taken for this one")


def test_what_has_no_map_is_refused_in_words() -> None:
    points = np.random.default_rng(0).normal(size=(12, 5))
    broken, zero = points.copy(), points.copy()
    broken[[3, 7], 1], zero[5] = (np.nan, np.inf), 0
    for embeddings, message in (
        (points[:3], r"shape \(3, 5\).*N at least 4"),
        (broken, r"2 of 12 hold NaN.*rows 3, 7"),
        (zero, r"1 of 12 hold .*only zeros \(rows 5\)"),
    ):
        with pytest.raises(SettingError, match=message):
            maps.umap_map(embeddings, {"test": "broken"}, say=None)


def test_a_new_point_lies_among_its_neighbours_alone_or_in_a_batch() -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(size=(20, 5)) + 9 * side for side in (np.eye(5)[0], np.eye(5)[1])])
    positions = np.concatenate([rng.normal(size=(20, 2)), rng.normal(size=(20, 2)) + 50]).astype(np.float32)
    new = points[[3, 27]] + 0.1
    placed = maps.place_on_map(new, points, positions, neighbours=8)
    assert np.abs(placed[0]).max() < 5 and np.abs(placed[1] - 50).max() < 5
    alone = maps.place_on_map(new[1:], points, positions, neighbours=8)
    np.testing.assert_allclose(alone[0], placed[1], rtol=1e-5)
    assert maps.place_on_map(points[:0], points, positions).shape == (0, 2)
    with pytest.raises(SettingError, match="at least 4"):
        maps.place_on_map(new, points[:3], positions[:3])


@pytest.mark.filterwarnings("ignore::ImportWarning")  # of umap's own imports
def test_strengths_are_umaps() -> None:
    from umap.umap_ import smooth_knn_dist

    distances = np.sort(np.random.default_rng(0).uniform(0.1, 1, 12)).astype(np.float32)
    sigma, _ = smooth_knn_dist(distances[None], 12.0, local_connectivity=0.0)
    np.testing.assert_allclose(maps.membership_strengths(distances), np.exp(-distances / sigma[0]), rtol=1e-3)


def test_shipped_maps_are_positions() -> None:
    shipped = sorted(maps.SHIPPED.glob("*.npy"))
    assert shipped
    for path in shipped:
        positions = np.load(path, allow_pickle=False)
        assert positions.ndim == 2 and positions.shape[1] == 2 and np.isfinite(positions).all()
