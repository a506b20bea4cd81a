"""Does a word look at its thing? Where a cross-modal teacher's attention points, boxes being known."""

from typing import NamedTuple

import numpy as np
import torch

from workbench.models.dual_encoder import DualEncoder
from workbench.models.tokens import words
from workbench.targets.cross_modal import AnyTeacher, CrossModalInputs

OVERLAP = 0.5  # intersection over union from which a region is an object's


class Pointing(NamedTuple):
    """How often the most attended region of an object's words is that object's, and what that is to be
    measured by.

    Over the objects named in captions of pictures with two regions or more. `chance` is a region drawn at
    random, `by_weight` the region of the largest weight for every word (confidence and area alone),
    `covered` the share of objects that have a region: no attention can do better. `correct` [M] and
    `image` [M] are the single results.
    """

    accuracy: float
    chance: float
    by_weight: float
    covered: float
    correct: np.ndarray
    image: np.ndarray


@torch.no_grad()
def pointing_accuracy(
    teacher: AnyTeacher,
    inputs: CrossModalInputs,
    model: DualEncoder,
    captions: np.ndarray,
    batch: int = 256,
) -> Pointing | None:
    """Where the words of objects point, over `captions` of pairs that know their `objects` and `boxes`.

    A word's attention is its mean over heads and over the pieces of the object's name; of several regions
    with the same, none is chosen. `model` is the frozen tower whose words they are. None where no object of
    the pairs can be judged.
    """
    pairs = inputs.pairs
    if not {"objects", "boxes"} <= set(pairs.table.column_names):
        return None
    texts = pairs.all_captions
    right, image, chance, heaviest, covered = [], [], [], [], []
    for start in range(0, len(captions), batch):
        part = captions[start : start + batch]
        attention = teacher.eval()(**inputs(part)).token_to_region.mean(1).cpu().numpy()
        stored = inputs.regions.rows(pairs.image_of_caption[part])
        weight = stored.confidences * stored.areas
        for at, caption in enumerate(part):
            regions = np.flatnonzero(stored.mask[at])
            if len(regions) < 2:
                continue
            row = int(pairs.image_of_caption[caption])
            details = pairs.details(row)
            height, width = pairs.image(row).shape[1:]
            boxes = np.asarray(details["boxes"]).reshape(-1, 4) / [width, height, width, height]
            pieces = words(model, texts[caption])
            for name, box in zip(details["objects"], boxes, strict=True):
                places = name_pieces(model, pieces, name)
                if not places:
                    continue
                own = overlaps(box, stored.boxes[at, regions]) >= OVERLAP
                right.append(bool(own[_largest(attention[at, places][:, regions].mean(0))].any()))
                heaviest.append(bool(own[_largest(weight[at, regions])].any()))
                chance.append(own.mean())
                covered.append(own.any())
                image.append(row)
    if not right:
        return None
    return Pointing(
        accuracy=float(np.mean(right)),
        chance=float(np.mean(chance)),
        by_weight=float(np.mean(heaviest)),
        covered=float(np.mean(covered)),
        correct=np.array(right),
        image=np.array(image),
    )


def name_pieces(model: DualEncoder, pieces: list[str], name: str) -> list[int]:
    """The positions in `pieces`, a caption's words, where `name` is said; empty where it is not."""
    name_words = [_bare(piece) for piece in words(model, name)]
    caption_words = [_bare(piece) for piece in pieces]
    for start in range(len(caption_words) - len(name_words) + 1):
        if caption_words[start : start + len(name_words)] == name_words:
            return list(range(start, start + len(name_words)))
    return []


def overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of one box [4] with others [R, 4]."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    areas = [np.prod(corners[..., 2:] - corners[..., :2], axis=-1) for corners in (box, others)]
    return shared / np.maximum(areas[0] + areas[1] - shared, 1e-12)


def _largest(values: np.ndarray) -> np.ndarray:
    """Which value is the largest; none where two are."""
    best = values == values.max()
    return best if best.sum() == 1 else np.zeros_like(best)


def _bare(piece: str) -> str:
    return piece.strip("Ġ▁ ").lower()
