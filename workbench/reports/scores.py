"""The scores of one run, with intervals, beside those of its teacher and of chance."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from pandas import DataFrame, MultiIndex

from workbench.evaluation.significance import bootstrap_interval
from workbench.evaluation.suites import evaluated_pairs, results_of_queries
from workbench.figures.style import is_share, metric_label
from workbench.metrics import metric
from workbench.runs.run import Run

COLUMN = {"zero_shot_names": "objects", "zero_shot_categories": "categories"}  # of scenes, with the classes


def score_table(run: Run, teacher: Run | None = None) -> DataFrame:
    """A row per split and metric: the student with its 95 % interval over pictures, the teacher, and chance.

    The cells are texts, shares in per cent. Metrics without results of single queries have no interval, and
    are left out unless there are only those. `teacher` is what `evaluated_teacher` returns.
    """
    rows: dict[tuple[str, str], dict[str, str]] = {}
    reference = teacher.evaluations if teacher else {}
    for split, (report, queries) in run.evaluations.items():
        theirs = reference[split].report["scores"] if split in reference else {}
        names = list(report["scores"])
        measured = [name for name in names if results_of_queries(name, queries) is not None]
        for name in measured or names:
            row = {"student": _text(name, report["scores"][name]), "95 % interval": ""}
            results = results_of_queries(name, queries)
            if results is not None:
                interval = bootstrap_interval(*results)
                row["95 % interval"] = f"{_text(name, interval.low)} to {_text(name, interval.high)}"
            if teacher:
                row["teacher"] = _text(name, theirs.get(name))
            row["chance"] = _text(name, _chance(name, report, run, split))
            rows[split, f"{metric_label(name)}{', %' if is_share(name) else ''}"] = row
    return DataFrame(list(rows.values()), index=MultiIndex.from_tuples(rows, names=["split", "metric"]))


def _text(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{100 * value:.1f}" if is_share(name) else f"{value:.4g}"


def _chance(name: str, report: Mapping[str, Any], run: Run, split: str) -> float | None:
    """What a random ranking reaches; None where this is not known."""
    record, folds = metric(name), report.get("folds", 1)
    images, captions = report["images"] / folds, report["captions"] / folds
    if record.cutoff and name.startswith("text_to_image"):
        return min(1.0, record.cutoff / images)
    if record.cutoff and name.startswith("image_to_text"):
        own = round(captions / images)  # captions of a picture; none of them is among the first
        missed = (1 - own / (captions - place) for place in range(min(record.cutoff, round(captions))))
        return 1 - max(0.0, math.prod(missed))
    if record.reciprocal:
        own, candidates = (captions / images, captions) if name.startswith("image_to_text") else (1.0, images)
        # The mean number of captions is no picture's own if it is a fraction.
        return _reciprocal_rank(own, candidates) if own.is_integer() and candidates.is_integer() else None
    if name == "swap_accuracy":
        return 0.5
    kind, _, best = name.rpartition("_top")
    if kind in ("zero_shot", *COLUMN) and best.isdigit():
        classes = report.get("classes") or _classes(run, split, COLUMN.get(kind, ""))
        return min(1.0, int(best) / classes) if classes else None
    return None


def _reciprocal_rank(own: float, candidates: float) -> float:
    """The mean of 1 / rank of the first of `own` right candidates, if all candidates are in random order."""
    rank = np.arange(1, candidates - own + 2)
    # The first r are wrong with the probability (1 - own / n) (1 - own / (n - 1)) ..., with r factors.
    wrong = np.cumprod(1 - own / (candidates - rank + 1))
    is_first = np.concatenate([[1.0], wrong[:-1]]) - wrong
    return float((is_first / rank).sum())


def _classes(run: Run, split: str, column: str) -> int:
    table = evaluated_pairs(run.recipe, split).table
    return len({name for names in table[column].to_pylist() for name in names}) if column else 0
