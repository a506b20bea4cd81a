"""The authors' choice of pictures: first in file order, no exclusion, and the test pictures in it counted."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.data.build.test_mix import COCO_SPLITS, FLICKR_SPLITS, coco_record, flickr_record, lines
from tests.data.samples import encoded, write_shards
from workbench.data.build.overlap import build_overlapping, read_coco_captions, read_flickr_captions
from workbench.data.load import load_pairs
from workbench.errors import SettingError

ORDER = (3, 0, 7, 1, 4, 2, 5)  # of first annotations in captions_train2017.json; 6 stayed in val2017


@pytest.fixture
def layout(tmp_path: Path) -> dict[str, Any]:
    """captions_train2017.json, results.csv, both Karpathy JSONs, and pictures of all of them."""
    files = {number: f"{391895 + number:012d}.jpg" for number in range(len(COCO_SPLITS))}
    images = [{"id": 391895 + number, "file_name": files[number], "license": 3} for number in sorted(ORDER)]
    annotations = [
        {"image_id": 391895 + number, "id": 10 * number + turn, "caption": f"coco {number} turn {turn} "}
        for turn in range(5)
        for number in ORDER
    ]
    listed = tmp_path / "annotations" / "captions_train2017.json"
    listed.parent.mkdir()
    listed.write_text(json.dumps({"info": {}, "images": images, "annotations": annotations, "licenses": []}))
    (tmp_path / "train2017").mkdir()
    for number in ORDER:
        (tmp_path / "train2017" / files[number]).write_bytes(encoded(number))
    flickr = tmp_path / "flickr"
    flickr.mkdir()
    text = ["image_name| comment_number| comment"]
    for number in range(len(FLICKR_SPLITS)):
        name = flickr_record(number)["filename"]
        (flickr / name).write_bytes(encoded(20 + number))
        text += [f"{name}| {turn}| flickr {number} | turn {turn} ." for turn in range(5)]
    text[4] = text[4].replace("| 3| ", "| 3   ", 1).replace(" | ", " ")  # as a line of the true file is
    (flickr / "results.csv").write_text("\n".join(text) + "\n")
    for name, records in (
        ("coco", [coco_record(number) for number in range(len(COCO_SPLITS))]),
        ("flickr30k", [flickr_record(number) for number in range(len(FLICKR_SPLITS))]),
    ):
        (tmp_path / f"dataset_{name}.json").write_text(json.dumps({"images": records}))
    return {
        "coco_captions": listed,
        "coco_images": tmp_path / "train2017",
        "flickr_captions": flickr / "results.csv",
        "coco": tmp_path / "dataset_coco.json",
        "flickr": tmp_path / "dataset_flickr30k.json",
    }


def test_the_first_pictures_are_taken_and_the_test_pictures_counted(
    layout: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    record = build_overlapping(out, counts={"coco": 6, "flickr": 4}, **layout)
    rows = lines(out / "train.jsonl") + lines(out / "val.jsonl")
    expected = {f"{391895 + number:012d}.jpg" for number in ORDER[:6]}
    expected |= {flickr_record(number)["filename"] for number in range(4)}
    assert {row["id"] for row in rows} == expected and len(rows) == 10
    # 3 and 7 are in COCO's test split, 4 in its val; of Flickr's first four 3 is in test, 1 in val
    assert record["overlap"]["coco"]["all"] == {"test": 2, "val": 1}
    assert record["overlap"]["flickr"]["all"] == {"test": 1, "val": 1}
    aside = lines(out / "val.jsonl")
    assert len(aside) == 1 and {row["split"] for row in aside} == {"val"}
    for name, test in (("coco", {"COCO 3", "COCO 7"}), ("flickr", {"flickr 3"})):
        pictures = [
            row
            for row in lines(out / "train.jsonl")
            if row["caption"][0].split(" turn")[0].rstrip(" |")
            in {item.replace("COCO", "coco") for item in test}
        ]
        assert record["overlap"][name]["train.jsonl"]["test"] == len(pictures)
    assert record["missing pictures"] == 0
    assert build_overlapping(out, counts={"coco": 6, "flickr": 4}, **layout) == record
    with pytest.raises(SettingError, match="other settings"):
        build_overlapping(out, counts={"coco": 5, "flickr": 4}, **layout)
    pairs = load_pairs(out / "*.jsonl", "train")
    assert len(pairs) == 9 and pairs.image(0).shape == (3, 16, 24)


def test_it_counts_without_any_picture_and_takes_a_third_source(
    layout: dict[str, Any], tmp_path: Path
) -> None:
    write_shards(tmp_path / "cc3m")
    for picture in (*(tmp_path / "train2017").iterdir(), *(tmp_path / "flickr").glob("*.jpg")):
        picture.unlink()
    counts = {"coco": 7, "flickr": 5, "extra": 3}
    record = build_overlapping(tmp_path / "out", extra=tmp_path / "cc3m", counts=counts, **layout)
    assert record["overlap"]["coco"]["all"] == {"test": 2, "val": 1}
    assert record["overlap"]["flickr"]["all"] == {"test": 1, "val": 1}
    assert record["missing pictures"] == 12
    assert record["sources"]["extra"]["pictures"] == 3
    assert len(list((tmp_path / "out" / "pictures").rglob("*.jpg"))) == 3


def test_captions_of_both_of_flickrs_lists(layout: dict[str, Any], tmp_path: Path) -> None:
    captions = read_flickr_captions(layout["flickr_captions"])
    names = [flickr_record(number)["filename"] for number in range(5)]
    assert list(captions) == names
    assert captions[names[0]] == [f"flickr 0 | turn {turn} ." for turn in (0, 1, 2, 4)]
    assert captions[names[4]] == [f"flickr 4 | turn {turn} ." for turn in range(5)]
    token = tmp_path / "results_20130124.token"
    token.write_text("".join(f"{name}#{turn}\tA {turn} | b .\n" for name in names for turn in range(5)))
    assert read_flickr_captions(token) == {name: [f"A {turn} | b ." for turn in range(5)] for name in names}


def test_pictures_come_in_the_order_of_their_first_annotation(layout: dict[str, Any]) -> None:
    captions = read_coco_captions(layout["coco_captions"])
    assert list(captions) == [f"{391895 + number:012d}.jpg" for number in ORDER]
    assert captions["000000391898.jpg"] == [f"coco 3 turn {turn}" for turn in range(5)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"counts": {"coco": 8, "flickr": 4}}, r"--count = 'coco=8'.*7 pictures"),
        ({"coco_captions": "flickr_captions"}, "--coco-captions.*captions_train2017"),
        ({"flickr_captions": "coco_captions"}, r"--flickr-captions.*results\.csv"),
        ({"coco": "coco_captions"}, "not a Karpathy JSON"),
        ({"coco_captions": None, "flickr_captions": None}, "nothing to mix"),
    ],
)
def test_what_does_not_fit_is_named(
    layout: dict[str, Any], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    swapped = {
        key: layout.get(value, value) if isinstance(value, str) else value for key, value in changes.items()
    }
    options = {"counts": {"coco": 6, "flickr": 4}, **layout, **swapped}
    with pytest.raises(SettingError, match=message):
        build_overlapping(tmp_path / "out", **options)
