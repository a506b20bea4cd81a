"""Where runs go, and what keeps them there."""

from pathlib import Path

import pytest

from workbench.errors import SettingError
from workbench.recipe import Recipe
from workbench.runs.folder import chosen_folder, default_folder, locked, runs_folder


def test_runs_go_where_they_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_RUNS", "elsewhere")
    assert runs_folder("here") == Path("here")
    assert runs_folder() == Path("elsewhere")
    monkeypatch.delenv("WORKBENCH_RUNS")
    assert runs_folder("") == Path("runs")


def test_a_recipe_finds_its_run_again() -> None:
    first, other = (Recipe.load("clip_kd_demo", {"seed": seed}) for seed in (0, 1))
    assert default_folder(first, "here") == Path(f"here/clip_kd_demo-seed0-{first.fingerprint[:8]}")
    assert default_folder(first) == default_folder(first.model_copy())
    assert default_folder(first) != default_folder(other)


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 5000])
def test_what_no_folder_can_be_called_is_told(name: str) -> None:
    with pytest.raises(SettingError, match=r"run_dir = .*it cannot be the name of a folder"):
        chosen_folder(Recipe.load("task_only_demo"), name)


def test_a_full_disk_is_named_before_anything_is_written(small_disk: Path) -> None:
    (small_disk / "run").mkdir()
    with pytest.raises(OSError, match="No space left"), open(small_disk / "other", "wb") as other:
        other.write(bytes(2 << 20))
    with pytest.raises(OSError, match="No space left on device") as caught, locked(small_disk / "run"):
        pass
    assert caught.value.filename == str(small_disk / "run")
