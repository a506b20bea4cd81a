"""Does distillation help? The demo student alone and distilled, three seeds each, on every held-out split.

    python benchmarks/distillation_gain.py [--seeds 0 1 2] [--runs runs] [--out benchmarks/results]
                                           [--workers CORES]

Trains six runs (or finds them trained), evaluates them and the teacher, and writes distillation_gain.json,
.md (the table of docs/results.md), .png (the README's picture) and .html (the report). A quarter of an hour
on two CPU cores; the same command resumes.
"""

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

from trained import arguments, shared

import workbench
from workbench.evaluation.suites import evaluate
from workbench.figures.comparison import comparison_figure
from workbench.files import atomic_write, read_json, write_json
from workbench.reports.html import write_report
from workbench.targets.image_text import load_teacher

RECIPES = ("task_only_demo", "clip_kd_demo")
SHOWN = {  # metric -> the table's words
    "text_to_image_r1": "text to image R@1",
    "image_to_text_r1": "image to text R@1",
    "zero_shot_names_top1": "name of the object, top-1",
    "zero_shot_categories_top1": "its category, top-1",
    "swap_accuracy": "swapped relation (chance 50)",
    "search_precision_at_6": "search, precision at 6",
}
PICTURED = ("test", "test_style", "test_concepts"), tuple(SHOWN)[:3]  # splits and metrics of the picture


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    chosen = arguments(parser).parse_args()

    wanted = [
        (name, workbench.Recipe.load(name, {"seed": seed})) for name in RECIPES for seed in chosen.seeds
    ]
    named = shared(wanted, chosen)
    runs = [run for members in named.values() for run in members]
    teacher = _teacher_scores(chosen.runs / "teacher")
    comparison = workbench.compare(runs, names=[name for name, members in named.items() for _ in members])
    chosen.out.mkdir(parents=True, exist_ok=True)
    write_json(chosen.out / "distillation_gain.json", {"teacher": teacher, **_parsed(comparison.to_json())})
    with atomic_write(chosen.out / "distillation_gain.md", "w") as stream:
        stream.write(markdown(comparison.table, teacher))
    splits, metrics = PICTURED
    table = comparison.table
    pictured = [split in splits and metric in metrics for split, metric in table.index]
    draw(comparison_figure(table[pictured]), chosen.out / "distillation_gain.png")
    print(comparison)
    print(write_report(runs, chosen.runs / "distillation_gain.html"))


def _teacher_scores(folder: Path) -> dict[str, dict[str, float]]:
    recipe = workbench.Recipe.load("clip_kd_demo")
    if not folder.is_dir():
        evaluate(load_teacher(recipe).model, recipe, folder)
    return {path.stem: read_json(path)["scores"] for path in sorted(folder.glob("*.json"))}


def _parsed(text: str) -> dict:
    import json

    return {key: value for key, value in json.loads(text).items() if key != "groups"}


def markdown(table, teacher: dict[str, dict[str, float]]) -> str:
    """The table in percent: both students, the difference with its interval, the teacher."""
    distilled = RECIPES[1]
    lines = [
        "| split | measure | alone | distilled | difference, 95 % interval | teacher |",
        "|---|---|---|---|---|---|",
    ]
    for split, metric in table.index:
        if metric in SHOWN:
            row = table.loc[(split, metric)]
            low, difference, high = (100 * row[distilled, key] for key in ("low", "difference", "high"))
            values = [f"{100 * row[name, 'value']:.1f}" for name in RECIPES]
            interval = f"{difference:+z.1f} ({low:+z.1f} to {high:+z.1f})"
            cells = [split, SHOWN[metric], *values, interval, f"{100 * teacher[split][metric]:.1f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw(figure: Any, path: Path) -> None:
    """Photograph a figure in Chromium, where there is one."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        print(f"no Chromium here: {path.name} stays as it is")
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as browsers, tempfile.TemporaryDirectory() as folder:
        page_file = Path(folder) / "figure.html"
        figure.write_html(page_file, config={"displayModeBar": False})
        browser = browsers.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 700})
        page.goto(page_file.as_uri())
        page.wait_for_selector(".main-svg")
        page.locator(".js-plotly-plot").screenshot(path=path)
        browser.close()


if __name__ == "__main__":
    main()
