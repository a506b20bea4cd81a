"""Reads back what `evaluate` wrote of a split: its report, and the results of its single queries."""

import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from workbench.errors import damaged_file
from workbench.files import read_json


class SplitResults(NamedTuple):
    """A split's report (its numbers are under `scores`), and the results of its single queries."""

    report: dict[str, Any]
    queries: dict[str, np.ndarray]


def read_evaluations(folder: Path) -> dict[str, SplitResults]:
    """Everything that `evaluate` wrote into a run's folder `evaluation`, by split; {} where it wrote nothing.

    Raises SettingError naming the file that is damaged.
    """
    evaluations = {}
    for file in sorted(folder.glob("*.json")):
        try:
            report = read_report(file)
            file = file.with_suffix(".npz")
            evaluations[file.stem] = SplitResults(report, read_queries(file))
        except (OSError, ValueError) as error:
            remedy = f"Run `workbench evaluate {folder.parent}` again."
            raise damaged_file("runs", file, error, remedy) from None
    return evaluations


def read_report(file: Path) -> dict[str, Any]:
    """`<split>.json`; ValueError where it is damaged, OSError where it cannot be read."""
    report = read_json(file)
    if not isinstance(report, dict) or not isinstance(report.get("scores"), dict):
        raise ValueError("it holds no scores")
    if lacking := {"data", "images", "captions"} - report.keys():
        raise ValueError(f"it lacks {', '.join(sorted(lacking))}")
    if not all(isinstance(value, int | float) for value in report["scores"].values()):
        raise ValueError("its scores are no numbers")
    return report


def read_queries(file: Path) -> dict[str, np.ndarray]:
    """The arrays of `<split>.npz`, {} where there is none; errors as of `read_report`."""
    if not file.is_file():
        return {}
    try:
        with open(file, "rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return dict(arrays)
    except (EOFError, zipfile.BadZipFile) as error:
        raise ValueError(str(error)) from None
