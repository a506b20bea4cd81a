"""Tables of effects: what compare wrote comes back, and colour says what the interval says, legibly."""

import json
import re

import pandas as pd
import pytest

from tests.fake_runs import write_run
from workbench.errors import SettingError
from workbench.figures.effect_chart import COLOURS
from workbench.figures.gallery import Gallery
from workbench.reports.benchmark_tables import RESULTS
from workbench.reports.compare import compare
from workbench.reports.effects import (
    TINTS,
    effects,
    excluding_zero,
    known_keys,
    load_results,
    read_results,
    runs_of_sweep,
    sensitivity_line,
    show_effects,
)
from workbench.reports.tables import difference_text

KEYS = [("test", "text_to_image_r1"), ("test", "swap_accuracy"), ("test", "missing")]


@pytest.fixture
def comparison(tmp_path):
    shifts = {"task_only_demo": 0.0, "clip_kd_demo": 1.5, "fd_demo": 0.001, "gd_demo": -1.5}
    return compare(
        [write_run(tmp_path / name, name, splits={"test": shift}) for name, shift in shifts.items()]
    )


def test_a_written_comparison_comes_back(tmp_path, comparison):
    path = tmp_path / "comparison.json"
    path.write_text(comparison.to_json())
    result = read_results(path)
    assert result.note == comparison.note
    pd.testing.assert_frame_equal(
        result.table.sort_index(axis=1), comparison.table.sort_index(axis=1), check_dtype=False
    )


def test_other_files_are_refused(tmp_path):
    for text in ("[]", "no JSON", '{"rows": [{"metric": "a"}]}', '{"rows": []}'):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(SettingError, match="no comparison"):
            read_results(tmp_path / "a.json")


def cells(html):
    """[row][column]: (background, text) of a table."""
    rows = re.findall(r"<tr>(.*?)</tr>", html)[1:]
    result = [re.findall(r'<td style="[^"]*background:([^;"]*)[^"]*">(.*?)</td>', row) for row in rows]
    return [[(colour, re.sub("<[^>]+>", " ", text)) for colour, text in row] for row in result]


def test_cells_are_coloured_by_their_interval(comparison):
    table = cells(effects(comparison.table, KEYS))
    assert [row[0][1].strip() for row in table] == ["task_only_demo", "clip_kd_demo", "fd_demo", "gd_demo"]
    assert all(len(row) == 3 for row in table), "a metric that is not there has no column"
    for row, name in zip(table[1:], list(comparison.groups)[1:], strict=True):
        for (colour, text), key in zip(row[1:], KEYS, strict=False):
            low, high = comparison.table.loc[key, (name, "low")], comparison.table.loc[key, (name, "high")]
            verdict = "higher" if low > 0 else "lower" if high < 0 else "within noise"
            assert colour == TINTS.get(verdict, "none")
            assert ("▲" in text, "▼" in text) == (verdict == "higher", verdict == "lower")
            assert f"[{100 * low:+.1f}, {100 * high:+.1f}]" in text
    assert table[1][1][0] == TINTS["higher"] and table[3][1][0] == TINTS["lower"]
    assert table[0][1][0] == "none" and "[" not in table[0][1][1]


def test_some_groups_and_plain_keys(comparison):
    html = effects(comparison.table, KEYS, groups=["fd_demo"])
    assert [row[0][1].strip() for row in cells(html)] == ["task_only_demo", "fd_demo"]
    assert "test</span><br>text-to-image R@1" in html and html._repr_html_() == str(html)


def luminance(tint, page):
    """That of a translucent colour on a page whose red, green and blue are `page`, in [0, 255]."""
    *parts, share = map(float, re.findall(r"[\d.]+", tint))
    parts = [(share * part + (1 - share) * page) / 255 for part in parts]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_words_are_legible_on_every_colour_and_colours_differ_from_the_page():
    black, white = 0.05, 1.05
    for tint in TINTS.values():
        assert (luminance(tint, page=255) + 0.05) / black > 7, "WCAG AAA, on a light page"
        assert white / (luminance(tint, page=17) + 0.05) > 7, "WCAG AAA, on a dark page"
        assert luminance("rgba(0, 0, 0, 0)", page=255) - luminance(tint, page=255) > 0.15


def test_every_shipped_ablation_can_be_read():
    paths = sorted(RESULTS.glob("ablation_*.json"))
    assert paths
    for path in paths:
        table = read_results(path).table
        assert ("test", "text_to_image_r1") in table.index
        assert len(cells(effects(table, [("test", "text_to_image_r1")]))) == len(
            json.loads(path.read_text())["rows"][0]["groups"]
        )


def test_what_a_notebook_can_be_given(tmp_path, comparison, monkeypatch):
    for number, (name, shift) in enumerate({"a": 0.0, "b": 1.0}.items()):
        write_run(tmp_path / "sweep" / name / "run", seed=number, splits={"test": shift})
    write_run(tmp_path / "sweep" / "c" / "run")  # not evaluated
    (result,) = load_results(str(tmp_path / "sweep")).items()
    assert result[0] == "sweep" and len(runs_of_sweep(tmp_path / "sweep")) == 2
    assert result[1].table.loc[("test", "text_to_image_r1"), ("clip_kd_demo", "seeds")] == 2
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    for name in ("ablation_clip_kd.json", "dclip.json", "losses.json"):
        (shipped / name).write_text(comparison.to_json())
    monkeypatch.setattr("workbench.reports.effects.RESULTS", shipped)
    assert list(load_results("")) == ["clip_kd", "dclip"]
    assert list(load_results(str(shipped / "losses.json"))) == ["losses"]
    with pytest.raises(SettingError, match="no evaluated run"):
        load_results(str(shipped))
    monkeypatch.setattr("workbench.reports.effects.RESULTS", tmp_path)
    with pytest.raises(SettingError, match="no results"):
        load_results("")


def test_a_sensitivity_line_is_in_points_and_the_baseline_is_zero(comparison):
    key = ("test", "text_to_image_r1")
    result = sensitivity_line(comparison.table, key, {0: "task_only_demo", 4: "fd_demo"})
    row = comparison.table.loc[key]["fd_demo"]
    assert result[0] == (0, 0, 0, 0)
    assert result[1] == (4, *(pytest.approx(100 * row[field]) for field in ("difference", "low", "high")))


def test_intervals_are_counted(comparison):
    verdicts = [
        comparison.table.loc[key, (name, "verdict")]
        for key in comparison.table.index
        for name in list(comparison.groups)[1:]
    ]
    decided = [verdict for verdict in verdicts if verdict]
    assert excluding_zero(comparison.table) == (len(decided), len(decided) - decided.count("within noise"))
    assert 0 < excluding_zero(comparison.table)[1] < len(decided) < len(verdicts)


def test_keys_that_nothing_has_are_told_with_those_there_are(comparison):
    present, absent = ("test", "text_to_image_r1"), ("val", "text_to_image_r1")
    assert known_keys([comparison.table], [absent, present]) == [present]
    with pytest.raises(SettingError, match=r"val text_to_image_r1.*There are on test text_to_image_r1"):
        known_keys([comparison.table], [absent])


def test_many_rows_become_a_chart(comparison):
    assert isinstance(show_effects(comparison.table, KEYS), Gallery)
    groups = ["clip_kd_demo", "fd_demo", "gd_demo"]
    copies = {f"{name} {number}": comparison.table[name] for number in range(5) for name in groups}
    many = pd.concat({"task_only_demo": comparison.table["task_only_demo"]} | copies, axis=1)
    figure = show_effects(many, KEYS)
    panels = {trace.xaxis for trace in figure.data}
    assert len(panels) == 2  # the metric that is missing has none
    first = [trace for trace in figure.data if trace.xaxis == "x"]
    assert sum(len(trace.x) for trace in first) == 15
    higher = next(trace for trace in first if trace.marker.color == COLOURS["higher"])
    assert all("clip_kd_demo" in name for name in higher.text)
    assert show_effects(many, KEYS, ["clip_kd_demo 0"]).count("<tr>") == 3


def test_no_difference_is_a_negative_zero():
    row = pd.Series({"difference": -0.0001, "low": -0.0002, "high": -0.0})
    assert difference_text(row, "text_to_image_r1") == "+0.0 [+0.0, +0.0]"
