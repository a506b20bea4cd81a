"""Runs the teacher over a data set once and keeps what it says in a target store."""

from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from workbench.data.load import load_pairs
from workbench.data.pairs import Pairs
from workbench.errors import SettingError
from workbench.files import sha256_of_json
from workbench.models.devices import device_of
from workbench.models.dual_encoder import DualEncoder
from workbench.models.frozen_encoder import (
    PYTHON,
    FrozenEncoder,
    Side,
    is_open_clip,
    load_frozen_encoder,
    wrapped_object,
)
from workbench.models.loading import load_dual_encoder
from workbench.models.text_teacher import default_precision
from workbench.models.transform import random_crop
from workbench.objectives.registry import declared_objectives
from workbench.recipe import Recipe
from workbench.recipe.model_sections import Teacher as Settings
from workbench.recipe.model_sections import WeightedTeacher
from workbench.recipe.teacher_checks import check_given
from workbench.targets.cached import Share, cached, readable
from workbench.targets.store import TargetStore
from workbench.targets.store_writer import Column

LENGTH_GROUPS = 4  # parts of a batch of captions, from the shortest to the longest


class Teacher:
    """A frozen model in evaluation mode, with what its targets are called by: width, fingerprint, and its own
    scale (above 100 too, as SigLIP's) and bias; `sides` are what it gives embeddings of. `name` is that of
    its section in the recipe, whose `settings` may replace the scale."""

    def __init__(
        self, model: DualEncoder | FrozenEncoder, name: str = "teacher", settings: Settings | None = None
    ) -> None:
        # Parameters keep requires_grad and run under no_grad: without it CPU autocast takes a path twelve
        # times slower.
        self.model: Any = model.eval()
        self.name = name
        self.sides: tuple[Side, ...] = model.sides if isinstance(model, FrozenEncoder) else ("image", "text")
        self.dim = model.dim
        own = float(model.scale.detach())
        self.scale = own if settings is None or settings.scale is None else settings.scale
        self.weight = settings.weight if isinstance(settings, WeightedTeacher) else 1.0
        # No objective has a use for it: added to every logit of a softmax, it changes nothing.
        self.bias = model.bias
        self.fingerprint: dict[str, str] = model.fingerprint()
        # Which object it is, None for a model that the recipe names.
        self.object = sha256_of_json(self.fingerprint) if settings and settings.model == PYTHON else None
        if model.precision != "float32":
            self.fingerprint["precision"] = model.precision


def load_teacher(recipe: Recipe, given: Any = None, name: str | None = None) -> Teacher:
    """The teacher that a recipe names, which computes in the training's precision where the device is fast in
    it. `given` is the object that a model `python` stands for. `name` chooses one of several teachers
    (`teachers.1`); None: the first.

    Raises SettingError where there is none, or one of random weights, or where an objective needs a side that
    it lacks.
    """
    check_given(recipe, given)
    named = recipe.named_teachers
    if not named:
        raise SettingError("teacher", None, f"the recipe {recipe.name} has no teacher", "Set teacher.model")
    name = name or next(iter(named))
    settings, half = named[name], recipe.training.precision == default_precision(device_of(recipe))
    if not is_open_clip(settings.model):
        try:
            encoder = (
                wrapped_object(given)
                if settings.model == PYTHON
                else load_frozen_encoder(settings.model, settings.pretrained)
            )
        except SettingError as error:
            setting = error.setting.replace("teacher", name, 1)
            raise SettingError(setting, error.value, error.problem, error.remedy) from error
        check_sides(recipe, encoder, name, settings)
        if half:
            encoder.precision = recipe.training.precision
        return Teacher(encoder, name, settings)
    model = load_dual_encoder(
        settings.model,
        settings.pretrained,
        initial_weights=settings.initial_weights,
        allow_download=recipe.allow_download,
        setting=name,
    )
    if model.weights_from is None and not settings.initial_weights:
        problem = "it has no weights: a folder without a file of them, or a name without `pretrained`"
        remedy = f"Set {name}.pretrained to a tag or a file, or give a folder with weights."
        raise SettingError(f"{name}.model", settings.model, problem, remedy)
    if half:
        model.precision = recipe.training.precision
    return Teacher(model, name, settings)


def check_sides(recipe: Recipe, encoder: FrozenEncoder, name: str, settings: Settings) -> None:
    """SettingError where an objective of the recipe needs embeddings that the teacher does not give."""
    if settings.initial_weights:
        problem = "only models of open_clip start from packaged weights"
        raise SettingError(f"{name}.initial_weights", settings.initial_weights, problem, "Use {}.")
    if recipe.trains == "cross_modal_teacher" or recipe.objectives.cross_modal:
        problem = "a cross-modal teacher needs the tokens of an open_clip model"
        raise SettingError(f"{name}.model", settings.model, problem, "Name a model of open_clip.")
    lacking = next((side for side in ("image", "text") if side not in encoder.sides), None)
    objectives = declared_objectives()
    needing = ", ".join(
        f"objectives.{objective}"
        for objective in recipe.objectives.weights()
        if f"teacher_{lacking}" in objectives[objective].requires and not objectives[objective].either_side
    )
    if lacking and needing:
        problem = f"it gives no embeddings of {lacking}s, which {needing} cannot do without"
        usable = ", ".join(
            objective
            for objective, entry in objectives.items()
            if entry.needs == "teacher"
            and (entry.either_side or f"teacher_{lacking}" not in entry.requires)
            and "cross_modal_target" not in entry.requires
        )
        raise SettingError(f"{name}.model", settings.model, problem, f"It can teach {usable}.")


def compute_targets(
    recipe: Recipe,
    pairs: Pairs | None = None,
    teacher: Teacher | None = None,
    *,
    device: Any = None,
    **share: Unpack[Share],
) -> TargetStore:
    """The teacher's unit embeddings of every picture (every view of it) and every caption of the training
    split.

    Returns a store with columns `image` [views, N, D] and, where there are captions, `text` [T, D], float16;
    of a teacher of one side that column alone. Pictures that cannot be read are listed in
    `bad_rows["image"]`. Raises SettingError for a folder with another teacher's or other data's targets, and
    for a teacher of texts where there are none.
    """
    device = device or device_of(recipe)
    pairs = pairs or load_pairs(recipe.data.source, recipe.data.train_split, **recipe.data_options())
    teacher = teacher or load_teacher(recipe)
    model, captions = teacher.model.to(device), pairs.all_captions
    crops = recipe.training.augmentation.crop_scale if recipe.targets.views else (1.0, 1.0)
    views = max(1, recipe.targets.views)

    def views_of(row: int, picture: Tensor) -> list[Tensor]:
        draws = (random_crop(recipe.seed, view, row, crops) for view in range(views))
        return [model.transform(picture, crop) for crop in draws]

    @torch.no_grad()
    def images(rows: slice) -> tuple[np.ndarray, dict[int, str]]:
        values = np.full((views, rows.stop - rows.start, teacher.dim), np.nan, dtype=np.float32)
        pictures, bad = readable(pairs, range(rows.start, rows.stop), recipe.data.workers, views_of)
        for view in range(views if pictures else 0):
            positions = np.fromiter(pictures, dtype=np.int64) - rows.start
            images = torch.stack([picture[view] for picture in pictures.values()])
            values[view, positions] = _unit(model.embed_images(images))
        return values, bad

    @torch.no_grad()
    def texts(rows: slice) -> tuple[np.ndarray, dict[int, str]]:
        part = captions[rows]
        if isinstance(model, FrozenEncoder):
            return _unit(model.embed_texts(part)), {}
        values = np.empty((len(part), teacher.dim), dtype=np.float32)
        # Captions of one length together: towers that cut padding off then have little of it.
        by_length = np.argsort([len(caption) for caption in part], kind="stable")
        for places in np.array_split(by_length, min(LENGTH_GROUPS, len(part))):
            tokens = model.tokenize([part[place] for place in places])
            with model.autocast():
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
    columns = {}
    if "image" in teacher.sides:
        columns["image"] = Column((views, len(pairs), teacher.dim), "float16", images, row_axis=1)
    if len(captions) and "text" in teacher.sides:
        columns["text"] = Column((len(captions), teacher.dim), "float16", texts)
    if not columns:
        problem = "it gives embeddings of texts alone, and the pictures have no captions"
        model_name = recipe.named_teachers[teacher.name].model
        raise SettingError(f"{teacher.name}.model", model_name, problem, "Name a teacher of pictures.")
    folder = recipe.targets.folder
    return cached(
        fingerprint,
        f"{pairs.name}-{pairs.split}",
        columns,
        batch=recipe.targets.batch,
        label=f"{teacher.name}'s {{}} targets",
        folder=Path(folder, teacher.name) if folder and len(recipe.named_teachers) > 1 else folder,
        **share,
    )


def _unit(embeddings: Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(embeddings.float(), dim=-1).cpu().numpy()
