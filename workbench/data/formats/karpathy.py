"""Opens COCO and Flickr30k with the Karpathy split: dataset_coco.json, dataset_flickr30k.json."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workbench.data.decode import BadSample
from workbench.data.source import Opened, PairRows, check_file, clean_captions, note_unsplit
from workbench.data.splits import splits_in_names
from workbench.errors import SettingError


def open_karpathy(
    base: Path, names: list[str], image_folder: Path | None, max_pixels: int, captions_needed: bool = True
) -> Opened:
    """Open the Karpathy JSONs `names` below `base` with their splits. A pair's id is its filename.

    Images are read from `image_folder`/filepath/filename or `image_folder`/filename. The default folder is
    the JSON's own. With several JSONs (train.json, test.json), a record without a split takes the split that
    its file is named after. If no record has a split, the source has none.
    """
    splits = splits_in_names(str(base), names, stems=True)
    rows, known = PairRows(), set[str]()
    for position, file in enumerate(names):
        path, split_of_file = base / file, splits[position] if splits else None
        with karpathy_records(path) as images:
            if not isinstance(images, list):
                raise TypeError("`images` is not a list")
        for number, record in enumerate(images, 1):
            with rows.count_rejected(_name(record) or f"record {number}"):
                name, split, image, captions = _fields(record, image_folder or path.parent, split_of_file)
                if name in known:
                    raise BadSample("duplicate id")
                known.add(name)
                usable = clean_captions(captions, rows.skipped, name, captions_needed)
                rows.add(name, usable, split, image)
    table = rows.table()
    note_unsplit(table, rows.lost)
    return rows.opened(max_pixels, table, split_from="the Karpathy JSON")


@contextlib.contextmanager
def karpathy_records(path: Path) -> Iterator[Any]:
    """The records of a Karpathy JSON. Errors of reading them become a `SettingError`."""
    try:
        content = json.loads(path.read_bytes())
        if isinstance(content, list):
            problem = "it is a list, not a Karpathy JSON, which holds a list under `images`"
            remedy = "Save it as a table: a .jsonl file with one record a line."
            raise SettingError("data.source", str(path), problem, remedy)
        yield content["images"]
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
        problem = f"not a Karpathy JSON, which holds a list under `images` ({type(error).__name__}: {error})"
        remedy = "Name dataset_coco.json or dataset_flickr30k.json, or choose another data.format."
        raise SettingError("data.source", str(path), problem, remedy) from error


def _name(record: Any) -> str | None:
    name = record.get("filename") if isinstance(record, dict) else None
    return name if isinstance(name, str) else None


def _fields(record: Any, folder: Path, split_of_file: str | None) -> tuple[str, str | None, str, list[Any]]:
    try:
        name, split = record["filename"], record.get("split", split_of_file)
        captions = [sentence["raw"] for sentence in record["sentences"]]
        relative = os.path.normpath(os.path.join(record.get("filepath", ""), name))
        name, split = name + "", split if split is None else split + ""  # strings, or a TypeError
    except (KeyError, TypeError, AttributeError) as error:
        raise BadSample("damaged record") from error
    if os.path.isabs(relative) or relative.startswith(".."):
        raise BadSample("path leaves the image folder")
    image = os.path.join(folder, relative)
    try:
        check_file(image)
    except BadSample:
        image = os.path.join(folder, os.path.basename(relative))  # Flickr30k, or COCO in one folder
        check_file(image)
    return name, split, image, captions
