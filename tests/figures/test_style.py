"""Colours that stay, and curves that are short and keep their extremes."""

import numpy as np
import pytest

from workbench.figures.style import (
    INK,
    PAPER,
    is_share,
    metric_label,
    run_colours,
    shorten,
    template,
    term_colour,
)


@pytest.mark.parametrize("length", [0, 1, 2, 1999, 2000, 2001, 50_000])
def test_short_curves_keep_ends_and_extremes(length: int) -> None:
    random = np.random.default_rng(length)
    x, y = np.arange(length), random.normal(size=length)
    if length > 100:
        y[length // 3], y[length // 2] = 50, -50
    short_x, short_y = shorten(x, y)
    assert len(short_x) == len(short_y) <= 2000
    assert short_x.dtype == short_y.dtype == np.float32
    if not length:
        return
    assert (np.diff(short_x) > 0).all()
    assert (short_x[0], short_x[-1]) == (0, length - 1)
    assert (short_y.min(), short_y.max()) == (np.float32(y.min()), np.float32(y.max()))
    # Every point that is left is one of the curve's own.
    np.testing.assert_array_equal(short_y, y[short_x.astype(int)].astype(np.float32))


def test_values_that_are_not_finite_are_left_out() -> None:
    x, y = shorten(np.arange(4), np.array([1, np.nan, np.inf, 2]))
    assert x.tolist() == [0, 3] and y.tolist() == [1, 2]


def test_a_term_keeps_its_colour_and_known_ones_differ() -> None:
    known = ["loss", "task", "crd", "fd", "icl", "cosine"]
    assert len({term_colour(term) for term in known}) == len(known)
    assert term_colour("never heard of") == term_colour("never heard of")


def test_runs_are_coloured_in_order() -> None:
    colours = run_colours(["alone", "with teacher", "other"])
    assert len(set(colours.values())) == 3
    assert colours["alone"] == run_colours(["alone"])["alone"]


def test_metrics_as_people_write_them() -> None:
    assert metric_label("text_to_image_r1") == "text-to-image R@1"
    assert metric_label("image_to_text_mrr") == "image-to-text MRR"
    assert metric_label("zero_shot_names_top1") == "zero-shot names top-1"
    assert is_share("swap_accuracy") and not is_share("text_to_image_median_rank")


def test_tooltips_are_ink_on_paper() -> None:
    """Without a colour of its own, plotly derives the letters' from the border's."""
    label = template().layout.hoverlabel
    assert (label.font.color, label.bgcolor) == (INK, PAPER)
