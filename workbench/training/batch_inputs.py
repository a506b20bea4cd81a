"""The inputs of a step: batches of pairs, views of their pictures, the teachers' targets, a seed."""

import math
from collections.abc import Collection, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from workbench.data.false_captions import FalseCaptions, HardNegatives
from workbench.data.load import load_pairs
from workbench.data.loader import Batch, batches
from workbench.data.pairs import Pairs
from workbench.data.source import NoCaptions
from workbench.errors import SettingError
from workbench.evaluation.similarity import pca_floor
from workbench.models.dual_encoder import DualEncoder
from workbench.models.masking import kept_patches, patch_grid
from workbench.models.trainable import trainable_parameters
from workbench.models.transform import random_crop
from workbench.objectives import DistillationLoss
from workbench.objectives.registry import declared_objectives
from workbench.recipe import Recipe
from workbench.targets.build import TrainingTargets
from workbench.targets.false_captions import FalseTargets
from workbench.targets.store import TargetStore
from workbench.training.gradient_shares import gradient_shares
from workbench.training.learner import BatchTargets, Gradient, Inputs
from workbench.training.optimisation import Length
from workbench.training.session import Session

R2_SAMPLE = 20_000  # captions for the estimate of the best possible R^2
SHARES_EVERY = 10  # steps, because the terms' gradients cost as much as the loss


class StudentTransform:
    """Prepares a picture for the student: the view of it in an epoch. Picklable, for loader workers."""

    def __init__(self, recipe: Recipe, student: DualEncoder) -> None:
        self.seed = recipe.seed
        self.scale = recipe.training.augmentation.crop_scale
        self.views = recipe.targets.views
        self.transform = student.transform

    def __call__(self, image: Tensor, epoch: int, row: int) -> Tensor:
        if image.is_floating_point():
            return image  # the feature maps of frozen layers, which saw the whole picture
        # With K cached views the student sees, in turn, the same crops as the teacher.
        return self.transform(
            image, random_crop(self.seed, epoch % self.views if self.views else epoch, row, self.scale)
        )


class TargetLookup:
    """Looks up the inputs of a batch (pictures, tokens, masks) and the teachers' outputs for it."""

    def __init__(
        self, recipe: Recipe, student: DualEncoder, device: torch.device, targets: TrainingTargets
    ) -> None:
        self.recipe = recipe
        self.device = device
        self.size = student.transform.size
        self.teachers = targets.teachers
        self.text = targets.text
        self.cross_modal = targets.cross_modal
        # If the student's text tower is a teacher's and frozen, its embeddings are looked up too.
        self.student_texts = None if trainable_parameters(student)["text"] else targets.student_texts
        self.best_r2 = None
        if self.text is not None and recipe.objectives.embedding:
            some = np.random.default_rng(recipe.seed).permutation(len(self.text.raw))[:R2_SAMPLE]
            self.best_r2 = pca_floor(self.text.embedding(np.sort(some)), student.dim)
        self.false = targets.false
        self.dim = student.dim
        self.captions = targets.captions
        self.patches = math.prod(patch_grid(student)) if recipe.objectives.mfd else 0

    def inputs(self, batch: Batch, epoch: int) -> Inputs:
        """The batch on the device; with masked features, also the patches that a picture keeps in this
        epoch."""
        kept = None
        if self.patches:
            ratio = self.recipe.training.masking.ratio
            kept = self._moved(kept_patches(self.recipe.seed, epoch, batch.rows, self.patches, ratio))
        text = None
        if self.captions == "none":
            text = torch.zeros(len(batch), self.dim, device=self.device)  # no caption to encode
        elif self.student_texts is not None:
            text = self._tensor(self._texts(self.student_texts, batch.caption))
        # Among several processes, one that could read none of its pictures takes part with an empty batch.
        images = batch.images if len(batch) else batch.images.new_empty(0, 3, *self.size)
        inputs = Inputs(self._moved(images), self._moved(batch.tokens), kept, text)
        if batch.false is None or batch.false_tokens is None:
            return inputs
        false: Tensor = batch.false_tokens
        if text is not None and isinstance(self.false, FalseTargets):
            known = np.zeros((len(batch), self.dim), dtype=np.float32)
            known[batch.false >= 0] = self.false.text[batch.false[batch.false >= 0]]
            false = torch.from_numpy(known)
        return inputs._replace(false=self._moved(false), hard=self._tensor(batch.false >= 0))

    def targets(self, batch: Batch, epoch: int) -> BatchTargets:
        """The teachers' outputs for a batch; None for those that the recipe does not need."""
        result = BatchTargets()
        if self.teachers:
            views = self.recipe.targets.views
            view = epoch % views if views else 0
            stores = [teacher.store for teacher in self.teachers]
            images = [store.rows("image", batch.rows, view) for store in stores if "image" in store.columns]
            blank = self.captions == "none"
            texts = [
                self._texts(teacher.store, batch.caption)
                for teacher in self.teachers
                if "text" in teacher.sides or (blank and len(stores) == 1)
            ]
            scales = tuple(teacher.scale for teacher in self.teachers)
            result = BatchTargets(
                self._side_by_side(images),
                self._side_by_side(texts),
                scales if len(scales) > 1 else scales[0],
            )
        if batch.false is not None:
            result = result._replace(hard=self._tensor(batch.false >= 0))
        if self.captions != "all":
            result = result._replace(captioned=self._tensor(batch.caption >= 0))
        if self.cross_modal is not None:
            result = result._replace(cross_modal_target=self._tensor(self.cross_modal[batch.caption]))
        if self.text is not None:
            weights = self.recipe.objectives
            if weights.embedding:
                result = result._replace(text_target=self._tensor(self.text.embedding(batch.caption)))
            if weights.concepts:
                result = result._replace(soft_labels=self._tensor(self.text.soft_labels(batch.caption)))
        return result

    def example(self, student: DualEncoder) -> tuple[Inputs, BatchTargets]:
        """Inputs and targets of two pairs with black pictures."""
        images = torch.zeros(2, 3, *student.transform.size, dtype=torch.uint8)
        pair = np.arange(2)
        captions = np.array({"all": [0, 1], "some": [0, -1], "none": [-1, -1]}[self.captions])
        batch = Batch(images, student.tokenize(["one", "another"]), pair, captions)
        if self.false is not None:
            none = np.full(2, -1)
            batch = replace(batch, false=none, false_tokens=batch.tokens)
        return self.inputs(batch, 0), self.targets(batch, 0)

    def progress(self, step: int, loss: DistillationLoss, gradient: Gradient) -> dict[str, Tensor]:
        """How close the student is to its teachers and, every few steps, where the gradient comes from, as
        tensors on the device.

        Mean cosines (over several teachers too) if the widths agree; for a regression on a language model's
        embeddings, R^2 and the best R^2 of any linear map from the student's width; each term's share of the
        gradient.
        """
        outputs, targets = gradient.outputs, gradient.targets
        result: dict[str, Tensor] = {}
        if step % SHARES_EVERY == 1 and len(loss.weights) > 1:
            shares = gradient_shares(loss, outputs, targets)
            result |= {f"gradient_share/{name}": share for name, share in shares.items()}
        for side, theirs in (("image", targets.teacher_image), ("text", targets.teacher_text)):
            ours, parts = getattr(outputs, f"projected_{side}").float(), loss.compared(side)
            if theirs is None or ours.shape != theirs.shape or (side == "text" and self.captions == "none"):
                continue
            cosines = [F.cosine_similarity(ours[:, part], theirs[:, part]) for part in parts]
            cosine = torch.stack(cosines).mean(0)
            if side == "text" and targets.captioned is not None:
                result["cosine_to_teacher_text"] = (
                    cosine.mul(targets.captioned).sum() / targets.captioned.sum()
                )
            else:
                result[f"cosine_to_teacher_{side}"] = cosine.mean()
        if targets.text_target is not None and self.best_r2 is not None:
            # Targets are standardised over the training captions, so R^2 is relative to predicting 0.
            variance = targets.text_target.square().mean()
            result["embedding_r2"] = 1 - gradient.terms["embedding"] / variance
            result["embedding_r2_best"] = torch.full_like(variance, self.best_r2)
        return result

    def _side_by_side(self, embeddings: list[np.ndarray]) -> Tensor | None:
        """The embeddings of one side by every teacher; None if no teacher has that side."""
        if len(embeddings) > 1:
            return self._tensor(np.concatenate(embeddings, axis=1))
        return self._tensor(embeddings[0]) if embeddings else None

    def _texts(self, store: TargetStore, captions: np.ndarray) -> np.ndarray:
        """A teacher's embeddings of captions by position; zeros at -1, for pictures without a caption."""
        if (captions >= 0).all():
            return store.rows("text", captions)
        width = next(iter(store.columns.values())).shape[-1]
        texts = np.zeros((len(captions), width), dtype=np.float32)
        texts[captions >= 0] = store.rows("text", captions[captions >= 0]) if (captions >= 0).any() else 0
        return texts

    def _tensor(self, values: np.ndarray) -> Tensor:
        return self._moved(torch.from_numpy(values).float())

    def _moved(self, tensor: Tensor) -> Tensor:
        """The tensor on the device. Copies to a GPU start from pinned memory and do not block."""
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)


def open_pairs(recipe: Recipe) -> tuple[Pairs, Pairs]:
    """The training and validation pairs of a recipe, at most `training.validation_pairs` of the latter.

    Raises SettingError if `data.order` does not fit the source, or if an objective needs captions and the
    source has none.
    """
    data = recipe.data
    try:
        pairs = load_pairs(data.source, data.train_split, **recipe.data_options())
    except NoCaptions as error:
        alone = ", ".join(name for name, entry in declared_objectives().items() if entry.images_alone)
        for name in recipe.caption_objectives:
            weight, problem = recipe.objectives.weights()[name], f"it needs captions: {error.problem}"
            remedy = f"Pictures without captions train by {alone} alone. {error.remedy}"
            raise SettingError(f"objectives.{name}", weight, problem, remedy) from error
        raise
    if data.order == "shards" and pairs.shard is None:
        problem = f"the pairs of {data.source} are not in tar shards"
        raise SettingError("data.order", "shards", problem, "shuffled.")
    options = recipe.data_options(train=False) | {"limit": recipe.training.validation_pairs}
    return pairs, load_pairs(data.source, data.validation_split, **options).captioned()


def stream(
    session: Session,
    pairs: Pairs,
    student: DualEncoder,
    length: Length,
    step: int,
    unreadable: Collection[int] = (),
    false: FalseCaptions | None = None,
) -> Iterator[tuple[int, Batch]]:
    """(epoch, this process's part of the batch) of every step from `step` to the last.

    Rows of pictures that are known to be `unreadable` are skipped. `false` captions are the recipe's hard
    negatives.
    """
    recipe = session.recipe
    hard = None if false is None else HardNegatives(false, recipe.training.hard_negatives, recipe.seed)
    loaded = batches(
        pairs,
        StudentTransform(recipe, student),
        student.tokenize,
        batch=length.batch,
        seed=recipe.seed,
        steps=range(step, length.total),
        shard=pairs.shard if recipe.data.order == "shards" else None,
        rank=session.rank,
        world=session.world,
        workers=recipe.data.workers,
        pinned=session.device.type == "cuda",
        exclude=np.array(sorted(unreadable), dtype=np.int64),
        hard=hard,
    )
    for number, batch in enumerate(loaded, step):
        yield number // length.per_epoch, batch


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of a step's dropout. It depends only on seed, step and process, so a resumed run repeats
    it."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> 2)
