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
    rows, root, listed = PairRows(), os.fspath(base), Listed()
    for position, name in enumerate(images):
        if os.path.splitext(name)[1].lower() in OTHER_IMAGES:
            rows.skipped.note("another type of file", name)
            continue
        with rows.count_rejected(name):
            split = splits[position] if splits else None
            if splits and split is None:
                raise BadSample("no split")
            image = os.path.join(root, name)
            text_file = listed.caption_file(image)
            if text_file is None and captions_needed:
                raise BadSample("no caption")
            if any(listed.is_link(file) and leaves_folder(root, file) for file in (image, text_file) if file):
                raise BadSample("path leaves the image folder")
            text = read_file(text_file, LARGEST_TEXT) if text_file else b""
            lines = text_captions(text, caption_lines)
            rows.add(name, clean_captions(lines, rows.skipped, name, captions_needed), split, image)
    return rows.opened(max_pixels, split_from="the names of its folders")


class Listed:
    """The names in folders. Each folder is listed once, which is faster than a question per file."""

    def __init__(self) -> None:
        self._links: dict[str, dict[str, bool]] = {}  # by folder and name, whether the name is a link

    def caption_file(self, image: str) -> str | None:
        """The text file beside an image, None if there is none."""
        stem = os.path.splitext(image)[0]
        for file in (f"{stem}.txt", f"{stem}.TXT"):
            if (is_link := self._is_link(file)) is not None and (not is_link or os.path.exists(file)):
                return file
        return None

    def is_link(self, file: str) -> bool:
        """Whether a file is a link."""
        return bool(self._is_link(file))

    def _is_link(self, file: str) -> bool | None:
        """Whether a file is a link, None if it does not exist."""
        folder, _, name = file.rpartition(os.sep)
        if folder not in self._links:
            try:
                with os.scandir(folder or os.curdir) as entries:
                    self._links[folder] = {entry.name: entry.is_symlink() for entry in entries}
            except (OSError, ValueError):  # ValueError: a NUL in the name
                self._links[folder] = {}
        return self._links[folder].get(name)


def leaves_folder(base: str, link: str) -> bool:
    """Whether a link leaves both the folder `base` and its own folder, which may be a link itself."""
    target = os.path.realpath(link)
    folders = (os.path.join(os.path.realpath(folder), "") for folder in (base, os.path.dirname(link)))
    return os.path.isfile(target) and not target.startswith(tuple(folders))
