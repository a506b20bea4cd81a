"""The pointing game: whether a cross-modal teacher's attention for a word points to the word's object."""

from typing import NamedTuple

import numpy as np
import torch

from workbench.models.dual_encoder import DualEncoder
from workbench.models.tokens import words
from workbench.targets.cross_modal import AnyTeacher, CrossModalInputs

OVERLAP = 0.5  # the intersection over union from which a region counts as an object's


class Pointing(NamedTuple):
    """The share of objects whose words attend most to the object's region, with baselines.

    It is over the objects named in captions of pictures with at least two regions. `chance` uses a random
    region, and `by_weight` the region with the largest weight (confidence and area) for every word. `covered`
    is the share of objects that have a region, the upper bound for any attention. `correct` [M] and `image`
    [M] are the single results.
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
    """Evaluate the attention of object words in `captions` of pairs with the columns `objects` and `boxes`.

    Attention is averaged over heads and over the tokens of an object's name. Ties count as errors. `model`
    has the tokenizer of the captions. Returns None if the pairs have no object that can be evaluated.
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
    """The positions of `name` in `pieces`, the tokens of a caption; empty if it does not occur."""
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
    """A mask of the largest value, which is empty in a tie."""
    best = values == values.max()
    return best if best.sum() == 1 else np.zeros_like(best)


def _bare(piece: str) -> str:
    return piece.strip("Ġ▁ ").lower()
