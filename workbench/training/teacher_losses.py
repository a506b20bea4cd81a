"""The loss of a cross-modal teacher, the captions of an epoch, and the probes of a validation."""

import numpy as np
import torch

from workbench.data.caption_columns import caption_choice
from workbench.data.pairs import Pairs
from workbench.errors import SettingError
from workbench.evaluation.probes.grounding import choices
from workbench.evaluation.probes.leak_probe import leak_probe
from workbench.evaluation.probes.pointing import pointing_accuracy
from workbench.objectives import contrastive_loss
from workbench.recipe import Recipe
from workbench.targets.cross_modal import AnyTeacher, CrossModalInputs
from workbench.targets.image_text import Teacher
from workbench.training.grounded import GroundedLosses, grounded_losses

PROBED = 1000  # captions, one a picture, that a validation uses


class TeacherLosses:
    """The losses of a batch of pictures and of held-out captions, for both kinds of teacher."""

    def __init__(
        self, recipe: Recipe, inputs: CrossModalInputs, held_out: CrossModalInputs, frozen: Teacher
    ) -> None:
        self.recipe, self.inputs, self.held_out = recipe, inputs, held_out
        self.grounded: GroundedLosses | None = None
        if recipe.cross_modal.interaction == "text_conditioned":
            self.grounded = grounded_losses(recipe, inputs, held_out, frozen)

    def __call__(self, teacher: AnyTeacher, rows: np.ndarray, epoch: int) -> torch.Tensor:
        if self.grounded is not None:
            return self.grounded.learned(teacher, rows, epoch)
        return _loss(
            self.recipe, teacher, self.inputs, *epoch_captions(self.recipe, self.inputs.pairs, rows, epoch)
        )

    @torch.no_grad()
    def of_held_out(self, teacher: AnyTeacher, batch: int) -> float | None:
        """The mean over batches of held-out pictures. None if there is no batch of at least two."""
        if self.grounded is None:
            return validation_loss(self.recipe, teacher, self.held_out, batch)
        rows = _paired(self.recipe, self.held_out.pairs, self.held_out)[:PROBED]
        parts = _whole_batches(rows, batch)
        losses = [float(self.grounded.held_out(teacher.eval(), rows[part], 0)) for part in parts]
        return float(np.mean(losses)) if losses else None


def validation_scores(
    teacher: AnyTeacher,
    held_out: CrossModalInputs,
    frozen: Teacher,
    captions: np.ndarray,
    losses: TeacherLosses,
    batch: int,
) -> dict[str, float]:
    recalls = leak_probe(teacher, held_out, captions)
    scores = {f"recall_of_z_{name}": value for name, value in recalls.items()}
    pointing = pointing_accuracy(teacher, held_out, frozen.model, captions)
    if pointing is not None:
        scores |= {
            "pointing_accuracy": pointing.accuracy,
            "pointing_chance": pointing.chance,
            "pointing_by_weight": pointing.by_weight,
            "pointing_covered": pointing.covered,
        }
    if losses.grounded is not None:
        told_apart = choices(teacher, held_out, losses.grounded.judged)
        scores |= {name: swap.accuracy for name, swap in told_apart.items()}
    loss = losses.of_held_out(teacher, batch)
    return ({} if loss is None else {"loss": loss}) | scores


@torch.no_grad()
def validation_loss(
    recipe: Recipe, teacher: AnyTeacher, held_out: CrossModalInputs, batch: int
) -> float | None:
    """The mean loss over batches of held-out pictures. The first caption is read, and matched with itself or,
    if `leak_free`, with the second. None if there is no batch of at least two with the captions needed."""
    pairs = held_out.pairs
    rows = _paired(recipe, pairs, held_out)[:PROBED]
    read = pairs.first_caption[rows]
    matched = read if recipe.cross_modal.caption_pairing == "same" else read + 1
    teacher.eval()
    losses = [
        float(_loss(recipe, teacher, held_out, read[p], matched[p])) for p in _whole_batches(rows, batch)
    ]
    return float(np.mean(losses)) if losses else None


def _whole_batches(rows: np.ndarray, batch: int) -> list[slice]:
    """Full batches of at least two. A smaller rest is dropped, because the loss grows with the batch."""
    batch = min(batch, len(rows))
    if batch < 2:
        return []
    return [slice(start, start + batch) for start in range(0, len(rows) - batch + 1, batch)]


def _paired(recipe: Recipe, pairs: Pairs, inputs: CrossModalInputs) -> np.ndarray:
    rows = np.setdiff1d(np.arange(len(pairs)), np.array(list(inputs.regions.unreadable), dtype=np.int64))
    if recipe.cross_modal.caption_pairing == "leak_free":
        rows = rows[np.diff(pairs.first_caption)[rows] > 1]
    return rows


def usable_rows(recipe: Recipe, pairs: Pairs, inputs: CrossModalInputs) -> np.ndarray:
    """The rows of readable pictures with, if they are needed, two captions."""
    rows = _paired(recipe, pairs, inputs)
    if len(rows) < 2:
        problem = f"it leaves {len(rows)} of {len(pairs)} pictures to learn from"
        remedy = "same, or pictures of several captions"
        raise SettingError("cross_modal.caption_pairing", recipe.cross_modal.caption_pairing, problem, remedy)
    return rows


def epoch_captions(
    recipe: Recipe, pairs: Pairs, rows: np.ndarray, epoch: int
) -> tuple[np.ndarray, np.ndarray]:
    """The captions of each picture in this epoch: the one that is read, and the one that is matched."""
    read = np.array([caption_choice(pairs, int(row), recipe.seed, epoch) for row in rows])
    if recipe.cross_modal.caption_pairing == "same":
        return read, read
    first = pairs.first_caption[rows]
    count = pairs.first_caption[rows + 1] - first
    step = 1 + (rows + epoch) % (count - 1)
    return read, first + (read - first + step) % count


def _loss(
    recipe: Recipe,
    teacher: AnyTeacher,
    inputs: CrossModalInputs,
    read: np.ndarray,
    matched: np.ndarray,
) -> torch.Tensor:
    scale = 1 / recipe.cross_modal.temperature
    return contrastive_loss(teacher(**inputs(read)).embedding, inputs.embedding_of(matched), scale)
