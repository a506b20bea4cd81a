"""Opens a folder of images with a text file beside each: one caption a line."""

import os
from pathlib import Path

from workbench.data.decode import BadSample
from workbench.data.source import LARGEST_TEXT, Opened, PairRows, clean_captions, read_file, text_captions
from workbench.data.splits import splits_in_names


def open_folder(
    base: Path, images: list[str], max_pixels: int, caption_lines: bool = True, captions_needed: bool = True
) -> Opened:
    """Pairs of the `images`, paths relative to `base`; a pair's id is the name of its image.

    Linked folders are followed, links of single files only where they stay within the folder. The captions
    are read anew every time: a text file that changes does not change the time of its folder, so a list that
    was kept by those times would be of captions that are no more.
    """
    splits = splits_in_names(str(base), images, stems=False)
    rows, root = PairRows(), os.fspath(base)
    for position, name in enumerate(images):
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
    """Whether a file is a link out of the folder `base`, and out of the folder that it lies in, which may be
    linked itself."""
    if not os.path.islink(file):
        return False
    target = os.path.realpath(file)
    folders = (os.path.join(os.path.realpath(folder), "") for folder in (base, os.path.dirname(file)))
    return os.path.isfile(target) and not target.startswith(tuple(folders))


def caption_file(base: str | Path, image: str) -> str | None:
    """The text file beside an image, if there is one."""
    stem = os.path.splitext(os.path.join(base, image))[0]
    return next((stem + ending for ending in (".txt", ".TXT") if os.path.exists(stem + ending)), None)
