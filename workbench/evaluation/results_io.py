"""Reads stored evaluations: the report of a split and the results of its single queries."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from workbench.errors import damaged_file
from workbench.files import read_arrays, read_json, sha256_of_file, unsigned

SIGNED = ("scores", "images", "captions")  # the fields that a report's digest covers
QUERIES = "queries_sha256"  # the report's key for the digest of the file with results of single queries


class SplitResults(NamedTuple):
    """The report of a split, with its numbers under `scores`, and the results of its single queries."""

    report: dict[str, Any]
    queries: dict[str, np.ndarray]


def read_evaluations(folder: Path) -> dict[str, SplitResults]:
    """Read all evaluations in a run's folder `evaluation`, by split; {} if there are none.

    Raises SettingError, naming the file, if one is damaged. If the results of single queries are missing, the
    scores have no intervals.
    """
    evaluations = {}
    for file in sorted(folder.glob("*.json")):
        try:
            report = read_report(file)
            file = file.with_suffix(".npz")
            evaluations[file.stem] = SplitResults(report, read_queries(file, report.pop(QUERIES, None)))
        except (OSError, ValueError) as error:
            remedy = f"Run `workbench evaluate {folder.parent}` again."
            raise damaged_file("runs", file, error, remedy) from None
    return evaluations


def read_report(file: Path) -> dict[str, Any]:
    """Read `<split>.json`. Raises ValueError if it is damaged and OSError if it cannot be read."""
    report = unsigned(read_json(file))
    if not isinstance(report, dict) or not isinstance(report.get("scores"), dict):
        raise ValueError("it holds no scores")
    if not all(isinstance(report.get(key, 0), int) for key in ("images", "captions")):
        raise ValueError("it has no valid counts")
    if lacking := {"data", "images", "captions"} - report.keys():
        raise ValueError(f"it lacks {', '.join(sorted(lacking))}")
    if not all(isinstance(value, int | float) for value in report["scores"].values()):
        raise ValueError("its scores are not numbers")
    return report


def read_queries(file: Path, digest: str | None = None) -> dict[str, np.ndarray]:
    """Read the arrays of `<split>.npz` and verify the `digest` if one is given; {} if there is no file.

    Raises the errors of `read_report`.
    """
    if not file.is_file():
        return {}
    if digest is not None and sha256_of_file(file) != digest:
        raise ValueError("its sha256 has changed since it was written")
    return read_arrays(file)
