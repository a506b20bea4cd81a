"""The filter of the run table: words, settings, numbers to compare with."""

from pathlib import Path

import pytest

from workbench.runs.filter import matching, unknown_settings
from workbench.runs.table import find_runs


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "abc"),
        ("CLIP_kd", "ac"),
        ("kd finished", "a"),
        ("training.lr=0.003", "c"),
        ("training.lr = 3e-3", "c"),
        ("lr=0.003 interrupted", "c"),
        ("r=0.003", ""),
        ("seed=1", "a"),
        ("seed=", "abc"),
        ("state=finished", "ab"),
        ("student.trainable_image=all", "abc"),
        ("direction_weights=[0.5,0.5]", "abc"),
        ("teacher=null", "b"),
        ("training.lr={", ""),
        ("training.typo=1", ""),
        ("step>10", "ab"),
        ("step >= 10 training.lr<0.003", "ab"),
        ("step<20", "c"),
        ("test.text_to_image_r1>0", "ab"),
        ("seed>x", ""),
        ("name_of_nothing>1", ""),
    ],
)
def test_the_filter(runs: Path, text: str, expected: str) -> None:
    assert "".join(row.folder for row in matching(find_runs(runs), text)) == expected


def test_settings_that_no_run_has(runs: Path) -> None:
    assert unknown_settings(find_runs(runs), "kd training.typo=1 lr=5 = step>30 r1>2 mAP<1") == [
        "training.typo",
        "r1",
        "mAP",
    ]
