"""Decodes bytes to a picture or a caption, safely, or names the reason for refusing them."""

import io
import re
import unicodedata
from typing import Literal, get_args

import numpy as np
import torch
import torchvision.io  # registers torch.ops.image.decode_jpeg
from PIL import Image, ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

Reason = Literal[
    # of a picture's file
    "missing file",
    "unreadable file",
    "file too large",
    "a URL, not a file",
    "path leaves the image folder",
    # of its bytes
    "empty file",
    "not an image (looks like HTML)",
    "not an image (unknown format)",
    "too many pixels",
    "too many scans",
    "truncated or damaged image",
    # of a caption
    "empty caption",
    "caption not UTF-8",
    "caption not text",
    "caption too long",
    # of a pair, a table's row or a shard's member
    "no image",
    "no caption",
    "no split",
    "damaged record",
    "duplicate id",
    "unsafe name",
    "not a regular file",
    "another type of file",
    "truncated shard",
    "two true captions (SugarCrepe++)",
]
REASONS: tuple[str, ...] = get_args(Reason)
_JOINERS = "\u200c\u200d"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_FORMAT = re.compile(  # Unicode's category Cf without the joiners, and fillers that are invisible
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff"
    "\uffa0\ufff9-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
)
MOST_SCANS = 32  # of a JPEG; encoders write about ten
LONGEST_CAPTION = 10_000  # characters; longer texts are pages, not captions


class BadSample(Exception):
    """A pair that cannot be used; `reason` is one of `REASONS`."""

    def __init__(self, reason: Reason) -> None:
        self.reason = reason
        super().__init__(reason)


def decode_image(data: bytes, max_pixels: int = 50_000_000) -> torch.Tensor:
    """Decode a JPEG, PNG, WebP, GIF (first frame) or BMP into a uint8 RGB tensor [3, height, width].

    In memory the channels come last, which is fastest to resize. The first bytes, never a file name,
    determine the format, and the header gives the size before any pixel is decoded. EXIF orientation is
    applied, and transparency is blended with white. Raises `BadSample` with one of `REASONS`. A file that
    ends early is refused instead of half decoded, even a JPEG that was cut and closed with a proper end
    marker.
    """
    opener = _opener(data)
    try:
        # The plugin's class, because Image.open warns about large images by a limit of its own.
        image = opener(io.BytesIO(data))
        width, height = image.size
    except Exception as error:  # decoders raise anything on hostile bytes
        raise BadSample("truncated or damaged image") from error
    if width * height > max_pixels:
        raise BadSample("too many pixels")
    if opener is JpegImageFile and data.count(_SCAN) > MOST_SCANS:
        raise BadSample("too many scans")  # each is a pass over all pixels: seconds of work from a few bytes
    try:
        return _decode_jpeg(data) if opener is JpegImageFile and _HAS_JPEG else _decode_with_pillow(image)
    except Exception as error:
        raise BadSample("truncated or damaged image") from error


def clean_caption(caption: object) -> str:
    """Clean a caption (bytes or str): Unicode NFC, single spaces. Raises `BadSample` if it is not usable.

    Control characters, such as terminal escapes, become spaces. Invisible characters are removed, including
    those that change the writing direction. Only joiners, which emoji and many scripts need, are kept.
    """
    try:
        text = caption.decode("utf-8-sig") if isinstance(caption, bytes) else caption
        if not isinstance(text, str):
            raise BadSample("caption not text")
        text.encode("utf-8")  # JSON can smuggle in lone surrogates, which tokenizers and Arrow refuse
    except UnicodeError as error:
        raise BadSample("caption not UTF-8") from error
    text = _FORMAT.sub("", _CONTROL.sub(" ", unicodedata.normalize("NFC", text)))
    text = " ".join(text.split())
    if not text.strip(_JOINERS):
        raise BadSample("empty caption")
    if len(text) > LONGEST_CAPTION:
        raise BadSample("caption too long")
    return text


_OPENERS: dict[bytes, type[ImageFile]] = {  # by the first bytes of a file
    b"\xff\xd8\xff": JpegImageFile,
    b"\x89PNG\r\n\x1a\n": PngImageFile,
    b"GIF87a": GifImageFile,
    b"GIF89a": GifImageFile,
    b"BM": BmpImageFile,
}
_HTML = (b"<!doctype html", b"<html", b"<head", b"<body")


def _opener(data: bytes) -> type[ImageFile]:
    if not data:
        raise BadSample("empty file")
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return WebPImageFile
    for magic, opener in _OPENERS.items():
        if data.startswith(magic):
            return opener
    html = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_HTML)
    raise BadSample("not an image (looks like HTML)" if html else "not an image (unknown format)")


def is_image(data: bytes) -> bool:
    """Whether bytes begin like a picture of a known format."""
    try:
        return _opener(data) is not None
    except BadSample:
        return False


# The operator itself, because torchvision 0.29 warns on every call of its wrapper, which it will remove.
_HAS_JPEG = hasattr(torch.ops.image, "decode_jpeg")


_PROGRESSIVE, _SCAN, _END = b"\xff\xc2", b"\xff\xda", b"\xff\xd9"  # markers of a JPEG
_MORE = bytes(1 + 97 * number % 251 for number in range(2048))  # no encoded picture ends like this


def _decode_jpeg(data: bytes) -> torch.Tensor:
    pixels = _jpeg(data)
    # If a scan ends early, the rest is one flat grey, or lacks detail in a progressive picture. A plain
    # background is flat too, so suspects are decoded again with extra data before the end marker, which does
    # not change a complete picture. Pillow gives the same pixels and, unlike torchvision, prints no warnings.
    corner = pixels[:, -4:, -4:].flatten(1)
    suspect = _PROGRESSIVE in data or bool((corner == corner[:, :1]).all())
    end = data.find(_END, data.rfind(_SCAN))
    if suspect and end > 0:
        again = _decode_with_pillow(JpegImageFile(io.BytesIO(data[:end].rstrip(b"\xff") + _MORE + _END)))
        whole = torch.equal(again, pixels)
        if not whole and not torch.equal(again, _decode_with_pillow(JpegImageFile(io.BytesIO(data)))):
            raise BadSample("truncated or damaged image")
    return pixels


def _jpeg(data: bytes) -> torch.Tensor:
    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    pixels: torch.Tensor = torch.ops.image.decode_jpeg(encoded, torchvision.io.ImageReadMode.RGB.value, True)
    return pixels


def _decode_with_pillow(opened: ImageFile) -> torch.Tensor:
    opened.load()
    image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip to white
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
