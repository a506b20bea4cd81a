"""The optimiser, the learning rate, and the length of a run."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from workbench.errors import SettingError
from workbench.models.depth import layer_factors
from workbench.models.dual_encoder import OWN_STUDENT
from workbench.recipe import Recipe
from workbench.recipe.schema import Training
from workbench.training.learner import Learner


def parameter_groups(
    module: nn.Module,
    weight_decay: float,
    multipliers: Mapping[str, float],
    layers: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """AdamW's parameter groups: no weight decay for biases, norms and scales (fewer than two dims), and a
    learning-rate factor per module.

    `multipliers` maps a module of the student (`visual.trunk`) to a factor of the learning rate; the longest
    match counts. `layers` maps names of the student's parameters to a further factor.
    """
    groups: dict[tuple[bool, float], list[Tensor]] = {}
    for name, parameter in module.named_parameters():
        inside = name.removeprefix("student.clip.")
        matches = [prefix for prefix in multipliers if _is_inside(inside, prefix)]
        factor = multipliers[max(matches, key=len)] if matches else 1.0
        factor *= (layers or {}).get(inside, 1.0)
        if parameter.requires_grad:
            groups.setdefault((parameter.ndim >= 2, factor), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": weight_decay if decays else 0.0, "factor": factor}
        for (decays, factor), parameters in groups.items()
    ]


def check_multipliers(student: nn.Module, multipliers: Mapping[str, float]) -> None:
    """Raise SettingError for a learning-rate factor of a module that the student does not have."""
    names = [name for name, _ in student.named_parameters()]
    unknown = [prefix for prefix in multipliers if not any(_is_inside(name, prefix) for name in names)]
    if unknown:
        problem, remedy = "the student has no such modules", f"Use visual or text, for example. {OWN_STUDENT}"
        raise SettingError("training.lr_multipliers", sorted(unknown), problem, remedy)


def _is_inside(parameter: str, module: str) -> bool:
    return parameter == module or parameter.startswith(f"{module}.")


def adamw(learner: Learner, settings: Training) -> torch.optim.AdamW:
    """The optimiser of the recipe's `training` section."""
    decay = settings.layer_decay
    layers = layer_factors(learner.student.clip, decay) if decay else None
    groups = parameter_groups(learner, settings.weight_decay, settings.lr_multipliers, layers)
    return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps)


def clip_gradient(module: nn.Module, limit: float | None) -> Tensor:
    """Scale the gradient down to the norm `limit` (None: never). Returns its norm before that."""
    parameters = [parameter for parameter in module.parameters() if parameter.grad is not None]
    return nn.utils.clip_grad_norm_(parameters, limit or math.inf)


class Length(NamedTuple):
    """The length of a run in steps, and the steps after which it is validated and saved."""

    batch: int
    per_epoch: int
    total: int
    validate_every: int
    checkpoint_every: int

    @classmethod
    def of(cls, recipe: Recipe, readable: int, world: int) -> "Length":
        """The length for this many readable pairs and processes. Raises SettingError if there are too few."""
        check_pairs(recipe, readable, world)
        settings = recipe.training
        batch = min(settings.batch, readable - readable % world)
        per_epoch = readable // batch
        total = settings.steps or math.ceil(settings.epochs * per_epoch)
        return cls(batch, per_epoch, total, settings.validate_every or per_epoch, settings.checkpoint_every)

    def validates_after(self, step: int) -> bool:
        """Whether the student is validated after this many steps."""
        return step % self.validate_every == 0 or step == self.total

    def saves_after(self, step: int) -> bool:
        """Whether a checkpoint is due after this many steps."""
        return step % self.checkpoint_every == 0 or step % self.per_epoch == 0 or step == self.total

    def epochs_done(self, step: int) -> int | None:
        """The number of epochs that end with this step; None in the middle of one."""
        return None if step % self.per_epoch else step // self.per_epoch


def check_pairs(recipe: Recipe, pairs: int, world: int) -> None:
    """Raise SettingError if there are not two pairs to contrast, or not one for each process."""
    if min(recipe.training.batch, pairs - pairs % world) < 2:
        problem = f"it has {pairs} training pairs"
        raise SettingError("data.source", recipe.data.source, problem, "Give two or more")


def schedule(step: int, total: int, warmup: int) -> float:
    """Share of the full learning rate at `step` (from 0): linear warm-up, then half a cosine down to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
