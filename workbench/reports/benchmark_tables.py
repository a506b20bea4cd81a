"""Shows the tables of benchmarks/results in notebooks."""

import re
from html import escape

import plotly.graph_objects as go

from workbench.errors import SettingError
from workbench.figures.gallery import Gallery
from workbench.reports.effects import MARKS, RESULTS, effect_page, read_results, show_effects

# What `measured` shows of a comparison, as far as it has these: (split, metric).
COLUMNS = (
    *(("test", f"{direction}_r1") for direction in ("text_to_image", "image_to_text")),
    *(("test", "zero_shot_names_top1"), ("scenes-test-names-64", "zero_shot_top1")),
    *(("test", "token_f1"), ("test", "swap_accuracy"), ("album", "search_precision_at_6")),
    *((split, "text_to_image_r10") for split in ("test_style", "test_concepts")),
)
EFFECT = re.compile(r"(?:(?P<value>[\d.]+), )?(?P<middle>[+-][\d.]+) \((?P<low>\S+) to (?P<high>\S+)\)")
RULE = re.compile(r"\|(-+\|)+")  # between the heading of a Markdown table and its rows


class Measured(str):
    """Markdown that a notebook renders as a table."""

    __slots__ = ()

    def _repr_markdown_(self) -> str:
        return RULE.sub(lambda rule: rule[0].replace("|-", "|:-"), self)  # headings to the left, as words


def measured(name: str) -> "Measured | Gallery | go.Figure":
    """The table `name` of benchmarks/results, or a note if the file is missing.

    Effects are coloured as `effects` colours them, and a comparison of many recipes is a chart.
    """
    path = RESULTS / f"{name}.md"
    if not path.is_file():
        return Measured(f"`benchmarks/results/{name}.md` does not exist: this benchmark has not been run.")
    try:
        return show_effects(read_results(path.with_suffix(".json")).table, COLUMNS)
    except (OSError, SettingError):  # no comparison of recipes
        text = path.read_text(encoding="utf-8")
        return _table(text) if EFFECT.search(text) else Measured(text)


def _table(markdown: str) -> Gallery:
    """A Markdown table of effects, coloured by their intervals."""
    rows = [line.strip("| ").split(" | ") for line in markdown.splitlines() if not RULE.fullmatch(line)]
    return effect_page(rows[0], [[_cell(text) for text in row] for row in rows[1:] if row != [""]])


def _cell(text: str) -> tuple[str, str]:
    """The HTML of a cell, and its verdict."""
    effect = EFFECT.fullmatch(text)
    if effect is None:
        return f"<b>{escape(text)}</b>", ""
    low, high = float(effect["low"]), float(effect["high"])
    verdict = "higher" if low > 0 else "lower" if high < 0 else "within noise"
    value = f"{effect['value']}<br>" if effect["value"] else ""
    return f"{value}{MARKS[verdict]}{effect['middle']}<br>[{effect['low']}, {effect['high']}]", verdict
