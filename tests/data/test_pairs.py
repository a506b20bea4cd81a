import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.data.samples import write_folder
from workbench.data.decode import BadSample
from workbench.data.load import load_pairs
from workbench.data.pairs import Pairs

CAPTIONS = [["a dog", "ein Hund"], ["a cat"], ["東京", "Tokyo", "Tokyo"], [""], ["last"]]


def read(row: int) -> torch.Tensor:
    if row == 3:
        raise BadSample("truncated or damaged image")
    return torch.full((3, 2, 2), row, dtype=torch.uint8)


def table(ids: list[str] | None = None, captions: list[list[str]] | None = None) -> pa.Table:
    return pa.table(
        {
            "id": pa.array(ids if ids is not None else list("abcde"), pa.string()),
            "captions": pa.array(captions if captions is not None else CAPTIONS, pa.list_(pa.string())),
            "box": [[0.0, float(row)] for row in range(len(ids) if ids is not None else 5)],
        }
    )


def pairs(of: pa.Table | None = None) -> Pairs:
    return Pairs(table() if of is None else of, read, name="letters", split="train", rejected={"no image": 2})


def test_rows_and_flattened_captions_agree() -> None:
    letters = pairs()
    assert len(letters) == 5 and letters.ids == list("abcde")
    assert [letters.captions(row) for row in range(5)] == CAPTIONS
    assert letters.all_captions == [caption for captions in CAPTIONS for caption in captions]
    assert letters.first_caption.tolist() == [0, 2, 3, 6, 7, 8] and letters.first_caption.dtype == np.int64
    assert letters.image_of_caption.tolist() == [0, 0, 1, 2, 2, 2, 3, 4]
    assert letters.image_of_caption.dtype == np.int64
    assert letters.details(2) == {"box": [0.0, 2.0]}
    assert letters.rejected == Counter({"no image": 2})


def test_images_and_reasons_come_through() -> None:
    assert int(pairs().image(4).max()) == 4
    with pytest.raises(BadSample, match="truncated"):
        pairs().image(3)


def test_rows_outside_are_refused() -> None:
    for row in (-1, 5):
        for look in (pairs().image, pairs().captions, pairs().details):
            with pytest.raises(IndexError):
                look(row)
    with pytest.raises(IndexError):
        pairs().select([0, 5])
    with pytest.raises(ValueError, match="repeat"):
        pairs().select([1, 1])


def test_a_subset_of_a_subset_reads_the_right_images() -> None:
    subset = pairs().select([4, 2, 0]).select(np.array([2, 0]))
    assert subset.ids == ["a", "e"]
    assert [int(subset.image(row).max()) for row in range(2)] == [0, 4]
    assert subset.captions(1) == ["last"] and subset.first_caption.tolist() == [0, 2, 3]
    assert subset.rejected == pairs().rejected and subset.split == "train"
    assert len(pairs().select([])) == 0


def test_the_fingerprint_sees_ids_captions_and_order_only() -> None:
    whole = pairs().fingerprint
    assert len(whole) == 64 and whole == pairs(table().drop_columns("box")).fingerprint
    chunked = pa.concat_tables([table().slice(0, 2), table().slice(2)])
    assert pairs(chunked).fingerprint == whole
    assert pairs().select(range(5)).fingerprint == whole
    others = [
        pairs().select([1, 0, 2, 3, 4]),
        pairs(table(ids=list("abcdf"))),
        pairs(table(captions=[["a dogein", " Hund"], *CAPTIONS[1:]])),
        pairs(table(captions=[["a dog"], ["ein Hund", "a cat"], *CAPTIONS[2:]])),
    ]
    assert len({whole, *(other.fingerprint for other in others)}) == 5


def test_an_empty_set_is_a_set() -> None:
    empty = pairs(table(ids=[], captions=[]))
    assert len(empty) == 0 and empty.all_captions == [] and empty.first_caption.tolist() == [0]
    assert empty.fingerprint != pairs().fingerprint


def test_broken_tables_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unique.*\['a'\]"):
        pairs(table(ids=["a", "a", "b", "c", "d"]))
    with pytest.raises(ValueError, match="'b' has no caption"):
        pairs(table(captions=[["x"], [], ["y"], ["z"], ["w"]]))
    with pytest.raises(ValueError, match="captions"):
        pairs(table().drop_columns("captions"))


def test_pickling_keeps_everything() -> None:
    subset = pairs().select([2, 4])
    copy = pickle.loads(pickle.dumps(subset))
    assert copy.fingerprint == subset.fingerprint and copy.rejected == subset.rejected
    assert int(copy.image(0).max()) == 2


def test_files_are_those_of_the_rows(tmp_path: Path) -> None:
    write_folder(tmp_path, 5)
    result = load_pairs(tmp_path, val_share=0.0, test_share=0.0)
    assert list(result.files) == [str(tmp_path / name) for name in result.ids]
    chosen = result.select([3, 1]).select([1, 0])
    assert list(chosen.files) == [str(tmp_path / name) for name in ("001.jpg", "003.jpg")]


def test_a_reader_that_names_no_files_is_told() -> None:
    with pytest.raises(ValueError, match="does not know the files"):
        list(pairs().files)


def test_captions_are_like_a_list_that_was_never_made() -> None:
    flat = [caption for captions in CAPTIONS for caption in captions]
    for letters in (pairs(), pairs().select([0, 1, 2, 3, 4])):
        captions = letters.all_captions
        assert len(captions) == len(flat) and list(captions) == flat and captions == flat
        assert captions != flat[:-1] and captions != [*flat[:-1], "first"]
        assert [captions[n] for n in range(-8, 8)] == flat + flat and captions[np.int64(3)] == "東京"
        with pytest.raises(IndexError):
            captions[8]
        for start in range(-9, 10):
            for stop in (*range(-9, 10), None):
                assert captions[start:stop] == flat[start:stop]
        assert captions[::-2] == flat[::-2]
    subset = pairs().select([4, 2]).all_captions
    assert subset == ["last", *CAPTIONS[2]] and subset[1:3] == ["東京", "Tokyo"]


def test_a_subset_holds_row_numbers_and_copies_nothing(tmp_path: Path) -> None:
    letters = pairs()
    subset = letters.select([1, 3])
    assert subset._whole is letters._whole
    assert subset.id(1) == "d" and subset.details(0) == {"box": [0.0, 1.0]}
    assert subset.table.column_names == ["id", "captions", "box"]
    assert subset.table["id"].to_pylist() == ["b", "d"]
    other = subset.read_by(lambda row: torch.full((3, 1, 1), 100 + row, dtype=torch.uint8))
    assert int(other.image(1).max()) == 101 and other.ids == subset.ids
    assert int(other.select([1]).image(0).max()) == 101


def test_text_of_a_source_may_exceed_two_gigabytes(tmp_path: Path) -> None:
    write_folder(tmp_path, 3)
    schema = load_pairs(tmp_path, val_share=0.0, test_share=0.0).table.schema
    assert pa.types.is_large_string(schema.field("id").type)
    assert pa.types.is_large_string(schema.field("captions").type.value_type)
