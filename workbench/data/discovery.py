"""Finds the files behind `data.source`, and their format."""

import glob
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from workbench.data.formats.coco import is_coco
from workbench.data.formats.column_names import is_hub_table
from workbench.data.formats.flickr import is_caption_list
from workbench.data.formats.folder import Listed
from workbench.data.formats.tables import TABLE_EXTENSIONS
from workbench.data.remote import list_files
from workbench.data.source import IMAGE_EXTENSIONS, OTHER_IMAGES, NoCaptions
from workbench.data.splits import split_in_words, without_split
from workbench.errors import SettingError
from workbench.files import can_be_path

WHAT_WORKS = (
    "Give tar shards (a folder, a glob, or shards/{00000..00010}.tar), a Karpathy JSON, COCO's captions "
    "JSON, a csv, tsv, jsonl or parquet table with captions and paths or pictures, Flickr's captions.txt, "
    ".token or results.csv, a folder of images with a .txt beside each, or 'scenes'."
)
FORMATS = ("auto", "scenes", "shards", "karpathy", "coco", "table", "folder")
WHAT_WORKS_REMOTELY = (
    "Name tar shards, e.g. https://HOST/cc3m/{00000..00331}.tar or s3://BUCKET/cc3m/*.tar, or their folder. "
    "Other formats are read from this machine's files: download them first."
)
MOST_SHARDS = 1_000_000  # in the range of a brace pattern
_KARPATHY = re.compile(r"dataset_\w+\.json")
_COCO = re.compile(r"(annotations/)?captions_\w+\.json")
_WILDCARD = re.compile(r"[*?\[{]")
Source = str | os.PathLike[str]


def find_files(source: Source) -> tuple[Path, list[str]]:
    """The files of a path, folder, glob or brace pattern, as sorted names relative to a common folder.

    Hidden files are skipped, and links are followed. Raises `SettingError` if there are no files.
    """
    text = os.path.expanduser(os.fspath(source))
    path = Path(text)
    if not can_be_path(text):
        raise SettingError("data.source", os.fspath(source), "it cannot be the name of a file", WHAT_WORKS)
    if path.is_dir():
        return path, sorted(_walk(path))
    if path.exists():
        return path.parent, [path.name]
    if not is_pattern(source):
        raise SettingError("data.source", os.fspath(source), "no such file or folder", WHAT_WORKS)
    matches: dict[str, list[str]] = {}
    for pattern in _expand_braces(text):
        matches[pattern] = [name for name in glob.glob(pattern, recursive=True) if os.path.isfile(name)]
        if not matches[pattern]:
            raise SettingError("data.source", os.fspath(source), f"nothing matches {pattern!r}", WHAT_WORKS)
    if not matches:
        raise SettingError("data.source", os.fspath(source), "its range is empty", WHAT_WORKS)
    base = os.path.dirname(_WILDCARD.split(text)[0]) or "."
    return Path(base), sorted({os.path.relpath(name, base) for names in matches.values() for name in names})


def find_shards(source: str) -> tuple[str, list[str]]:
    """The tar shards of a URL, folder URL or pattern, as sorted names relative to a common URL.

    Raises `SettingError` if there are none.
    """
    wildcard = re.compile(r"[*\[]" if _is_web(source) else r"[*?\[]")
    head = re.split(r"[*?\[{]", source)[0]
    base = head.rpartition("/")[0] if head != source or is_shard(source) else source.rstrip("/")
    base += "/" * base.endswith(":/")  # a shard at the top of a filesystem
    names: list[str] = []
    for url in _expand_braces(source):
        pattern = wildcard.search(url) is not None
        if is_shard(url) and not pattern:
            names.append(url.removeprefix(base).lstrip("/"))
            continue
        matches = [name for name in list_files(url, base, pattern) if is_shard(name)]
        if not matches:
            raise SettingError("data.source", source, f"no tar shards at {url}", WHAT_WORKS_REMOTELY)
        names += matches
    if not names:
        raise SettingError("data.source", source, "its range is empty", WHAT_WORKS_REMOTELY)
    return base, sorted(set(names))


def is_shard(url: str) -> bool:
    """Whether a URL is that of a tar file, regardless of the query of a web address."""
    return fits(url.partition("?")[0]) == "shards"


def _is_web(url: str) -> bool:
    """Whether a question mark in the URL starts a query instead of being a wildcard."""
    return url.startswith(("http://", "https://"))


def is_pattern(source: Source) -> bool:
    """Whether the source is a glob or brace pattern and not the name of an existing file."""
    text = os.path.expanduser(os.fspath(source))
    return not os.path.exists(text) and _WILDCARD.search(text) is not None


def _expand_braces(pattern: str) -> Iterator[str]:
    """Every string that a pattern with `{00000..00010}` or `{a,b}` stands for."""
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
        numbers = range(int(first), int(last) + 1)
        if len(numbers) > MOST_SHARDS:
            problem = f"its range has {len(numbers):,} files, more than {MOST_SHARDS:,}"
            raise SettingError("data.source", pattern, problem, "Name only files that exist.")
        choices = [f"{number:0{width}d}" for number in numbers]
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
        inside = os.path.relpath(parent, folder)
        for name in files:
            if not name.startswith("."):
                yield name if inside == "." else os.path.join(inside, name)


def fits(name: str) -> str | None:
    """The format that a file of this name may belong to."""
    extension = os.path.splitext(name)[1].lower()  # faster than pathlib for hundreds of thousands of names
    if extension in IMAGE_EXTENSIONS or extension in OTHER_IMAGES:
        return "folder"
    if extension in TABLE_EXTENSIONS or is_caption_list(name):
        return "table"
    if extension == ".json":
        return "coco" if _COCO.fullmatch(name) else "karpathy"
    return "shards" if extension == ".tar" else None


def chosen_files(source: Source, format: str, captions_needed: bool = True) -> tuple[str, Path, list[str]]:
    """The format of a source, its folder, and the names in that folder of the files to read.

    A `format` other than auto is kept, whatever the names of the files. Raises `SettingError` if there is no
    file of that format, or if several files could be meant.
    """
    base, names = find_files(source)
    kind = detect(source, base, names, captions_needed) if format == "auto" else format
    chosen = [name for name in names if fits(name) == kind]
    if kind in ("coco", "karpathy") and not any(_KARPATHY.fullmatch(name) for name in chosen):
        chosen = (chosen if kind == "coco" else []) or caption_jsons(names) or chosen
    if not chosen and kind != "folder" and not os.path.isdir(os.path.expanduser(os.fspath(source))):
        chosen = names  # named by the user, or a JSON with COCO's content
    if not chosen:
        problem = f"no file in it fits data.format = {kind}"
        remedy = f"Name the file itself if it has another extension. {WHAT_WORKS}"
        raise SettingError("data.source", os.fspath(source), problem, remedy)
    if kind == "karpathy" and chosen != caption_jsons(chosen):
        chosen = [single(source, chosen)]
    elif kind == "table" and not is_pattern(source):
        top = [name for name in chosen if "/" not in name] or chosen
        together = len({without_split(name) for name in top}) == 1  # train.csv and test.csv, or parts
        chosen = top if together else [single(source, top)]
    return kind, base, chosen


def detect(source: Source, base: Path, names: list[str], captions_needed: bool = True) -> str:
    """The format of the files. JSON files and tables count only at the top of a folder, unless it holds
    nothing else. Raises `NoCaptions` for pictures without captions if captions are needed."""
    kinds, listed = [fits(name) for name in names], Listed()
    if "shards" in kinds:
        return "shards"
    images = [name for name, kind in zip(names, kinds, strict=True) if kind == "folder"]
    if any(listed.caption_file(os.path.join(base, name)) for name in images):
        return "folder"
    top = [name for name in names if "/" not in name]
    if any(_KARPATHY.fullmatch(name) for name in top):
        return "karpathy"
    if any(_COCO.fullmatch(name) for name in names):
        return "coco"
    if kinds == ["karpathy"]:
        return "coco" if is_coco(base / names[0]) else "karpathy"
    if any(fits(name) == "table" for name in (names if is_pattern(source) else top)):
        return "table"
    if any(name.endswith(".parquet") or is_hub_table(name) for name in names):
        return "table"  # as on the Hugging Face hub: data/train-00000-of-00001.parquet, train/metadata.jsonl
    if (jsons := caption_jsons(names)) and (kind := _format_of_json(base / jsons[0])):
        return kind
    if images and not captions_needed:
        return "folder"
    counts = Counter(PurePosixPath(name).suffix or "without extension" for name in names)
    files = ", ".join(f"{count} {extension}" for extension, count in counts.most_common(8)) or "no files"
    captions = ", none of the images with a .txt beside it" if images else ""
    problem = f"no format recognised; found {files}{captions}"
    remedy = f"{WHAT_WORKS} data.format names the format of a file with another name."
    error = NoCaptions if images else SettingError
    raise error("data.source", os.fspath(source), problem, remedy)


def caption_jsons(names: list[str]) -> list[str]:
    """The JSONs at the top of a folder that are its splits by their names (train.json, test.json), else the
    only one."""
    top = [name for name in names if "/" not in name and name.lower().endswith(".json")]
    splits = [name for name in top if split_in_words(os.path.splitext(name)[0])]
    if splits and len({without_split(name) for name in splits}) == 1:
        return splits
    return top if len(top) == 1 else []


def _format_of_json(path: Path) -> str | None:
    """The format that a JSON's first entries are of, None for any other file."""
    try:
        content = json.loads(path.read_bytes())
        pictures, annotations = content["images"], content.get("annotations")
        if annotations is None:
            return "karpathy" if "sentences" in pictures[0] else None
        return "coco" if "caption" in annotations[0] else None
    except (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError):
        return None


def single(source: Source, names: list[str]) -> str:
    """The only file among `names` that can be meant. Raises `SettingError` if there are several."""
    top = [name for name in names if "/" not in name]
    named = [name for name in top if _KARPATHY.fullmatch(name)] or top or names
    if len(named) > 1:
        problem = f"{len(named)} files could be meant: {', '.join(named[:4])}"
        remedy = "Name one of them, or several tables by a glob."
        raise SettingError("data.source", os.fspath(source), problem, remedy)
    return named[0]
