"""Zero-shot classification: class embeddings from prompts, and accuracy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.evaluation.retrieval.normalized import (
    TIE,
    Indices,
    Matrix,
    NormalizedEmbeddings,
    all_cosines,
    checked_indices,
    slices,
)
from workbench.objectives.similarity import unit

CHUNK = 1024  # images scored at once


@dataclass(frozen=True)
class ZeroShot:
    """Accuracies in [0, 1]. With five or fewer classes, `top5` only requires that scores are numbers."""

    top1: float
    top5: float
    mean_per_class: float  # top-1 of each class that has images, averaged over these classes
    ranks: np.ndarray  # int64 [images], rank of the right class from 1


def zero_shot_weights(prompt_embeddings: Matrix) -> Float[Tensor, "_classes _dim"]:
    """The unit embedding of each class: prompt embeddings, normalised, averaged and normalised again.

    `prompt_embeddings` is [classes, templates, D] of any norm; float32 out (float64 for float64 in).
    Raises ValueError for another shape. Radford et al. 2021 (CLIP), section 3.1.4.
    """
    prompts = prompt_embeddings if isinstance(prompt_embeddings, Tensor) else torch.tensor(prompt_embeddings)
    if prompts.ndim != 3 or 0 in prompts.shape:
        raise ValueError(f"zero_shot_weights: needs [classes, templates, D], got {tuple(prompts.shape)}")
    classes, templates, dim = prompts.shape
    (units,) = unit(prompts.reshape(classes * templates, dim))
    return unit(units.reshape(classes, templates, dim).mean(dim=1))[0]


def zero_shot_metrics(
    image: Matrix, weights: Matrix, labels: Indices, names: Sequence[str] | None = None
) -> ZeroShot:
    """Top-1, top-5 and mean per-class accuracy of `image` [N, D] with class `weights` [classes, D].

    Both have any norm, and `labels` [N] are integers in [0, classes). In a tie, wrong classes rank before the
    correct one, and all of them do if the correct score is not a number. Scores are float64 cosines, which
    count as equal if closer than 1e-13.

    With `names`, classes that share a name (two of "missile" and of "sunglasses" in ImageNet) are ties that
    count as is usual: argmax and topk choose the first, so images of the first class are correct and those of
    the second are not. Raises ValueError for invalid shapes or labels.
    """
    if image.ndim != 2 or weights.ndim != 2 or image.shape[1] != weights.shape[1] or not len(image):
        raise ValueError(
            f"zero_shot_metrics: needs image [N, D] and weights [classes, D], "
            f"got {tuple(image.shape)} and {tuple(weights.shape)}"
        )
    if names is not None and len(names) != len(weights):
        raise ValueError(f"zero_shot_metrics: {len(weights)} classes need as many names, got {len(names)}")
    right = checked_indices("labels", labels, len(image), len(weights))
    first = {name: number for number, name in reversed(list(enumerate(names or ())))}
    group = torch.tensor([first[name] for name in names]) if names else torch.arange(len(weights))
    images, classes = NormalizedEmbeddings(image), NormalizedEmbeddings(weights)
    every_class = torch.arange(len(weights))
    ranks = torch.cat(
        [
            _ranks(
                all_cosines(images, torch.arange(part.start, part.stop), classes, every_class),
                right[part],
                group,
            )
            for part in slices(len(image), CHUNK)
        ]
    )
    hit = (ranks == 1).double()
    images_of = torch.bincount(right, minlength=len(weights))
    hits_of = torch.bincount(right, weights=hit, minlength=len(weights))
    seen = images_of > 0
    return ZeroShot(
        top1=float(hit.mean()),
        top5=float((ranks <= 5).double().mean()),
        mean_per_class=float((hits_of[seen] / images_of[seen]).mean()),
        ranks=ranks.numpy(),
    )


def _ranks(
    scores: Float[Tensor, "images classes"], right: Int[Tensor, " images"], group: Int[Tensor, " classes"]
) -> Int[Tensor, " images"]:
    own = scores.gather(1, right[:, None])
    # Classes with the same name have equal scores; among them, those up to the correct one rank before it.
    same_name = group == group[right][:, None]
    before = torch.arange(len(group)) <= right[:, None]
    ranks = torch.where(same_name, before, scores >= own - TIE).sum(
        dim=1
    )  # includes the correct class itself
    # If the correct score is not a number, the image is never a hit, even with few classes.
    return torch.where(own[:, 0].isnan(), max(scores.shape[1], 6), ranks)
