import json

import pandas as pd
import pytest

from workbench.figures.parallel import ROW, parallel_figure

TABLE = pd.DataFrame(
    {
        "recipe": ["alone", "taught", "placebo", "broken"],
        "constant": [1, 1, 1, 1],
        "objectives.fd": [0.0, 4.0, 2.0, 1.0],
        "test: text-to-image R@1 of everything": [1.5, 4.0, 1.0, float("nan")],
    }
)


def figure(colour="recipe"):
    return parallel_figure(TABLE, colour, title="Explore")


def test_an_axis_for_every_column_that_varies_words_from_the_top_down():
    (lines,) = figure().data
    recipe, weight, recall = lines.dimensions
    assert recipe.ticktext == ("placebo", "taught", "alone") and recipe.tickvals == (0, 1, 2)
    assert list(recipe["values"]) == [2, 1, 0], "a row with a missing number is left out"
    assert list(weight["values"]) == [0, 4, 2] and weight.tickvals is None
    assert recall.label.replace("<br>", " ").replace("- ", "-") == "test: text-to-image R@1 of everything"
    assert weight.label == "objectives.fd"
    json.loads(figure().to_json())


def test_lines_have_the_colour_of_a_word_or_of_a_number():
    words = figure().data[0].line
    assert list(words.color) == [2, 1, 0] and len(words.colorscale) == 3
    assert len({colour for _, colour in words.colorscale}) == 3
    numbers = figure("objectives.fd").data[0].line
    assert list(numbers.color) == [0, 4, 2]
    one = parallel_figure(TABLE.iloc[:1], "recipe", title="").data[0]
    assert len(one.dimensions) == 1 and len(one.line.colorscale) == 2


def test_many_words_make_it_higher_and_long_ones_its_margin_wider():
    many = pd.DataFrame({"recipe": [f"a recipe with a long name {n}" for n in range(30)], "R@1": range(30)})
    tall = parallel_figure(many, "R@1", title="")
    assert tall.layout.height > 30 * ROW > figure().layout.height - 300
    assert tall.layout.margin.l > 150 > figure().layout.margin.l


def test_words_between_axes_are_cut_short_those_on_the_left_are_not():
    words = pd.DataFrame({f"setting {n}": [f"a long word of it {n}", f"b {n}"] for n in range(9)})
    first, second, *_ = parallel_figure(words, "setting 0", title="").data[0].dimensions
    assert first.ticktext == ("b 0", "a long word of it 0")
    assert second.ticktext[1].endswith("…") and len(second.ticktext[1]) * 6 < 850 / 8


def test_small_headings_have_three_lines_at_most_as_wide_as_there_is_room():
    table = pd.DataFrame({f"section.a_long_name.of_setting {n}": [n, n + 1] for n in range(9)})
    for dimension in parallel_figure(table, "section.a_long_name.of_setting 0", title="").data[0].dimensions:
        lines = dimension.label.split("<br>")
        assert lines[:2] == ["section.", "a_long_name."] and len(lines) == 3
        assert max(map(len, lines)) <= 850 / 8 / 6


def test_the_metrics_of_the_ablations_are_not_cut():
    names = ("zero-shot categories top-1", "swapped captions, accuracy")
    columns = ["recipe", *(f"test: {name}" for name in names), "test_concepts: text-to-image R@10", *"abcd"]
    table = pd.DataFrame({name: [1.0, 2.0] for name in columns})
    table["recipe"] = ["K = 256, hard labels", "a student of thirty characters"]
    dimensions = parallel_figure(table, columns[1], title="").data[0].dimensions
    assert len(dimensions) == 8 and not any("…" in dimension.label for dimension in dimensions)


def test_nothing_to_show():
    for table, colour in ((TABLE.iloc[3:], "recipe"), (TABLE, "other")):
        with pytest.raises(ValueError, match="rows without missing"):
            parallel_figure(table, colour, title="")
