import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.samples import encoded, shows
from workbench.data.load import available_splits, load_pairs
from workbench.data.pairs import Pairs
from workbench.errors import SettingError


def everything(source: Path | str, **options: object) -> Pairs:
    return load_pairs(source, val_share=0.0, test_share=0.0, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for number in range(6):
        (tmp_path / "images" / f"{number} é.jpg").write_bytes(encoded(number))
    return tmp_path


def captions_of(pairs: Pairs) -> dict[str, list[str]]:
    assert all(shows(pairs.image(row), int(Path(name).name[0])) for row, name in enumerate(pairs.ids))
    return {name: pairs.captions(row) for row, name in enumerate(pairs.ids)}


EXPECTED = {
    "images/1 é.jpg": ["a dog, brown", "another"],
    "images/0 é.jpg": ['a "cat"\u0020on two lines'],
    "images/2 é.jpg": ["one", "two"],
}


def test_csv_merges_rows_of_one_image(folder: Path) -> None:
    (folder / "data.csv").write_text(
        "n,image,caption\n"
        '1,images/1 é.jpg,"a dog, brown"\n'
        '2,./images/0 é.jpg,"a ""cat""\non two lines"\n'
        '3,images/2 é.jpg,"[""one"", ""two""]"\n'
        "4,images/1 é.jpg,another\n",
        encoding="utf-8-sig",
    )
    assert captions_of(everything(folder / "data.csv")) == EXPECTED
    assert captions_of(everything(folder)) == EXPECTED  # the only table in a folder


@pytest.mark.parametrize("name", ["data.tsv", "open_clip_style.csv"])
def test_tabs_and_names_of_ones_own(folder: Path, name: str) -> None:
    (folder / name).write_text(
        'filepath\ttitle\n0 é.jpg\t[sic] a, b; c\n1 é.jpg\t5" long\n', encoding="utf-8"
    )
    options = {"image_column": "filepath", "caption_column": "title", "image_folder": folder / "images"}
    assert captions_of(everything(folder / name, **options)) == {
        "0 é.jpg": ["[sic] a, b; c"],
        "1 é.jpg": ['5" long'],
    }
    assert captions_of(everything(folder / name, image_folder=folder / "images")).keys() == {
        "0 é.jpg",
        "1 é.jpg",
    }
    with pytest.raises(SettingError, match=r"data\.image_column = 'picture'.*'filepath', 'title'"):
        everything(folder / name, image_column="picture")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_an_image_folder_of_the_hub(tmp_path: Path, kind: str) -> None:
    for number, split in enumerate(("train", "train", "test")):
        (tmp_path / split).mkdir(exist_ok=True)
        (tmp_path / split / f"{number}.jpg").write_bytes(encoded(number))
    for split, numbers in (("train", (0, 1)), ("test", (2,))):
        columns = {"file_name": [f"{n}.jpg" for n in numbers], "text": [f"caption {n}" for n in numbers]}
        rows = pd.DataFrame(columns)
        path = tmp_path / split / f"metadata.{kind}"
        write = {"csv": rows.to_csv, "parquet": rows.to_parquet}
        options = {"orient": "records", "lines": True} if kind == "jsonl" else {"index": False}
        write.get(kind, rows.to_json)(path, **options)
    assert available_splits(tmp_path) == ["train", "test"]
    captions = {f"train/{n}.jpg": [f"caption {n}"] for n in (0, 1)}
    assert captions_of(load_pairs(tmp_path, "train")) == captions
    assert captions_of(load_pairs(tmp_path, "test")) == {"test/2.jpg": ["caption 2"]}
    assert captions_of(everything(tmp_path / "train")) == {f"{n}.jpg": [f"caption {n}"] for n in (0, 1)}


def test_jsonl_takes_strings_and_lists(folder: Path) -> None:
    rows = [
        {"image": "images/1 é.jpg", "caption": ["a dog, brown", "another"], "more": 1},
        {"image": "images/0 é.jpg", "caption": 'a "cat" on\ntwo lines'},
        {"image": "images/2 é.jpg", "caption": "one"},
        {"image": "images/2 é.jpg", "caption": "two"},
    ]
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n", encoding="utf-8")
    assert captions_of(everything(folder / "data.jsonl")) == EXPECTED


@pytest.mark.parametrize("as_list", [False, True])
def test_parquet_takes_strings_and_lists(folder: Path, as_list: bool) -> None:
    names = [f"images/{number} é.jpg" for number in (3, 1)]
    captions = [["x", "y"], ["z"]] if as_list else ["x", "z"]
    pq.write_table(pa.table({"image": names, "caption": captions, "n": [1, 2]}), folder / "data.parquet")
    result = captions_of(everything(folder / "data.parquet"))
    assert result == dict(zip(names, captions if as_list else [["x"], ["z"]], strict=True))


def test_a_list_as_pandas_writes_it(folder: Path) -> None:
    rows = """image\tcaption\nimages/0 é.jpg\t['one, two', "it's"]\nimages/1 é.jpg\t[sic] 'a'\n"""
    (folder / "data.tsv").write_text(rows, encoding="utf-8")
    assert captions_of(everything(folder / "data.tsv")) == {
        "images/0 é.jpg": ["one, two", "it's"],
        "images/1 é.jpg": ["[sic] 'a'"],
    }


@pytest.mark.parametrize("separator", ["\t", ","])
@pytest.mark.parametrize("later", ["cap", '5" cap'])
def test_a_quote_that_is_not_closed_does_not_swallow_rows(folder: Path, separator: str, later: str) -> None:
    rows = ["image", "caption"], ["images/0 é.jpg", "a"], ["images/1 é.jpg", '"an unfinished one']
    lines = [separator.join(row) for row in (*rows, ["images/2 é.jpg", later], ["images/0 é.jpg", "b"])]
    path = folder / f"data.{'tsv' if separator != ',' else 'csv'}"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(SettingError, match=r"line 3 of data\..sv has a quote that is not closed"):
        everything(path)


def test_a_split_column_is_honoured(folder: Path) -> None:
    rows = "images/0 é.jpg,a,train\nimages/1 é.jpg,b,dev\nimages/0 é.jpg,c,train\nimages/2 é.jpg,d,\n"
    (folder / "data.csv").write_text("image,caption,split\n" + rows, encoding="utf-8")
    assert available_splits(folder / "data.csv", max_failed=0.5) == ["train", "val"]
    train = load_pairs(folder / "data.csv", "train", max_failed=0.5)
    assert captions_of(train) == {"images/0 é.jpg": ["a", "c"]} and train.rejected == {"no split": 1}
    assert load_pairs(folder / "data.csv", "dev", max_failed=0.5).ids == ["images/1 é.jpg"]


def test_an_image_in_two_splits_is_refused(folder: Path) -> None:
    rows = "images/0 é.jpg,a,train\nimages/1 é.jpg,b,test\nimages/0 é.jpg,c,test\n"
    (folder / "data.csv").write_text("image,caption,split\n" + rows, encoding="utf-8")
    with pytest.raises(SettingError, match=r"into one split.*0 é\.jpg"):
        load_pairs(folder / "data.csv")


def test_several_tables_by_a_glob(folder: Path) -> None:
    for number in range(3):
        line = {"image": f"images/{number} é.jpg", "caption": "x"}
        again = {"image": "images/5 é.jpg", "caption": f"from {number}"}
        (folder / f"part{number}.jsonl").write_text(
            json.dumps(line) + "\n" + json.dumps(again), encoding="utf-8"
        )
    result = captions_of(everything(f"{folder}/part*.jsonl"))
    assert list(result) == ["images/0 é.jpg", "images/5 é.jpg", "images/1 é.jpg", "images/2 é.jpg"]
    assert result["images/5 é.jpg"] == ["from 0", "from 1", "from 2"]


def test_paths_stay_in_their_folder_unless_absolute(folder: Path) -> None:
    elsewhere = folder / "lists"
    elsewhere.mkdir()
    rows = [f"{folder}/images/1 é.jpg", "../images/2 é.jpg", "images/../../images/2 é.jpg"]
    (elsewhere / "data.csv").write_text(
        "image,caption\n" + "".join(f"{row},x\n" for row in rows), encoding="utf-8"
    )
    pairs = everything(elsewhere / "data.csv", max_failed=0.7)
    assert pairs.ids == [f"{folder}/images/1 é.jpg"] and shows(pairs.image(0), 1)
    assert pairs.rejected == {"path leaves the image folder": 2}


def test_every_bad_row_has_its_reason(folder: Path) -> None:
    good = "".join(f"images/{number} é.jpg,fine\n" for number in range(6)).encode()
    bad = (
        b"images/gone.jpg,missing\n"
        b"images,a folder\n"
        b"http://example.org/a.jpg,a link\n"
        b",no path\n"
        b"images/0 \xc3\xa9.jpg,\n"
        b"images/0 \xc3\xa9.jpg,caf\xe9\n"
        b"images/0 \xc3\xa9.jpg,too,many,cells\n"
        b"images/\xff.jpg,not UTF-8\n"
        b'images/0 \xc3\xa9.jpg,"[1, 2]"\n'
    )
    (folder / "data.csv").write_bytes(b"image,caption\n" + good + bad)
    pairs = everything(folder / "data.csv", max_failed=0.7)
    assert len(pairs) == 6 and pairs.captions(0) == ["fine"]
    assert pairs.rejected == {
        "missing file": 1,
        "not a regular file": 1,
        "a URL, not a file": 1,
        "no image": 1,
        "empty caption": 1,
        "caption not UTF-8": 1,
        "damaged record": 1,
        "unsafe name": 1,
        "caption not text": 1,
    }
    with pytest.raises(SettingError, match=r"9 of 15 pairs.*data\.image_folder"):
        everything(folder / "data.csv")


def test_bad_lines_of_jsonl(folder: Path) -> None:
    good = json.dumps({"image": "images/0 é.jpg", "caption": ["fine", "", 7]}).encode()
    bad = [
        b"{",
        b"[1]",
        b'{"image": "images/0.jpg"}',
        b'{"image": 3, "caption": "x"}',
        b'{"image": "images/1 \xc3\xa9.jpg", "caption": "caf\xe9"}',
        b'{"image": "images/1 \xc3\xa9.jpg", "caption": "\\ud800"}',
        b'{"image": "images/1 \xc3\xa9.jpg", "caption": null}',
        b"[" * 100_000,
    ]
    (folder / "data.jsonl").write_bytes(b"\n".join([good, *bad]))
    pairs = everything(folder / "data.jsonl", max_failed=0.95)
    assert pairs.captions(0) == ["fine"] and len(pairs) == 1
    # Of the good row's captions two are left aside.
    reasons = {"damaged record": 5, "caption not UTF-8": 2, "no caption": 1, "empty caption": 1}
    assert pairs.rejected == {**reasons, "caption not text": 1}


def test_files_that_are_no_tables(folder: Path) -> None:
    (folder / "data.parquet").write_bytes(b"no parquet")
    with pytest.raises(SettingError, match="not a readable parquet"):
        everything(folder / "data.parquet")
    (folder / "data.csv").write_bytes(b"")
    with pytest.raises(SettingError, match=r"data\.image_column"):
        everything(folder / "data.csv")
    (folder / "data.jsonl").write_bytes(b"")
    with pytest.raises(SettingError, match="there are none"):
        everything(folder / "data.jsonl")
    (folder / "captions.jsonl").write_text('{"path": "a"}')
    with pytest.raises(SettingError, match=r"data\.image_column.*'path'"):
        everything(folder / "captions.jsonl")


@pytest.mark.parametrize("as_dictionary", [False, True])
def test_a_small_parquet_of_gigabytes_is_refused(folder: Path, as_dictionary: bool) -> None:
    captions = pa.array(["x" * 9000] * 20_000)
    captions = captions.dictionary_encode() if as_dictionary else captions
    table = pa.table({"image": pa.array(["ok.jpg"] * 20_000), "caption": captions})
    pq.write_table(table, folder / "data.parquet", compression="zstd")
    with pytest.raises(SettingError, match="more than a thousand times"):
        everything(folder / "data.parquet")
