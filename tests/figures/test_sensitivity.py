import json

import numpy as np
import pytest

from workbench.figures.sensitivity import sensitivity_figure

LINES = {
    "text to image": [(32, 0.5, 0.25, 1.0), (256, -0.5, -1.5, 0.5), (1024, -2.0, -3.0, -1.0)],
    "image to text": [(32, 0.0, -1.0, 1.0), (256, 1.0, 0.5, 1.5), (1024, 0.0, -1.0, 1.0)],
}


def test_dots_carry_their_intervals_and_say_whether_these_exclude_zero():
    figure = sensitivity_figure(LINES, title="K", x_title="clusters")
    first, second = figure.data
    np.testing.assert_allclose(first.y, [0.5, -0.5, -2])
    np.testing.assert_allclose(first.error_y.array, [0.5, 1, 1])
    np.testing.assert_allclose(first.error_y.arrayminus, [0.25, 1, 1])
    assert [colour == "#ffffff" for colour in first.marker.color] == [False, True, False]
    assert [colour == "#ffffff" for colour in second.marker.color] == [True, False, True]
    assert first.line.color != second.line.color and not np.allclose(first.x, second.x)
    assert figure.layout.xaxis.ticktext == ("32", "256", "1024") and figure.layout.xaxis.tickvals == (0, 1, 2)
    np.testing.assert_allclose((np.asarray(first.x) + second.x) / 2, [0, 1, 2])
    assert figure.layout.shapes[0].y0 == 0
    json.loads(figure.to_json())


def test_one_line_needs_no_legend_and_all_want_the_same_values():
    assert not sensitivity_figure({"one": LINES["text to image"]}, title="K").layout.showlegend
    for lines in ({}, {**LINES, "short": LINES["text to image"][:2]}):
        with pytest.raises(ValueError, match="same values"):
            sensitivity_figure(lines, title="K")
