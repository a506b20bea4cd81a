"""One self-contained HTML page about runs: results, curves, recipes, data; opens without a network."""

import os
from collections.abc import Iterable, Sequence
from html import escape
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.figures.training import training_figure
from workbench.files import atomic_write, read_json
from workbench.recipe import differences
from workbench.reports.compare import RunLike, compare
from workbench.training.run import Run

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

    It holds the comparison (of runs that were evaluated), the curves, what differs between the recipes, every
    recipe whole, the data with their fingerprints, and the versions; `extra_sections` are (heading, HTML)
    pairs, shown after the comparison. plotly.js is in it once.
    """
    from plotly.offline import get_plotlyjs

    opened = [Run(Path(run if isinstance(run, str | PathLike) else run.path)) for run in runs]
    sections: list[tuple[str, str]] = []
    if all(any((run.path / "evaluation").glob("*.json")) for run in opened):
        comparison = compare(opened)
        sections.append(("Results", comparison._repr_html_() + _figure(comparison.figure)))
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
        for use, facts in (read_json(file) if file.is_file() else {}).items():
            words = {"train": "trained on", "validation": "validated on"}[use]
            counts = f"{facts['pairs']:,}", f"{facts['captions']:,}"
            used.setdefault((words, facts["split"], *counts, facts["fingerprint"]), []).append(name)
        for path in sorted((run.path / "evaluation").glob("*.json")):
            report = read_json(path)
            counts = f"{report['images']:,}", f"{report['captions']:,}"
            used.setdefault(("evaluated on", path.stem, *counts, str(report["data"])), []).append(name)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}" for cell in (*facts[:4], facts[4][:16]))
        + f"<td>{'all' if len(names) == len(runs) else escape(', '.join(names))}"
        for facts, names in used.items()
    )  # fmt: skip
    head = "<tr><th>use<th>split<th>pictures<th>captions<th>fingerprint of ids and captions<th>runs"
    return f"<table>{head}{rows}</table>"


def _versions(runs: Sequence[Run]) -> str:
    rows = []
    for run in runs:
        file = run.path / "versions.json"
        if file.is_file():
            found = ", ".join(f"{name} {version}" for name, version in read_json(file).items())
            rows.append(f"<tr><td>{escape(os.path.basename(run.path))}<td>{escape(found)}")
    return f"<table>{''.join(rows)}</table>"
