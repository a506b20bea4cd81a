"""Pictures without captions, in every format that can hold them, alone and among captioned ones."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.samples import encoded, write_shard
from workbench.data.load import load_pairs
from workbench.data.pairs import Pairs
from workbench.data.report import data_report, report_line
from workbench.errors import SettingError

CAPTIONED = {1: "a caption", 3: "another"}  # of six pictures, by number
KINDS = (
    "folder",
    "shard",
    "csv",
    "no column",
    "jsonl",
    "parquet of paths",
    "parquet of pictures",
    "karpathy",
    "coco",
)


def write_pictures(folder: Path) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(6):
        (folder / f"{number}.jpg").write_bytes(encoded(number))
    return [f"{number}.jpg" for number in range(6)]


def write(kind: str, folder: Path, captions: dict[int, str]) -> Path:
    """A source of six pictures with these captions."""
    if kind == "shard":
        members = {f"{number}.jpg": encoded(number) for number in range(6)}
        members |= {f"{number}.txt": text.encode() for number, text in captions.items()}
        members |= {"0.json": json.dumps({"key": "0"}).encode(), "5.txt": b" \n"}
        write_shard(folder / "00000.tar", members)
        return folder
    names = write_pictures(folder)
    texts = [captions.get(number) for number in range(6)]
    if kind == "folder":
        for number, text in captions.items():
            (folder / f"{number}.txt").write_text(text)
        return folder
    if kind == "csv":
        lines = [f"{name},{text or ''}" for name, text in zip(names, texts, strict=True)]
        (folder / "t.csv").write_text("\n".join(["image,caption", *lines]))
        return folder / "t.csv"
    if kind == "no column":
        (folder / "t.csv").write_text("\n".join(["image,taken", *(f"{name},2019" for name in names)]))
        return folder / "t.csv"
    if kind == "jsonl":
        records = [
            {"image": name} | ({"caption": text} if text else {})
            for name, text in zip(names, texts, strict=True)
        ]
        (folder / "t.jsonl").write_text("\n".join(map(json.dumps, records)))
        return folder / "t.jsonl"
    if kind.startswith("parquet"):
        images = names if kind.endswith("paths") else [encoded(number) for number in range(6)]
        columns = {"image": images} | ({"caption": texts} if captions else {})
        pq.write_table(pa.table(columns), folder / "t.parquet")
        return folder / "t.parquet"
    if kind == "karpathy":
        images = [
            {"filename": name, "split": "train", "sentences": [{"raw": text}] if text else []}
            for name, text in zip(names, texts, strict=True)
        ]
        (folder / "dataset_x.json").write_text(json.dumps({"images": images}))
        return folder / "dataset_x.json"
    annotations = [{"image_id": number, "caption": text} for number, text in captions.items()]
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    (folder / "captions_train2017.json").write_text(
        json.dumps({"images": images, "annotations": annotations})
    )
    return folder / "captions_train2017.json"


def opened(source: Path) -> Pairs:
    return load_pairs(source, "train", val_share=0, test_share=0, captions_needed=False)


@pytest.mark.parametrize("kind", KINDS)
def test_no_picture_has_a_caption(kind: str, tmp_path: Path) -> None:
    pairs = opened(write(kind, tmp_path / "data", {}))
    assert len(pairs) == 6 and list(pairs.all_captions) == []
    assert not pairs.rejected
    assert all(pairs.captions(row) == [] and pairs.image(row).shape == (3, 16, 24) for row in range(6))
    report = data_report(pairs)
    assert (report["pairs"], report["captions"], report["without_caption"]) == (6, 0, 6)
    assert "6 pictures without captions" in report_line("training", report)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "no column"])
def test_some_have_captions(kind: str, tmp_path: Path) -> None:
    pairs = opened(write(kind, tmp_path / "data", CAPTIONED))
    assert len(pairs) == 6 and sorted(pairs.all_captions) == sorted(CAPTIONED.values())
    assert sorted(len(pairs.captions(row)) for row in range(6)) == [0, 0, 0, 0, 1, 1]
    assert sorted(pairs.captioned().captions(row)[0] for row in range(2)) == sorted(CAPTIONED.values())
    assert not pairs.rejected
    line = report_line("training", data_report(pairs))
    assert "6 pictures with 2 captions, 4 of them without a caption" in line and "left out" not in line


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("no column", "coco")])
def test_where_captions_are_needed_they_are_counted_as_before(kind: str, tmp_path: Path) -> None:
    source = write(kind, tmp_path / "data", CAPTIONED)
    pairs = load_pairs(source, "train", val_share=0, test_share=0, max_failed=0.9)
    assert len(pairs) == 2 and pairs.rejected.total() == 4
    with pytest.raises(SettingError, match="4 of 6 pairs cannot be used"):
        load_pairs(source, "train", val_share=0, test_share=0)


def test_copies_share_a_caption(tmp_path: Path) -> None:
    source = write("folder", tmp_path / "data", CAPTIONED)
    (source / "copy.jpg").write_bytes((source / "1.jpg").read_bytes())
    pairs = opened(source)
    assert len(pairs) == 6 and pairs.facts["copies merged"] == 1
    assert sorted(pairs.all_captions) == sorted(CAPTIONED.values())
