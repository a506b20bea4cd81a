"""One self-contained HTML page about runs: results, curves, recipes, data; opens without a network."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.data.report import skipped_text
from workbench.errors import SettingError
from workbench.figures.display import CONFIG
from workbench.figures.training import training_figure
from workbench.files import atomic_write
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

    It holds the comparison of the evaluated runs, the names of the others, the curves, what differs between
    the recipes, every recipe whole, the data with their fingerprints, and the versions;
    `extra_sections` are (heading, HTML) pairs, shown after the comparison. plotly.js is in it once. Runs that
    cannot be compared are reported without a comparison. Raises SettingError for a damaged file.
    """
    if Path(path).is_dir():
        raise SettingError("out", str(path), "it is a folder", "The path of an HTML file, e.g. report.html.")
    from plotly.offline import get_plotlyjs

    opened = [Run(Path(run if isinstance(run, str | PathLike) else run.path)) for run in runs]
    sections = [("Results", _results(opened)), *extra_sections]
    for run in opened:
        heading = f"Training: {run.recipe.name}, seed {run.recipe.seed}"
        sections.append((heading, _figure(training_figure(run))))
    sections += [("Recipes", _recipes(opened)), ("Data", _data(opened)), ("Versions", _versions(opened))]
    title = " and ".join(dict.fromkeys(run.recipe.name for run in opened))
    path = Path(path).absolute()
    with atomic_write(path, "w") as stream:
        stream.write(
            "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n"
            "<meta name=viewport content='width=device-width'>\n"
            f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n<script>{get_plotlyjs()}</script>\n"
            f"<h1>{escape(title)}</h1>\n"
        )
        for heading, content in sections:
            stream.write(f"<h2>{escape(heading)}</h2>\n<div class=wide>{content}</div>\n")
        stream.write("</html>\n")
    return path


def _results(runs: Sequence[Run]) -> str:
    """The comparison of the evaluated runs, and the names of the others."""
    evaluated = [run for run in runs if run.evaluations]
    names = ", ".join(run.path.name for run in runs if run not in evaluated)
    others = f"<p>Not evaluated: {escape(names)}.</p>" if names else ""
    if not evaluated:
        return others
    try:
        comparison = compare(evaluated)
    except DifferentData as error:
        return f"<p>There is no comparison: {escape(error.problem)}.</p>{others}"
    return comparison._repr_html_() + _figure(comparison.figure) + others


def _figure(figure: "go.Figure") -> str:
    return figure.to_html(full_html=False, include_plotlyjs=False, config=CONFIG)


def _table(rows: Iterable[Sequence[object]], heads: Sequence[str] = ()) -> str:
    top = "<tr>" * bool(heads) + "".join(f"<th>{escape(head)}" for head in heads)
    body = (f"<tr>{''.join(f'<td>{escape(str(cell))}' for cell in row)}" for row in rows)
    return f"<table>{top}{''.join(body)}</table>"


def _recipes(runs: Sequence[Run]) -> str:
    first, parts = runs[0].recipe, []
    for run in runs[1:]:
        heads = ["setting", *(f"{recipe.name}, seed {recipe.seed}" for recipe in (first, run.recipe))]
        rows = [(name, *values) for name, values in differences(first, run.recipe).items()]
        parts.append(_table(rows, heads))
    for run in runs:
        # The folder's name only: a page that is passed on should not tell where somebody keeps their files.
        summary = f"<details><summary>{escape(run.path.name)}</summary>"
        parts.append(f"{summary}<pre>{escape(run.recipe.to_yaml())}</pre></details>")
    return "".join(parts)


def _data(runs: Sequence[Run]) -> str:
    """What was trained on and evaluated, each set once, with the runs that did."""
    users: dict[tuple[str, ...], list[str]] = {}
    for run in runs:
        name = run.path.name
        for use, facts in run.facts("data").items():
            words = {"train": "trained on", "validation": "validated on"}.get(use, use)
            counts = f"{facts['pairs']:,}", f"{facts['captions']:,}"
            described = words, str(facts["split"]), *counts, *_found(facts), str(facts["fingerprint"])
            users.setdefault(described, []).append(name)
        for split, (report, _) in run.evaluations.items():
            counts = f"{report['images']:,}", f"{report['captions']:,}"
            left_out = ", ".join(f"{count} {reason}" for reason, count in report.get("failed", {}).items())
            key = ("evaluated on", split, *counts, "", "", "", left_out, str(report["data"]))
            users.setdefault(key, []).append(name)
    rows = [
        (*facts, fingerprint[:16], "all" if len(names) == len(runs) else ", ".join(names))
        for (*facts, fingerprint), names in users.items()
    ]
    heads = ("use", "split", "pictures", "captions", "source", "split by", "copies merged", "left out")
    return _table(rows, (*heads, "fingerprint", "runs"))


def _found(facts: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Source, origin of the split, copies merged and what was left out; empty for runs of before."""
    merged = facts.get("copies_merged", 0)
    skipped = skipped_text(facts.get("skipped", {}))
    # The name without its folders: the page should not tell where somebody keeps their files.
    source = f"{Path(facts['source']).name} ({facts.get('format', 'unknown format')})"
    return source, facts.get("split_from", ""), f"{merged:,}" if merged else "", skipped


def _versions(runs: Sequence[Run]) -> str:
    versions = [(run.path.name, run.facts("versions")) for run in runs]
    return _table(
        [(name, ", ".join(f"{key} {value}" for key, value in known.items())) for name, known in versions]
    )
