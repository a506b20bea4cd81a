import io
import json
import pickle
import random

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from tests.data.samples import HTML, bomb, encoded, pixels, shows
from workbench.data import decode
from workbench.data.decode import REASONS, BadSample, clean_caption, decode_image


def reason_of(data: bytes, **options: int) -> str:
    with pytest.raises(BadSample) as caught:
        decode_image(data, **options)
    assert caught.value.reason in REASONS
    return caught.value.reason


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_every_format_gives_rgb_bytes(kind: str) -> None:
    image = decode_image(encoded(3, kind))
    assert image.dtype == torch.uint8 and image.shape == (3, 16, 24)
    assert shows(image, 3)


def test_gif_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    image = decode_image(saved(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert image[:, 4, 4].tolist() == [255, 0, 0]


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_jpeg_of_every_colour_space_equals_pillow(mode: str) -> None:
    data = saved(Image.fromarray(pixels(5)).convert(mode), "JPEG")
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).transpose(2, 0, 1)
    assert np.abs(decode_image(data).numpy().astype(int) - expected).max() <= 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x112] = orientation
    data = saved(Image.fromarray(pixels(1)), kind, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert np.array_equal(decode_image(data).permute(1, 2, 0).numpy(), np.asarray(expected))
    assert decode_image(data).shape == ((3, 16, 24) if orientation < 5 else (3, 24, 16))


def test_jpeg_without_torchvision_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = decode_image(encoded(2))
    monkeypatch.setattr(decode, "_HAS_JPEG", False)
    assert torch.equal(decode_image(encoded(2)), expected)
    assert reason_of(encoded(2)[:-40]) == "truncated or damaged image"


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparency_is_laid_over_white(kind: str) -> None:
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    image.putpixel((1, 1), (0, 0, 255, 255))
    decoded = decode_image(saved(image, kind, **({"lossless": True} if kind == "WEBP" else {})))
    assert decoded[:, 0, 0].tolist() == [255, 255, 255]
    assert decoded[:, 1, 1].tolist() == [0, 0, 255]


def test_palettes_with_a_transparent_colour() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    assert decode_image(saved(image, "PNG"))[:, 0, 0].tolist() == [10, 20, 30]
    assert decode_image(saved(image, "PNG", transparency=1))[:, 0, 0].tolist() == [255, 255, 255]


def test_sixteen_bit_grey_keeps_its_tones() -> None:
    grey = np.array([[0, 128 * 256, 255 * 256 + 255]], dtype=np.uint16)
    assert decode_image(saved(Image.fromarray(grey), "PNG"))[0].tolist() == [[0, 128, 255]]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_truncated_files_are_refused(kind: str, share: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8))
    data = saved(noise, kind)
    assert reason_of(data[: max(12, int(len(data) * share))]) == "truncated or damaged image"


def test_a_plain_corner_prints_no_warning(capfd: pytest.CaptureFixture[str]) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (40, 40), "white").save(stream, "JPEG")
    assert bool((decode_image(stream.getvalue()) == 255).all())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("missing", [1, 2, 10])
def test_jpeg_without_its_end_is_refused(progressive: bool, missing: int) -> None:
    data = encoded(1, progressive=progressive)
    assert reason_of(data[:-missing]) == "truncated or damaged image"


def test_what_is_no_image_says_so() -> None:
    assert reason_of(b"") == "empty file"
    assert reason_of(HTML) == "not an image (looks like HTML)"
    assert reason_of(b"\xef\xbb\xbf \n<HTML>") == "not an image (looks like HTML)"
    assert reason_of(b"MZ\x90\x00 program") == "not an image (unknown format)"
    assert reason_of(pickle.dumps({"a": 1})) == "not an image (unknown format)"
    assert reason_of(b"\xff\xd8\xff") == "truncated or damaged image"


def test_the_format_is_read_from_the_bytes() -> None:
    assert (
        reason_of(b"%!PS-Adobe-3.0 EPSF-3.0\n") == "not an image (unknown format)"
    )  # would start Ghostscript


def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(_: object) -> None:
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(decode, "_decode_with_pillow", explode)
    data = bomb()
    assert 10_000 < len(data) < 16_000
    assert reason_of(data) == "too many pixels"


def test_the_pixel_limit_counts_for_every_format() -> None:
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP"):
        assert reason_of(encoded(1, kind), max_pixels=24 * 16 - 1) == "too many pixels"
        assert decode_image(encoded(1, kind), max_pixels=24 * 16).shape == (3, 16, 24)


def test_random_damage_never_raises_anything_else() -> None:
    dice = random.Random(0)
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP"):
        for _ in range(60):
            data = bytearray(encoded(1, kind))
            for _ in range(dice.randint(1, 8)):
                data[dice.randrange(len(data))] = dice.randrange(256)
            try:
                image = decode_image(bytes(data))
            except BadSample as error:
                assert error.reason in REASONS
            else:
                assert image.dtype == torch.uint8 and image.shape[0] == 3


def test_captions_are_normalised() -> None:
    assert clean_caption("  a \t cafe\u0301\n on\u00a0a  table ") == "a café on a table"
    assert clean_caption(b"\xef\xbb\xbfa dog") == "a dog"
    assert clean_caption("a\0dog") == "a dog"


def test_what_cannot_be_seen_is_removed_and_joiners_stay() -> None:
    assert clean_caption("a\u200b \u202edog\u2066\ufeff \x1b[31mred\x9b0m") == "a dog [31mred 0m"
    assert clean_caption("👩\u200d🚀") == "👩\u200d🚀"
    for hidden in ("\u200b", "\u3164 \u2060", "\u200d"):
        with pytest.raises(BadSample, match="empty caption"):
            clean_caption(hidden)


def test_a_jpeg_of_countless_scans_is_refused_undecoded() -> None:
    data = saved(Image.fromarray(pixels(1)), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    assert reason_of(data[:-2] + scan * 40 + data[-2:]) == "too many scans"
    decode_image(data)


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("", "empty caption"),
        (" \n\t", "empty caption"),
        (b"caf\xe9", "caption not UTF-8"),
        (json.loads('"\\ud800"'), "caption not UTF-8"),
        (None, "caption not text"),
        (3.5, "caption not text"),
        ("x" * 10_001, "caption too long"),
    ],
)
def test_bad_captions_have_reasons(caption: object, reason: str) -> None:
    with pytest.raises(BadSample) as caught:
        clean_caption(caption)
    assert caught.value.reason == reason and reason in REASONS


def test_bad_samples_cross_process_borders() -> None:
    assert pickle.loads(pickle.dumps(BadSample("no image"))).reason == "no image"
