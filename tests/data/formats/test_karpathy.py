import json
from pathlib import Path

import pytest

from tests.data.samples import encoded, shows
from workbench.data.load import available_splits, load_pairs
from workbench.errors import SettingError

SPLITS = ("train", "restval", "val", "test", "train")


def record(number: int, coco: bool) -> dict[str, object]:
    """An entry as Karpathy's files have it."""
    sentences = [
        {"tokens": ["a"], "raw": f"caption {caption} of {number}.", "imgid": number, "sentid": caption}
        for caption in range(5)
    ]
    about = {"filepath": "val2014", "cocoid": number + 100} if coco else {}
    return {
        "sentids": list(range(5)),
        "imgid": number,
        "sentences": sentences,
        "split": SPLITS[number],
        "filename": f"COCO_{number}.jpg" if coco else f"{number}.jpg",
        **about,
    }


def write(folder: Path, coco: bool, records: list[object] | None = None) -> Path:
    images = folder / "val2014" if coco else folder
    images.mkdir(parents=True, exist_ok=True)
    for number in range(len(SPLITS)):
        (images / str(record(number, coco)["filename"])).write_bytes(encoded(number))
    path = folder / ("dataset_coco.json" if coco else "dataset_flickr30k.json")
    records = records or [record(number, coco) for number in range(len(SPLITS))]
    path.write_text(json.dumps({"images": records, "dataset": "coco"}))
    return path


@pytest.mark.parametrize("coco", [True, False])
def test_splits_captions_and_images(tmp_path: Path, coco: bool) -> None:
    path = write(tmp_path, coco)
    assert available_splits(path) == ["train", "val", "test"]
    train = load_pairs(path, "train")
    assert train.ids == [str(record(number, coco)["filename"]) for number in (0, 1, 4)]
    assert train.captions(1) == [f"caption {caption} of 1." for caption in range(5)]
    assert [shows(train.image(row), number) for row, number in enumerate((0, 1, 4))] == [True] * 3
    assert len(load_pairs(tmp_path, "test")) == 1  # found in its folder, too


def test_images_elsewhere_and_in_one_folder(tmp_path: Path) -> None:
    write(tmp_path / "images", coco=True)
    path = (tmp_path / "images" / "dataset_coco.json").rename(tmp_path / "dataset_coco.json")
    with pytest.raises(SettingError, match=r"5 of 5 .*missing file: 5.*data\.image_folder"):
        load_pairs(path)
    for folder in (tmp_path / "images", tmp_path / "images" / "val2014"):
        assert shows(load_pairs(path, "val", image_folder=folder).image(0), 2)


def test_damaged_records_are_counted(tmp_path: Path) -> None:
    good = [record(number, True) for number in range(5)]
    away = {**record(1, True), "filepath": "../../etc", "filename": "passwd"}
    bad = [{}, None, {**record(0, True), "sentences": 3}, away, record(0, True)]
    silent = {**record(2, True), "filename": "COCO_1.jpg", "sentences": []}
    blank = {**record(2, True), "sentences": [{"raw": ""}, {"raw": "fine"}]}
    path = write(tmp_path, True, [*good[:2], *good[3:], *bad, blank, silent])
    pairs = load_pairs(path, "val", max_failed=0.6)
    assert pairs.captions(0) == ["fine"]
    assert pairs.rejected == {
        "damaged record": 3,
        "path leaves the image folder": 1,
        "duplicate id": 2,
        "empty caption": 1,
    }


def test_without_splits_of_its_own_it_is_divided(tmp_path: Path) -> None:
    records = [{**record(number, True), "split": None} for number in range(5)]
    path = write(tmp_path, True, records)
    pairs = load_pairs(path, "all")
    assert len(pairs) == 5 and sum(load_pairs(path).facts["splits"].values()) == 5
    assert load_pairs(path).facts["split from"].startswith("a hash of the ids")
    write(tmp_path, True, [*records[:1], *(record(number, True) for number in range(1, 5))])
    assert load_pairs(path, max_failed=0.5).rejected == {"no split": 1}


@pytest.mark.parametrize("text", ["", "[]", '{"images": 3}', '{"annotations": []}', "{", "[" * 100_000])
def test_what_is_no_karpathy_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "captions.json").write_text(text)
    with pytest.raises(SettingError, match="Karpathy"):
        load_pairs(tmp_path / "captions.json")
