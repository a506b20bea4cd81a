"""Opens zero-shot sets: class folders, ImageNet, CIFAR, AwA2, CUB, and views of the embedded dataset."""

import functools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workbench.data.discovery import Source
from workbench.data.labelled.attribute_sets import locate_awa2, locate_cub, open_awa2, open_cub
from workbench.data.labelled.cifar import locate_cifar, open_cifar
from workbench.data.labelled.class_names import class_of_files, names_of_classes
from workbench.data.labelled.imagenet import locate_imagenet, open_imagenet
from workbench.data.labelled.labels import (
    PHOTO_TEMPLATES,
    Attributes,
    Labelled,
    Listed,
    class_folders,
    open_images,
)
from workbench.data.labelled.scene_labels import VIEWS, scene_labels
from workbench.data.load import load_pairs
from workbench.errors import SettingError
from workbench.files import can_be_path

__all__ = ["KINDS", "Attributes", "Labelled", "load_labelled"]

KINDS = ("awa2", "cub", "cifar10", "cifar100", "imagenet", "folder")
_LOCATE: dict[str, Callable[[Path], Any]] = {
    "awa2": locate_awa2,
    "cub": locate_cub,
    "cifar10": functools.partial(locate_cifar, "cifar10"),
    "cifar100": functools.partial(locate_cifar, "cifar100"),
    "imagenet": locate_imagenet,
}
_CONTENTS = {
    "awa2": "JPEGImages and classes.txt",
    "cub": "images and image_class_labels.txt",
    "cifar10": "cifar-10-batches-py or cifar-10-batches-bin",
    "cifar100": "cifar-100-python or cifar-100-binary",
}


def load_labelled(
    source: Source,
    *,
    splits: str | os.PathLike[str] | None = None,
    max_failed: float = 0.01,
    max_pixels: int = 50_000_000,
    scenes: int = 8000,
    image_size: int = 64,
    seed: int = 0,
) -> Labelled:
    """Open a zero-shot set: a folder as its authors distribute it, or a view of the embedded dataset.

    A folder is recognised by its contents: AwA2 (`JPEGImages`), CUB (`CUB_200_2011`), CIFAR-10 or -100
    (torchvision's files or the binary version), ImageNet (class folders named by WordNet id). The classes of
    any other folder are its sub-folders with images, in alphabetical order. They are named by the words in
    the folders' names, or by a `class_names.txt`. A prefix states the kind: `awa2:PATH`, `cub:PATH`,
    `cifar10:PATH`, `cifar100:PATH`, `imagenet:PATH`, `folder:PATH`. `splits` is the folder of the proposed
    splits of AwA2 and CUB (`xlsa17`), by default in the set's folder or next to it.

    `scenes:test/names` and `scenes:test/categories` (any split) are the scenes of one object of the embedded
    dataset, labelled with the object or its category, with their attributes. The classes are those that the
    split shows. `scenes:test/names@64` has 64 pixels a side, whatever `image_size` is. Raises `SettingError`
    if there is no such set or if more than the share `max_failed` of its images is missing.
    """
    written = os.fspath(source)
    if written.startswith("scenes:"):
        return _scenes(written, scenes, image_size, seed)
    prefix = re.match(rf"({'|'.join(KINDS)}):", written)
    path = Path(written[prefix.end() :] if prefix else written).expanduser()
    if not can_be_path(os.fspath(path)):
        raise SettingError("source", written, "it cannot be the name of a folder", "Name the set's folder.")
    kind = prefix[1] if prefix else _kind(path, written)
    if splits is not None and kind not in ("awa2", "cub"):
        raise SettingError("splits", os.fspath(splits), f"{written} has none", "They are for AwA2 and CUB.")
    if kind == "folder":
        return _folder(path, written, max_pixels, max_failed)
    if kind == "imagenet":
        return open_imagenet(locate_imagenet(path) or path, written, max_pixels, max_failed)
    location = _LOCATE[kind](path)
    if location is None:
        remedy = f"Its folder contains {_CONTENTS[kind]}."
        raise SettingError("source", written, "it does not contain this set", remedy)
    if kind in ("cifar10", "cifar100"):
        base, layout = location
        return open_cifar(base, layout, written)
    open_set = open_awa2 if kind == "awa2" else open_cub
    proposed = None if splits is None else Path(splits).expanduser()
    return open_set(location, written, proposed, max_pixels, max_failed)


def _kind(folder: Path, written: str) -> str:
    """The kind of the set in a folder, by its contents. Raises `SettingError` if there are several sets."""
    kinds = [kind for kind, locate in _LOCATE.items() if locate(folder) is not None]
    if len(kinds) > 1:
        remedy = f"Say which: {', '.join(f'{kind}:{written}' for kind in kinds)}."
        raise SettingError("source", written, f"it contains {' and '.join(kinds)}", remedy)
    return kinds[0] if kinds else "folder"


def _folder(path: Path, written: str, max_pixels: int, max_failed: float) -> Labelled:
    if not path.exists():
        remedy = "A folder with a sub-folder of images for every class, or scenes:test/names."
        raise SettingError("source", written, "no such file or folder", remedy)
    files, _ = class_folders(path)
    if not files:
        remedy = "Give a folder with a sub-folder of images for every class, or scenes:test/names."
        raise SettingError("source", written, "it has no sub-folders with images", remedy)
    classes = class_of_files(path, files, written)
    folders = sorted(set(classes))
    names = names_of_classes(path, folders, written)
    number = {folder: label for label, folder in enumerate(folders)}
    images = [Listed(name, path / name, number[folder]) for name, folder in zip(files, classes, strict=True)]
    pairs, labels, _ = open_images(written, images, names, max_pixels, max_failed)
    return Labelled(pairs, labels, names, PHOTO_TEMPLATES)


def _scenes(source: str, count: int, image_size: int, seed: int) -> Labelled:
    split, _, view = source.removeprefix("scenes:").partition("/")
    view, at, pixels = view.partition("@")
    if at and not pixels.isdigit():
        problem = f"{pixels!r} is not a number of pixels"
        raise SettingError("source", source, problem, "e.g. scenes:test/names@64")
    image_size = int(pixels) if at else image_size
    if view not in VIEWS:
        problem = "no such view of the embedded dataset"
        raise SettingError("source", source, problem, f"One of {', '.join(VIEWS)}.")
    return scene_labels(load_pairs("scenes", split, scenes=count, image_size=image_size, seed=seed), view)
