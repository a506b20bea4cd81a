from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from tests.data.labelled.zero_shot_layouts import write_proposed_split
from workbench.data.labelled.proposed_splits import find_proposed_split, read_proposed_split
from workbench.errors import SettingError

FILES = ["images/001.a/x.jpg", "images/001.a/y.jpg", "images/002.b/x.jpg", "images/003.c/z.jpg"]


def test_a_split_and_its_indices_from_one(tmp_path: Path) -> None:
    folder = write_proposed_split(tmp_path, "CUB", FILES, trainval=[1], test_seen=[2], test_unseen=[3, 4])
    cells = loadmat(folder / "res101.mat")["image_files"]  # as the real file gives them
    assert cells.shape == (4, 1) and cells.dtype == object and cells[0, 0].dtype.kind == "U"
    split = read_proposed_split(folder)
    assert split.seen == {"001.a"} and split.unseen == {"002.b", "003.c"}
    assert split.test == {"001.a/y.jpg", "002.b/x.jpg", "003.c/z.jpg"}


def test_features_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_proposed_split(tmp_path, "CUB", FILES, [1], [2], [3, 4])
    asked = []

    def watched(path: Path, variable_names: list[str]) -> dict[str, np.ndarray]:
        asked.extend(variable_names)
        return loadmat(path, variable_names=variable_names)

    monkeypatch.setattr("scipy.io.loadmat", watched)
    read_proposed_split(folder)
    assert asked == ["image_files", "trainval_loc", "test_seen_loc", "test_unseen_loc"]


def test_where_it_may_lie(tmp_path: Path) -> None:
    folder = write_proposed_split(tmp_path, "CUB", FILES, [1], [2], [3, 4])
    for place in (tmp_path, tmp_path / "xlsa17", tmp_path / "xlsa17" / "data", folder):
        assert find_proposed_split("CUB", [tmp_path / "elsewhere", place]) == folder
    assert find_proposed_split("AWA2", [tmp_path]) is None


@pytest.mark.parametrize(
    ("trainval", "test_unseen", "message"),
    [
        ([0], [3, 4], "trainval_loc does not number the 4 images"),
        ([1], [3, 5], "test_unseen_loc does not number the 4 images"),
        ([1, 3], [3, 4], "002.b would be both seen and unseen"),
    ],
)
def test_contradictions(tmp_path: Path, trainval: list[int], test_unseen: list[int], message: str) -> None:
    folder = write_proposed_split(tmp_path, "CUB", FILES, trainval, [2], test_unseen)
    with pytest.raises(SettingError, match=message):
        read_proposed_split(folder)


def test_damaged_files(tmp_path: Path) -> None:
    folder = write_proposed_split(tmp_path, "CUB", FILES, [1], [2], [3, 4])
    whole = (folder / "att_splits.mat").read_bytes()
    for damaged in (b"", whole[:200], b"MATLAB 7.3 MAT-file" + bytes(500)):
        (folder / "att_splits.mat").write_bytes(damaged)
        with pytest.raises(SettingError, match=r"att_splits\.mat.*xlsa17\.zip"):
            read_proposed_split(folder)
    (folder / "att_splits.mat").unlink()
    with pytest.raises(SettingError, match="missing file"):
        read_proposed_split(folder)
    savemat(folder / "att_splits.mat", {"trainval_loc": "words"})
    with pytest.raises(SettingError, match="trainval_loc does not number"):
        read_proposed_split(folder)
    savemat(folder / "res101.mat", {"image_files": np.arange(4.0)})
    with pytest.raises(SettingError, match="image_files holds no paths"):
        read_proposed_split(folder)
