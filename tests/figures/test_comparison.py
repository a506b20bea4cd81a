"""The comparison figure: what is clear is filled, what is noise is hollow."""

import numpy as np
import pytest
from pandas import DataFrame, MultiIndex

from workbench.figures.comparison import comparison_figure


def table(rows: dict[tuple[str, str], tuple[float, float, float, float]], group: str = "b") -> DataFrame:
    """Rows of (value of a, difference, low, high)."""
    fields = [("a", "value"), ("a", "spread"), (group, "value"), (group, "spread")]
    fields += [(group, "difference"), (group, "low"), (group, "high")]
    values = [[a, np.nan, a + d, 0.01, d, low, high] for a, d, low, high in rows.values()]
    return DataFrame(values, index=MultiIndex.from_tuples(rows), columns=MultiIndex.from_tuples(fields))


def test_clear_differences_are_filled_and_noise_is_hollow() -> None:
    figure = comparison_figure(
        table(
            {
                ("test", "text_to_image_r1"): (0.3, 0.1, 0.05, 0.15),
                ("test", "image_to_text_r1"): (0.3, 0.01, -0.02, 0.04),
                ("other", "text_to_image_r1"): (0.3, -0.2, -0.3, -0.1),
            }
        )
    )
    dots = {trace.marker.symbol: [] for trace in figure.data if trace.error_x.symmetric is False}
    for trace in figure.data:
        if trace.error_x.symmetric is False:
            dots[trace.marker.symbol] += trace.x.tolist()
            np.testing.assert_allclose(trace.x + trace.error_x.array, trace.customdata[:, 1], rtol=1e-5)
            np.testing.assert_allclose(trace.x - trace.error_x.arrayminus, trace.customdata[:, 0], rtol=1e-5)
    assert dots["circle"] == pytest.approx([10, -20])
    assert dots["circle-open"] == pytest.approx([1])
    assert [trace.name for trace in figure.data if trace.showlegend] == ["a", "b"]


def test_only_shares_with_intervals() -> None:
    figure = comparison_figure(
        table(
            {
                ("test", "text_to_image_r1"): (0.3, 0.1, 0.05, 0.15),
                ("test", "text_to_image_map"): (0.3, 0.1, np.nan, np.nan),
                ("test", "text_to_image_median_rank"): (30, 1, np.nan, np.nan),
            }
        )
    )
    assert figure.layout.yaxis.ticktext == ("text-to-image R@1",)


def test_one_group_has_no_differences() -> None:
    one = table({("test", "text_to_image_r1"): (0.3, 0, 0, 0)})[["a"]]
    figure = comparison_figure(one)
    assert len(figure.data) == 1 and figure.data[0].x.tolist() == pytest.approx([30])


def test_nothing_to_show() -> None:
    one = table({("test", "text_to_image_median_rank"): (30, 0, 0, 0)})[["a"]]
    assert len(comparison_figure(one).data) == 0
