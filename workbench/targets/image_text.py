"""Runs the teacher over a data set once and keeps what it says in a target store."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.data.decode import BadSample
from workbench.data.load import load_pairs
from workbench.data.pairs import Pairs
from workbench.errors import SettingError
from workbench.models.devices import device_of
from workbench.models.dual_encoder import DualEncoder
from workbench.models.loading import load_dual_encoder
from workbench.models.transform import random_crop
from workbench.recipe import Recipe
from workbench.targets.store import TargetStore, store_folder
from workbench.targets.store_writer import Column, Progress, fill

LINE_EVERY = 20.0  # seconds between two progress lines
LENGTH_GROUPS = 4  # parts of a batch of captions, from the shortest to the longest


class Teacher:
    """A frozen model in evaluation mode, with what its targets are called by: width, scale and
    fingerprint."""

    def __init__(self, model: DualEncoder) -> None:
        # Parameters keep requires_grad and run under no_grad: without it CPU autocast takes a path twelve
        # times slower.
        self.model = model.eval()
        self.dim = model.dim
        self.scale = float(model.scale.detach())
        self.fingerprint = model.fingerprint()


def load_teacher(recipe: Recipe) -> Teacher:
    """The teacher that a recipe names; raises SettingError where it has none."""
    settings = recipe.teacher
    if settings is None:
        raise SettingError("teacher", None, f"the recipe {recipe.name} has no teacher", "Set teacher.model")
    model = load_dual_encoder(
        settings.model,
        settings.pretrained,
        initial_weights=settings.initial_weights,
        allow_download=recipe.allow_download,
        setting="teacher",
    )
    return Teacher(model)


def compute_targets(
    recipe: Recipe,
    pairs: Pairs | None = None,
    teacher: Teacher | None = None,
    *,
    device: Any = None,
    rank: int = 0,
    world: int = 1,
    say: Callable[[str], object] | None = print,
) -> TargetStore:
    """The teacher's unit embeddings of every picture (every view of it) and every caption of the training
    split.

    Returns a store with columns `image` [views, N, D] and `text` [T, D], float16: computed now, continued
    where a killed process stopped, or opened when all is there. `world` processes fill it together. Pictures
    that cannot be read are listed in `bad_rows["image"]`. Raises SettingError for a folder with another
    teacher's or other data's targets.
    """
    device = device_of(recipe) if device is None else device
    pairs = pairs or load_pairs(recipe.data.source, recipe.data.train_split, **recipe.data.options())
    teacher = teacher or load_teacher(recipe)
    model, captions = teacher.model.to(device), pairs.all_captions
    crops = recipe.training.augmentation.crop_scale if recipe.targets.views else (1.0, 1.0)
    views = max(1, recipe.targets.views)

    @torch.no_grad()
    def images(rows: slice) -> tuple[np.ndarray, dict[int, str]]:
        values = np.full((views, rows.stop - rows.start, teacher.dim), np.nan, dtype=np.float32)
        pictures, bad = readable(pairs, rows)
        for view in range(views):
            ready = [
                model.transform(picture, random_crop(recipe.seed, view, row, crops))
                for row, picture in pictures.items()
            ]
            if ready:
                good = np.fromiter(pictures, dtype=np.int64) - rows.start
                values[view, good] = _unit(model.embed_images(torch.stack(ready)))
        return values, bad

    @torch.no_grad()
    def texts(rows: slice) -> tuple[np.ndarray, dict[int, str]]:
        part = captions[rows]
        values = np.empty((len(part), teacher.dim), dtype=np.float32)
        # Captions of one length together: towers that cut padding off then have little of it.
        by_length = np.argsort([len(caption) for caption in part], kind="stable")
        for places in np.array_split(by_length, min(LENGTH_GROUPS, len(part))):
            tokens = model.tokenize([part[place] for place in places])
            values[places] = _unit(model.encode_text(tokens.to(device)))
        return values, {}

    fingerprint: dict[str, Any] = {
        "teacher": teacher.fingerprint,
        "data": pairs.fingerprint,
        "dtype": "float16",
    }
    # Only crops depend on how they are drawn.
    fingerprint["views"] = (
        {"count": views, "seed": recipe.seed, "crop_scale": list(crops)}
        if recipe.targets.views
        else "whole picture"
    )
    folder = recipe.targets.folder or store_folder(fingerprint, f"{pairs.name}-{pairs.split}")
    columns = {
        "image": Column((views, len(pairs), teacher.dim), "float16", images, row_axis=1),
        "text": Column((len(captions), teacher.dim), "float16", texts),
    }
    report = ProgressLines(say) if say and rank == 0 else None
    return fill(
        folder, fingerprint, columns, batch=recipe.targets.batch, rank=rank, world=world, report=report
    )


def readable(pairs: Pairs, rows: slice) -> tuple[dict[int, Tensor], dict[int, str]]:
    """The pictures of these rows that can be read, and why the others cannot, by row."""
    pictures: dict[int, Tensor] = {}
    bad: dict[int, str] = {}
    for row in range(rows.start, rows.stop):
        try:
            pictures[row] = pairs.image(row)
        except BadSample as error:
            bad[row] = error.reason
    return pictures, bad


def _unit(embeddings: Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(embeddings.float(), dim=-1).cpu().numpy()


class ProgressLines:
    """Says now and then how far the filling is."""

    def __init__(self, say: Callable[[str], object], whose: str = "teacher's") -> None:
        self.say = say
        self.whose = whose
        self.last = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        finished = progress.done == progress.total
        if finished and not progress.rows_per_second:
            return  # it was there already
        if finished or time.monotonic() - self.last > LINE_EVERY:
            self.last = time.monotonic()
            left = (
                ""
                if progress.seconds_left is None or finished
                else f", {progress.seconds_left / 60:.1f} min left"
            )
            self.say(
                f"{self.whose} {progress.column} targets: {progress.done} of {progress.total}, "
                f"{progress.rows_per_second:.0f} a second{left}"
            )
