"""The parts in one figure: all there, words in line, nothing changed in what was given."""

import json
from itertools import pairwise

import numpy as np
import pytest

from workbench.figures.attention import attention_heatmap, pooling_bars
from workbench.figures.attention_view import attention_view
from workbench.figures.boxes import picture_with_boxes


def parts(words: int, regions: int) -> list:
    names, numbers = [f"word {n}" for n in range(words)], [str(n + 1) for n in range(regions)]
    boxes = np.tile([4.0, 4, 20, 20], (regions, 1))
    return [
        picture_with_boxes(np.zeros((3, 64, 64), np.uint8), boxes),
        attention_heatmap(np.full((words, regions), 1 / regions), names, numbers),
        attention_heatmap(np.full((regions, words), 1 / words), numbers, names, turned=True),
        pooling_bars(np.full(words, 1 / words), np.full(regions, 1 / regions), names, numbers),
    ]


@pytest.mark.parametrize("words", [1, 7, 75])
@pytest.mark.parametrize("regions", [1, 16])
def test_words_stand_in_line_and_nothing_overlaps(words: int, regions: int) -> None:
    given = parts(words, regions)
    before = [figure.to_json() for figure in given]
    figure = attention_view(*given, title="Two cats", subtitle="after training")
    assert [part.to_json() for part in given] == before
    assert len(figure.data) == sum(len(part.data) for part in given)
    assert {(trace.xaxis, trace.yaxis) for trace in figure.data} == {
        ("x", "y"),
        ("x2", "y2"),
        ("x3", "y2"),
        ("x4", "y2"),
        ("x5", "y5"),
    }
    assert figure.layout.yaxis2.ticktext == given[1].layout.yaxis.ticktext
    layout = figure.layout
    edges = [axis.domain for axis in (layout.xaxis, layout.xaxis2, layout.xaxis3, layout.xaxis4)]
    assert all(left[1] < right[0] for left, right in pairwise(edges))
    tall = layout.height - layout.margin.t - layout.margin.b
    assert layout.yaxis5.domain[0] >= 0
    assert (layout.yaxis2.domain[0] - layout.yaxis5.domain[1]) * tall > 70  # heading and numbers lie between
    assert (layout.yaxis2.domain[1] - layout.yaxis2.domain[0]) * tall >= 20 * words - 1e-6
    json.loads(figure.to_json())


def test_without_a_box() -> None:
    given = parts(2, 1)
    given[0] = picture_with_boxes(np.zeros((3, 64, 64), np.uint8), np.empty((0, 4)))
    assert len(attention_view(*given, title="nothing found").layout.annotations) == 4 + 2


def test_words_are_left_aligned_and_coloured() -> None:
    figure = attention_view(*parts(3, 2), title="Two cats", colours={1: "#882255"})
    words = [note for note in figure.layout.annotations if note.yref == "y2"]
    assert [note.text for note in words] == ["word 0", "<b>word 1</b>", "word 2"]
    assert [note.y for note in words] == [0, 1, 2] and {note.xanchor for note in words} == {"left"}
    assert words[1].font.color == "#882255" != words[0].font.color
    assert not figure.layout.yaxis2.showticklabels
    assert figure.layout.xaxis.domain[1] < words[0].x < figure.layout.xaxis2.domain[0]
