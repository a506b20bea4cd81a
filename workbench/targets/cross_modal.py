"""What the cross-modal teacher is given of a pair, and what it says about every caption of every picture."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.data.pairs import Pairs
from workbench.errors import SettingError
from workbench.models.cross_modal import CrossModalOutput, CrossModalTeacher, region_weights
from workbench.models.devices import device_of
from workbench.models.dual_encoder import weights_digest
from workbench.recipe import Recipe
from workbench.targets.caption_tokens import TokenTargets, token_targets
from workbench.targets.image_text import ProgressLines, Teacher, compute_targets
from workbench.targets.regions import RegionTargets, region_targets
from workbench.targets.store import TargetStore, store_folder
from workbench.targets.store_writer import Column, fill

PROBES: dict[str, dict[str, bool]] = {
    "whole": {},
    "emptied": {"emptied": True},
    "shuffled": {"shuffled": True},
}


class CrossModalInputs:
    """Arguments of a `CrossModalTeacher` by caption of `pairs`, from the stores; `text` [T, D] are the frozen
    tower's embeddings of the captions, which the teacher's are matched with."""

    def __init__(
        self,
        recipe: Recipe,
        pairs: Pairs,
        regions: RegionTargets,
        tokens: TokenTargets,
        embeddings: TargetStore,
        device: Any = "cpu",
    ) -> None:
        self.recipe = recipe
        self.pairs = pairs
        self.regions = regions
        self.tokens = tokens
        self.text = embeddings.column("text")
        self.device = device
        # Every picture gets another's regions.
        order = np.random.default_rng([recipe.seed, len(pairs)]).permutation(len(pairs))
        self.other = np.empty(len(pairs), dtype=np.int64)
        self.other[order] = np.roll(order, 1)

    def __call__(
        self, captions: np.ndarray, *, emptied: bool = False, shuffled: bool = False
    ) -> dict[str, Tensor | None]:
        """Tokens of these captions and regions of their pictures, padded and masked.

        `emptied` takes the regions away and `shuffled` gives each picture another's, as the recipe's control
        may do anyway.
        """
        settings = self.recipe.cross_modal
        captions = np.asarray(captions, dtype=np.int64)
        rows = self.pairs.image_of_caption[captions]
        if shuffled or settings.control == "shuffled_regions":
            rows = self.other[rows]
        found = self.regions.rows(rows)
        tokens, token_mask = (self._tensor(side) for side in self.tokens.rows(captions))
        embeddings, region_mask = self._tensor(found.embeddings), self._tensor(found.mask)
        if emptied or settings.control == "text_only":
            region_mask = torch.zeros_like(region_mask)
        weights = None
        if settings.weigh_regions:
            sizes = self._tensor(found.confidences), self._tensor(found.areas)
            weights = region_weights(*sizes, embeddings, region_mask, tokens, token_mask)
        return {
            "tokens": tokens,
            "token_mask": token_mask,
            "regions": embeddings,
            "region_mask": region_mask,
            "region_weights": weights,
            "region_boxes": self._tensor(found.boxes),
        }

    def embedding_of(self, captions: np.ndarray) -> Tensor:
        """The frozen text tower's unit embeddings of these captions."""
        return self._tensor(np.asarray(self.text[captions]))

    def _tensor(self, array: np.ndarray) -> Tensor:
        made = torch.from_numpy(np.ascontiguousarray(array)).to(self.device)
        return made.float() if made.is_floating_point() else made


def cross_modal_inputs(
    recipe: Recipe,
    pairs: Pairs,
    teacher: Teacher,
    *,
    device: Any = None,
    rank: int = 0,
    world: int = 1,
    say: Callable[[str], object] | None = print,
) -> CrossModalInputs:
    """Everything the cross-modal teacher reads about `pairs`, computed now, continued, or opened."""
    device = device_of(recipe) if device is None else device
    shared: dict[str, Any] = {"device": device, "rank": rank, "world": world, "say": say}
    embeddings = compute_targets(whole_views(recipe), pairs, teacher, **shared)
    regions = region_targets(recipe, pairs, teacher, **shared)
    tokens = token_targets(recipe, pairs, teacher, **shared)
    return CrossModalInputs(recipe, pairs, regions, tokens, embeddings, device)


def new_teacher(recipe: Recipe, dim: int) -> CrossModalTeacher:
    """An untrained cross-modal teacher as the recipe describes it; SettingError where `dim` and heads do not
    go together."""
    settings = recipe.cross_modal
    try:
        return CrossModalTeacher(
            dim,
            settings.heads,
            settings.pooling_temperature,
            target=settings.target,
            clusters=settings.clusters,
            rotary=settings.rotary,
            interaction=settings.interaction,
        )
    except ValueError as error:
        remedy = (
            "A divisor of the teacher's width; with rotary attention heads of a multiple of 4 dimensions."
        )
        raise SettingError("cross_modal.heads", settings.heads, str(error), remedy) from None


@torch.no_grad()
def look(teacher: CrossModalTeacher, inputs: CrossModalInputs, captions: np.ndarray) -> CrossModalOutput:
    """What the teacher makes of these captions and their pictures, with all maps."""
    return teacher.eval()(**inputs(captions))


def cross_modal_targets(
    inputs: CrossModalInputs,
    teacher: CrossModalTeacher,
    *,
    rank: int = 0,
    world: int = 1,
    say: Callable[[str], object] | None = print,
) -> np.ndarray:
    """Z of every caption with its picture, unit vectors [T, D], float16.

    Computed now, continued where a killed process stopped, or opened when all is there.
    """
    teacher = teacher.to(inputs.device).eval()
    recipe, settings = inputs.recipe, inputs.recipe.cross_modal

    @torch.no_grad()
    def find(rows: slice) -> tuple[np.ndarray, dict[int, str]]:
        captions = np.arange(rows.start, rows.stop)
        embedded = teacher(**inputs(captions)).embedding
        unit = torch.nn.functional.normalize(embedded.float(), dim=-1).cpu().numpy()
        lost = inputs.regions.unreadable
        reasons = {
            int(caption): lost[int(row)]
            for caption, row in zip(captions, inputs.pairs.image_of_caption[captions], strict=True)
            if int(row) in lost
        }
        return unit, reasons

    fingerprint = {
        "weights": weights_digest(teacher.state_dict()),
        "regions": inputs.regions.embeddings.fingerprint,
        "tokens": inputs.tokens.store.fingerprint,
        "cross_modal": {
            "pooling_temperature": settings.pooling_temperature,
            "target": settings.target,
            "clusters": settings.clusters,
            "rotary": settings.rotary,
            "interaction": settings.interaction,
            "heads": settings.heads,
            "weigh_regions": settings.weigh_regions,
            "control": settings.control,
        },
        "seed": recipe.seed if settings.control == "shuffled_regions" else None,
        "dtype": "float16",
    }
    store = fill(
        store_folder(fingerprint, f"{inputs.pairs.name}-{inputs.pairs.split}-cross-modal"),
        fingerprint,
        {"pair": Column(inputs.text.shape, "float16", find)},
        batch=recipe.targets.batch,
        rank=rank,
        world=world,
        report=ProgressLines(say, "cross-modal teacher's") if say and rank == 0 else None,
    )
    return np.asarray(store.column("pair"))


def whole_views(recipe: Recipe) -> Recipe:
    """The recipe with plain views: regions are found in whole pictures."""
    return recipe.model_copy(
        update={"targets": recipe.targets.model_copy(update={"views": 0, "folder": None})}
    )
