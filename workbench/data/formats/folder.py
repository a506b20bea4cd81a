"""Opens a folder of images with a text file beside each: one caption a line."""

from pathlib import Path

from workbench.data.decode import BadSample
from workbench.data.source import LARGEST_TEXT, Opened, PairRows, clean_captions, folder_splits, read_file


def open_folder(base: Path, images: list[str], max_pixels: int) -> Opened:
    """Pairs of the `images`, paths relative to `base`; a pair's id is the name of its image."""
    splits = folder_splits(images)
    rows = PairRows()
    for position, name in enumerate(images):
        with rows.count_rejected():
            split = splits[position] if splits else None
            if splits and split is None:
                raise BadSample("no split")
            text_file = caption_file(base, name)
            if text_file is None:
                raise BadSample("no caption")
            text = read_file(text_file, LARGEST_TEXT)
            if b"\0" in text:  # UTF-16, of which every other byte is one
                raise BadSample("caption not UTF-8")
            lines = [line for line in text.splitlines() if line.strip()]
            rows.add(name, clean_captions(lines or [b""], rows.skipped), split, str(base / name))
    return rows.opened(max_pixels)


def caption_file(base: Path, image: str) -> Path | None:
    """The text file beside an image, if there is one."""
    candidates = ((base / image).with_suffix(extension) for extension in (".txt", ".TXT"))
    return next((path for path in candidates if path.exists()), None)
