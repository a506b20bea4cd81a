"""One self-contained HTML page about runs: results, curves, recipes, data; opens without a network."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.errors import SettingError, damaged_file
from workbench.figures.training import training_figure
from workbench.files import atomic_write, read_json
from workbench.recipe import differences
from workbench.reports.compare import DifferentData, RunLike, compare
from workbench.runs.run import Run

if TYPE_CHECKING:
    import plotly.graph_objects as go

STYLE = """
body { font: 15px/1.5 Inter, system-ui, sans-serif; color: #1f2933; background: #fff;
       margin: 0 auto; padding: 1.5em; max-width: 1100px; }
h1 { font-size: 1.6em; margin: 0 0 .3em; } h2 { font-size: 1.2em; margin: 2em 0 .5em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2em .8em .2em 0; text-align: left; vertical-align: top; }
pre { background: #f5f7fa; padding: 1em; overflow-x: auto; font-size: 13px; }
.wide { overflow-x: auto; }
"""


def write_report(
    runs: Sequence[RunLike], path: str | Path, extra_sections: Iterable[tuple[str, str]] = ()
) -> Path:
    """Write a page about runs to `path` and return where it is.

    It holds the comparison of the runs that were evaluated, with a word on the others, the curves, what
    differs between the recipes, every recipe whole, the data with their fingerprints, and the versions;
    `extra_sections` are (heading, HTML) pairs, shown after the comparison. plotly.js is in it once. Runs that
    cannot be compared are reported without a comparison. Raises SettingError for a damaged file.
    """
    if Path(path).is_dir():
        raise SettingError("out", str(path), "it is a folder", "The path of an HTML file, e.g. report.html.")
    from plotly.offline import get_plotlyjs

    opened = [Run(Path(run if isinstance(run, str | PathLike) else run.path)) for run in runs]
    sections: list[tuple[str, str]] = []
    sections.append(("Results", _results(opened)))
    sections += [(heading, content) for heading, content in extra_sections]
    sections += [
        (f"Training: {run.recipe.name}, seed {run.recipe.seed}", _figure(training_figure(run)))
        for run in opened
    ]
    sections.append(("Recipes", _recipes(opened)))
    sections += [("Data", _data(opened)), ("Versions", _versions(opened))]
    body = "".join(
        f"<h2>{escape(heading)}</h2>\n<div class=wide>{content}</div>\n" for heading, content in sections
    )
    title = " and ".join(dict.fromkeys(run.recipe.name for run in opened))
    path = Path(path).absolute()
    with atomic_write(path, "w") as stream:
        stream.write(
            "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n"
            "<meta name=viewport content='width=device-width'>\n"
            f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n<script>{get_plotlyjs()}</script>\n"
            f"<h1>{escape(title)}</h1>\n{body}</html>\n"
        )
    return path


def _results(runs: Sequence[Run]) -> str:
    """The comparison of those that can be compared, and which ones these are not."""
    evaluated = [run for run in runs if run.evaluations]
    names = ", ".join(os.path.basename(run.path) for run in runs if run not in evaluated)
    others = f"<p>Not evaluated: {escape(names)}.</p>" if names else ""
    if not evaluated:
        return others
    try:
        comparison = compare(evaluated)
    except DifferentData as error:
        return f"<p>There is no comparison: {escape(error.problem)}.</p>{others}"
    return comparison._repr_html_() + _figure(comparison.figure) + others


def _figure(figure: "go.Figure") -> str:
    return figure.to_html(
        full_html=False, include_plotlyjs=False, config={"displaylogo": False, "responsive": True}
    )


def _recipes(runs: Sequence[Run]) -> str:
    first, parts = runs[0].recipe, []
    for run in runs[1:]:
        rows = "".join(
            f"<tr><td>{escape(name)}<td>{escape(str(before))}<td>{escape(str(now))}"
            for name, (before, now) in differences(first, run.recipe).items()
        )
        names = "".join(f"<th>{escape(each.name)}, seed {each.seed}" for each in (first, run.recipe))
        parts.append(f"<table><tr><th>setting{names}{rows}</table>")
    for run in runs:
        # The folder's name only: a page that is passed on should not tell where somebody keeps their files.
        parts.append(
            f"<details><summary>{escape(os.path.basename(run.path))}</summary><pre>{escape(run.recipe.to_yaml())}</pre></details>"
        )
    return "".join(parts)


def _data(runs: Sequence[Run]) -> str:
    """What was trained on and evaluated, each set once, with the runs that did."""
    used: dict[tuple[str, ...], list[str]] = {}
    for run in runs:
        file, name = run.path / "data.json", os.path.basename(run.path)
        with _naming(file):
            for use, facts in (read_json(file) if file.is_file() else {}).items():
                words = {"train": "trained on", "validation": "validated on"}[use]
                counts = f"{facts['pairs']:,}", f"{facts['captions']:,}"
                used.setdefault((words, facts["split"], *counts, facts["fingerprint"]), []).append(name)
        for split, (report, _) in run.evaluations.items():
            counts = f"{report['images']:,}", f"{report['captions']:,}"
            used.setdefault(("evaluated on", split, *counts, str(report["data"])), []).append(name)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}" for cell in (*facts[:4], facts[4][:16]))
        + f"<td>{'all' if len(names) == len(runs) else escape(', '.join(names))}"
        for facts, names in used.items()
    )  # fmt: skip
    head = "<tr><th>use<th>split<th>pictures<th>captions<th>fingerprint of ids and captions<th>runs"
    return f"<table>{head}{rows}</table>"


@contextlib.contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Say which file it is that is damaged."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged_file("runs", file, error, "Take it away: the page then goes without it.") from None


def _versions(runs: Sequence[Run]) -> str:
    rows = []
    for run in runs:
        file = run.path / "versions.json"
        if file.is_file():
            with _naming(file):
                found = ", ".join(f"{name} {version}" for name, version in read_json(file).items())
            rows.append(f"<tr><td>{escape(os.path.basename(run.path))}<td>{escape(found)}")
    return f"<table>{''.join(rows)}</table>"
