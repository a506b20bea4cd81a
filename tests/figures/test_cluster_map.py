import json

import numpy as np
import pytest

from workbench.figures import cluster_map
from workbench.figures.cluster_map import FAINT, MOST_DOTS
from workbench.figures.region_names import RegionName


def positions(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 2))


def dots(figure) -> dict[int, tuple[float, float]]:
    return {
        int(number): (x, y)
        for trace in figure.data
        if trace.mode == "markers"
        for number, x, y in zip(trace.customdata, trace.x, trace.y, strict=True)
    }


def test_a_legend_lists_few_groups_and_the_rest_is_grey() -> None:
    places = positions(30)
    few = cluster_map(places, ["cat"] * 20 + ["dog"] * 10, [f"caption {n}" for n in range(30)], title="Map")
    assert [trace.name for trace in few.data] == ["cat", "dog"] and few.layout.showlegend
    assert few.data[1].text[0] == "caption 20<br>dog"
    groups = ["several"] * 12 + [f"group {n // 2}" for n in range(18)]
    quiet = cluster_map(places, groups, title="Map", quiet={"several"})
    assert [trace.name for trace in quiet.data] == ["several", *(f"group {n}" for n in range(9))]
    assert quiet.data[0].marker.color == FAINT and len({trace.marker.color for trace in quiet.data}) == 10
    many = cluster_map(places, [f"group {n // 2}" for n in range(30)], title="Map")
    assert [trace.name for trace in many.data][:2] == ["5 others", "group 0"] and len(many.data) == 11
    for figure in (few, quiet, many):
        shown = dots(figure)
        assert sorted(shown) == list(range(30))
        assert all(shown[n] == tuple(places[n]) for n in shown)
        json.loads(figure.to_json())


def test_many_groups_with_colours_of_their_own_are_named_on_the_map() -> None:
    places, colours = positions(30), {str(n): f"#0000{n:02d}" for n in range(30)}
    names = [RegionName(0.5, 1.0, "dogs")]
    figure = cluster_map(places, list(range(30)), title="Map", colours=colours, regions=names)
    assert figure.data[0].marker.color == tuple(colours.values()) and not figure.layout.showlegend
    (label,) = figure.layout.annotations
    assert (label.text, label.x, label.y) == ("dogs", 0.5, 1.0)


def test_selected_dots_are_lit_whatever_the_colours() -> None:
    places, groups = positions(6), ["a", "b", "a", "b", "a", "b"]
    figure = cluster_map(places, groups, title="Map", selected=[0, 3, 5])
    assert [list(trace.selectedpoints) for trace in figure.data] == [[0], [1, 2]]
    assert cluster_map(places, groups, title="Map").data[0].selectedpoints is None


def test_points_are_placed_on_the_map_with_their_names() -> None:
    figure = cluster_map(positions(4), ["a"] * 4, title="Map", placed=[RegionName(1, 2, "my caption")])
    star = figure.data[-1]
    assert (star.x, star.y, star.text) == ((1,), (2,), ("my caption",)) and star.customdata is None
    assert figure.layout.annotations[-1].text == "<b>my caption</b>"


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
