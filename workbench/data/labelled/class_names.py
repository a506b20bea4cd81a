"""Finds the classes in a set of class folders, and their names for prompts."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from workbench.data.labelled.labels import read_lines
from workbench.data.splits import split_named
from workbench.errors import SettingError

NAMES_FILES = ("class_names.txt", "class_names.json")
_WORDNET = re.compile(r"n[0-9]{8}[-_ ]?")
_NUMBER = re.compile(r"[0-9]+[-_. ]+(?=.*[^\W\d_])")
_CAMEL = re.compile(r"(?:[A-Z][a-z]+){2,}")


def class_of_files(base: Path, files: Sequence[str], written: str) -> list[str]:
    """The class folder of every picture in `files`, which are relative to `base`.

    Classes are the sub-folders. If these contain no pictures themselves and one of them contains several
    folders (`b/bakery/shop` of Places365), classes are the folders that contain pictures. Raises
    `SettingError`, suggesting a folder, for a single class and for splits instead of classes, even if only
    one of them is named as a split (`train/cat` beside `holdout/cat`).
    """
    tops = [PurePosixPath(name).parts[0] for name in files]
    splits = {top for top in set(tops) if split_named(top)}
    if len({split_named(top) for top in splits}) > 1:
        _refuse(base, written, f"its folders {_listed(splits)} are splits, not classes", files)
    if len(set(tops)) == 1:
        _refuse(base, written, f"its pictures are all in the one folder {tops[0]!r}, one class", files)
    leaves = [str(PurePosixPath(name).parent) for name in files]
    leaves_of: dict[str, set[str]] = {}
    for top, leaf in zip(tops, leaves, strict=True):
        leaves_of.setdefault(top, set()).add(leaf)
    classes_of = {top: {leaf.removeprefix(top) for leaf in of_top} for top, of_top in leaves_of.items()}
    for split in splits:
        like = [top for top in classes_of if top != split and len(classes_of[split] & classes_of[top]) > 1]
        if like:
            problem = f"its folders {_listed([split, *like])} hold the same folders, as splits do"
            _refuse(base, written, problem, files)
    if any(top in of_top for top, of_top in leaves_of.items()):
        return tops
    return leaves if any(len(of_top) > 1 for of_top in leaves_of.values()) else tops


def names_of_classes(base: Path, folders: Sequence[str], written: str) -> list[str]:
    """The names of the class folders in prompts.

    They come from `class_names.txt` (a folder and its name a line) or `class_names.json` in the set's folder
    if one exists. Otherwise they are the folders' names as words: without leading WordNet ids and numbers,
    with spaces for underscores and hyphens, and `AnnualCrop` as "annual crop". Raises `SettingError` if no
    words are left, or the same words for several folders.
    """
    given = _given(base)
    if given is not None:
        missing = [folder for folder in folders if folder not in given]
        if missing:
            problem = f"it has no name for {len(missing)} of {len(folders)} class folders: {_listed(missing)}"
            remedy = "Give every folder a line, such as '001 golden retriever'."
            raise SettingError("source", str(base / "class_names.txt"), problem, remedy)
        return [given[folder] for folder in folders]
    # The upper levels of nested folders only sort the classes.
    plain = [folder.partition("/")[2] or folder for folder in folders]
    if len(set(plain)) < len(plain):
        plain = list(folders)
    plain = [_WORDNET.sub("", name, count=1) if _WORDNET.match(name) else name for name in plain]
    if all(_NUMBER.match(name) for name in plain):
        plain = [_NUMBER.sub("", name, count=1) for name in plain]
    names = [_words(name) for name in plain]
    wordless = [
        folder for folder, name in zip(folders, names, strict=True) if not re.search(r"[^\W\d_]", name)
    ]
    remedy = "Put class_names.txt there, with a folder and its name a line, such as '001 golden retriever'."
    if wordless:
        problem = f"{len(wordless)} of {len(folders)} class folders have no words in their names: "
        raise SettingError("source", written, problem + _listed(wordless), remedy)
    count = Counter(map(str.casefold, names))
    alike = [folder for folder, name in zip(folders, names, strict=True) if count[name.casefold()] > 1]
    if alike:
        problem = f"{len(alike)} of {len(folders)} class folders have the name of another in prompts: "
        raise SettingError("source", written, problem + _listed(alike), remedy)
    return names


def _words(name: str) -> str:
    if _CAMEL.fullmatch(name):
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    name = re.sub(
        r"(?<=[^\W\d_][^\W\d_])-(?=[^\W\d_][^\W\d_])", " ", name.replace("/", " ").replace("_", " ")
    )
    return " ".join(name.split())


def _given(base: Path) -> Mapping[str, str] | None:
    text, listed = (base / name for name in NAMES_FILES)
    if listed.is_file():
        try:
            content = json.loads(listed.read_bytes())
            if isinstance(content, dict) and all(isinstance(name, str) for name in content.values()):
                return content
        except (ValueError, RecursionError):
            pass
        problem = "not a JSON object of folders and names"
        raise SettingError("source", str(listed), problem, 'Such as {"001": "golden retriever"}.')
    if not text.is_file():
        return None
    names = {}
    for line in read_lines(text):
        folder, _, name = line.partition("\t") if "\t" in line else line.partition(" ")
        names[folder.strip()] = name.strip()
    return {folder: name for folder, name in names.items() if name}


def _refuse(base: Path, written: str, problem: str, files: Sequence[str]) -> None:
    """Raise SettingError, suggesting folders in `base` that contain class folders."""
    within: dict[str, set[str]] = {}
    for name in files:
        parts = PurePosixPath(name).parts[:-1]
        for depth in range(1, len(parts)):
            within.setdefault("/".join(parts[:depth]), set()).add(parts[depth])
    suitable = [
        folder
        for folder, classes in sorted(within.items(), key=lambda item: (item[0].count("/"), item[0]))
        if len(classes) > 1 and len({split_named(name) for name in classes} - {None}) < 2
    ]
    depth = min((folder.count("/") for folder in suitable), default=0)
    choices = [str(Path(written) / folder) for folder in suitable if folder.count("/") == depth]
    choices.sort(key=lambda choice: split_named(Path(choice).name) == "train")  # held-out splits come first
    remedy = (
        f"Take {' or '.join(choices[:4])}."
        if choices
        else ("Give a folder with a sub-folder of images for each of several classes.")
    )
    raise SettingError("source", written, problem, remedy)


def _listed(names: object) -> str:
    shown = sorted(names)  # type: ignore[call-overload]
    return ", ".join(shown[:4]) + (", ..." if len(shown) > 4 else "")
