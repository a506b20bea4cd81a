"""Mixtures in the true layouts of their sources: what is in them, what may not be, and what a kill leaves."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.data.samples import add_member, encoded, pair_members, shows, write_shard, write_shards
from workbench.data.build.mix import COUNTS, build_mixture, picture_names
from workbench.data.load import load_pairs
from workbench.errors import SettingError

ROOT = Path(__file__).parents[3]
COCO_SPLITS = ("train", "train", "restval", "test", "val", "train", "restval", "test")
FLICKR_SPLITS = ("train", "val", "train", "test", "train")
SMALL = {"coco": 4, "flickr": 2, "extra": 5}


def coco_record(number: int, **changes: Any) -> dict[str, Any]:
    """A picture as dataset_coco.json has it: `train` in train2014, all others in val2014."""
    split = COCO_SPLITS[number]
    year = "train2014" if split == "train" else "val2014"
    sentences = [{"tokens": ["a"], "raw": f"coco {number}, caption {c}."} for c in range(5 + number % 2)]
    return {
        "filepath": year,
        "filename": f"COCO_{year}_{391895 + number:012d}.jpg",
        "cocoid": 391895 + number,
        "imgid": number,
        "sentences": sentences,
        "split": split,
        **changes,
    }


def flickr_record(number: int) -> dict[str, Any]:
    """A picture as dataset_flickr30k.json has it."""
    sentences = [{"tokens": ["a"], "raw": f"flickr {number}, caption {caption}."} for caption in range(5)]
    name = f"{1000092795 + number}.jpg"
    return {"filename": name, "imgid": number, "sentences": sentences, "split": FLICKR_SPLITS[number]}


def fillers(count: int) -> list[dict[str, Any]]:
    """Training records among which one lost or doubled record is less than the share that is put up with."""
    return [
        coco_record(0, filename=f"COCO_train2014_{number:012d}.jpg", cocoid=number)
        for number in range(1, count + 1)
    ]


def write_coco(folder: Path, records: list[dict[str, Any]] | None = None) -> Path:
    records = records or [coco_record(number) for number in range(len(COCO_SPLITS))]
    for number, record in enumerate(records):
        (folder / record["filepath"]).mkdir(parents=True, exist_ok=True)
        (folder / record["filepath"] / record["filename"]).write_bytes(encoded(number))
    (folder / "dataset_coco.json").write_text(json.dumps({"images": records, "dataset": "coco"}))
    return folder / "dataset_coco.json"


def write_flickr(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    records = [flickr_record(number) for number in range(len(FLICKR_SPLITS))]
    for number, record in enumerate(records):
        (folder / record["filename"]).write_bytes(encoded(20 + number))
    (folder / "dataset_flickr30k.json").write_text(json.dumps({"images": records, "dataset": "flickr30k"}))
    return folder / "dataset_flickr30k.json"


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Path]:
    write_shards(tmp_path / "cc3m")
    return {
        "coco": write_coco(tmp_path / "coco"),
        "flickr": write_flickr(tmp_path / "flickr"),
        "extra": tmp_path / "cc3m",
    }


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_papers_counts() -> None:
    assert COUNTS == {"coco": 45_000, "flickr": 13_500, "extra": 9_000}
    assert sum(COUNTS.values()) == 67_500 == 0.9 * (50_000 + 15_000 + 10_000)


def test_what_is_in_a_mixture(sources: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    record = build_mixture(out, counts=SMALL, **sources)
    rows = lines(out / "train.jsonl")
    assert [sorted(row) for row in rows] == [["caption", "id", "image", "split"]] * 11
    assert {row["split"] for row in rows} == {"train"}
    usable = {
        coco_record(n)["filename"] for n, split in enumerate(COCO_SPLITS) if split in ("train", "restval")
    }
    of_coco = [row["id"] for row in rows if row["id"].startswith("COCO")]
    assert len(of_coco) == 4 and set(of_coco) < usable
    for row in rows:
        if row["id"] in usable:
            number = int(row["id"][-16:-4]) - 391895
            assert row["caption"] == [f"coco {number}, caption {c}." for c in range(5 + number % 2)]
    held_out = {coco_record(n)["filename"] for n in (3, 4, 7)} | {
        flickr_record(n)["filename"] for n in (1, 3)
    }
    assert not held_out & {row["id"] for row in rows}
    validation = [row["id"] for row in lines(out / "val.jsonl")]
    assert validation == [coco_record(4)["filename"], flickr_record(1)["filename"]]
    assert record == json.loads((out / "mixture.json").read_text())
    assert record["finished"] and record["files"]["train.jsonl"]["pictures"] == 11
    assert record["files"]["train.jsonl"]["captions"] == sum(len(row["caption"]) for row in rows)
    taken = {name: (part["pictures"], part["available"]) for name, part in record["sources"].items()}
    assert taken == {"coco": (4, 5), "flickr": (2, 3), "extra": (5, 12)}
    assert len({part["fingerprint"] for part in record["sources"].values()}) == 3


@pytest.mark.parametrize("source", ["train.jsonl", "*.jsonl"])
def test_it_opens_as_pairs_with_its_pictures(sources: dict[str, Path], tmp_path: Path, source: str) -> None:
    out = tmp_path / "out"
    build_mixture(out, counts=SMALL, **sources)
    pairs = load_pairs(out / source, "train")
    assert len(pairs) == 11
    assert not pairs.rejected
    for row, line in enumerate(lines(out / "train.jsonl")):
        assert pairs.captions(row) == line["caption"]
        if line["image"].startswith("pictures/"):
            number = int(line["id"].split("/")[1])
            assert line["caption"] == [f"picture number {number}"]
            assert (out / line["image"]).read_bytes() == pair_members(number)[f"{number:09d}.jpg"]
        elif line["id"].startswith("COCO"):
            number = int(line["id"][-16:-4]) - 391895
        else:
            number = int(line["id"][:-4]) - 1000092795 + 20
        assert shows(pairs.image(row), number)
    if source == "*.jsonl":
        assert len(load_pairs(out / source, "val")) == 2


def test_the_draw_goes_by_seed_and_a_larger_contains_the_smaller(
    sources: dict[str, Path], tmp_path: Path
) -> None:
    def ids(name: str, count: int, seed: int = 0) -> list[str]:
        build_mixture(tmp_path / name, counts={**SMALL, "extra": count}, seed=seed, **sources)
        return [row["id"] for row in lines(tmp_path / name / "train.jsonl")]

    first = ids("first", 5)
    assert ids("again", 5) == first
    assert ids("other", 5, seed=1) != first
    assert set(first) < set(ids("more", 7))


def test_a_source_with_too_few_pictures_is_named(sources: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"--count = 'flickr=4'.*3 pictures.*At most 3"):
        build_mixture(tmp_path / "out", counts={**SMALL, "flickr": 4}, **sources)
    assert not (tmp_path / "out").exists()
    with pytest.raises(SettingError, match="nothing to mix"):
        build_mixture(tmp_path / "out", extra=sources["extra"])
    del sources["coco"]
    record = build_mixture(tmp_path / "out", counts=SMALL, **sources)
    assert list(record["sources"]) == ["flickr", "extra"]


def doctored(tmp_path: Path, kind: str) -> tuple[dict[str, Any], str]:
    """Sources one of which brings a picture of Karpathy's test split into training, and its id there."""
    records = [coco_record(number) for number in range(len(COCO_SPLITS))]
    coco_test, flickr_test = coco_record(3), flickr_record(3)
    extra: Any = None
    offending = records[0]["filename"]
    if kind == "same file in two splits":
        records = [*fillers(120), {**coco_test, "split": "train"}, *records]
        offending = coco_test["filename"]
    elif kind == "same COCO id under another name":
        records[0] = coco_record(0, cocoid=coco_test["cocoid"])
    else:
        names = {
            "COCO 2014 file": coco_test["filename"],
            "COCO 2017 file": f"{coco_test['cocoid']:012d}.jpg",
            "Flickr file": flickr_test["filename"],
        }
        offending = names.get(kind, "00000/" + names["COCO 2017 file"][:-4])
        if kind == "COCO in a shard":
            members = {f"{coco_test['cocoid']:012d}.jpg": encoded(1), f"{coco_test['cocoid']:012d}.txt": b"a"}
            extra = tmp_path / "extra"
            write_shard(extra / "00000.tar", {**members, **pair_members(5)})
        else:
            extra = tmp_path / "extra.csv"
            (tmp_path / offending).write_bytes(encoded(1))
            extra.write_text(f"image,caption\n{offending},a picture\n")
    made = {"coco": write_coco(tmp_path / "coco", records), "flickr": write_flickr(tmp_path / "flickr")}
    return {**made, **({"extra": extra} if extra else {})}, offending


@pytest.mark.parametrize(
    "kind",
    [
        "same file in two splits",
        "same COCO id under another name",
        "COCO 2014 file",
        "COCO 2017 file",
        "Flickr file",
        "COCO in a shard",
    ],
)
def test_a_test_picture_in_any_source_is_refused_by_its_id(tmp_path: Path, kind: str) -> None:
    sources, offending = doctored(tmp_path, kind)
    available = {"coco": 126 if kind == "same file in two splits" else 5, "flickr": 3}
    available["extra"] = 2 if kind == "COCO in a shard" else 1
    with pytest.raises(
        SettingError, match="1 chosen pictures are in Karpathy's test or validation"
    ) as caught:
        build_mixture(tmp_path / "out", counts=available, **sources)
    assert caught.value.value == offending
    assert not (tmp_path / "out").exists()


def test_a_picture_of_two_sources_is_taken_once(sources: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    names = [f"{391895 + number:012d}.jpg" for number in (0, 1)] + ["other.jpg"]
    for number, name in enumerate(names):
        (tmp_path / "more" / name).write_bytes(encoded(number))
        (tmp_path / "more" / name).with_suffix(".txt").write_text("a picture")
    counts = {"coco": 5, "flickr": 3, "extra": 1}
    record = build_mixture(tmp_path / "out", counts=counts, **{**sources, "extra": tmp_path / "more"})
    assert record["sources"]["extra"]["already taken"] == 2
    assert lines(tmp_path / "out" / "train.jsonl")[-1]["id"] == "other.jpg"


def test_pictures_that_are_not_here_are_held_out_all_the_same(tmp_path: Path) -> None:
    every = [*fillers(120), *map(coco_record, range(len(COCO_SPLITS)))]
    made = {"coco": write_coco(tmp_path / "coco", every), "extra": tmp_path / "extra.csv"}
    lost = coco_record(3)["filename"]
    (tmp_path / lost).write_bytes((tmp_path / "coco" / "val2014" / lost).read_bytes())
    made["extra"].write_text(f"image,caption\n{lost},a picture\n")
    silent = [{**record, "sentences": []} if record["filename"] == lost else record for record in every]
    write_coco(tmp_path / "coco", silent)
    (tmp_path / "coco" / "val2014" / lost).unlink()
    with pytest.raises(SettingError, match="Karpathy's test"):
        build_mixture(tmp_path / "out", counts={"coco": 1, "extra": 1}, **made)


@pytest.mark.parametrize(
    ("identity", "names"),
    [
        ("COCO_val2014_000000391895.jpg", {"COCO_val2014_000000391895", "COCO 391895"}),
        ("train2017/000000391895.jpg", {"000000391895", "COCO 391895"}),
        ("1000092795.jpg", {"1000092795"}),
        ("00000/000000123", {"000000123"}),
    ],
)
def test_the_names_of_a_picture(identity: str, names: set[str]) -> None:
    assert picture_names(identity) == names


def test_another_mixture_in_the_folder_is_refused_and_the_same_left_alone(
    sources: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    record = build_mixture(out, counts=SMALL, **sources)
    changed = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert build_mixture(out, counts=SMALL, **sources) == record
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == changed
    with pytest.raises(SettingError, match=r"OUT = .*another folder"):
        build_mixture(out, counts=SMALL, seed=1, **sources)


KILLED = """
import os, shutil, sys
from pathlib import Path
from tests.kill_points import kill_everywhere
from workbench.data.build.mix import build_mixture

root, out = Path(sys.argv[1]), Path(sys.argv[1]) / "killed"
whole = {path.relative_to(root / "whole"): path.read_bytes() for path in (root / "whole").rglob("*.jpg")}

def operation():
    build_mixture(
        out,
        coco=root / "coco" / "dataset_coco.json",
        flickr=root / "flickr" / "dataset_flickr30k.json",
        extra=root / "cc3m",
        counts={"coco": 4, "flickr": 2, "extra": 5},
    )

def check(attempt):
    for path in out.rglob("*.jpg"):
        assert path.read_bytes() == whole[path.relative_to(out)], path
    if (out / "mixture.json").is_file() and '"finished": true' in (out / "mixture.json").read_text():
        assert (out / "train.jsonl").read_bytes() == (root / "whole" / "train.jsonl").read_bytes()

print(kill_everywhere(str(out), lambda: None, operation, check))
"""


def test_a_mixture_killed_anywhere_goes_on_to_the_same_end(sources: dict[str, Path], tmp_path: Path) -> None:
    build_mixture(tmp_path / "whole", counts=SMALL, **sources)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 5
    for name in ("train.jsonl", "val.jsonl", "mixture.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    kinds = Counter(path.suffix for path in (tmp_path / "killed").rglob("*.*") if path.name[0] != ".")
    assert kinds == {".jpg": 5, ".jsonl": 2, ".json": 1}


def test_pictures_of_nested_and_damaged_shards(sources: dict[str, Path], tmp_path: Path) -> None:
    import tarfile

    folder = tmp_path / "odd"
    write_shard(folder / "a" / "00000.tar", pair_members(1, "png") | {"notes.cls": b"3"})
    with tarfile.open(folder / "a" / "00000.tar", "a") as tar:
        for name, data in pair_members(2).items():
            add_member(tar, f"./deep/{name}", data)
    out = tmp_path / "out"
    build_mixture(out, counts={**SMALL, "extra": 2}, **{**sources, "extra": folder})
    rows = lines(out / "train.jsonl")[-2:]
    assert [row["image"] for row in rows] == [
        "pictures/a/00000/000000001.png",
        "pictures/a/00000/deep/000000002.jpg",
    ]
    pairs = load_pairs(out / "train.jsonl")
    assert [shows(pairs.image(len(pairs) - 2 + k), k + 1) for k in (0, 1)] == [True, True]
