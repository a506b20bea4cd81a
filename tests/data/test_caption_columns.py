"""Several caption columns: which caption a pair shows, from every format that has columns."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.data.samples import encoded, shows, write_folder, write_shard
from workbench.data.caption_columns import caption_choice
from workbench.data.load import load_pairs
from workbench.data.loader import batches
from workbench.data.pairs import Pairs
from workbench.data.report import data_report
from workbench.errors import SettingError

SHARES = {"caption": 0.7, "synthetic": 0.3}
WHOLE: dict[str, Any] = {"val_share": 0.0, "test_share": 0.0}
# Both columns, a list, one column alone, the other alone, none, and the picture of the first row again.
CAPTIONS: list[tuple[Any, Any]] = [
    ("real 0", "made 0"),
    (["real 1", "real 1b"], ["made 1", "made 1b", "made 1c"]),
    ("real 2", None),
    (None, "made 3"),
    (None, None),
    ("real 5", "made 5"),
]
EXPECTED = [
    ["real 0", "real 5", "made 0", "made 5"],
    ["real 1", "real 1b", "made 1", "made 1b", "made 1c"],
    ["real 2"],
    ["made 3"],
]


def picture(number: int) -> bytes:
    return encoded(0 if number == 5 else number)


def records(folder: Path) -> list[dict[str, Any]]:
    folder.mkdir(parents=True)
    rows = []
    for number, (real, made) in enumerate(CAPTIONS):
        (folder / f"{number}.jpg").write_bytes(picture(number))
        rows.append({"image": f"{number}.jpg", "caption": real, "synthetic": made})
    return rows


def source(kind: str, folder: Path) -> Path:
    rows = records(folder)
    path = folder / f"pairs.{kind}"
    if kind == "jsonl":
        lines = ({name: value for name, value in row.items() if value is not None} for row in rows)
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    elif kind == "csv":
        cells = [["" if value is None else value for value in row.values()] for row in rows]
        quoted = [[json.dumps(cell) if isinstance(cell, list) else cell for cell in row] for row in cells]
        lines = [",".join(f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in row) for row in quoted]
        path.write_text("\n".join(["image,caption,synthetic", *lines]) + "\n")
    elif kind == "parquet":
        lists = {
            name: [[value] if isinstance(value, str) else value for value in (row[name] for row in rows)]
            for name in SHARES
        }
        pictures = [{"bytes": picture(number), "path": None} for number in range(len(rows))]
        pq.write_table(pa.table({"image": pictures, **lists}), path)
    else:
        members = {}
        for number, row in enumerate(rows):
            members[f"{number}.jpg"] = picture(number)
            facts = {"synthetic": row["synthetic"], "url": "x"}
            if number == 1:
                facts["caption"] = row["caption"]
            elif row["caption"]:
                members[f"{number}.txt"] = row["caption"].encode()
            members[f"{number}.json"] = json.dumps(
                {name: value for name, value in facts.items() if value is not None}
            ).encode()
        path = folder / "00000.tar"
        write_shard(path, members)
    return path


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "shards"])
def test_a_pair_has_the_captions_of_all_columns(kind: str, tmp_path: Path) -> None:
    path = source(kind, tmp_path / "data")
    pairs = load_pairs(path, caption_column=SHARES, max_failed=0.5, **WHOLE)
    by_text = {tuple(sorted(captions)) for captions in pairs.table["captions"].to_pylist()}
    assert by_text == {tuple(sorted(captions)) for captions in EXPECTED}
    for row in range(len(pairs)):
        shown = {pairs.all_captions[caption_choice(pairs, row, 0, epoch)] for epoch in range(80)}
        assert shown == set(pairs.captions(row))
        names = [list(SHARES)[number] for number in pairs.details(row)["caption_columns"]]
        assert names == [
            "caption" if text.startswith("real") else "synthetic" for text in pairs.captions(row)
        ]
    report = data_report(pairs)
    assert report["caption_columns"] == {
        "caption": {"share": 0.7, "captions": 5}, "synthetic": {"share": 0.3, "captions": 6},
    }  # fmt: skip
    assert (report["skipped"]["no caption"]["count"], report["copies_merged"]) == (1, 1)
    blank = load_pairs(path, caption_column=SHARES, captions_needed=False, duplicates="keep", **WHOLE)
    assert len(blank) == 6 and caption_choice(blank, blank.ids.index(next(
        name for name in blank.ids if not blank.captions(blank.ids.index(name))
    )), 0, 0) == -1  # fmt: skip
    alone = load_pairs(path, caption_column={"caption": 0.0, "synthetic": 2.0}, max_failed=0.5, **WHOLE)
    assert all(text.startswith("made") for text in alone.all_captions) and len(alone) == 3


def test_a_pair_that_one_column_loses_is_counted_and_left_out(tmp_path: Path) -> None:
    members = {}
    for number in range(4):
        facts = json.dumps({"synthetic": f"made {number}"}).encode()
        members |= {
            f"{number}.jpg": encoded(number),
            f"{number}.txt": f"real {number}".encode(),
            f"{number}.json": b"{" if number == 1 else facts,
        }
    write_shard(tmp_path / "00000.tar", members)
    pairs = load_pairs(tmp_path / "00000.tar", caption_column=SHARES, max_failed=0.5, **WHOLE)
    assert pairs.table["captions"].to_pylist() == [
        [f"real {number}", f"made {number}"] for number in (0, 2, 3)
    ]
    assert [shows(pairs.image(row), number) for row, number in enumerate((0, 2, 3))] == [True] * 3
    assert pairs.rejected == {"damaged record": 1}


def test_columns_are_drawn_by_their_shares_and_by_seed_epoch_and_row_alone() -> None:
    table = pa.table(
        {
            "id": [str(row) for row in range(300)],
            "captions": [["a", "b", "c", "d"]] * 299 + [["only"]],
            "caption_columns": [[0, 1, 1, 2]] * 299 + [[2]],
        }
    )
    shares = {"one": 1.0, "unused": 0.0, "two": 6.0, "three": 3.0}
    pairs = Pairs(
        table, lambda row: torch.zeros(3, 2, 2), name="x", split="train", facts={"caption shares": shares}
    )
    chosen = np.array(
        [[caption_choice(pairs, row, 3, epoch) % 4 for row in range(299)] for epoch in range(20)]
    )
    seen = np.bincount(chosen.ravel(), minlength=4) / chosen.size
    np.testing.assert_allclose(seen, [0.1, 0.3, 0.3, 0.3], atol=0.02)
    assert len({tuple(row) for row in chosen}) == 20  # every epoch draws anew
    some = pairs.select(np.arange(299)[::-1])
    assert caption_choice(pairs, 7, 3, 5) % 4 == chosen[5, 7]
    assert caption_choice(pairs, 299, 3, 5) == 4 * 299 and caption_choice(some, 0, 3, 5) % 4 == chosen[5, 0]
    assert any(caption_choice(pairs, row, 4, 0) % 4 != chosen[0, row] for row in range(299))


def test_every_caption_has_its_turn() -> None:
    captions = [["a"] * 3, ["b"], ["c"] * 5, *[["d"] * 5] * 100]
    table = pa.table({"id": [str(row) for row in range(len(captions))], "captions": captions})
    pairs = Pairs(table, lambda row: torch.zeros(3, 2, 2), name="x", split="train")
    first = pairs.first_caption
    for row, count in ((0, 3), (1, 1), (2, 5)):
        turns = [caption_choice(pairs, row, 7, epoch) for epoch in range(count)]
        assert sorted(turns) == list(range(first[row], first[row + 1]))
    starts = {caption_choice(pairs, row, 0, 0) - first[row] for row in range(3, 103)}
    assert starts == set(range(5))


def test_a_batch_has_the_caption_and_the_position_of_its_column(tmp_path: Path) -> None:
    pairs = load_pairs(source("jsonl", tmp_path / "data"), caption_column=SHARES, max_failed=0.5, **WHOLE)
    texts: list[str] = []

    def tokenize(captions: Any) -> torch.Tensor:
        texts.extend(captions)
        return torch.zeros(len(captions), 1, dtype=torch.int64)

    stream = batches(
        pairs, lambda image, epoch, row: image[:, :2, :2], tokenize, batch=4, seed=0, steps=range(30)
    )
    positions = [int(position) for batch in stream for position in batch.caption]
    assert texts == [pairs.all_captions[position] for position in positions]
    assert {text[:4] for text in texts} == {"real", "made"}


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "shards"])
def test_an_unknown_column_names_those_that_exist(kind: str, tmp_path: Path) -> None:
    path = source(kind, tmp_path / "data")
    with pytest.raises(SettingError, match=r"data\.caption_column = 'synthtic'.*'synthetic'"):
        load_pairs(path, caption_column={"caption": 0.5, "synthtic": 0.5}, max_failed=0.5, **WHOLE)


def test_sources_without_columns_and_impossible_shares_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "folder", 4)
    for place in (tmp_path / "folder", "scenes"):
        with pytest.raises(SettingError, match=r"data\.caption_column = .*no columns of captions"):
            load_pairs(place, caption_column=SHARES, **WHOLE)
    for shares in ({}, {"caption": 0.0}, {"caption": -1.0, "synthetic": 2.0}, {"caption": float("nan")}):
        with pytest.raises(SettingError, match=r"data\.caption_column = .*sum must be above 0"):
            load_pairs(
                source("jsonl", tmp_path / f"of-{len(shares)}-{sum(shares.values())}"), caption_column=shares
            )
