"""Finds the files that `data.source` stands for, and their format."""

import glob
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from workbench.data.formats.folder import caption_file
from workbench.data.formats.tables import TABLE_EXTENSIONS
from workbench.data.source import IMAGE_EXTENSIONS
from workbench.errors import SettingError

WHAT_WORKS = (
    "Give tar shards (a folder, a glob, or shards/{00000..00010}.tar), a Karpathy JSON, a csv, tsv, jsonl or "
    "parquet table with paths and captions, a folder of images with a .txt beside each, or 'scenes'."
)
_KARPATHY = re.compile(r"dataset_\w+\.json")
_WILDCARD = re.compile(r"[*?\[{]")
Source = str | os.PathLike[str]


def find_files(source: Source) -> tuple[Path, list[str]]:
    """The files that a path, folder, glob or brace pattern stands for, as sorted names below a common folder.

    Hidden files are skipped, links followed. Raises `SettingError` where there are none.
    """
    text = os.path.expanduser(os.fspath(source))
    path = Path(text)
    if path.is_dir():
        return path, sorted(_walk(path))
    if path.exists():
        return path.parent, [path.name]
    if not is_pattern(source):
        raise SettingError("data.source", os.fspath(source), "no such file or folder", WHAT_WORKS)
    matches = {
        pattern: [name for name in glob.glob(pattern, recursive=True) if os.path.isfile(name)]
        for pattern in _expand_braces(text)
    }
    if not matches or not all(matches.values()):
        empty = next((pattern for pattern, names in matches.items() if not names), None)
        problem = f"nothing matches {empty!r}" if empty else "its range is empty"
        raise SettingError("data.source", os.fspath(source), problem, WHAT_WORKS)
    base = os.path.dirname(_WILDCARD.split(text)[0]) or "."
    return Path(base), sorted({os.path.relpath(name, base) for names in matches.values() for name in names})


def is_pattern(source: Source) -> bool:
    """Whether the source is a glob or has braces, and is not the name of something that exists."""
    text = os.path.expanduser(os.fspath(source))
    return not os.path.exists(text) and _WILDCARD.search(text) is not None


def _expand_braces(pattern: str) -> Iterator[str]:
    """Every string that `{00000..00010}` and `{a,b}` in a pattern stand for."""
    braces = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", pattern)
    if braces is None:
        yield pattern
        return
    first, last, listed = braces.groups()
    if listed:
        choices = listed.split(",")
    else:
        padded = any(len(end) > 1 and end.startswith("0") for end in (first, last))
        width = max(len(first), len(last)) if padded else 0
        choices = [f"{number:0{width}d}" for number in range(int(first), int(last) + 1)]
    for choice in choices:
        yield from _expand_braces(pattern[: braces.start()] + choice + pattern[braces.end() :])


def _walk(folder: Path) -> Iterator[str]:
    visited = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(parent)) in visited:  # a link to a folder above
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if not name.startswith("."):
                yield os.path.relpath(os.path.join(parent, name), folder)


def fits(name: str) -> str | None:
    """The format that a file of this name may belong to."""
    extension = os.path.splitext(name)[1].lower()  # of hundreds of thousands of names, faster than a path's
    if extension in IMAGE_EXTENSIONS:
        return "folder"
    if extension in TABLE_EXTENSIONS:
        return "table"
    return {".tar": "shards", ".json": "karpathy"}.get(extension)


def detect(source: Source, base: Path, names: list[str]) -> str:
    """The format of the files; a folder's JSON and tables count only where they lie at its top."""
    if any(fits(name) == "shards" for name in names):
        return "shards"
    images = [name for name in names if fits(name) == "folder"]
    if any(caption_file(base, name) for name in images):
        return "folder"
    top = [name for name in names if "/" not in name]
    if any(_KARPATHY.fullmatch(name) for name in top) or [fits(name) for name in names] == ["karpathy"]:
        return "karpathy"
    if any(fits(name) == "table" for name in (names if is_pattern(source) else top)):
        return "table"
    counts = Counter(PurePosixPath(name).suffix or "without extension" for name in names)
    files = ", ".join(f"{count} {extension}" for extension, count in counts.most_common(8)) or "no files"
    captions = ", none of the images with a .txt beside it" if images else ""
    problem = f"no format recognised; found {files}{captions}"
    raise SettingError("data.source", os.fspath(source), problem, WHAT_WORKS)


def single(source: Source, names: list[str]) -> str:
    """The one file among `names` that can be meant; raises `SettingError` where several could."""
    top = [name for name in names if "/" not in name]
    named = [name for name in top if _KARPATHY.fullmatch(name)] or top or names
    if len(named) > 1:
        problem = f"{len(named)} files could be meant: {', '.join(named[:4])}"
        remedy = "Name one of them, or several tables by a glob."
        raise SettingError("data.source", os.fspath(source), problem, remedy)
    return named[0]
