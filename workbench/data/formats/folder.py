"""Opens a folder of images with a text file beside each: one caption a line."""

from collections import Counter
from pathlib import Path

from workbench.data.decode import BadSample
from workbench.data.source import (
    LARGEST_TEXT,
    FileReader,
    Opened,
    Rows,
    clean_captions,
    folder_splits,
    read_file,
)


def open_folder(base: Path, images: list[str], max_pixels: int) -> Opened:
    """Pairs of the `images`, paths relative to `base`; a pair's id is the name of its image."""
    splits = folder_splits(images)
    rows, lost, skipped = Rows(), Counter[str](), Counter[str]()
    for position, name in enumerate(images):
        try:
            split = splits[position] if splits else None
            if splits and split is None:
                raise BadSample("no split")
            beside = caption_file(base, name)
            if beside is None:
                raise BadSample("no caption")
            text = read_file(beside, LARGEST_TEXT)
            if b"\0" in text:  # UTF-16, of which every other byte is one
                raise BadSample("caption not UTF-8")
            lines = text.splitlines()
            captions = clean_captions([line for line in lines if line.strip()] or [b""], skipped)
            rows.add(name, captions, split, str(base / name))
        except BadSample as error:
            lost[error.reason] += 1
    table = rows.table()
    return Opened(table.drop_columns("path"), FileReader(table["path"], max_pixels), lost, skipped)


def caption_file(base: Path, image: str) -> Path | None:
    """The text file beside an image, if there is one."""
    beside = ((base / image).with_suffix(extension) for extension in (".txt", ".TXT"))
    return next((path for path in beside if path.exists()), None)
