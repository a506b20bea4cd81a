"""What the cross-modal teacher is given of a pair, and what it says about every caption of every picture."""

from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from workbench.data.pairs import Pairs
from workbench.errors import SettingError
from workbench.models.condensed import CondensedTeacher
from workbench.models.cross_modal import CrossModalOutput, CrossModalTeacher, region_weights
from workbench.models.devices import device_of
from workbench.models.dual_encoder import weights_digest
from workbench.models.grounded import GroundedOutput, GroundedTeacher
from workbench.models.relations import PARTS, STRENGTH, joined, picture_relations
from workbench.recipe import Recipe
from workbench.targets.cached import Share, cached
from workbench.targets.caption_tokens import TokenTargets, token_targets
from workbench.targets.image_text import Teacher, compute_targets
from workbench.targets.regions import RegionTargets, region_targets
from workbench.targets.store import TargetStore
from workbench.targets.store_writer import Column

AnyTeacher = CrossModalTeacher | GroundedTeacher | CondensedTeacher
SHAPE = ("target", "clusters", "rotary", "interaction")  # settings of the teacher's module
SETTINGS = (
    *SHAPE,
    "pooling_temperature",
    "heads",
    "weigh_regions",
    "control",
)  # what else its targets depend on


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
        captions = np.asarray(captions, dtype=np.int64)
        rows = self.pairs.image_of_caption[captions]
        return self.of(self.tokens.rows(captions), rows, emptied=emptied, shuffled=shuffled)

    def of(
        self,
        words: tuple[np.ndarray, np.ndarray],
        rows: np.ndarray,
        *,
        emptied: bool = False,
        shuffled: bool = False,
    ) -> dict[str, Tensor | None]:
        """The same of any captions' `words` (tokens and mask) with the pictures in `rows`."""
        settings = self.recipe.cross_modal
        if shuffled or settings.control == "shuffled_regions":
            rows = self.other[rows]
        regions = self.regions.rows(rows)
        tokens, token_mask = (self.tensor(side) for side in words)
        embeddings, region_mask = self.tensor(regions.embeddings), self.tensor(regions.mask)
        if emptied or settings.control == "text_only":
            region_mask = torch.zeros_like(region_mask)
        weights = None
        if settings.weigh_regions:
            sizes = self.tensor(regions.confidences), self.tensor(regions.areas)
            weights = region_weights(*sizes, embeddings, region_mask, tokens, token_mask)
        return {
            "tokens": tokens,
            "token_mask": token_mask,
            "regions": embeddings,
            "region_mask": region_mask,
            "region_weights": weights,
            "region_boxes": self.tensor(regions.boxes),
        }

    def embedding_of(self, captions: np.ndarray) -> Tensor:
        """The frozen text tower's unit embeddings of these captions."""
        return self.tensor(np.asarray(self.text[captions]))

    def tensor(self, array: np.ndarray) -> Tensor:
        """The array on the device, floats in float32."""
        tensor = torch.from_numpy(np.ascontiguousarray(array)).to(self.device)
        return tensor.float() if tensor.is_floating_point() else tensor


def cross_modal_inputs(
    recipe: Recipe, pairs: Pairs, teacher: Teacher, *, device: Any = None, **share: Unpack[Share]
) -> CrossModalInputs:
    """Everything the cross-modal teacher reads about `pairs`, computed now, continued, or opened."""
    device = device or device_of(recipe)
    embeddings = compute_targets(whole_views(recipe), pairs, teacher, device=device, **share)
    regions = region_targets(recipe, pairs, teacher, device=device, **share)
    tokens = token_targets(recipe, pairs, teacher, device=device, **share)
    return CrossModalInputs(recipe, pairs, regions, tokens, embeddings, device)


def new_teacher(recipe: Recipe, dim: int) -> AnyTeacher:
    """An untrained cross-modal teacher as the recipe describes it; SettingError where `dim` and heads do not
    go together."""
    settings = recipe.cross_modal
    try:
        if settings.interaction == "text_conditioned":
            return GroundedTeacher(dim, settings.heads)
        if settings.interaction == "condensed":
            return CondensedTeacher(dim, settings.heads, settings.queries)
        return CrossModalTeacher(
            dim,
            settings.heads,
            settings.pooling_temperature,
            **{name: getattr(settings, name) for name in SHAPE},
        )
    except ValueError as error:
        remedy = (
            "A divisor of the teacher's width; with rotary attention heads of a multiple of 4 dimensions."
        )
        raise SettingError("cross_modal.heads", settings.heads, str(error), remedy) from None


@torch.no_grad()
def look(
    teacher: AnyTeacher, inputs: CrossModalInputs, captions: np.ndarray
) -> CrossModalOutput | GroundedOutput:
    """What the teacher makes of these captions and their pictures, with all maps."""
    return teacher.eval()(**inputs(captions))


def cross_modal_targets(inputs: CrossModalInputs, teacher: AnyTeacher, **share: Unpack[Share]) -> np.ndarray:
    """Z of every caption with its picture, unit vectors [T, D], float16. For a student with relations, those
    of the picture stand beside the unit vector, [T, 3 D]."""
    teacher = teacher.to(inputs.device).eval()
    recipe, settings = inputs.recipe, inputs.recipe.cross_modal
    related = recipe.student.relations is not None

    @torch.no_grad()
    def embed(rows: slice) -> tuple[np.ndarray, dict[int, str]]:
        captions = np.arange(rows.start, rows.stop)
        read = inputs(captions)
        embedded = torch.nn.functional.normalize(teacher(**read).embedding.float(), dim=-1)
        if related and isinstance(teacher, GroundedTeacher):
            sides: Any = (read[name] for name in ("regions", "region_mask", "region_boxes"))
            embedded = joined(embedded, picture_relations(teacher, *sides))
        values = embedded.cpu().numpy()
        picture, unreadable = inputs.pairs.image_of_caption, inputs.regions.unreadable
        return values, {
            caption: unreadable[picture[caption]]
            for caption in range(rows.start, rows.stop)
            if picture[caption] in unreadable
        }

    fingerprint = {
        "weights": weights_digest(teacher.state_dict()),
        "regions": inputs.regions.embeddings.fingerprint,
        "tokens": inputs.tokens.store.fingerprint,
        "cross_modal": {name: getattr(settings, name) for name in SETTINGS},
        "seed": recipe.seed if settings.control == "shuffled_regions" else None,
        "dtype": "float16",
        **({"relations": STRENGTH} if related else {}),
    }
    width = inputs.text.shape[1] * (PARTS if related else 1)
    store = cached(
        fingerprint,
        f"{inputs.pairs.name}-{inputs.pairs.split}-cross-modal",
        {"pair": Column((len(inputs.text), width), "float16", embed)},
        batch=recipe.targets.batch,
        label="cross-modal teacher's {} targets",
        **share,
    )
    return np.asarray(store.column("pair"))


def whole_views(recipe: Recipe) -> Recipe:
    """The recipe with plain views: regions are found in whole pictures."""
    return recipe.model_copy(
        update={"targets": recipe.targets.model_copy(update={"views": 0, "folder": None})}
    )
