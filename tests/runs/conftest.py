"""What the tests of run tables share: a folder of three runs."""

from pathlib import Path

import pytest

from tests.fake_runs import write_run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    write_run(tmp_path / "a", seed=1, steps=20, splits={"test": 0.5, "other": 0.0})
    write_run(tmp_path / "b", "task_only_demo", steps=30, splits={"test": 1.5})
    write_run(tmp_path / "c", steps=10, state="interrupted", overrides={"training.lr": 0.003})
    return tmp_path
