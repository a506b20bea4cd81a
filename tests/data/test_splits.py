"""Splits by what a column, a folder or a file's name calls them."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.samples import encoded, write_folder, write_shard
from workbench.data.load import available_splits, load_pairs
from workbench.data.splits import meanings, split_named, splits_in_names, without_split
from workbench.errors import SettingError


def write_table(path: Path, numbers: range) -> None:
    rows = [(f"{path.stem}{number}.jpg", f"picture {number}") for number in numbers]
    for name, _ in rows:
        (path.parent / name).write_bytes(encoded(0, comment=f"{name}"))
    if path.suffix == ".parquet":
        columns = {"image": [name for name, _ in rows], "caption": [caption for _, caption in rows]}
        pq.write_table(pa.table(columns), path)
        return
    separator = "\t" if path.suffix == ".tsv" else ","
    lines = [separator.join(row) for row in [("image", "caption"), *rows]]
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("first", "second"),
    [("train.csv", "test.csv"), ("train.tsv", "TEST.tsv"), ("train-00000-of-00001.parquet",) * 2],
)
@pytest.mark.parametrize("pattern", ["", "/*"])
def test_tables_named_by_split(tmp_path: Path, first: str, second: str, pattern: str) -> None:
    second = second if second != first else "validation-00000-of-00001.parquet"
    write_table(tmp_path / first, range(20))
    write_table(tmp_path / second, range(5))
    source = f"{tmp_path}{pattern}{Path(first).suffix if pattern else ''}"
    held_out = "test" if "est" in second.lower() else "val"
    assert available_splits(source) == ["train", held_out]
    assert (len(load_pairs(source)), len(load_pairs(source, held_out))) == (20, 5)
    facts = load_pairs(source).facts
    assert facts["split from"] == "the names of its folders and tables"
    assert facts["splits"] == {"train": 20, held_out: 5}


def test_parquet_as_on_the_hub(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "README.md").write_text("a card")
    for split, count in (("train", 6), ("validation", 3), ("test", 2)):
        write_table(tmp_path / "data" / f"{split}-00000-of-00001.parquet", range(count))
    splits = ("train", "val", "test")
    assert {split: len(load_pairs(tmp_path, split)) for split in splits} == {"train": 6, "val": 3, "test": 2}


@pytest.mark.parametrize("word", ["validation", "valid", "dev", "VAL", "Validation"])
def test_shards_named_by_split(tmp_path: Path, word: str) -> None:
    for split, count in (("train", 3), (word, 2)):
        for shard in range(2):
            members = {}
            for number in range(count):
                members |= {
                    f"{number}.jpg": encoded(0, comment=f"{split}{shard}{number}"),
                    f"{number}.txt": b"it",
                }
            write_shard(tmp_path / f"cc3m-{split}-{shard:04d}.tar", members)
    assert available_splits(tmp_path) == ["train", "val"]
    assert len(load_pairs(tmp_path, "train")) == 6
    assert len(load_pairs(tmp_path, word)) == len(load_pairs(tmp_path, "val")) == 4


@pytest.mark.parametrize(
    "words",
    [("TRAIN", "Valid", "testing"), ("train2017", "val2017", "test2017"), ("training", "dev", "Evaluation")],
)
def test_folders_of_other_words(tmp_path: Path, words: tuple[str, ...]) -> None:
    for word in words:
        write_folder(tmp_path / "pictures" / word, 2)
    assert available_splits(tmp_path) == ["train", "val", "test"]
    assert len(load_pairs(tmp_path, "val")) == 2


@pytest.mark.parametrize("name", ["cc3m_{}/0", "cc3m{}0", "{}_set/0", "CC3M_{}-0"])
def test_words_in_longer_names(tmp_path: Path, name: str) -> None:
    words = ("TRAIN", "VALID") if name.isupper() else ("Train", "Valid")
    for word, count in zip(words, (3, 2), strict=True):
        members = {f"{n}.jpg": encoded(0, comment=f"{word}{n}") for n in range(count)}
        path = tmp_path / f"{name.format(word)}.tar"
        path.parent.mkdir(exist_ok=True)
        write_shard(path, members | {f"{n}.txt": b"it" for n in range(count)})
    assert load_pairs(tmp_path).facts["splits"] == {"train": 3, "val": 2}


def test_words_in_longer_names_of_folders_of_pictures() -> None:
    assert splits_in_names("here", ["my_train/1.jpg", "my_test/2/1.jpg"], stems=False) == ["train", "test"]
    assert (
        splits_in_names("here", ["train_station/1.jpg", "test_tube/1.jpg", "cat/1.jpg"], stems=False) is None
    )
    for split, other in (("test", "cc3m"), ("train", "holdout")):
        with pytest.raises(SettingError, match=f"say '{split}', those of 1 name no split, such as '{other}/"):
            splits_in_names("here", [f"cc3m_{split}/0.tar", f"{other}/0.tar"], stems=True)


@pytest.mark.parametrize("column", ["split", "Split", "SPLIT"])
def test_words_of_a_column(tmp_path: Path, column: str) -> None:
    rows = [("train", 4), ("restval", 3), ("VALIDATION", 2), ("test", 1)]
    lines, number = [f"image,caption,{column}"], 0
    for split, count in rows:
        for _ in range(count):
            (tmp_path / f"{number}.jpg").write_bytes(encoded(number))
            lines.append(f"{number}.jpg,it,{split}")
            number += 1
    (tmp_path / "data.csv").write_text("\n".join(lines))
    assert load_pairs(tmp_path).facts["splits"] == {"train": 7, "val": 2, "test": 1}
    assert load_pairs(tmp_path).facts["split from"] == "its column 'split'"


def test_words_that_a_source_has_both_of_stay_apart() -> None:
    assert meanings(["train", "restval", "Dev", "val", "album"]) == {
        "train": "train",
        "restval": "train",
        "Dev": "dev",
        "val": "val",
        "album": "album",
    }
    assert split_named("Valid") == "val" and split_named("trainstation") is None


def test_held_out_files_beside_unnamed_ones_are_refused(tmp_path: Path) -> None:
    for name in ("cc3m-validation-0000.tar", "cc3m-0000.tar"):
        write_shard(tmp_path / name, {"a.jpg": encoded(0, comment=name), "a.txt": b"it"})
    with pytest.raises(SettingError, match=r"say 'val', those of 1 name no split, such as 'cc3m-0000\.tar'"):
        load_pairs(tmp_path)
    assert splits_in_names("here", ["train/1.jpg", "bus/1.jpg"], stems=False) is None  # a vehicle
    assert splits_in_names("here", ["test-0.tar", "test-1.tar"], stems=True) is None  # all of one
    assert splits_in_names("here", ["test_1.jpg", "train.jpg"], stems=False) is None  # photographs' names
    assert splits_in_names("here", ["train_val.csv", "test.csv", "train.csv"], stems=True) == [
        None,
        "test",
        "train",
    ]


def test_tables_of_other_sets_are_not_put_together(tmp_path: Path) -> None:
    write_table(tmp_path / "train.csv", range(2))
    write_table(tmp_path / "flowers.csv", range(2))
    with pytest.raises(SettingError, match="2 files could be meant"):
        load_pairs(tmp_path)
    assert without_split("train-00000-of-00002.parquet") == without_split("test-00001-of-00002.parquet")
