"""The regions of every picture and their embeddings, found once: boxes in one store, embeddings in
another."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Unpack

import numpy as np
import torch
from torch import Tensor

from workbench.data.pairs import Pairs
from workbench.models.devices import device_of
from workbench.models.dual_encoder import DualEncoder
from workbench.models.regions.detector import load_proposer, select_regions
from workbench.models.tokens import patch_tokens
from workbench.models.transform import Crop
from workbench.recipe import Recipe
from workbench.targets.cached import Share, cached, readable, say_at_once
from workbench.targets.image_text import Teacher
from workbench.targets.store import TargetStore
from workbench.targets.store_writer import Column

WHOLE = -2  # the class of a whole picture that stands for the regions it has none of
_BOX, _CONFIDENCE, _AREA, _CLASS = slice(0, 4), 4, 5, 6  # columns of a stored region


class PictureRegions(NamedTuple):
    """Regions of some pictures, padded with zeros to the most that one of them has.

    `boxes` are [x0, y0, x1, y1] in shares of the picture, `areas` its share; `classes` -1 where nobody knows,
    `WHOLE` where no box was found and the whole picture stands in.
    """

    embeddings: np.ndarray  # float16 [batch, regions, dim]
    mask: np.ndarray  # bool [batch, regions]
    boxes: np.ndarray  # float32 [batch, regions, 4]
    confidences: np.ndarray  # float32 [batch, regions]
    areas: np.ndarray  # float32 [batch, regions]
    classes: np.ndarray  # int64 [batch, regions]


class RegionTargets:
    """Looks regions up by the row of their picture; `unreadable` are rows of pictures without any, and why.

    `without_box`: the share of the others in which no box was found. `grid`: rows and columns, if the regions
    are the patches of the tower.
    """

    def __init__(self, boxes: TargetStore, embeddings: TargetStore) -> None:
        self.boxes = boxes
        self.embeddings = embeddings
        self.unreadable = boxes.bad_rows["region"]
        grid = boxes.fingerprint["regions"].get("grid")
        self.grid: tuple[int, int] | None = None if grid is None else (grid[0], grid[1])
        first = np.asarray(boxes.column("region"))[:, 0, _CLASS]
        readable = np.isfinite(first)
        self.without_box = float((first[readable] == WHOLE).mean()) if readable.any() else 0.0

    def __repr__(self) -> str:
        pictures = len(self.boxes.column("region"))
        return f"RegionTargets({pictures} pictures, {self.without_box:.1%} without a box)"

    def rows(self, rows: Sequence[int] | np.ndarray) -> PictureRegions:
        """The regions of these pictures; none of an unreadable one."""
        stored = np.nan_to_num(self.boxes.rows("region", rows))
        mask = stored[..., _AREA] > 0
        most = max(1, int(mask.sum(1).max())) if len(mask) else 1
        stored, mask = stored[:, :most], mask[:, :most]
        embeddings = np.nan_to_num(self.embeddings.rows("region", rows)[:, :most])
        return PictureRegions(
            embeddings,
            mask,
            stored[..., _BOX],
            stored[..., _CONFIDENCE],
            stored[..., _AREA],
            stored[..., _CLASS].astype(np.int64),
        )


def region_targets(
    recipe: Recipe, pairs: Pairs, teacher: Teacher, *, device: Any = None, **share: Unpack[Share]
) -> RegionTargets:
    """The regions of all pictures of `pairs` as `recipe.regions` asks, embedded by the teacher's image tower.

    Boxes are clipped to the picture, and the best by confidence x area are kept; a picture without any is its
    own one region. A region is cut out, squashed to the tower's size and normalised like any of its pictures
    (the authors forget mean and deviation). With the proposer "patches" the regions are the cells of the
    tower's last feature map.
    """
    device = device or device_of(recipe)
    settings, model = recipe.regions, teacher.model.to(device)
    batch, name = recipe.targets.batch, f"{pairs.name}-{pairs.split}"
    filling: dict[str, Any] = {"batch": batch, "label": "regions': {} targets", **share}
    if settings.proposer == "patches":
        side = _patch_grid(model)
        limit = side[0] * side[1]
        found_by: dict[str, Any] = {"proposer": "patches", "grid": list(side)}
        proposer = None
    else:
        proposer = load_proposer(
            settings.proposer,
            weights=settings.weights,
            image_size=settings.image_size,
            confidence=settings.confidence,
            overlap=settings.overlap,
            boxes=settings.limit,
            seed=recipe.seed,
            device=device,
        )
        limit, found_by = settings.limit, {**proposer.fingerprint, "limit": settings.limit}

    def propose(rows: slice) -> tuple[np.ndarray, dict[int, str]]:
        values = np.zeros((rows.stop - rows.start, limit, 7), dtype=np.float32)
        pictures, bad = readable(pairs, range(rows.start, rows.stop), recipe.data.workers)
        boxes = [
            None if known is None else np.array(known, dtype=np.float32).reshape(-1, 4)
            for known in (pairs.details(row).get("boxes") for row in pictures)
        ]
        proposed = proposer(list(pictures.values()), boxes, list(pictures)) if proposer else []
        for at, (row, picture) in enumerate(pictures.items()):
            _, height, width = picture.shape
            if proposer is None:
                cells = _cells(side, model.transform.visible(height, width))
                values[row - rows.start] = _stored(cells, np.ones(limit), np.full(limit, -1))
                continue
            chosen = select_regions(proposed[at], height, width, limit)
            if len(chosen.boxes):
                shares = chosen.boxes / np.array([width, height, width, height], dtype=np.float32)
                filled = _stored(shares, chosen.confidences, chosen.classes)
            else:
                filled = _stored(np.array([[0, 0, 1, 1]]), np.ones(1), np.full(1, WHOLE))
            values[row - rows.start, : len(filled)] = filled
        return values, bad

    fingerprint: dict[str, Any] = {"regions": found_by, "data": pairs.fingerprint}
    if proposer is None:
        fingerprint["transform"] = teacher.fingerprint["transform"]
    column = Column((len(pairs), limit, 7), "float32", propose)
    boxes = cached(fingerprint, f"{name}-boxes", {"region": column}, **filling)

    @torch.no_grad()
    def embed(rows: slice) -> tuple[np.ndarray, dict[int, str]]:
        values = np.zeros((rows.stop - rows.start, limit, teacher.dim), dtype=np.float32)
        pictures, bad = readable(pairs, range(rows.start, rows.stop), recipe.data.workers)
        stored = boxes.rows("region", np.arange(rows.start, rows.stop))
        if proposer is None:
            whole = [model.transform(picture) for picture in pictures.values()]
            with model.autocast():
                places = _in_portions(lambda part: patch_tokens(model, part), whole, batch, device)
            for row, tokens in zip(pictures, places, strict=True):
                values[row - rows.start] = tokens
        else:
            crops, owners = [], []
            for row, picture in pictures.items():
                for place in np.flatnonzero(stored[row - rows.start, :, _AREA] > 0):
                    crops.append(model.transform(picture, _crop(stored[row - rows.start, place, _BOX])))
                    owners.append((row - rows.start, place))
            for (row, place), vector in zip(
                owners, _in_portions(model.embed_images, crops, batch, device), strict=True
            ):
                values[row, place] = vector
        return values, bad

    fingerprint = {**fingerprint, "teacher": teacher.fingerprint, "dtype": "float16"}
    column = Column((len(pairs), limit, teacher.dim), "float16", embed)
    embeddings = cached(fingerprint, f"{name}-regions", {"region": column}, **filling)
    regions = RegionTargets(boxes, embeddings)
    say = share.get("say", say_at_once)
    if say and share.get("rank", 0) == 0 and regions.without_box:
        say(f"{regions.without_box:.1%} of the pictures have no box: there the whole picture is the region")
    return regions


def _in_portions(
    encode: Callable[[Tensor], Tensor], pictures: list[Tensor], size: int, device: Any
) -> Sequence[np.ndarray]:
    portions = (pictures[start : start + size] for start in range(0, len(pictures), size))
    return [
        vector
        for portion in portions
        for vector in encode(torch.stack(portion).to(device)).float().cpu().numpy()
    ]


def _stored(boxes: np.ndarray, confidences: np.ndarray, classes: np.ndarray) -> np.ndarray:
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return np.column_stack([boxes, confidences, areas, classes]).astype(np.float32)


def _crop(box: np.ndarray) -> Crop:
    left, top, right, bottom = box.tolist()
    return left, top, right - left, bottom - top


def _patch_grid(model: DualEncoder) -> tuple[int, int]:
    height, width = model.transform.size
    device = model.mean.device
    count = patch_tokens(model, torch.zeros(1, 3, height, width, dtype=torch.uint8, device=device)).shape[1]
    rows = round((count * height / width) ** 0.5)
    return rows, count // rows


def _cells(grid: tuple[int, int], window: Crop) -> np.ndarray:
    """Boxes of a grid over the part of a picture that the tower sees, [rows x columns, 4]."""
    left, top, width, height = window
    columns = left + width * np.linspace(0, 1, grid[1] + 1)
    lines = top + height * np.linspace(0, 1, grid[0] + 1)
    down, across = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    return np.column_stack([columns[across], lines[down], columns[across + 1], lines[down + 1]])
