"""Reads back what `evaluate` wrote of a split: its report, and the results of its single queries."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from workbench.errors import damaged_file
from workbench.files import read_arrays, read_json, sha256_of_file, unsigned

SIGNED = ("scores", "images", "captions")  # of a report, what its own digest is of
QUERIES = "queries_sha256"  # a report's key for the digest of its file of single queries


class SplitResults(NamedTuple):
    """A split's report (its numbers are under `scores`), and the results of its single queries."""

    report: dict[str, Any]
    queries: dict[str, np.ndarray]


def read_evaluations(folder: Path) -> dict[str, SplitResults]:
    """Everything that `evaluate` wrote into a run's folder `evaluation`, by split; {} where it wrote nothing.

    Raises SettingError naming the file that is damaged. A file of single queries that was removed is no
    error: its numbers then have no intervals.
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
    """`<split>.json`; ValueError where it is damaged, OSError where it cannot be read."""
    report = unsigned(read_json(file))
    if not isinstance(report, dict) or not isinstance(report.get("scores"), dict):
        raise ValueError("it holds no scores")
    if not all(isinstance(report.get(key, 0), int) for key in ("images", "captions")):
        raise ValueError("it counts no pictures")
    if lacking := {"data", "images", "captions"} - report.keys():
        raise ValueError(f"it lacks {', '.join(sorted(lacking))}")
    if not all(isinstance(value, int | float) for value in report["scores"].values()):
        raise ValueError("its scores are no numbers")
    return report


def read_queries(file: Path, digest: str | None = None) -> dict[str, np.ndarray]:
    """The arrays of `<split>.npz`, with that `digest` if one is given; {} where there is none. Errors as of
    `read_report`."""
    if not file.is_file():
        return {}
    if digest is not None and sha256_of_file(file) != digest:
        raise ValueError("its sha256 is not the one that it was written with")
    return read_arrays(file)
