import json
from types import SimpleNamespace

import numpy as np
import pytest

from workbench.figures.reliability import reliability_figure


def bins(scale: float) -> SimpleNamespace:
    sure = np.array([0.1, 0.2, 0.4])
    return SimpleNamespace(confidence=sure, accuracy=scale * sure, queries=np.array([5, 5, 4]), error=0.125)


def test_every_model_is_a_line_beside_the_diagonal_in_per_cent() -> None:
    figure = reliability_figure({"alone": bins(0.5), "taught": bins(1.25)}, title="Calibration")
    diagonal, alone, taught = figure.data
    assert diagonal.x == diagonal.y == (0, pytest.approx(50))
    np.testing.assert_allclose(alone.y, [5, 10, 20], rtol=1e-6)
    np.testing.assert_allclose(taught.x, [10, 20, 40], rtol=1e-6)
    assert alone.name == "alone (ECE 12.5%)" and tuple(alone.customdata) == (5, 5, 4)
    assert alone.line.color != taught.line.color
    low, high = figure.layout.xaxis.range
    assert low < 0 < 50 < high and figure.layout.yaxis.range == figure.layout.xaxis.range
    json.loads(figure.to_json())
