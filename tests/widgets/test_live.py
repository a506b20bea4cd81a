"""Reading records while they are written."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from workbench.runs.records import Records


def line(kind: str, step: int, **values: object) -> str:
    return json.dumps({"kind": kind, "step": step, **values}) + "\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def append(path: Path, text: str) -> None:
    with open(path, "a", encoding="utf-8") as stream:
        stream.write(text)


def steps(records: Records) -> list[float]:
    return records.metrics["step"].tolist()


def test_no_file_yet(path: Path) -> None:
    records = Records(path)
    records.read()
    assert len(records.metrics) == len(records.validations) == records.steps == 0


def test_half_a_line_waits_for_its_end(path: Path) -> None:
    records = Records(path)
    append(path, line("step", 1, loss=2.0) + '{"kind": "step", "st')
    records.read()
    assert steps(records) == [1]
    append(path, 'ep": 2, "loss": 1.5}\n')
    records.read()
    assert records.metrics["loss"].tolist() == [2.0, 1.5]


def test_a_line_in_pieces_is_left_out(path: Path) -> None:
    append(path, line("step", 1) + '{"kind": "st{"kind": "step", "step": 2}\n[1]\n\n' + line("step", 3))
    records = Records(path)
    records.read()
    assert steps(records) == [1, 3]


def test_missing_columns_and_null_are_nan(path: Path) -> None:
    records = Records(path)
    append(
        path,
        line("step", 1, loss=1.0) + line("step", 2, loss=None, crd=3.0) + line("step", 3, loss=float("nan")),
    )
    records.read()
    np.testing.assert_array_equal(records.metrics["loss"], [1.0, np.nan, np.nan])
    np.testing.assert_array_equal(records.metrics["crd"], [np.nan, 3.0, np.nan])


def test_kinds_are_kept_apart(path: Path) -> None:
    append(path, line("step", 5, loss=1.0) + line("validation", 5, text_to_image_r1=0.5) + line("other", 6))
    records = Records(path)
    records.read()
    assert list(records.metrics.columns) == ["step", "loss"]
    assert records.validations["text_to_image_r1"].tolist() == [0.5]


def test_a_resumed_run_that_rewrote_the_file(path: Path) -> None:
    """As RunLogger.begin does: a new file in the old one's place, without what came after the checkpoint."""
    records = Records(path)
    append(path, "".join(line("step", step, loss=1.0) for step in range(1, 10)))
    records.read()
    other = path.with_name("other")
    other.write_text("".join(line("step", step, loss=2.0) for step in range(1, 30)))
    os.replace(other, path)
    records.read()
    assert steps(records) == list(range(1, 30))
    assert set(records.metrics["loss"]) == {2.0}


@pytest.mark.parametrize("grown_to", [3, 40])
def test_a_file_cut_in_place_and_grown_again(path: Path, grown_to: int) -> None:
    records = Records(path)
    append(path, "".join(line("step", step, loss=1.0) for step in range(1, 10)))
    records.read()
    path.write_text("".join(line("step", step, loss=0.5) for step in range(1, grown_to)))
    records.read()
    assert steps(records) == list(range(1, grown_to))
    assert set(records.metrics["loss"]) == {0.5}


def test_a_step_that_comes_again_replaces_what_followed_it(path: Path) -> None:
    append(
        path, "".join(line("step", step, loss=1.0) + line("validation", step, r=1.0) for step in (1, 2, 3, 4))
    )
    append(path, line("step", 3, loss=9.0))
    records = Records(path)
    records.read()
    assert records.metrics["loss"].tolist() == [1.0, 1.0, 9.0]
    assert records.validations["step"].tolist() == [1, 2]
    append(path, line("validation", 3, r=0.5))
    records.read()
    assert records.validations["r"].tolist() == [1.0, 1.0, 0.5]


def test_a_folder_emptied_is_forgotten(path: Path) -> None:
    records = Records(path)
    append(path, line("step", 1))
    records.read()
    path.unlink()
    records.read()
    assert records.steps == 0


def test_only_what_is_new_is_parsed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = Records(path)
    append(path, "".join(line("step", step) for step in range(1, 100)))
    records.read()
    parsed = []
    monkeypatch.setattr(Records, "_add", lambda self, text: parsed.append(text))
    append(path, line("step", 100))
    records.read()
    assert len(parsed) == 1
