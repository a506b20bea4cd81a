"""Writes a self-contained HTML report of runs: results, curves, recipes and data. It opens offline."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.data.report import skipped_text
from workbench.errors import SettingError
from workbench.figures.display import CONFIG, INVERTED
from workbench.figures.training import training_figure
from workbench.files import atomic_write
from workbench.recipe import differences
from workbench.reports.compare import DifferentData, RunLike, compare
from workbench.runs.run import Run

if TYPE_CHECKING:
    import plotly.graph_objects as go

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 Inter, system-ui, sans-serif; color: #1f2933; background: #fff;
       margin: 0 auto; padding: 1.5em; max-width: 1100px; }
h1 { font-size: 1.6em; margin: 0 0 .3em; } h2 { font-size: 1.2em; margin: 2em 0 .5em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2em .8em .2em 0; text-align: left; vertical-align: top; }
pre { background: rgba(128, 128, 128, 0.1); padding: 1em; overflow-x: auto; font-size: 13px; }
.wide { overflow-x: auto; }
@media (prefers-color-scheme: dark) {
  body { color: #e4e7eb; background: #111; }
  DARK
}
""".replace("DARK", INVERTED)


def write_report(
    runs: Sequence[RunLike], path: str | Path, extra_sections: Iterable[tuple[str, str]] = ()
) -> Path:
    """Write a report of runs to `path` and return its absolute path.

    The report has the comparison of the evaluated runs, the names of the others, training curves, differences
    between the recipes, the complete recipes, the data with their fingerprints, and package versions.
    `extra_sections` are (heading, HTML) pairs, shown after the comparison. Runs that cannot be compared are
    reported without a comparison. Raises SettingError for a damaged file.
    """
    if Path(path).is_dir():
        remedy = "Give the path of an HTML file, e.g. report.html."
        raise SettingError("out", str(path), "it is a folder", remedy)
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
        return f"<p>These runs cannot be compared: {escape(error.problem)}.</p>{others}"
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
        # Only the folder's name, so that a shared report does not reveal paths.
        summary = f"<details><summary>{escape(run.path.name)}</summary>"
        parts.append(f"{summary}<pre>{escape(run.recipe.to_yaml())}</pre></details>")
    return "".join(parts)


def _data(runs: Sequence[Run]) -> str:
    """The data of training and evaluation, one row per data set, with the runs that used it."""
    users: dict[tuple[str, ...], list[str]] = {}
    for run in runs:
        name = run.path.name
        for use, facts in run.facts("data").items():
            words = {"train": "trained on", "validation": "validated on"}.get(use, use)
            counts = f"{facts['pairs']:,}", f"{facts['captions']:,}"
            key = words, str(facts["split"]), *counts, *_origin(facts), str(facts["fingerprint"])
            users.setdefault(key, []).append(name)
        for split, (report, _) in run.evaluations.items():
            counts = f"{report['images']:,}", f"{report['captions']:,}"
            skipped = ", ".join(f"{count} {reason}" for reason, count in report.get("failed", {}).items())
            cut = f"{report['captions_cut']:,}" if report.get("captions_cut") else ""
            key = ("evaluated on", split, *counts, "", "", "", cut, skipped, str(report["data"]))
            users.setdefault(key, []).append(name)
    rows = [
        (*facts, fingerprint[:16], "all" if len(names) == len(runs) else ", ".join(names))
        for (*facts, fingerprint), names in users.items()
    ]
    heads = ("use", "split", "pictures", "captions", "source", "split by", "duplicates merged")
    return _table(rows, (*heads, "captions cut", "skipped", "fingerprint", "runs"))


def _origin(facts: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    """Source, origin of the split, duplicates merged, captions cut and pairs skipped; empty for old runs."""
    merged = facts.get("copies_merged", 0)
    skipped = skipped_text(facts.get("skipped", {}))
    # Only the name, so that a shared report does not reveal paths.
    source = f"{Path(facts['source']).name} ({facts.get('format', 'unknown format')})"
    counted = facts.get("captions_cut", {}).items()
    cut = ", ".join(f"{part['cut']:,} ({model})" for model, part in counted if part["cut"])
    return source, facts.get("split_from", ""), f"{merged:,}" if merged else "", cut, skipped


def _versions(runs: Sequence[Run]) -> str:
    versions = [(run.path.name, run.facts("versions")) for run in runs]
    return _table(
        [(name, ", ".join(f"{key} {value}" for key, value in known.items())) for name, known in versions]
    )
