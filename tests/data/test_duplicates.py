"""Pictures equal in bytes are one picture with all their captions, in every format, and in one split."""

import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.samples import encoded, write_shard
from workbench.data import contents
from workbench.data.load import load_pairs
from workbench.data.pairs import Pairs

PICTURES = {number: encoded(number, "PNG") for number in range(40)}
COPIES = [(number, turn) for number in range(40) for turn in range(3)]


def caption(number: int, turn: int) -> str:
    return f"caption {turn} of {number}"


def write_exploded(folder: Path, kind: str) -> Path:
    """Forty pictures three times each, every copy with a caption of its own; what data.source then is."""
    names = [f"{number:02d}-{turn}" for number, turn in COPIES]
    texts = [caption(*copy) for copy in COPIES]
    if kind == "shards":
        members = {}
        for (number, _), name, text in zip(COPIES, names, texts, strict=True):
            members |= {f"{name}.png": PICTURES[number], f"{name}.txt": text.encode()}
        write_shard(folder / "0.tar", members)
        return folder
    if kind == "parquet":
        pictures = [{"bytes": PICTURES[number], "path": "x.png"} for number, _ in COPIES]
        pq.write_table(
            pa.table({"image": pictures, "caption": texts}), folder / "a.parquet", row_group_size=7
        )
        return folder
    for (number, _), name in zip(COPIES, names, strict=True):
        (folder / f"{name}.png").write_bytes(PICTURES[number])
    if kind == "folder":
        for name, text in zip(names, texts, strict=True):
            (folder / f"{name}.txt").write_text(text)
        return folder
    rows = list(zip([f"{name}.png" for name in names], texts, strict=True))
    if kind == "csv":
        (folder / "a.csv").write_text("image,caption\n" + "\n".join(map(",".join, rows)))
    elif kind == "jsonl":
        lines = [json.dumps({"image": name, "caption": text}) for name, text in rows]
        (folder / "a.jsonl").write_text("\n".join(lines))
    elif kind == "karpathy":
        images = [{"filename": name, "split": "train", "sentences": [{"raw": text}]} for name, text in rows]
        (folder / "dataset_mine.json").write_text(json.dumps({"images": images}))
    else:
        images = [{"id": number, "file_name": name} for number, (name, _) in enumerate(rows)]
        captions = [{"image_id": number, "caption": text} for number, (_, text) in enumerate(rows)]
        content = {"images": images, "annotations": captions}
        (folder / "captions_mine.json").write_text(json.dumps(content))
    return folder


def number_of(text: str) -> int:
    return int(text.rpartition(" ")[2])


@pytest.mark.parametrize("kind", ["folder", "shards", "csv", "jsonl", "parquet", "karpathy", "coco"])
def test_copies_are_one_picture_in_one_split(tmp_path: Path, kind: str) -> None:
    source = write_exploded(tmp_path, kind)
    splits = ("train",) if kind == "karpathy" else ("train", "val", "test")
    shown: dict[str, set[int]] = {}
    for split in splits:
        pairs = load_pairs(source, split)
        for row in range(len(pairs)):
            numbers = {number_of(text) for text in pairs.captions(row)}
            assert sorted(pairs.captions(row)) == [caption(*numbers, turn) for turn in range(3)]
            assert pairs.image(row)[:, 0, 0].tolist()[2] == (next(iter(numbers)) * 37) % 200
            shown.setdefault(split, set()).update(numbers)
        assert pairs.facts["copies merged"] == 80 and sum(pairs.facts["splits"].values()) == 40
    assert sorted(number for numbers in shown.values() for number in numbers) == list(range(40))
    kept = load_pairs(source, "train", duplicates="keep")
    assert sum(kept.facts["splits"].values()) == 120 and not kept.facts["copies merged"]


def test_a_picture_held_out_leaves_training(tmp_path: Path) -> None:
    for split, numbers in (("train", (0, 1, 2, 3)), ("val", (2, 3, 4)), ("test", (3, 5)), ("test", (3,))):
        (tmp_path / split).mkdir(exist_ok=True)
        for number in numbers:
            name = tmp_path / split / f"{number}{'b' if len(numbers) == 1 else ''}.png"
            name.write_bytes(PICTURES[number])
            name.with_suffix(".txt").write_text(f"{split} {number}")
    train, val, test = (load_pairs(tmp_path, split) for split in ("train", "val", "test"))
    assert (train.ids, val.ids) == (["train/0.png", "train/1.png"], ["val/2.png", "val/4.png"])
    assert test.ids == ["test/3.png", "test/5.png"]
    assert test.captions(0) == ["test 3", "test 3"]  # as the test set has them, without those of training
    assert train.rejected == {"in another split too": 3}
    assert train.rejected.examples == {"in another split too": ["train/2.png", "train/3.png", "val/3.png"]}


def test_pictures_are_read_once_and_again_where_a_file_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    read, digest_of_file = list[str](), contents._digest_of_file

    def counted(path: str) -> bytes | None:
        read.append(Path(path).name)
        return digest_of_file(path)

    monkeypatch.setattr(contents, "_digest_of_file", counted)
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.png").write_bytes(PICTURES[number])
        (folder / f"{number}.txt").write_text("it")

    def opened() -> Pairs:
        read.clear()
        return load_pairs(folder, val_share=0.0, test_share=0.0)

    before = opened().fingerprint
    assert sorted(read) == ["0.png", "1.png", "2.png", "3.png"]
    assert opened().fingerprint == before and not read
    os.utime(folder / "1.png", ns=(5, 5))  # another time, the same bytes
    assert opened().fingerprint == before and read == ["1.png"]
    stamp = (folder / "2.png").stat()
    data = bytearray(PICTURES[2])
    data[-20] ^= 1
    (folder / "2.png").write_bytes(data)  # other bytes of the same size, and the old time put back
    os.utime(folder / "2.png", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    after = opened()
    assert after.fingerprint != before and read == ["2.png"]
    assert (
        after.pictures_fingerprint
        != load_pairs(folder, val_share=0.0, test_share=0.0, limit=3).pictures_fingerprint
    )
    (folder / "2.png").write_bytes(PICTURES[2])
    assert opened().fingerprint == before
    (folder / "3.png").unlink()
    (folder / "3.png").symlink_to(folder / "nowhere.png")
    assert opened().fingerprint not in (before, after.fingerprint)
    shutil.copytree(folder, tmp_path / "copy", symlinks=True)
    copy = load_pairs(tmp_path / "copy", val_share=0.0, test_share=0.0)
    assert copy.fingerprint == opened().fingerprint  # wherever they lie


@pytest.mark.parametrize("duplicates", ["merge", "keep"])
@pytest.mark.parametrize("kind", ["folder", "shards", "parquet"])
def test_the_fingerprint_follows_the_pictures(tmp_path: Path, kind: str, duplicates: str) -> None:
    prints = []
    for folder, change in (("a", 0), ("b", 1), ("c", 0)):
        place = tmp_path / folder
        place.mkdir()
        pictures = [encoded(number + change * (number == 2), "PNG") for number in range(4)]
        if kind == "parquet":
            pq.write_table(pa.table({"image": pictures, "caption": ["it"] * 4}), place / "a.parquet")
        elif kind == "shards":
            members = {}
            for number, data in enumerate(pictures):
                members |= {f"{number}.png": data, f"{number}.txt": b"it"}
            write_shard(place / "0.tar", members)
        else:
            for number, data in enumerate(pictures):
                (place / f"{number}.png").write_bytes(data)
                (place / f"{number}.txt").write_text("it")
        prints.append(load_pairs(place, val_share=0.0, test_share=0.0, duplicates=duplicates).fingerprint)
    assert prints[0] != prints[1]
    assert duplicates == "keep" or prints[0] == prints[2]


@pytest.mark.parametrize("kind", ["shards", "folder"])
def test_damaged_digests_in_the_cache_are_made_again(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "source").mkdir()
    source = write_exploded(tmp_path / "source", kind)
    assert len(load_pairs(source, "all")) == 40
    (memory,) = (path for path in (tmp_path / "cache" / "pictures").iterdir() if path.suffix != ".lock")
    whole = memory.read_bytes()
    place = whole.index(contents.digest(PICTURES[7]))
    for damaged in (whole[:place] + b"?" + whole[place + 1 :], whole[: place + 5], b""):
        memory.write_bytes(damaged)
        assert len(load_pairs(source, "all")) == 40
        assert memory.read_bytes() == whole
