"""Pictures as HTML: small, whole, and harmless whatever a caption holds."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from workbench.figures.gallery import Gallery, Picture, data_uri, gallery


def opened(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))


def test_pixels_arrive_as_they_were() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 20, 30), dtype=np.uint8)
    for image in (pixels, torch.from_numpy(pixels), pixels.transpose(1, 2, 0)):
        np.testing.assert_array_equal(np.asarray(opened(data_uri(image))), pixels.transpose(1, 2, 0))


def test_large_pictures_become_thumbnails_and_stay_themselves() -> None:
    original = Image.new("RGB", (900, 300))
    assert opened(data_uri(original, 90)).size == (90, 30)
    assert original.size == (900, 300)


def test_words_are_shown_as_words() -> None:
    evil = '<script>alert("x")</script>'
    page = gallery([Picture(Image.new("RGB", (8, 8)), [evil], 0.5, note=evil, marked=True)], title=evil)
    assert "<script" not in page
    assert (
        page.count("&lt;script&gt;") == 4
    )  # title, caption, note, and the text for who cannot see the picture
    assert "cosine 0.500" in page
    assert isinstance(page, Gallery) and page._repr_html_() == page


def test_nothing_but_data_is_loaded() -> None:
    page = gallery([Picture(Image.new("RGB", (8, 8)))] * 3)
    sources = re.findall(r'src="([^"]{0,30})', page)
    assert len(sources) == 3 and all(source.startswith("data:image/png;base64,") for source in sources)
    assert "no pictures" in gallery([])


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="uint8 pixels"):
        data_uri(np.zeros((3, 4, 4)))
    with pytest.raises(ValueError, match="uint8 pixels"):
        data_uri(np.zeros((4, 4), dtype=np.uint8))


def test_a_picture_has_a_text_for_who_cannot_see_it() -> None:
    page = gallery(
        [Picture(Image.new("RGB", (8, 8)), ["a dog", "a hound"]), Picture(Image.new("RGB", (8, 8)))]
    )
    assert 'alt="a dog / a hound"' in page and 'alt="picture, 2"' in page


def test_right_and_wrong_are_told_without_colours() -> None:
    marks = [gallery([Picture(Image.new("RGB", (8, 8)), marked=marked)]) for marked in (True, False, None)]
    assert [("✓ right image" in page, "✗ wrong image" in page) for page in marks] == [
        (True, False),
        (False, True),
        (False, False),
    ]


def test_its_text_are_its_words_and_no_second_copy_of_the_pictures() -> None:
    page = gallery([Picture(Image.new("RGB", (80, 80)), ["a <dog>"], 0.25)], "found")
    assert repr(page) == "found cosine 0.250 a <dog>"


def test_it_takes_the_colours_of_its_page() -> None:
    page = gallery([Picture(Image.new("RGB", (8, 8)), ["a dog"], note="a note")], "found")
    assert "background" not in page and not re.search(r"[;\"]color:#", page)
