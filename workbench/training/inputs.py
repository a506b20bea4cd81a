"""What a step is given besides its batch: a view, the teacher's targets, a seed."""

from collections import Counter
from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from workbench.data.loader import Batch
from workbench.errors import SettingError
from workbench.models.dual_encoder import DualEncoder
from workbench.models.transform import random_crop
from workbench.recipe import Recipe
from workbench.targets.store import TargetStore
from workbench.training.optimisation import Targets


class View:
    """Makes a picture ready for the student: the view that an epoch has of it. Picklable, for loader
    workers."""

    def __init__(self, recipe: Recipe, student: DualEncoder) -> None:
        self.seed = recipe.seed
        self.scale = recipe.training.augmentation.crop_scale
        self.views = recipe.targets.views
        self.transform = student.transform

    def __call__(self, image: Tensor, epoch: int, row: int) -> Tensor:
        # With K cached views the student sees, in turn, the very crops that the teacher saw.
        return self.transform(
            image, random_crop(self.seed, epoch % self.views if self.views else epoch, row, self.scale)
        )


def targets_of(
    store: TargetStore | None, scale: float, batch: Batch, epoch: int, recipe: Recipe, device: torch.device
) -> Targets | None:
    """What the teacher says about a batch; None without a teacher."""
    if store is None:
        return None
    view = epoch % recipe.targets.views if recipe.targets.views else 0
    image, text = store.rows("image", batch.rows, view), store.rows("text", batch.caption)
    return Targets(
        torch.from_numpy(image).float().to(device), torch.from_numpy(text).float().to(device), scale
    )


def check_failures(reasons: Collection[str], pairs: int, recipe: Recipe) -> None:
    """SettingError when more pairs could not be read, for these reasons, than the recipe puts up with."""
    if len(reasons) > recipe.data.max_failed * pairs:
        raise SettingError(
            "data.max_failed",
            recipe.data.max_failed,
            f"{len(reasons)} of {pairs} pairs could not be read: {dict(Counter(reasons))}",
            "Mend them, or raise it",
        )


def cosines_to_teacher(image: Tensor, text: Tensor, targets: Targets | None) -> dict[str, float]:
    """Mean cosine to the teacher's embeddings, where there is a teacher and the widths agree."""
    if targets is None or image.shape[1] != targets.image.shape[1]:
        return {}
    return {
        "cosine_to_teacher_image": float(F.cosine_similarity(image.float(), targets.image).mean()),
        "cosine_to_teacher_text": float(F.cosine_similarity(text.float(), targets.text).mean()),
    }


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of a step's dropout: of seed, step and process alone, so that a resumed run repeats it."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> 2)
