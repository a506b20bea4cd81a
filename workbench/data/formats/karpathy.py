"""Opens COCO and Flickr30k with the Karpathy split: dataset_coco.json, dataset_flickr30k.json."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from workbench.data.decode import BadSample
from workbench.data.source import FileReader, Opened, Rows, check_file, clean_captions
from workbench.errors import SettingError


def open_karpathy(path: Path, image_folder: Path | None, max_pixels: int) -> Opened:
    """Pairs of a Karpathy JSON, in its splits; `restval` belongs to `train`, as is customary.

    Images lie at `image_folder`/filepath/filename or `image_folder`/filename, the folder being the JSON's own
    unless given. A pair's id is its filename.
    """
    try:
        images = json.loads(path.read_bytes())["images"]
        if not isinstance(images, list):
            raise TypeError("`images` is no list")
    except (ValueError, KeyError, TypeError, OSError) as error:
        problem = f"not a Karpathy JSON, which holds a list under `images` ({type(error).__name__}: {error})"
        remedy = "Name dataset_coco.json or dataset_flickr30k.json, or choose another data.format."
        raise SettingError("data.source", str(path), problem, remedy) from error
    folder = image_folder or path.parent
    rows, lost, skipped, seen = Rows(), Counter[str](), Counter[str](), set[str]()
    for record in images:
        try:
            name, split, image, captions = _fields(record, folder)
            if name in seen:
                raise BadSample("duplicate id")
            seen.add(name)
            rows.add(name, clean_captions(captions, skipped), split, image)
        except BadSample as error:
            lost[error.reason] += 1
    table = rows.table()
    return Opened(table.drop_columns("path"), FileReader(table["path"], max_pixels), lost, skipped)


def _fields(record: Any, folder: Path) -> tuple[str, str, str, list[Any]]:
    try:
        name, split = record["filename"], record["split"]
        captions = [sentence["raw"] for sentence in record["sentences"]]
        relative = os.path.normpath(os.path.join(record.get("filepath", ""), name))
        name, split = name + "", split + ""  # strings, or a TypeError
    except (KeyError, TypeError, AttributeError) as error:
        raise BadSample("damaged record") from error
    if os.path.isabs(relative) or relative.startswith(".."):
        raise BadSample("path leaves the image folder")
    image = os.path.join(folder, relative)
    try:
        check_file(image)
    except BadSample:
        image = os.path.join(folder, os.path.basename(relative))  # Flickr30k, and COCO poured into one folder
        check_file(image)
    return name, "train" if split == "restval" else split, image, captions
