"""What notebooks are given: a picture and a sentence of the user's in front of a data set's."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from workbench.batch.notebook_inputs import with_own
from workbench.data.pairs import Pairs
from workbench.errors import SettingError


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    table = pa.table(
        {
            "id": ["a", "b"],
            "captions": [["a cat", "one cat"], ["a dog"]],
            "boxes": [[[0, 0, 9, 9]], [[1, 1, 5, 5]]],
        }
    )
    images = [torch.full((3, 20, 20), value, dtype=torch.uint8) for value in (50, 90)]
    return Pairs(table, images.__getitem__, name="two", split="test")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.full((30, 50, 3), 200, np.uint8)).save(path)
    return path


def test_the_users_own_comes_first(pairs, photo: Path) -> None:
    both = with_own(pairs, str(photo), "a grey wall")
    assert len(both) == 3 and both.captions(0) == ["a grey wall"] and both.image(0).shape == (3, 30, 50)
    assert both.details(0)["boxes"] is None
    for row in range(2):
        assert both.captions(row + 1) == pairs.captions(row) and both.details(row + 1) == pairs.details(row)
        assert (both.image(row + 1) == pairs.image(row)).all()
    Image.fromarray(np.zeros((30, 50, 3), np.uint8)).save(photo)
    assert with_own(pairs, str(photo), "a grey wall").fingerprint != both.fingerprint


def test_a_sentence_alone_is_about_the_first_picture_and_nothing_changes_nothing(pairs) -> None:
    own = with_own(pairs, None, "a wall")
    assert (own.image(0) == pairs.image(0)).all() and own.captions(0) == ["a wall"]
    assert with_own(pairs, None, None) is pairs


def test_what_cannot_be_looked_at_is_refused(pairs, photo: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="sentence"):
        with_own(pairs, str(photo), None)
    (tmp_path / "text.png").write_text("no picture")
    for path in (tmp_path / "text.png", tmp_path / "nowhere.png"):
        with pytest.raises(SettingError, match=r"picture .*cannot be read"):
            with_own(pairs, str(path), "a wall")
