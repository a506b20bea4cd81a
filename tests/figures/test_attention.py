import json

import numpy as np
import pytest

from workbench.figures.attention import LONGEST, READ_OFF, attention_heatmap, pooling_bars
from workbench.figures.style import IMAGE, TEXT

WORDS, REGIONS = ["a", "cat", "and", "a", "dog"], ["1", "2"]


def attention(rows: int, columns: int) -> np.ndarray:
    result = np.random.default_rng(0).random((rows, columns))
    return result / result.sum(1, keepdims=True)


def frame(figure) -> tuple[float, float, float, float]:
    result = next(trace for trace in figure.data if trace.name == "chosen")
    return min(result.x), max(result.x), min(result.y), max(result.y)


def test_words_are_rows_even_where_they_repeat() -> None:
    values = attention(5, 2)
    figure = attention_heatmap(values, WORDS, REGIONS, chosen=[3])
    np.testing.assert_allclose(figure.data[0].z, values, rtol=1e-6)
    np.testing.assert_allclose(np.sum(figure.data[0].z, axis=1), 1, rtol=1e-6)
    assert figure.layout.yaxis.ticktext == tuple(WORDS) and figure.layout.yaxis.tickvals == (0, 1, 2, 3, 4)
    assert figure.layout.yaxis.range == (4.5, -0.5)  # the first word on top
    assert figure.data[0].zmin == 0 and figure.data[0].zmax == values.max()
    assert figure.data[0].text[4][1] == f"dog → 2: {values[4, 1]:.1%}"
    assert frame(figure) == (-0.5, 1.5, 2.5, 3.5)
    json.loads(figure.to_json())


def test_turned_the_regions_are_columns() -> None:
    values = attention(2, 5)
    figure = attention_heatmap(values, REGIONS, WORDS, chosen=[1], turned=True, most=0.9)
    np.testing.assert_allclose(figure.data[0].z, values.T, rtol=1e-6)
    assert figure.layout.yaxis.ticktext == tuple(WORDS) and figure.layout.xaxis.ticktext == tuple(REGIONS)
    assert figure.data[0].text[4][1] == f"2 → dog: {values[1, 4]:.1%}"
    assert frame(figure) == (0.5, 1.5, -0.5, 4.5)
    assert figure.data[0].zmax == 0.9


def test_several_words_are_framed_and_of_many_patches_some_are_named() -> None:
    patches = [str(number + 1) for number in range(49)]
    figure = attention_heatmap(attention(5, 49), WORDS, patches, chosen=[1, 4])
    frames = [trace for trace in figure.data if trace.name == "chosen"]
    assert [min(trace.y) for trace in frames] == [0.5, 3.5]
    assert figure.layout.xaxis.ticktext == tuple(patches[::6]) and figure.layout.yaxis.ticktext == tuple(
        WORDS
    )
    assert figure.layout.xaxis.tickvals == tuple(range(0, 49, 6))
    assert (
        figure.data[0].xgap == 0
        and attention_heatmap(attention(5, 16), WORDS, patches[:16]).data[0].xgap == 1
    )


def test_numbers_stand_in_maps_with_room_for_them() -> None:
    def written(columns: int) -> bool:
        names = [str(number) for number in range(columns)]
        return (
            attention_heatmap(attention(3, columns), ["x", "y", "z"], names).data[0].texttemplate is not None
        )

    assert written(READ_OFF) and not written(READ_OFF + 1)


def test_one_word_one_region_and_long_words() -> None:
    long = "x" * 40
    figure = attention_heatmap(np.ones((1, 1)), [long], ["1"], chosen=[0])
    assert figure.layout.yaxis.ticktext == ("x" * (LONGEST - 1) + "…",)
    assert long in figure.data[0].text[0][0]
    assert len(pooling_bars(np.ones(1), np.ones(1), [long], ["1"]).data) == 6


def test_bars_of_both_sides_and_where_all_are_alike() -> None:
    tokens, regions = np.array([0.1, 0.4, 0.1, 0.2, 0.2]), np.array([0.3, 0.7])
    figure = pooling_bars(tokens, regions, WORDS, REGIONS)
    of_words, of_regions = (trace for trace in figure.data if trace.type == "bar")
    np.testing.assert_allclose(of_words.x, tokens, rtol=1e-6)
    np.testing.assert_allclose(of_regions.y, regions, rtol=1e-6)
    assert (of_words.orientation, of_regions.orientation) == ("h", "v")
    assert (of_words.marker.color, of_regions.marker.color) == (TEXT, IMAGE)
    uniform = [trace for trace in figure.data if trace.name == "uniform"]
    assert set(uniform[0].x) == {0.2} and set(uniform[1].y) == {0.5}
    written = next(trace for trace in figure.data if trace.name == "values")
    assert written.text == ("10%", "40%", "10%", "20%", "20%")
    assert min(written.x) > max(tokens)  # in a column of their own, which no bar or line crosses


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match=r"\[5 queries, 3 keys\]"):
        attention_heatmap(attention(5, 2), WORDS, ["1", "2", "3"])
    with pytest.raises(ValueError, match="2 pooling weights"):
        pooling_bars(np.ones(2), np.ones(2), WORDS, REGIONS)
