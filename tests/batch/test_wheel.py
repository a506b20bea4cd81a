"""The wheel carries notebooks and measured tables: what an installed `workbench` finds without a checkout."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from workbench.batch.notebook_runner import NOTEBOOKS, notebooks
from workbench.reports.benchmark_tables import RESULTS

ROOT = Path(__file__).parents[2]
WHEEL = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's content; without hatchling, with what its configuration says is in it."""
    folder = tmp_path_factory.mktemp("installed")
    if importlib.util.find_spec("hatchling"):
        made = tmp_path_factory.mktemp("dist")
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(made)]
        subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
        (wheel,) = made.glob("*.whl")
        zipfile.ZipFile(wheel).extractall(folder)
        return folder
    for package in WHEEL["packages"]:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for source, target in WHEEL["force-include"].items():
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
        copy(ROOT / source, folder / target)
    return folder


def run(installed: Path, place: Path, *arguments: str) -> Any:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    environment.pop("WORKBENCH_RUNS", None)
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=place, env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_every_notebook_and_table_is_in_the_wheel(installed: Path) -> None:
    for folder, name in ((NOTEBOOKS, "notebooks"), (RESULTS, "benchmarks/results")):
        kinds = ("*.ipynb",) if name == "notebooks" else ("*.json", "*.md")
        for path in (path for kind in kinds for path in folder.glob(kind)):
            copy = installed / "workbench" / name / path.name
            assert copy.read_bytes() == path.read_bytes(), path.name


def test_an_installed_workbench_finds_its_own_notebooks(installed: Path, tmp_path: Path) -> None:
    code = "import workbench.batch.notebook_runner as runner; print(runner.NOTEBOOKS)"
    assert run(installed, tmp_path, "-c", code).strip() == str(installed / "workbench" / "notebooks")
    listed = run(installed, tmp_path, "-m", "workbench", "notebook", "--list")
    assert listed.split() == notebooks()
    assert "steps" in run(installed, tmp_path, "-m", "workbench", "notebook", "00_quickstart", "--list")


@pytest.mark.slow
def test_an_installed_workbench_runs_a_notebook(installed: Path, tmp_path: Path) -> None:
    arguments = ("notebook", "07_ablations", "--out", str(tmp_path / "out"))
    run(installed, tmp_path, "-m", "workbench", *arguments)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["state"] == "finished"
    assert Path(manifest["notebook"]).is_relative_to(installed)
