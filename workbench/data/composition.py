"""Opens the published sets of hard captions: SugarCrepe, ARO and Winoground."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from workbench.data.decode import BadSample, clean_caption
from workbench.data.pairs import Pairs
from workbench.data.source import (
    IMAGE_EXTENSIONS,
    FileReader,
    PairRows,
    Rejected,
    check_file,
    folder_of_pictures,
)
from workbench.errors import SettingError
from workbench.files import sha256_of_json

Box = tuple[int, int, int, int]  # x, y, width and height in pixels
SETTING = "evaluation.composition"
ORDER_CASES = (
    "Save the test cases of ARO's COCO_Order or Flickr30k_Order, a list of {image, caption_options} whose "
    "first option is the caption: json.dump(dataset.test_cases, file)."
)
PUBLISHED = (
    "Give SugarCrepe's folder or one of its JSON files, ARO's visual_genome_relation.json or "
    "visual_genome_attribution.json, the test cases of its COCO or Flickr order, or Winoground's "
    "examples.jsonl."
)


class Item(NamedTuple):
    """One question. With one picture: which of `captions` is true of its part `box` (the first is). With two
    pictures: which of two captions belongs to which picture."""

    pictures: tuple[str, ...]
    captions: tuple[str, ...]
    group: str = ""  # the group that ARO's macro accuracy averages over
    box: Box | None = None


def _sugar_crepe(record: Mapping[str, Any]) -> Item:
    if "caption2" in record:
        raise BadSample("two true captions (SugarCrepe++)")
    return Item((record["filename"],), (record["caption"], record["negative_caption"]))


def _relation(record: Mapping[str, Any]) -> Item:
    return _visual_genome(record, record["relation_name"])


def _attribution(record: Mapping[str, Any]) -> Item:
    first, second = record["attributes"]
    return _visual_genome(record, f"{first}_{second}")


def _visual_genome(record: Mapping[str, Any], group: str) -> Item:
    captions = record["true_caption"], record["false_caption"]
    x, y, width, height = (int(record[f"bbox_{side}"]) for side in "xywh")
    return Item((record["image_path"],), captions, group, (x, y, width, height))


def _order(record: Mapping[str, Any]) -> Item:
    true, *shuffled = (clean_caption(text) for text in record["caption_options"])
    # Shuffling may leave a short caption unchanged, which then is no wrong answer.
    return Item((record["image"],), (true, *(text for text in shuffled if text != true)))


def _winoground(record: Mapping[str, Any]) -> Item:
    return Item((record["image_0"], record["image_1"]), (record["caption_0"], record["caption_1"]))


# The fields of a record -> the layout, and its reader. Layouts with more fields come first.
_LAYOUTS: dict[tuple[str, ...], tuple[str, Callable[[Mapping[str, Any]], Item]]] = {
    ("image_0", "image_1", "caption_0", "caption_1"): ("winoground", _winoground),
    ("image_path", "true_caption", "false_caption", "relation_name"): ("relation", _relation),
    ("image_path", "true_caption", "false_caption", "attributes"): ("attribution", _attribution),
    ("image", "caption_options"): ("order", _order),
    ("filename", "caption", "negative_caption"): ("sugar_crepe", _sugar_crepe),
}


@dataclass(frozen=True)
class Choices:
    """The questions of one layout, with their pictures.

    `pairs` holds every picture, or part of a picture, once, with all captions asked about it. For question n,
    `images[n]` holds the rows of its one or two pictures, `captions[n]` its captions, `categories[n]` the
    stem of its file and `groups[n]` its group in ARO's macro accuracy.
    """

    layout: str
    pairs: Pairs
    images: np.ndarray
    captions: list[tuple[str, ...]]
    categories: list[str]
    groups: list[str]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of pictures and questions, as hex."""
        questions = [self.images.tolist(), self.captions, self.categories, self.groups]
        return sha256_of_json([self.pairs.fingerprint, questions])


def find_layouts(source: str | os.PathLike[str]) -> dict[Path, str]:
    """The layouts, by file, of the published files in a file or folder (or in its sub-folder `data`).

    Layouts are sugar_crepe, relation, attribution, order and winoground. Raises `SettingError` if there is no
    such file.
    """
    path = Path(source).expanduser()
    if not path.exists():
        raise SettingError(SETTING, os.fspath(source), "no such file or folder", PUBLISHED)
    if path.is_file():
        records = _records(path, os.fspath(source))
        if (layout := _layout(records)) is None:
            fields = next((sorted(record) for record in records if isinstance(record, dict)), [])
            problem = f"its records have no known layout (their fields: {', '.join(fields) or 'none'})"
            remedy = ORDER_CASES if {"image", "caption"} <= set(fields) else PUBLISHED
            raise SettingError(SETTING, os.fspath(source), problem, remedy)
        return {path: layout}
    for folder in (path, path / "data"):
        layouts, damaged = {}, []
        for file in sorted(file for end in ("json", "jsonl") for file in folder.glob(f"[!.]*.{end}")):
            try:
                layouts[file] = _layout(_records(file, os.fspath(source)))
            except SettingError as error:
                damaged.append(error.problem)
        if known := {file: layout for file, layout in layouts.items() if layout is not None}:
            if damaged:  # perhaps a category of the set
                raise SettingError(SETTING, os.fspath(source), damaged[0], "Replace or remove that file.")
            return known
    raise SettingError(SETTING, os.fspath(source), "it holds no published file", PUBLISHED)


def open_choices(
    files: Sequence[Path],
    layout: str,
    entry: str,
    image_folder: Path | None = None,
    max_pixels: int = 50_000_000,
    max_failed: float = 0.01,
) -> Choices:
    """Open the questions of files of one layout, in order. Errors call the source `entry`.

    Pictures are read from `image_folder`. By default they are searched for beside the files, and in folders
    up to two levels below the files' folder or its parent. Raises `SettingError` if no question is usable or
    if more than the share `max_failed` is unusable.
    """
    read = next(reader for name, reader in _LAYOUTS.values() if name == layout)
    lost = Rejected()
    questions: list[tuple[str, Item]] = []
    for file in files:
        for number, record in enumerate(_records(file, entry), 1):
            try:
                questions.append((file.stem, _checked(read, record)))
            except BadSample as error:
                lost.note(error.reason, f"{file.name} {number}")
    sample = [item for _, item in questions[:: len(questions) // 20 + 1]]
    folder = image_folder or _image_folder(files[0].parent, sample)
    captions_of: dict[tuple[str, Box | None], list[str]] = {}
    row_of: dict[tuple[str, Box | None], int] = {}
    usable: list[tuple[str, Item, list[int]]] = []
    for category, item in questions:
        try:
            paths = [_path(folder, name) for name in item.pictures]
        except BadSample as error:
            lost.note(error.reason, item.pictures[0])
            continue
        keys = [(path, item.box) for path in paths]
        usable.append((category, item, [row_of.setdefault(key, len(row_of)) for key in keys]))
        for place, key in enumerate(keys):
            own = item.captions if len(keys) == 1 else item.captions[place : place + 1]
            captions_of.setdefault(key, []).extend(own)
    _check_losses(entry, len(usable), lost, max_failed)
    return Choices(
        layout,
        _pairs(captions_of, folder, entry, lost, max_pixels, max_failed),
        np.array([rows for _, _, rows in usable], dtype=np.int64),
        [item.captions for _, item, _ in usable],
        [category for category, _, _ in usable],
        [item.group for _, item, _ in usable],
    )


@dataclass(frozen=True)
class PartReader:
    """Reads the part of a picture that a question is about."""

    whole: FileReader
    boxes: list[Box | None]

    def __call__(self, row: int) -> torch.Tensor:
        image, box = self.whole(row), self.boxes[row]
        if box is None:
            return image
        x, y, width, height = box
        part = image[:, max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)]
        if not part.numel():
            raise BadSample("damaged record")
        return part


def _pairs(
    captions_of: Mapping[tuple[str, Box | None], list[str]],
    folder: Path,
    entry: str,
    lost: Rejected,
    max_pixels: int,
    max_failed: float,
) -> Pairs:
    rows = PairRows()
    for (path, box), captions in captions_of.items():
        part = "" if box is None else f"@{','.join(map(str, box))}"
        rows.add(f"{os.path.relpath(path, folder)}{part}", captions, None, path)
    opened = rows.opened(max_pixels)
    table = opened.table.drop_columns("split").append_column("digest", opened.read.digests(True))
    reader = PartReader(opened.read, [box for _, box in captions_of])
    return Pairs(table, reader, name=entry, split="all", rejected=lost, max_failed=max_failed)


def _check_losses(entry: str, kept: int, lost: Rejected, max_failed: float) -> None:
    if kept and lost.total() <= max_failed * (kept + lost.total()):
        return
    problem = (
        f"{lost.total()} of {kept + lost.total()} questions cannot be used ({lost.described() or 'none'})"
    )
    remedy = f"Add what is missing, or raise data.max_failed (now {max_failed:g})."
    if not kept:
        remedy = "At least one question must be usable."
    if "missing file" in lost:
        remedy += " SOURCE@FOLDER names the folder of the pictures."
    raise SettingError(SETTING, entry, problem, remedy)


def _records(path: Path, source: str) -> list[Any]:
    """The records of a JSON list or object, or of a JSON-lines file. Raises SettingError for others."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in text.split("\n") if line.strip()]
        content = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        problem = f"{path.name} cannot be read ({type(error).__name__}: {error})"
        raise SettingError(SETTING, source, problem, PUBLISHED) from error
    return (
        list(content.values()) if isinstance(content, dict) else content if isinstance(content, list) else []
    )


def _layout(records: Sequence[Any]) -> str | None:
    fields = [record.keys() for record in records if isinstance(record, dict)]
    layouts = _LAYOUTS.items()
    return next((name for known, (name, _) in layouts if any(set(known) <= own for own in fields)), None)


def _checked(read: Callable[[Mapping[str, Any]], Item], record: Any) -> Item:
    """The question of a record. Raises `BadSample` if the record is damaged or leaves no choice."""
    try:
        item = read(record)
        pictures = tuple(name + "" for name in item.pictures)  # strings, or a TypeError
    except BadSample:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise BadSample("damaged record") from error
    captions = tuple(clean_caption(caption) for caption in item.captions)
    if len(captions) < 2:
        raise BadSample("no caption")
    return item._replace(pictures=pictures, captions=captions)


def _image_folder(folder: Path, items: Sequence[Item]) -> Path:
    """The folder of the pictures of questions whose file is in `folder`."""
    names = [os.path.normpath(name) for item in items for name in item.pictures]
    names = [name for name in names if not name.startswith("..")]
    with_endings = [name if Path(name).suffix else f"{name}.png" for name in names]
    above = (folder.parent, folder.parent.parent) if folder.name == "data" else (folder.parent,)
    return folder_of_pictures(with_endings, folder, *above)


def _path(folder: Path, name: str) -> str:
    """The file of a picture, by its name, its name with an extension, or its name without folders."""
    relative = os.path.normpath(name)
    if os.path.isabs(relative) or relative.startswith(".."):
        raise BadSample("path leaves the image folder")
    for known in dict.fromkeys((relative, os.path.basename(relative))):
        for ending in ("", *sorted(IMAGE_EXTENSIONS)):
            if os.path.isfile(path := os.path.join(folder, f"{known}{ending}")):
                return path
    check_file(os.path.join(folder, relative))
    raise BadSample("missing file")
