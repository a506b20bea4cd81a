"""Retrieval against zero-shot kept: paths, the front of the best, and labels that can be told apart."""

import json

import numpy as np
import pytest

from workbench.figures.pareto import ParetoPoint, best_in_both, pareto_figure


def around(value: float, width: float = 0.01) -> tuple[float, float, float]:
    return value, value - width, value + 2 * width


POINTS = [
    ParetoPoint("start", (1.0, 1.0, 1.0), around(0.33)),
    ParetoPoint("fine-tuning", around(0.89), around(0.515), 0.75),
    ParetoPoint("fine-tuning", around(0.98), around(0.42), 0.25),
    ParetoPoint("fine-tuning", around(0.95), around(0.48), 0.5),
    ParetoPoint("fine-tuning", around(0.82), around(0.52)),
    ParetoPoint("DCLIP", around(0.94), around(0.455)),
    ParetoPoint("null teacher", around(0.942), around(0.456)),
]


def trace(figure, name: str):
    return next(trace for trace in figure.data if trace.name == name)


def test_points_stand_where_they_were_measured_with_intervals_on_both_axes() -> None:
    figure = pareto_figure(POINTS, title="Front")
    dot = trace(figure, "DCLIP")
    assert dot.mode == "markers"
    assert (dot.x[0], dot.y[0]) == pytest.approx((94, 45.5))
    for bars in (dot.error_x, dot.error_y):
        assert (bars.array[0], bars.arrayminus[0]) == pytest.approx((2, 1))
    json.loads(figure.to_json())


def test_an_interpolation_is_a_path_in_the_order_of_alpha() -> None:
    path = trace(pareto_figure(POINTS, title="Front"), "WiSE-FT of fine-tuning")
    assert path.mode == "lines+markers"
    np.testing.assert_allclose(path.x, [98, 95, 89])
    assert path.text == tuple(f"WiSE-FT, {alpha} of fine-tuning" for alpha in (0.25, 0.5, 0.75))


def test_the_front_is_what_nothing_beats_in_both() -> None:
    line = trace(pareto_figure(POINTS, title="Front"), "Pareto front")
    np.testing.assert_allclose(line.x, [82, 89, 95, 98, 100])
    rng = np.random.default_rng(0)
    values = rng.integers(0, 12, size=(60, 2)).astype(float)
    slow = [
        row
        for row, (x, y) in enumerate(values)
        if not any(a >= x and b >= y and (a > x or b > y) for a, b in values)
    ]
    result = best_in_both(values)
    assert sorted(result) == slow and (np.diff(values[result, 0]) >= 0).all()


def test_every_method_is_named_once_in_its_own_colour_and_no_name_lies_on_another() -> None:
    figure = pareto_figure(POINTS, title="Front")
    labels = {label.text: label for label in figure.layout.annotations}
    assert set(labels) == {
        "start", "fine-tuning", "DCLIP", "null teacher", "0.25", "WiSE-FT, 0.5 of fine-tuning", "0.75"
    }  # fmt: skip
    assert labels["DCLIP"].font.color == trace(figure, "DCLIP").marker.color
    axes = (figure.layout.xaxis.range, figure.layout.yaxis.range)
    boxes = []
    for label in labels.values():
        x = (label.x - axes[0][0]) / (axes[0][1] - axes[0][0]) * 820 + label.ax
        y = (label.y - axes[1][0]) / (axes[1][1] - axes[1][0]) * 420 - label.ay
        half = (7 * len(label.text) + 6) / 2
        boxes.append((x - half, y - 8, x + half, y + 8))
    for number, (x0, y0, x1, y1) in enumerate(boxes):
        assert min(x0, y0) > -0.01 and x1 < 820.01 and y1 < 420.01
        for a0, b0, a1, b1 in boxes[:number]:
            assert min(x1, a1) - max(x0, a0) < 0.01 or min(y1, b1) - max(y0, b0) < 0.01


def test_one_point_and_none() -> None:
    figure = pareto_figure(POINTS[:1], title="Front", recall="R@5")
    low, high = figure.layout.xaxis.range
    assert low < 100 < high and "R@5" in figure.layout.yaxis.title.text
    with pytest.raises(ValueError, match="no points"):
        pareto_figure([], title="Front")
