"""COCO's captions, Flickr8k's and Flickr30k's lists, and parquet with pictures inside, as published."""

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.samples import encoded, shows
from workbench.data.contents import digest
from workbench.data.load import available_splits, load_pairs
from workbench.data.pairs import Pairs
from workbench.errors import SettingError

REAL_COCO = Path(__file__).parents[4] / "shared" / "real_photos" / "coco"


def everything(source: Path | str, **options: object) -> Pairs:
    return load_pairs(source, val_share=0.0, test_share=0.0, **options)


def check(pairs: Pairs, captions: dict[str, list[str]]) -> None:
    assert {name: pairs.captions(row) for row, name in enumerate(pairs.ids)} == captions
    assert all(shows(pairs.image(row), int(name.split(".")[0])) for row, name in enumerate(pairs.ids))


def write_pictures(folder: Path, count: int = 4) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number}.jpg").write_bytes(encoded(number))


# ---- COCO


def write_coco(folder: Path, which: str, numbers: range) -> Path:
    images = [{"id": 7 * number, "file_name": f"{number}.jpg", "license": 3} for number in numbers]
    annotations = [
        {"image_id": 7 * number, "id": 10 * number + turn, "caption": f"caption {turn} of {number}\n"}
        for turn in range(2)
        for number in numbers
    ]
    path = folder / "annotations" / f"captions_{which}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"info": {}, "images": images, "annotations": annotations}))
    (folder / which).mkdir()
    for number in numbers:
        (folder / which / f"{number}.jpg").write_bytes(encoded(number))
    return path


def test_coco_as_it_is_unpacked(tmp_path: Path) -> None:
    path = write_coco(tmp_path, "val2017", range(3))
    captions = {f"{n}.jpg": [f"caption {turn} of {n}" for turn in range(2)] for n in range(3)}
    check(everything(path), captions)
    check(everything(tmp_path), captions)
    check(everything(path, image_folder=tmp_path / "val2017"), captions)
    renamed = path.rename(tmp_path / "val2017" / "mine.json")
    check(everything(renamed), captions)  # by what it holds
    check(everything(renamed, format="coco"), captions)
    assert everything(renamed).facts["format"] == "coco"


def test_cocos_two_files_are_splits(tmp_path: Path) -> None:
    write_coco(tmp_path, "train2017", range(3))
    write_coco(tmp_path, "val2017", range(3, 5))
    assert load_pairs(tmp_path).facts["splits"] == {"train": 3, "val": 2}
    check(
        load_pairs(tmp_path, "val"), {f"{n}.jpg": [f"caption {t} of {n}" for t in range(2)] for n in (3, 4)}
    )


def test_other_annotations_are_named(tmp_path: Path) -> None:
    boxes = {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [{"image_id": 1, "bbox": []}]}
    (tmp_path / "instances_val2017.json").write_text(json.dumps(boxes))
    with pytest.raises(SettingError, match=r"not a COCO captions JSON \(KeyError: 'caption'\)"):
        load_pairs(tmp_path / "instances_val2017.json")


@pytest.mark.skipif(not REAL_COCO.is_dir(), reason="the real photographs are not beside this checkout")
def test_real_coco() -> None:
    official, karpathy = (
        everything(REAL_COCO / "annotations" / "captions_val2017.json"),
        load_pairs(REAL_COCO / "dataset_coco.json", "test"),
    )
    assert (len(official), len(official.all_captions)) == (283, 1416)
    assert sorted(official.all_captions) == sorted(karpathy.all_captions)
    assert official.image(0).shape[0] == 3


# ---- Flickr

TOKEN = "0.jpg#0\tA dog , brown .\n0.jpg#1\ta | b\n1.jpg#0\tone\n3.jpg#0\tthree\n"
COMMA = "image,caption\n0.jpg,A dog , brown .\n0.jpg,a | b\n1.jpg,one\n3.jpg,three\n"
PIPE = (
    "image_name| comment_number| comment\n0.jpg| 0| A dog , brown .\n0.jpg| 1| a | b\n1.jpg| 0| one\n"
    "3.jpg| 0| three\n2.jpg| 4   a line without its separator\n"
)
NUMBERED = (
    "image_name,comment_number,comment\n0.jpg,0,A dog , brown .\n0.jpg,1,a | b\n1.jpg,0,one\n3.jpg,0,three\n"
)
PLAIN = "image_name| comment\n0.jpg| A dog , brown .\n0.jpg| a | b\n1.jpg| one\n3.jpg| three\n"
FLICKR = {"0.jpg": ["A dog , brown .", "a | b"], "1.jpg": ["one"], "3.jpg": ["three"]}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Flickr8k.token.txt", TOKEN),
        ("results_20130124.token", TOKEN),
        ("captions.txt", COMMA),
        ("captions.txt", COMMA.replace("A dog , brown .", '"A dog , brown ."')),
        ("captions.txt", NUMBERED),
        ("results.csv", NUMBERED),
        ("results.csv", PIPE),
        ("results.csv", PLAIN),
    ],
)
@pytest.mark.parametrize("below", ["", "Images", "flickr30k_images/flickr30k_images"])
def test_flickrs_lists(tmp_path: Path, name: str, text: str, below: str) -> None:
    write_pictures(tmp_path / below)
    (tmp_path / name).write_text(text)
    (tmp_path / "readme.md").write_text("no caption")
    check(everything(tmp_path / name), FLICKR)
    check(everything(tmp_path), FLICKR)
    check(everything(tmp_path / name, image_folder=tmp_path / below), FLICKR)
    check(everything(tmp_path / name, format="table"), FLICKR)


def test_flickr8ks_official_splits(tmp_path: Path) -> None:
    write_pictures(tmp_path / "Flicker8k_Dataset")
    (tmp_path / "Flickr8k.token.txt").write_text(TOKEN)
    (tmp_path / "Flickr_8k.trainImages.txt").write_text("0.jpg\n")
    (tmp_path / "Flickr_8k.testImages.txt").write_text("1.jpg\n")
    check(load_pairs(tmp_path / "Flickr8k.token.txt", "test"), {"1.jpg": ["one"]})
    train = load_pairs(tmp_path, "train")
    check(train, {"0.jpg": FLICKR["0.jpg"]})
    assert train.facts["split from"] == "Flickr8k's lists" and train.rejected == {"no split": 1}


def test_a_chosen_format_overrides_the_extension(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    (tmp_path / "list.dat").write_text("image\tcaption\n1.jpg\tone, two\n")
    check(everything(tmp_path / "list.dat", format="table"), {"1.jpg": ["one, two"]})
    with pytest.raises(SettingError, match=r"no format recognised.*data\.format names"):
        load_pairs(tmp_path / "list.dat")
    record = {"filename": "2.jpg", "split": "train", "sentences": [{"raw": "two"}]}
    (tmp_path / "list.csv").write_text(json.dumps({"images": [record]}))
    check(load_pairs(tmp_path / "list.csv", format="karpathy"), {"2.jpg": ["two"]})


# ---- parquet with pictures inside


def look(pairs: Pairs, row: int) -> np.ndarray:
    return pairs.image(row).numpy()


@pytest.mark.parametrize("layout", ["hugging face", "jpg", "bytes"])
def test_pictures_inside_parquet(tmp_path: Path, layout: str) -> None:
    pictures = [encoded(number) for number in range(6)]
    captions = [[f"one of {number}", f"two of {number}"] for number in range(6)]
    column = "jpg" if layout == "jpg" else "image"
    values = [{"bytes": data, "path": "x.jpg"} for data in pictures] if layout == "hugging face" else pictures
    for start, name in ((0, "train-00000-of-00002"), (3, "train-00001-of-00002")):
        part = slice(start, start + 3)
        table = pa.table({"n": [1, 2, 3], column: values[part], "caption": captions[part]})
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=2)
    pairs = everything(tmp_path)
    assert pairs.ids[::3] == ["train-00000-of-00002/000000", "train-00001-of-00002/000000"]
    assert [pairs.captions(row) for row in range(6)] == captions
    assert all(shows(pairs.image(row), row) for row in range(6))
    subset = pairs.select([4, 1])
    assert shows(subset.image(0), 4) and pairs.facts["format"] == "table"
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert np.array_equal(pool.apply(look, (subset, 0)), look(pairs, 4))


def test_pictures_inside_parquet_with_a_column_of_splits(tmp_path: Path) -> None:
    pictures = [*(encoded(number) for number in range(4)), None, b"<html>"]
    columns = {"image": pictures, "caption": ["it"] * 5 + [""], "Split": ["train"] * 2 + ["valid"] * 4}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert available_splits(tmp_path, max_failed=0.5) == ["train", "val"]
    val = load_pairs(tmp_path, "val", max_failed=0.5)
    assert val.ids == ["a/000002", "a/000003", "a/000004"] and val.rejected == {"empty caption": 1}
    assert val.rejected.examples == {"empty caption": ["a/000005"]}
    with pytest.raises(Exception, match="no image"):
        val.image(2)


@pytest.mark.parametrize("layout", ["default/{}/0000", "split={}/0000", "{}-00000-of-00001-6f3bd7b5a9ee4c8a"])
def test_parquet_in_the_hubs_other_layouts(tmp_path: Path, layout: str) -> None:
    for word, numbers in (("train", range(3)), ("validation", range(3, 5))):
        path = tmp_path / f"{layout.format(word)}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        columns = {"image": [encoded(n) for n in numbers], "caption": [f"it is {n}" for n in numbers]}
        pq.write_table(pa.table(columns), path)
    train, val = load_pairs(tmp_path), load_pairs(tmp_path, "val")
    assert (train.all_captions, val.all_captions) == (
        ["it is 0", "it is 1", "it is 2"],
        ["it is 3", "it is 4"],
    )
    assert shows(val.image(1), 4)


def test_splits_in_a_parquet_column_that_are_numbers_or_missing(tmp_path: Path) -> None:
    columns = {"image": [encoded(number) for number in range(4)], "caption": ["it"] * 4}
    pq.write_table(pa.table({**columns, "split": [0, 0, 1, 2]}), tmp_path / "a.parquet")
    assert available_splits(tmp_path) == ["0", "1", "2"]
    pq.write_table(pa.table({**columns, "split": ["train", None, "test", " "]}), tmp_path / "a.parquet")
    with pytest.raises(SettingError, match=r"2 of 4 pairs .*no split: 2 \(a/000001, a/000003\)"):
        load_pairs(tmp_path)
    assert load_pairs(tmp_path, max_failed=0.5).facts["splits"] == {"train": 1, "test": 1}


def test_unpacked_pictures_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    table = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [encoded(n) for n in range(3)], "caption": ["it"] * 3}), table)
    ids = everything(table).ids
    (unpacked,) = (tmp_path / "cache" / "unpacked").iterdir()
    whole = unpacked.read_bytes()
    place = whole.index(encoded(1)) + 200
    unpacked.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
    pairs = everything(table)
    assert shows(pairs.image(2), 2)
    with pytest.raises(SettingError, match=r"picture 1 of this file in the cache is damaged"):
        pairs.image(1)
    for damaged in (whole[:-40], whole.replace(digest(encoded(1)), digest(encoded(0)))):
        unpacked.write_bytes(damaged)
        pairs = everything(table)  # made again
        assert pairs.ids == ids and shows(pairs.image(1), 1)


def test_columns_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    picture, path = {"bytes": encoded(1), "path": "1.jpg"}, tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [picture], "words": ["it"]}), path)
    with pytest.raises(SettingError, match=r"data\.caption_column = 'caption'.*'image', 'words'"):
        load_pairs(path)
    assert everything(path, caption_column="words").captions(0) == ["it"]
    pq.write_table(pa.table({"image": [picture], "text": ["as on the hub"]}), path)
    assert everything(path).captions(0) == ["as on the hub"]
    pq.write_table(pa.table({"image": [picture], "caption": [[{"raw": "it"}]]}), path)
    with pytest.raises(SettingError, match=r"data\.caption_column = 'caption'.*list<.*struct<raw"):
        load_pairs(path)
    pq.write_table(pa.table({"image": [[1.0, 2.0]], "caption": ["it"]}), path)
    with pytest.raises(SettingError, match=r"data\.image_column = 'image'.*list<.*double"):
        load_pairs(path)
    pq.write_table(pa.table({"picture": [picture], "caption": ["it"]}), path)
    with pytest.raises(SettingError, match=r"data\.image_column = 'image'.*'picture', 'caption'"):
        load_pairs(path)
    assert len(everything(path, image_column="picture")) == 1
    nothing = pa.array(
        [{"bytes": None, "path": "1.jpg"}], pa.struct({"bytes": pa.binary(), "path": pa.string()})
    )
    pq.write_table(pa.table({"image": nothing, "caption": ["it"]}), path)
    with pytest.raises(SettingError, match=r"paths without bytes"):
        load_pairs(path)


@pytest.mark.parametrize("form", ["coco", "karpathy"])
def test_a_folder_of_a_json_for_each_split(tmp_path: Path, form: str) -> None:
    (tmp_path / "images").mkdir()
    for split, numbers in (("train", range(3)), ("test", range(3, 5))):
        for number in numbers:
            (tmp_path / "images" / f"{number}.jpg").write_bytes(encoded(number))
        content: dict[str, object] = {
            "images": [{"id": number, "file_name": f"{number}.jpg"} for number in numbers],
            "annotations": [{"image_id": number, "caption": f"caption of {number}"} for number in numbers],
        }
        if form == "karpathy":
            sentences = [{"raw": f"caption of {number}"} for number in range(5)]
            place = {"filepath": "images"}
            content = {
                "images": [
                    {"filename": f"{number}.jpg", "sentences": [sentences[number]], **place}
                    for number in numbers
                ]
            }
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
    (tmp_path / "licences.json").write_text("{}")
    assert available_splits(tmp_path) == ["train", "test"]
    pairs = load_pairs(tmp_path, "test")
    assert pairs.captions(1) == ["caption of 4"] and shows(pairs.image(1), 4)
    assert pairs.facts["format"] == form and pairs.facts["splits"] == {"train": 3, "test": 2}
    if form == "coco":
        (tmp_path / "test.json").unlink()
        assert len(everything(tmp_path)) == 3  # the only one whose name is a split's


def test_a_folder_counts_images_of_other_formats(tmp_path: Path) -> None:
    write_pictures(tmp_path, 2)
    for number in range(2):
        (tmp_path / f"{number}.txt").write_text(f"caption {number}")
    (tmp_path / "2.HEIC").write_bytes(b"ftypheic")
    pairs = everything(tmp_path)
    check(pairs, {f"{n}.jpg": [f"caption {n}"] for n in range(2)})
    assert pairs.rejected == {"another type of file": 1}
