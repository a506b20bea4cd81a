"""Heat maps at full resolution beside torch's bilinear interpolation, and words in their colours."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from workbench.figures.heat import (
    Explained,
    coloured_words,
    enlarged,
    explained_pictures,
    heat_over,
    word_colour,
)
from workbench.figures.style import QUIET, TEXT

GREY = np.full((3, 48, 64), 128, np.uint8)


def test_a_map_is_enlarged_bilinearly_to_the_window_that_it_covers() -> None:
    heat = np.random.default_rng(0).random((7, 7)).astype(np.float32)
    slow = F.interpolate(torch.from_numpy(heat)[None, None], (480, 480), mode="bilinear", align_corners=False)
    whole = enlarged(heat, (480, 640), (0.125, 0.0, 0.75, 1.0))
    np.testing.assert_allclose(whole[:, 80:560], slow[0, 0], atol=1e-5)
    assert not whole[:, :80].any() and not whole[:, 560:].any()
    # A tower that pads sees more than the picture: what lies outside is cut off.
    padded = enlarged(heat, (480, 640), (0.0, -1 / 6, 1.0, 4 / 3))
    slow = F.interpolate(torch.from_numpy(heat)[None, None], (640, 640), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(padded, slow[0, 0, 80:560], atol=1e-5)


def test_heat_tints_the_picture_and_keeps_its_light_and_shade() -> None:
    image = GREY.copy()
    image[:, ::2] = 200
    heat = np.zeros((1, 3, 4))
    heat[0, 0, 0] = 1.0
    for given in (image, torch.from_numpy(image)):
        tinted = heat_over(given, heat, ["#aa0000"])
        assert tinted.dtype == np.uint8 and tinted.shape == image.shape
    red, green, blue = tinted[:, 4, 4].astype(int)
    assert red > green + 60 and green == blue
    assert (tinted[:, 4, 4] > tinted[:, 5, 4]).all()  # the lighter line stays lighter
    assert np.ptp(tinted[:, 40, 60]) == 0
    cooler = heat_over(image, heat, ["#aa0000"], most=2.0)
    assert 0 < int(cooler[0, 4, 4]) - int(cooler[1, 4, 4]) < red - green
    assert (heat_over(image, np.zeros((1, 3, 4)), ["#aa0000"])[0] == tinted[0, :, 63][:, None]).all()
    with pytest.raises(ValueError, match="1 heat maps and 2 colours"):
        heat_over(image, heat, ["#aa0000", "#00aa00"])


def test_words_are_the_more_coloured_the_more_they_weigh() -> None:
    assert word_colour(0) == QUIET and word_colour(1) == word_colour(2) == TEXT
    text = coloured_words(["a", "red", "<cat>"], np.array([0.0, -0.5, 1.0]))
    assert f'<span style="color:{QUIET}">a</span>' in text and "&lt;cat&gt;" in text
    assert text.count("<b>") == 2 and text.count("<i>") == 1 and "<i><b>" in text
    assert coloured_words(["long"] * 10, np.ones(10), across=20).count("<br>") == 2


def test_panels_stand_side_by_side_with_their_words_below() -> None:
    panel = Explained(
        GREY, np.eye(3), (0.0, 0.0, 1.0, 1.0), ["a", "cat"], np.array([0.1, 0.9]), note="cosine 0.3"
    )
    figure = explained_pictures({"teacher": panel, "student": panel._replace(heat=np.eye(4))}, title="Why")
    assert [trace.xaxis for trace in figure.data] == ["x", "x2"]
    assert figure.data[0].source != figure.data[1].source
    assert figure.layout.xaxis.domain[1] < figure.layout.xaxis2.domain[0]
    assert list(figure.layout.yaxis2.range) == [48, 0] and figure.layout.yaxis2.scaleanchor == "x2"
    below = figure.layout.annotations[3]
    assert (below.xref, below.yref, below.x, below.y, below.yanchor) == ("x2", "y2", 0, 48, "top")
    texts = [note.text for note in figure.layout.annotations]
    assert "teacher" in texts[0] and "cosine 0.3" in texts[0] and "cat" in texts[1]
    json.loads(figure.to_json())
    with pytest.raises(ValueError, match="no panels"):
        explained_pictures({})
