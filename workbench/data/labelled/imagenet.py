"""Opens ImageNet-1k or a part of it: class folders by WordNet id, names and templates from open_clip."""

import os
import re
from pathlib import Path

from workbench.data.labelled.labels import Labelled, Listed, class_folders, open_images
from workbench.errors import SettingError

CLASSES = 1000
_WORDNET_ID = re.compile(r"n[0-9]{8}")


def locate_imagenet(folder: Path) -> Path | None:
    """The folder, or its sub-folder `val`, if all its sub-folders are named by WordNet ids; otherwise
    None."""
    for base in (folder, folder / "val"):
        _, folders, _ = next(os.walk(base), ("", [], []))
        names = [name for name in folders if not name.startswith(".")]
        if names and all(_WORDNET_ID.fullmatch(name) for name in names):
            return base
    return None


def open_imagenet(base: Path, source: str, max_pixels: int, max_failed: float) -> Labelled:
    """Open ImageNet: one class a folder, in ImageNet's order, with open_clip's names.

    A folder names its class by a WordNet id ("n01440764", "n01440764_tench"). Alternatively all 1000 folders
    are numbered in ImageNet's order. Raises `SettingError` for anything else, because the alphabetical order
    of names is not ImageNet's and would give wrong labels. Names and the 80 templates are those of Radford et
    al. 2021. Two names each belong to two classes ("missile", "sunglasses"), which cannot be distinguished;
    `zero_shot_metrics` documents how such ties count.
    """
    import open_clip

    files, folders = class_folders(base)
    class_of = _classes(base, folders)
    classes = sorted(class_of.values())
    images = [Listed(name, base / name, classes.index(class_of[name.split("/")[0]])) for name in files]
    names = [open_clip.IMAGENET_CLASSNAMES[number] for number in classes]
    pairs, labels, _ = open_images(source, images, names, max_pixels, max_failed)
    templates = tuple(template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES)
    return Labelled(pairs, labels, names, templates)


def _classes(base: Path, folders: list[str]) -> dict[str, int]:
    """The class number, 0 to 999, of every folder."""
    from timm.data import ImageNetInfo

    number = {name: index for index, name in enumerate(ImageNetInfo("imagenet-1k").label_names())}
    ids = {folder: match[0] if (match := _WORDNET_ID.search(folder)) else "" for folder in folders}
    unknown = [folder for folder, identity in ids.items() if identity not in number]
    if folders and not unknown and len(set(ids.values())) == len(ids):
        return {folder: number[identity] for folder, identity in ids.items()}
    if len(folders) == CLASSES and all(folder.isascii() and folder.isdigit() for folder in folders):
        return {folder: index for index, folder in enumerate(sorted(folders, key=int))}
    problem = "two folders are of one class" if folders else f"of {CLASSES} classes none is there"
    if unknown:
        problem = f"{unknown[0]!r} does not say which class it is"
    remedy = (
        f"Name class folders by WordNet id, such as n01440764, or number all {CLASSES} of them; "
        f"there are {len(folders)} folders with images. Folders named in words open without 'imagenet:'."
    )
    raise SettingError("source", str(base), problem, remedy)
