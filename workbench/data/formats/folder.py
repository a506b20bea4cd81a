"""Opens a folder of images with a text file beside each: one caption a line."""

from pathlib import Path

from workbench.data.decode import BadSample
from workbench.data.source import LARGEST_TEXT, Opened, PairRows, clean_captions, read_file, text_captions
from workbench.data.splits import splits_in_names


def open_folder(base: Path, images: list[str], max_pixels: int, caption_lines: bool = True) -> Opened:
    """Pairs of the `images`, paths relative to `base`; a pair's id is the name of its image."""
    splits = splits_in_names(str(base), images, stems=False)
    rows = PairRows()
    for position, name in enumerate(images):
        with rows.count_rejected(name):
            split = splits[position] if splits else None
            if splits and split is None:
                raise BadSample("no split")
            text_file = caption_file(base, name)
            if text_file is None:
                raise BadSample("no caption")
            lines = text_captions(read_file(text_file, LARGEST_TEXT), caption_lines)
            rows.add(name, clean_captions(lines, rows.skipped, name), split, str(base / name))
    return rows.opened(max_pixels, split_from="the names of its folders")


def caption_file(base: Path, image: str) -> Path | None:
    """The text file beside an image, if there is one."""
    candidates = ((base / image).with_suffix(extension) for extension in (".txt", ".TXT"))
    return next((path for path in candidates if path.exists()), None)
