"""Retrieval metrics in both directions: recall, reciprocal rank, median rank and average precision."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.evaluation.retrieval.normalized import (
    Indices,
    Matrix,
    NormalizedEmbeddings,
    checked_indices,
    pair_cosines,
)
from workbench.evaluation.retrieval.rank_counter import count_ahead


@dataclass(frozen=True)
class Direction:
    """The metrics of one direction. Shares are in [0, 1], ranks start at 1."""

    recall: dict[int, float]  # k -> share of queries with a correct result among the first k
    mrr: float  # mean reciprocal rank of the first correct result
    map: float | None  # mean average precision over all correct results, None if not computed
    median_rank: float
    ranks: np.ndarray  # int64 [queries], rank of the first correct result
    queries: np.ndarray  # int64 [queries], index of the caption or image of each query


@dataclass(frozen=True)
class Retrieval:
    """The metrics of both directions."""

    text_to_image: Direction
    image_to_text: Direction

    @property
    def recall_sum(self) -> float:
        """The sum of all recalls. In per cent it is the usual rsum, at most 600 for three values of k."""
        return sum(sum(direction.recall.values()) for direction in (self.text_to_image, self.image_to_text))


def retrieval_metrics(
    image: Matrix,
    text: Matrix,
    image_of_text: Indices,
    ks: Sequence[int] = (1, 5, 10),
    chunk: int = 2048,
    *,
    average_precision: bool = True,
) -> Retrieval:
    """Rank all images for every caption and all captions for every image by cosine similarity.

    `image` [I, D] and `text` [T, D] are tensors or arrays of any norm and floating dtype, `image_of_text` [T]
    are integers in [0, I). The correct result for a caption is its image. For an image all of its captions
    are correct, and the best-ranked one gives the rank. In a tie, wrong candidates rank before the correct
    one. Images without captions are candidates but not queries. An embedding with NaN or infinity ranks last,
    both as a query and as a candidate.

    Ranks are those of float64 cosines, which count as equal if closer than 1e-13, and are computed on the
    CPU. Memory is bounded by `chunk` x `chunk` scores and one float32 copy of the embeddings.
    `average_precision=False` skips `image_to_text.map`, which saves a third of the time. Raises ValueError
    for invalid shapes, `image_of_text`, `ks` or `chunk`.
    """
    owner = _checked(image, text, image_of_text, ks, chunk)
    images, texts = NormalizedEmbeddings(image), NormalizedEmbeddings(text)
    own_score = pair_cosines(images, owner, texts, torch.arange(len(text)))
    sorted_positives = _best_first(owner, own_score, len(image))
    if not average_precision:
        sorted_positives = sorted_positives[:, :1]
    images_ahead, captions_ahead = count_ahead(images, texts, owner, own_score, sorted_positives, chunk)

    text_ranks = (1 + images_ahead).numpy()
    queries = (sorted_positives[:, 0] >= 0).nonzero()[:, 0]
    image_ranks = (1 + captions_ahead[queries, 0]).numpy()
    mean_precision = None
    if average_precision:
        position = torch.arange(1, sorted_positives.shape[1] + 1, dtype=torch.float64)
        exists = sorted_positives[queries] >= 0
        precision = torch.where(exists, position / (position + captions_ahead[queries]), 0)
        mean_precision = float((precision.sum(dim=1) / exists.sum(dim=1)).mean())
    text_mrr = float((1 / text_ranks).mean())
    return Retrieval(
        # A caption has one correct result, so its average precision is its reciprocal rank.
        _direction(text_ranks, np.arange(len(text)), ks, text_mrr),
        _direction(image_ranks, queries.numpy(), ks, mean_precision),
    )


def retrieval_folds(
    image: Matrix,
    text: Matrix,
    image_of_text: Indices,
    folds: int = 5,
    ks: Sequence[int] = (1, 5, 10),
    chunk: int = 2048,
    *,
    average_precision: bool = True,
) -> Retrieval:
    """The mean of `retrieval_metrics` over consecutive folds of images, each with only its own captions.

    Five folds of the 5,000 COCO test images are known as COCO-1K. `ranks` and `queries` are concatenated in
    the order of the folds. Raises ValueError like `retrieval_metrics`, and if a fold has no captions.
    """
    owner = _checked(image, text, image_of_text, ks, chunk)
    if not 1 <= folds <= len(image):
        raise ValueError(f"retrieval_folds: folds = {folds}, must be from 1 to the {len(image)} images")
    results = []
    for fold in np.array_split(np.arange(len(image)), folds):
        captions = ((owner >= fold[0]) & (owner <= fold[-1])).nonzero()[:, 0]
        if not len(captions):
            problem = f"images {fold[0]} to {fold[-1]} have no captions"
            raise ValueError(f"retrieval_folds: {problem}; use fewer folds")
        result = retrieval_metrics(
            image[fold[0] : fold[-1] + 1],
            text[captions.numpy()] if isinstance(text, np.ndarray) else text[captions.to(text.device)],
            owner[captions] - fold[0],
            ks,
            chunk,
            average_precision=average_precision,
        )
        results.append(((result.text_to_image, captions.numpy()), (result.image_to_text, fold)))
    text_to_image, image_to_text = zip(*results, strict=True)
    return Retrieval(_mean(text_to_image), _mean(image_to_text))


def _best_first(
    owner: Int[Tensor, " captions"], own_score: Float[Tensor, " captions"], images: int
) -> Int[Tensor, "images most"]:
    """The captions of every image, sorted by descending score and padded with -1."""
    by_score = own_score.nan_to_num(nan=-torch.inf).argsort(descending=True, stable=True)
    order = by_score[owner[by_score].argsort(stable=True)]
    counts = torch.bincount(owner, minlength=images)
    first = counts.cumsum(0) - counts
    sorted_positives = torch.full((images, int(counts.max())), -1)
    sorted_positives[owner[order], torch.arange(len(owner)) - first[owner[order]]] = order
    return sorted_positives


def _direction(
    ranks: np.ndarray, queries: np.ndarray, ks: Sequence[int], mean_precision: float | None
) -> Direction:
    return Direction(
        recall={k: float((ranks <= k).mean()) for k in ks},
        mrr=float((1 / ranks).mean()),
        map=mean_precision,
        median_rank=float(np.median(ranks)),
        ranks=ranks,
        queries=queries,
    )


def _mean(folds: Sequence[tuple[Direction, np.ndarray]]) -> Direction:
    """The mean over folds, given the metrics of each fold and the global indices of its queries."""
    directions = [direction for direction, _ in folds]
    means: dict[str, Any] = {
        name: float(np.mean([getattr(direction, name) for direction in directions]))
        for name in ("mrr", "median_rank", "map")
        if getattr(directions[0], name) is not None
    }
    ks = directions[0].recall
    return Direction(
        recall={k: float(np.mean([direction.recall[k] for direction in directions])) for k in ks},
        ranks=np.concatenate([direction.ranks for direction in directions]),
        queries=np.concatenate([names[direction.queries] for direction, names in folds]),
        **{"map": None, **means},
    )


def _checked(
    image: Matrix, text: Matrix, image_of_text: Indices, ks: Sequence[int], chunk: int
) -> Int[Tensor, " captions"]:
    """Check all arguments, and return `image_of_text` as int64 on the CPU."""
    shapes = tuple(image.shape), tuple(text.shape)
    if image.ndim != 2 or text.ndim != 2 or shapes[0][1] != shapes[1][1] or not (len(image) and len(text)):
        raise ValueError(f"retrieval: needs image [I, D] and text [T, D], got {shapes[0]} and {shapes[1]}")
    if chunk < 1 or not ks or min(ks) < 1:
        numbers = f"chunk = {chunk}, ks = {tuple(ks)}"
        raise ValueError(f"retrieval: chunk and every k must be at least 1, got {numbers}")
    return checked_indices("image_of_text", image_of_text, len(text), len(image))
