from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.data.samples import encoded, shows
from workbench.data.labelled.labels import (
    Attributes,
    Labelled,
    Listed,
    open_images,
    read_lines,
    read_matrix,
    read_names,
    read_numbered,
)
from workbench.data.pairs import Pairs
from workbench.errors import SettingError


def little(**more: object) -> Labelled:
    table = pa.table({"id": ["a", "b", "c"], "captions": [["dog"], ["cat"], ["dog"]]})
    pairs = Pairs(table, lambda row: torch.full((3, 1, 1), row, dtype=torch.uint8), name="x", split="all")
    return Labelled(pairs, np.array([1, 0, 1]), ["cat", "dog"], ("a {}", "the {}"), **more)


def attributes(**more: np.ndarray) -> Attributes:
    return Attributes(["furry", "big"], [None, None], "an animal: {}.", "an animal.", **more)


def test_prompts_and_sentences() -> None:
    assert little().prompts() == [["a cat", "the cat"], ["a dog", "the dog"]]
    said = attributes()
    assert [said.sentence(chosen) for chosen in ([], [1], [1, 0])] == [
        "an animal.",
        "an animal: big.",
        "an animal: big, furry.",
    ]


def test_selecting_takes_everything_of_an_image_along() -> None:
    of_image = np.array([[1, 0], [0, np.nan], [1, 1]], np.float32)
    labelled = little(
        attributes=attributes(of_image=of_image),
        unseen=np.array([False, True]),
        test=np.array([True, False, True]),
    )
    some = labelled.select([2, 1])
    assert some.pairs.ids == ["c", "b"] and some.labels.tolist() == [1, 0]
    assert [int(some.image(row).max()) for row in (0, 1)] == [2, 1]
    np.testing.assert_array_equal(some.attributes_of_images(), of_image[[2, 1]])
    assert some.test.tolist() == [True, False] and some.unseen.tolist() == [False, True]
    assert labelled.for_testing().pairs.ids == ["a", "c"] and len(labelled) == 3
    assert little().for_testing().pairs.ids == ["a", "b", "c"]


def test_an_image_has_what_its_class_has_unless_it_is_known_better() -> None:
    of_class = np.array([[0, 1], [1, np.nan]], np.float32)
    result = little(attributes=attributes(of_class=of_class)).attributes_of_images()
    np.testing.assert_array_equal(result, [[1, np.nan], [0, 1], [1, np.nan]])
    of_image = np.zeros((3, 2), np.float32)
    both = little(attributes=attributes(of_class=of_class, of_image=of_image))
    assert not both.attributes_of_images().any()
    for nothing in (None, attributes()):
        with pytest.raises(ValueError, match="x has no attributes"):
            little(attributes=nothing).attributes_of_images()


def test_open_images_counts_what_is_lost(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(5))
    images = [Listed("bad\udcff", tmp_path / "b.jpg", 0), Listed("a", tmp_path / "a.jpg", 1)]
    pairs, labels, kept = open_images("here", images, ["cat", "dog"], 1000, 0.7, {"missing file": 1})
    assert (
        kept.tolist() == labels.tolist() == [1] and pairs.captions(0) == ["dog"] and shows(pairs.image(0), 5)
    )
    assert pairs.rejected == {"missing file": 1, "unsafe name": 1} and pairs.max_failed == 0.7
    with pytest.raises(SettingError, match=r"2 of 3 images.*raise max_failed \(now 0\.6"):
        open_images("here", images, ["cat", "dog"], 1000, 0.6, {"missing file": 1})
    with pytest.raises(SettingError, match=r"there are none.*At least one"):
        open_images("here", [], [], 1000, 1.0)


def test_text_files(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes("\ufeff  1\tred fox\r\n\r\n 3  blue \r\n".encode())
    assert read_lines(path) == ["1\tred fox", "3  blue"]
    assert read_numbered(path) == {1: "red fox", 3: "blue"}
    with pytest.raises(SettingError, match="not numbered from 1"):
        read_names(path)
    for text in ("1 a\n1 b", "x a", "1", "-1 a", "1234567890 a", "٣ a"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(SettingError, match=r"list\.txt.*it has a line"):
            read_numbered(path)
    path.write_text("1 2.5\n-1 4e1")
    assert read_matrix(path, 2, 2).tolist() == [[1, 2.5], [-1, 40]]
    with pytest.raises(SettingError, match="not 3 rows of 2 numbers"):
        read_matrix(path, 3, 2)
    path.write_bytes(b"\xff")
    with pytest.raises(SettingError, match=r"list\.txt"):
        read_lines(path)
    with pytest.raises(SettingError, match="missing file"):
        read_lines(tmp_path / "nowhere")
