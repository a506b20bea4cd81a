"""Reads the caption lists of Flickr8k and Flickr30k: captions.txt, .token, results.csv."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from workbench.errors import SettingError

_TOKEN = re.compile(r"([^\t]+)#\d+\t(.*)", re.DOTALL)
_HEADERS = ["image_name", "comment_number", "comment"], ["image_name", "comment"]
_SPLIT_LIST = re.compile(r"Flickr_?8k\.(train|dev|test)Images\.txt")


def is_caption_list(name: str) -> bool:
    """Whether a file has the name of such a list without having the extension of a table."""
    plain = os.path.basename(name).casefold()  # faster than a Path, for hundreds of thousands of names
    return plain == "captions.txt" or (plain.endswith((".token", ".token.txt")) and ".lemma." not in plain)


def separator_of(path: Path) -> str | None:
    """The separator of such a list, judged by its first line; None for any other file.

    Known first lines are Flickr30k's `image_name| comment_number| comment`, the same with commas or without
    numbers, the `image,caption` of copies, and `1000092795.jpg#0<tab>comment`.
    """
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as lines:
            first = lines.readline(1 << 16).strip("\r\n")
    except OSError:
        return None
    if _TOKEN.fullmatch(first):
        return "\t"
    for separator in "|,":
        cells = [cell.strip() for cell in first.split(separator)]
        if cells in _HEADERS or (cells == ["image", "caption"] and is_caption_list(path.name)):
            return separator
    return None


def caption_lines(path: Path, separator: str) -> Iterator[tuple[str, str]]:
    """The picture and caption of every line that names a picture. The published results.csv has a line
    without a caption, which is empty here.

    The caption is all text after the header's last separator, even if it contains more separators.
    """
    with open(path, encoding="utf-8-sig", newline="\n", errors="surrogateescape") as lines:
        skipped = 0
        for number, line in enumerate(lines):
            line = line.rstrip("\r\n")
            if separator == "\t":
                token = _TOKEN.fullmatch(line)
                picture, caption = (token[1], token[2]) if token else (line.partition("\t")[0], "")
            else:
                if number == 0:
                    skipped = line.count(separator) - 1  # cells between picture and caption
                    continue
                picture, _, caption = line.partition(separator)
                for _ in range(skipped):
                    caption = caption.partition(separator)[2]
            caption = caption.strip()
            if len(caption) > 1 and caption[0] == caption[-1] == '"':
                caption = caption[1:-1].replace('""', '"')
            if picture.strip():
                yield picture.strip(), caption


def official_splits(folder: Path) -> dict[str, str]:
    """The split of every picture in Flickr8k's lists (Flickr_8k.trainImages.txt) in a folder; {} if none."""
    splits: dict[str, str] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if match := _SPLIT_LIST.fullmatch(path.name):
            splits |= dict.fromkeys(path.read_text(errors="replace").split(), match[1])
    return splits


def read_flickr_captions(path: Path, setting: str = "data.source") -> dict[str, list[str]]:
    """The captions by file name, in file order. Raises `SettingError`, naming `setting`, for other files."""
    separator = separator_of(path)
    captions: dict[str, list[str]] = {}
    for picture, caption in caption_lines(path, separator) if separator else ():
        if caption:
            captions.setdefault(picture, []).append(caption)
    if not captions:
        problem = "it holds no lines `image_name| comment_number| comment`"
        remedy = "Name results.csv or results_20130124.token"
        raise SettingError(setting, str(path), problem, remedy)
    return captions
