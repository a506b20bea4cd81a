"""Zero-shot sets: images with one label each, class names and prompt templates."""

import os
from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from workbench.data.concepts import article, concepts
from workbench.data.decode import BadSample
from workbench.data.finding import Source, find_files, fits
from workbench.data.opened import FileReader, Rows
from workbench.data.pairs import Pairs
from workbench.data.sources import load_pairs
from workbench.errors import SettingError

PHOTO_TEMPLATES = ("a photo of a {}.", "a picture of a {}.", "{}")
SCENE_TEMPLATES = ("a picture of {}", "a drawing of {}", "{}")  # the names bring their article
_VIEWS = {"names": "objects", "categories": "categories"}


@dataclass(frozen=True)
class Labelled:
    """Images with integer labels; `pairs` holds them with their class name as the caption.

    `labels` [N] index `class_names`, which fit the one `{}` of each of `templates`.
    """

    pairs: Pairs
    labels: npt.NDArray[np.int64]
    class_names: list[str]
    templates: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pairs)

    def image(self, row: int) -> torch.Tensor:
        """The image of a row, uint8 [3, H, W]; raises `BadSample` where it cannot be read."""
        return self.pairs.image(row)

    def prompts(self) -> list[list[str]]:
        """Every template filled with every class name, [classes][templates]."""
        return [[template.format(name) for template in self.templates] for name in self.class_names]


def load_labelled(
    source: Source,
    *,
    max_failed: float = 0.01,
    max_pixels: int = 50_000_000,
    scenes: int = 8000,
    image_size: int = 64,
    seed: int = 0,
) -> Labelled:
    """Open a zero-shot set: a folder with a sub-folder of images a class, or a view of the embedded dataset.

    Classes are the sub-folders in alphabetical order, underscores read as spaces. `scenes:test/names` and
    `scenes:test/categories` (any split) are its scenes of one object, labelled with the object or its
    category; classes are all that the split shows. Raises `SettingError` where there is no such set.
    """
    written = os.fspath(source)
    if written.startswith("scenes:"):
        return _scenes(written, scenes, image_size, seed)
    base, found = find_files(source)
    images = [name for name in found if fits(name) == "folder" and "/" in name]
    if not images:
        remedy = "Give a folder with a sub-folder of images for every class, or scenes:test/names."
        raise SettingError("source", written, "no sub-folders with images there", remedy)
    folders = sorted({name.split("/")[0] for name in images})
    rows, labels, rejected = Rows(), [], Counter[str]()
    for name in images:
        folder = name.split("/")[0]
        try:
            rows.add(name, [_class_name(folder)], None, str(base / name))
            labels.append(folders.index(folder))
        except BadSample as error:
            rejected[error.reason] += 1
    table = rows.table()
    pairs = Pairs(
        table.select(["id", "captions"]),
        FileReader(table["path"], max_pixels),
        name=written,
        split="all",
        rejected=rejected,
        max_failed=max_failed,
    )
    return Labelled(pairs, np.array(labels), [_class_name(folder) for folder in folders], PHOTO_TEMPLATES)


def _class_name(folder: str) -> str:
    return " ".join(folder.replace("_", " ").split())


def _scenes(source: str, count: int, image_size: int, seed: int) -> Labelled:
    split, _, view = source.removeprefix("scenes:").partition("/")
    if view not in _VIEWS:
        raise SettingError(
            "source", source, "no such view of the embedded dataset", f"One of {', '.join(_VIEWS)}."
        )
    pairs = load_pairs("scenes", split, scenes=count, image_size=image_size, seed=seed)
    shown = pairs.table[_VIEWS[view]].to_pylist()
    classes = sorted({name for names in shown for name in names})
    single = [row for row, names in enumerate(shown) if len(names) == 1]
    labels = np.array([classes.index(shown[row][0]) for row in single], dtype=np.int64)
    phrases = {concept.name: concept.phrase for concept in concepts()}
    named = [phrases.get(name) or f"{article(name)} {name}" for name in classes]
    return Labelled(pairs.select(single), labels, named, SCENE_TEMPLATES)
