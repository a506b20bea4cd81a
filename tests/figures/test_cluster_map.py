import json

import numpy as np
import pytest

from workbench.figures import cluster_map
from workbench.figures.cluster_map import MOST_DOTS


def positions(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 2))


def dots(figure) -> dict[int, tuple[float, float]]:
    return {
        int(number): (x, y)
        for trace in figure.data
        if trace.mode == "markers"
        for number, x, y in zip(trace.customdata, trace.x, trace.y, strict=True)
    }


def test_few_groups_are_named_and_many_are_coloured_by_dot() -> None:
    places = positions(30)
    few = cluster_map(places, ["cat"] * 20 + ["dog"] * 10, [f"caption {n}" for n in range(30)], title="Map")
    assert [trace.name for trace in few.data] == ["cat", "dog"] and few.layout.showlegend
    assert few.data[1].text[0] == "caption 20<br>dog"
    many = cluster_map(places, list(range(30)), title="Map")
    assert len(many.data) == 1 and len(set(many.data[0].marker.color)) == 30 and not many.layout.showlegend
    for figure in (few, many):
        found = dots(figure)
        assert sorted(found) == list(range(30))
        assert all(found[n] == tuple(places[n]) for n in found)
        json.loads(figure.to_json())


def test_pairs_are_joined_by_lines() -> None:
    captions, pictures = positions(4), positions(3) + 5
    figure = cluster_map(captions, ["a"] * 4, title="Map", pictures=pictures, joined=[(0, 2), (3, 1)])
    line = next(trace for trace in figure.data if trace.mode == "lines")
    assert line.x == (captions[0, 0], pictures[2, 0], None, captions[3, 0], pictures[1, 0], None)
    assert line.y[3:5] == (captions[3, 1], pictures[1, 1])
    assert sorted(dots(figure)) == [-3, -2, -1, 0, 1, 2, 3]


def test_very_many_dots_are_a_sample_and_say_so() -> None:
    count = MOST_DOTS + 500
    figure = cluster_map(positions(count), np.zeros(count, dtype=int), title="Map", subtitle="all of them")
    assert len(figure.data[0].x) == MOST_DOTS
    assert figure.layout.title.subtitle.text == "all of them · a sample: 100,000 of 100,500 dots"


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="4 positions, 3 groups"):
        cluster_map(positions(4), ["a"] * 3, title="Map")
    with pytest.raises(ValueError, match="4 positions"):
        cluster_map(positions(4), ["a"] * 4, ["one"], title="Map")
