"""Finds the files that `data.source` stands for, and the format they speak for."""

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
Source = str | os.PathLike[str]


def find_files(source: Source) -> tuple[Path, list[str]]:
    """The files that a path, folder, glob or brace pattern stands for, as sorted names below a common folder.

    Hidden files are left out, links followed. Raises `SettingError` where there are none.
    """
    written = os.path.expanduser(os.fspath(source))
    path = Path(written)
    if path.is_dir():
        return path, sorted(_walk(path))
    if path.exists():
        return path.parent, [path.name]
    if not is_pattern(source):
        raise SettingError("data.source", os.fspath(source), "no such file or folder", WHAT_WORKS)
    found: set[str] = set()
    for pattern in _expand_braces(written):
        matches = [name for name in glob.glob(pattern, recursive=True) if os.path.isfile(name)]
        if not matches:
            problem = f"nothing matches {pattern!r}"
            raise SettingError("data.source", os.fspath(source), problem, WHAT_WORKS)
        found.update(matches)
    if not found:
        raise SettingError("data.source", os.fspath(source), "its range is empty", WHAT_WORKS)
    fixed = os.path.dirname(re.split(r"[*?\[{]", written)[0]) or "."
    return Path(fixed), sorted(os.path.relpath(name, fixed) for name in found)


def is_pattern(source: Source) -> bool:
    """Whether the source is a glob or has braces, and is not the name of something that exists."""
    written = os.path.expanduser(os.fspath(source))
    return not os.path.exists(written) and re.search(r"[*?\[{]", written) is not None


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
    seen = set()
    for where, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(where)) in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = os.path.relpath(where, folder)
        yield from (os.path.normpath(os.path.join(below, name)) for name in files if not name.startswith("."))


def fits(name: str) -> str | None:
    """The format that a file of this name may belong to."""
    extension = PurePosixPath(name).suffix.lower()
    if extension in IMAGE_EXTENSIONS:
        return "folder"
    if extension in TABLE_EXTENSIONS:
        return "table"
    return {".tar": "shards", ".json": "karpathy"}.get(extension)


def detect(source: Source, base: Path, names: list[str]) -> str:
    """The format that the names speak for; a folder's JSON and tables count where they lie at its top."""
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
    found = ", ".join(f"{count} {extension}" for extension, count in counts.most_common(8)) or "no files"
    without = ", none of the images with a .txt beside it" if images else ""
    problem = f"no format recognised; found {found}{without}"
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
