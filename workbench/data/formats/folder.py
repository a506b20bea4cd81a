"""Opens a folder of images with a text file of captions, one a line, beside each image."""

import os
from pathlib import Path

from workbench.data.decode import BadSample
from workbench.data.source import (
    LARGEST_TEXT,
    OTHER_IMAGES,
    Opened,
    PairRows,
    clean_captions,
    read_file,
    text_captions,
)
from workbench.data.splits import splits_in_names


def open_folder(
    base: Path, images: list[str], max_pixels: int, caption_lines: bool = True, captions_needed: bool = True
) -> Opened:
    """Open the `images`, paths relative to `base`. A pair's id is the name of its image.

    Links to folders are followed, links to files only if they stay within the folder. Caption files are read
    every time: a file whose text changes leaves its folder's modification time as it was, so a cached list
    could hold outdated captions.
    """
    splits = splits_in_names(str(base), images, stems=False)
    rows, root = PairRows(), os.fspath(base)
    for position, name in enumerate(images):
        if os.path.splitext(name)[1].lower() in OTHER_IMAGES:
            rows.skipped.note("another type of file", name)
            continue
        with rows.count_rejected(name):
            split = splits[position] if splits else None
            if splits and split is None:
                raise BadSample("no split")
            image = os.path.join(root, name)
            text_file = caption_file(root, name)
            if text_file is None and captions_needed:
                raise BadSample("no caption")
            if any(leaves_folder(root, file) for file in (image, text_file) if file):
                raise BadSample("path leaves the image folder")
            text = read_file(text_file, LARGEST_TEXT) if text_file else b""
            lines = text_captions(text, caption_lines)
            rows.add(name, clean_captions(lines, rows.skipped, name, captions_needed), split, image)
    return rows.opened(max_pixels, split_from="the names of its folders")


def leaves_folder(base: str, file: str) -> bool:
    """Whether a file is a link that leaves both the folder `base` and its own folder, which may be a link
    itself."""
    if not os.path.islink(file):
        return False
    target = os.path.realpath(file)
    folders = (os.path.join(os.path.realpath(folder), "") for folder in (base, os.path.dirname(file)))
    return os.path.isfile(target) and not target.startswith(tuple(folders))


def caption_file(base: str | Path, image: str) -> str | None:
    """The text file beside an image, None if there is none."""
    stem = os.path.splitext(os.path.join(base, image))[0]
    return next((stem + ending for ending in (".txt", ".TXT") if os.path.exists(stem + ending)), None)
