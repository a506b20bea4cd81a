"""The data report: what a source held and what became of it."""

import json
from pathlib import Path

import pytest

from tests.data.samples import encoded, write_folder, write_shard
from workbench.data.load import load_pairs
from workbench.data.report import data_report, report_line
from workbench.errors import SettingError


def test_everything_is_in_it(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", 6)
    write_folder(tmp_path / "valid", 2)
    (tmp_path / "train" / "copy.jpg").write_bytes((tmp_path / "train" / "000.jpg").read_bytes())
    (tmp_path / "train" / "copy.txt").write_text("another\nand another\n")
    for number in range(5):
        (tmp_path / "train" / f"bad{number}.jpg").write_bytes(encoded(90 + number))
    pairs = load_pairs(tmp_path, "train", max_failed=0.5)
    report = json.loads(json.dumps(data_report(pairs, {2: "truncated or damaged image"})))
    assert report.pop("fingerprint") == pairs.fingerprint
    assert report == {
        "source": str(tmp_path),
        "format": "folder",
        "split": "train",
        "split_from": "the names of its folders",
        "splits": {"train": 6, "val": 2},
        "pairs": 6,
        "captions": 8,
        "captions_a_picture": {"mean": 1.33, "least": 1, "most": 3},
        "copies_merged": 1,
        "skipped": {
            "no caption": {"count": 5, "first": ["train/bad0.jpg", "train/bad1.jpg", "train/bad2.jpg"]},
            "truncated or damaged image": {"count": 1, "first": ["train/002.jpg"]},
        },
    }
    line = report_line("training", report)
    for part in ("6 pictures with 8 captions (1 to 3 a picture)", "1 copy", "5 no caption (such as"):
        assert part in line


def test_the_embedded_dataset_has_one_too() -> None:
    report = data_report(load_pairs("scenes", "train", scenes=4, image_size=32))
    assert (report["format"], report["pairs"], report["captions"]) == ("scenes", 4, 20)


@pytest.mark.parametrize("kind", ["folder", "shards", "csv", "karpathy"])
def test_refusals_name_the_first_ids_of_each_reason(tmp_path: Path, kind: str) -> None:
    names = [f"{number}.jpg" for number in range(8)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(encoded(number))
    texts = ["fine"] * 4 + [" "] * 4
    if kind == "folder":
        for name, text in zip(names, texts, strict=True):
            (tmp_path / name).with_suffix(".txt").write_text(text)
        expected = "4.jpg, 5.jpg, 6.jpg, ..."
    elif kind == "shards":
        members = {}
        for number, text in enumerate(texts):
            members |= {f"{number}.jpg": encoded(number), f"{number}.txt": text.encode()}
        write_shard(tmp_path / "0.tar", members)
        expected = "0/4, 0/5, 0/6, ..."
    elif kind == "csv":
        rows = zip(names, texts, strict=True)
        (tmp_path / "a.csv").write_text("image,caption\n" + "\n".join(map(",".join, rows)))
        expected = "4.jpg, 5.jpg, 6.jpg, ..."
    else:
        images = [
            {"filename": name, "split": "train", "sentences": [{"raw": text}]}
            for name, text in zip(names, texts, strict=True)
        ]
        (tmp_path / "dataset_mine.json").write_text(json.dumps({"images": images}))
        expected = "4.jpg, 5.jpg, 6.jpg, ..."
    with pytest.raises(SettingError, match=r"4 of 8 pairs") as caught:
        load_pairs(tmp_path)
    assert f"empty caption: 4 ({expected})" in str(caught.value)


@pytest.mark.parametrize("kind", ["folder", "shards"])
def test_lines_are_captions_unless_alt_texts_have_line_breaks(tmp_path: Path, kind: str) -> None:
    text = b"a red circle\r\n\r\nthere is one circle\n"
    for number in range(3):
        if kind == "folder":
            (tmp_path / f"{number}.jpg").write_bytes(encoded(number))
            (tmp_path / f"{number}.txt").write_bytes(text)
    if kind == "shards":
        members = {}
        for number in range(3):
            members |= {f"{number}.jpg": encoded(number), f"{number}.txt": text}
        write_shard(tmp_path / "0.tar", members)
    lines = load_pairs(tmp_path, val_share=0.0, test_share=0.0)
    assert lines.captions(0) == ["a red circle", "there is one circle"] and len(lines.all_captions) == 6
    whole = load_pairs(tmp_path, val_share=0.0, test_share=0.0, caption_lines=False)
    assert whole.captions(0) == ["a red circle there is one circle"] and len(whole.all_captions) == 3
