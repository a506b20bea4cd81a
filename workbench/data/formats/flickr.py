"""Reads the lists of captions that Flickr8k and Flickr30k come with: captions.txt, .token, results.csv."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from workbench.errors import SettingError

_TOKEN = re.compile(r"([^\t]+)#\d+\t(.*)", re.DOTALL)
_NUMBERED = ["image_name", "comment_number", "comment"]
_SPLIT_LIST = re.compile(r"Flickr_?8k\.(train|dev|test)Images\.txt")


def is_caption_list(name: str) -> bool:
    """Whether a file is called as such a list is, without the extension of a table."""
    plain = os.path.basename(name).casefold()  # of hundreds of thousands of names, faster than a path's
    return plain == "captions.txt" or (plain.endswith((".token", ".token.txt")) and ".lemma." not in plain)


def separator_of(path: Path) -> str | None:
    """What separates the cells of such a list, by its first line; None for any other file.

    `image_name| comment_number| comment` of Flickr30k, the same with commas and `image,caption` of copies,
    and `1000092795.jpg#0<tab>comment`.
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
        if cells == _NUMBERED or (cells == ["image", "caption"] and is_caption_list(path.name)):
            return separator
    return None


def caption_lines(path: Path, separator: str) -> Iterator[tuple[str, str]]:
    """The picture and caption of every line that has both; the distributed results.csv has one that has not.

    Everything behind the last header's separator is the caption, be there more of them.
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
    """The split of each picture by Flickr8k's lists (Flickr_8k.trainImages.txt) in a folder; {} for none."""
    splits: dict[str, str] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if match := _SPLIT_LIST.fullmatch(path.name):
            splits |= dict.fromkeys(path.read_text(errors="replace").split(), match[1])
    return splits


def read_flickr_captions(path: Path, setting: str = "data.source") -> dict[str, list[str]]:
    """File name to captions, in file order; raises `SettingError`, which names `setting`, for other files."""
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
