"""The losses of the grounded cross-modal teacher: all pictures and captions of a batch, and captions that are
nearly true."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.data.caption_columns import caption_choice
from workbench.evaluation.probes.pointing import overlaps
from workbench.models.grounded import GroundedTeacher
from workbench.recipe import Recipe
from workbench.targets.cross_modal import AnyTeacher, CrossModalInputs
from workbench.targets.false_captions import FalseTargets
from workbench.targets.image_text import Teacher

OVERLAP = 0.5  # intersection over union from which a region shows a thing
JUDGED = 200  # pictures whose false captions a validation uses
HARD = 4.0  # weight of a true caption against its own false one, relative to all others


class GroundedLosses(NamedTuple):
    """The loss of training and of held-out pictures, and false captions of some of the latter."""

    learned: "GroundedLoss"
    held_out: "GroundedLoss"
    judged: FalseTargets


def grounded_losses(
    recipe: Recipe, inputs: CrossModalInputs, held_out: CrossModalInputs, frozen: Teacher
) -> GroundedLosses:
    """The losses of a recipe. The frozen text tower encodes the false captions once, and they are cached."""
    false = None
    if recipe.cross_modal.hard_negatives:
        false = FalseTargets(recipe, inputs.pairs, frozen, device=inputs.device)
    some = held_out.pairs.select(range(min(len(held_out.pairs), JUDGED)))
    judged = FalseTargets(recipe, some, frozen, device=inputs.device)
    return GroundedLosses(GroundedLoss(recipe, inputs, false), GroundedLoss(recipe, held_out, None), judged)


class GroundedLoss:
    """The loss of a batch of pictures, a function of their rows, the seed and the epoch.

    A share of the batch, `cross_modal.hard_negatives`, has a caption that is nearly true, preferably one that
    an exchange of two things would make true. In a random half of these, the two regions exchange their
    boxes, and the false caption becomes the true one. So no pair of names is always on the same side.
    """

    def __init__(self, recipe: Recipe, inputs: CrossModalInputs, false: FalseTargets | None) -> None:
        self.recipe, self.inputs, self.false = recipe, inputs, false
        known = inputs.pairs.table.column_names
        self.placed = {"objects", "boxes"} <= set(known)

    def __call__(self, teacher: AnyTeacher, rows: np.ndarray, epoch: int) -> Tensor:
        """The loss of the pictures in `rows`, a scalar."""
        assert isinstance(teacher, GroundedTeacher)
        settings = self.recipe.cross_modal
        rng = np.random.default_rng([self.recipe.seed, epoch, *map(int, rows[:2])])
        captions = [caption_choice(self.inputs.pairs, int(row), self.recipe.seed, epoch) for row in rows]
        pictures = self.inputs.of(self.inputs.tokens.rows(np.array(captions)), rows)
        boxes = pictures["region_boxes"]
        assert boxes is not None
        shown: list[tuple[bool, int]] = []  # of each picture, whether its caption is false, and its number
        wrong: list[tuple[bool, int]] = []
        owners: list[int] = []
        for at, row in enumerate(rows):
            position, turned = captions[at], False
            if self.false is not None and rng.random() < settings.hard_negatives:
                position = self.false.telling(int(row), position, rng)
                number = int(self.false.of_caption[position])
                if number >= 0:
                    places = self._places(int(row), number)
                    turned = places is not None and rng.random() < 0.5
                    if turned and places is not None:
                        boxes[at, places] = boxes[at, places[::-1]]
                    owners.append(at)
                    wrong.append((False, position) if turned else (True, number))
                    shown.append((True, number) if turned else (False, position))
                    continue
            shown.append((False, position))
        tokens, mask, text = self._words(shown + wrong)
        cosines, agreement = teacher.scores(
            tokens,
            mask,
            pictures["regions"],  # type: ignore[arg-type]
            pictures["region_mask"],  # type: ignore[arg-type]
            boxes,
            text,
        )
        scores = (cosines + agreement) / settings.temperature
        # Z is also matched alone, because students learn from it.
        loss = self._match(teacher, scores) + self._match(teacher, cosines / settings.temperature)
        if owners:
            owner = torch.tensor(owners, device=scores.device)
            against = scores[owner, len(rows) + torch.arange(len(owners), device=scores.device)]
            loss = loss + HARD * F.softplus(against - scores[owner, owner]).mean()
        return loss

    def _match(self, teacher: GroundedTeacher, scores: Tensor) -> Tensor:
        """Match each picture with all captions, and each true caption with all pictures."""
        count = len(scores)
        if self.recipe.cross_modal.matching == "sigmoid":
            truth = 2 * torch.eye(count, scores.shape[1], device=scores.device) - 1
            return -F.logsigmoid(truth * (scores + teacher.sigmoid_bias)).sum() / count
        own = torch.arange(count, device=scores.device)
        return (F.cross_entropy(scores, own) + F.cross_entropy(scores[:, :count].T, own)) / 2

    def _places(self, row: int, number: int) -> list[int] | None:
        """The regions of the two things whose exchange makes the false caption true, None if one is
        missing."""
        assert self.false is not None
        exchanged = self.false.captions[number].exchanged
        if exchanged is None or not self.placed:
            return None
        details = self.inputs.pairs.details(row)
        _, height, width = self.inputs.pairs.image(row).shape
        regions = self.inputs.regions.rows([row])
        boxes = regions.boxes[0][regions.mask[0]]
        places = []
        for name in exchanged:
            box = np.asarray(details["boxes"][details["objects"].index(name)])
            shares = overlaps(box / [width, height, width, height], boxes)
            if shares.max() < OVERLAP:
                return None
            places.append(int(shares.argmax()))
        return places if places[0] != places[1] else None

    def _words(self, chosen: list[tuple[bool, int]]) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, mask and embeddings of true and false captions, in this order."""
        inputs, sides = self.inputs, []
        for is_false in (False, True):
            at = [place for place, (kind, _) in enumerate(chosen) if kind is is_false]
            numbers = np.array([chosen[place][1] for place in at], dtype=np.int64)
            if len(at):
                source = self.false if is_false else inputs
                assert source is not None
                tokens, mask = source.tokens.rows(numbers)
                sides.append((at, tokens, mask, np.asarray(source.text[numbers])))
        longest = max(mask.shape[1] for _, _, mask, _ in sides)
        count, dim = len(chosen), sides[0][1].shape[2]
        tokens = np.zeros((count, longest, dim), dtype=np.float16)
        mask, text = np.zeros((count, longest), dtype=bool), np.zeros((count, dim), dtype=np.float16)
        for at, words, present, embeddings in sides:
            tokens[at, : words.shape[1]], mask[at, : words.shape[1]], text[at] = words, present, embeddings
        return inputs.tensor(tokens), inputs.tensor(mask), inputs.tensor(text)
