"""Opens COCO's own captions: captions_train2017.json, captions_val2017.json."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from workbench.data.decode import BadSample
from workbench.data.source import Opened, PairRows, check_file, clean_captions, folder_of_pictures
from workbench.data.splits import splits_in_names
from workbench.errors import SettingError


def open_coco(
    base: Path, names: list[str], image_folder: Path | None, max_pixels: int, captions_needed: bool = True
) -> Opened:
    """Open the JSONs `names` in `base`. A pair's id is the file name of its image.

    Images are read from `image_folder`. By default they are searched for beside the JSON or, as COCO is
    distributed, in a folder beside the JSON's own (`val2017` beside `annotations`). Several JSONs are splits
    if their names say so.
    """
    splits = splits_in_names(str(base), names, stems=True)
    rows, known = PairRows(), set[str]()
    for position, name in enumerate(names):
        captions = read_coco_captions(base / name, captions_needed=captions_needed)
        folder = image_folder or _folder(base / name, captions)
        for picture, sentences in captions.items():
            with rows.count_rejected(picture):
                if picture in known:
                    raise BadSample("duplicate id")
                known.add(picture)
                relative = os.path.normpath(picture)
                if os.path.isabs(relative) or relative.startswith(".."):
                    raise BadSample("path leaves the image folder")
                path = os.path.join(folder, relative)
                check_file(path)
                usable = clean_captions(sentences, rows.skipped, picture, captions_needed)
                rows.add(picture, usable, splits[position] if splits else None, path)
    return rows.opened(max_pixels, split_from="the names of its files")


def _folder(path: Path, captions: Mapping[str, list[str]]) -> Path:
    above = path.parent.parent if path.parent.name == "annotations" else path.parent
    return folder_of_pictures(list(captions), path.parent, above)


def is_coco(path: Path) -> bool:
    """Whether a JSON holds annotations, as COCO's do."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"images", "annotations"} <= content.keys()


def read_coco_captions(
    path: Path, setting: str = "data.source", captions_needed: bool = True
) -> dict[str, list[str]]:
    """The captions by file name of a COCO captions JSON, pictures in the order of their first annotation.

    Without `captions_needed`, pictures without captions follow. Raises `SettingError`, naming `setting`, for
    other files, such as one of boxes.
    """
    try:
        content = json.loads(path.read_bytes())
        names = {image["id"]: image["file_name"] + "" for image in content["images"]}
        captions: dict[str, list[str]] = {}
        for annotation in content["annotations"]:
            captions.setdefault(names[annotation["image_id"]], []).append(annotation["caption"].strip())
        for name in () if captions_needed else names.values():
            captions.setdefault(name, [])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        problem = f"not a COCO captions JSON ({type(error).__name__}: {error})"
        remedy = "Name captions_train2017.json or captions_val2017.json."
        raise SettingError(setting, str(path), problem, remedy) from error
    return captions
