"""Retrieval between images and captions, both ways: recall, reciprocal and median rank, average precision."""

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
    """One direction's numbers. Shares in [0, 1], ranks from 1."""

    recall: dict[int, float]  # k -> share of queries with a right answer among the first k
    mrr: float  # mean reciprocal rank of the first right answer
    map: float | None  # mean average precision over all right answers; None where it was not asked for
    median_rank: float
    ranks: np.ndarray  # int64 [queries], rank of the first right answer
    queries: np.ndarray  # int64 [queries], which caption or image each query is


@dataclass(frozen=True)
class Retrieval:
    """Both directions' numbers."""

    text_to_image: Direction
    image_to_text: Direction

    @property
    def recall_sum(self) -> float:
        """All recalls added up; a hundred times this is the field's rsum (600 at best for three ks)."""
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
    integers in [0, I). A caption's right answer is its image; an image's are all of its captions, of which
    the best-ranked gives the rank. Ties count against us: a wrong answer that scores the same as the right
    one stands before it. An image without captions is no query but stays a candidate. An embedding that holds
    NaN or infinity is found by nobody and finds nothing: its own rank is the last.

    Ranks are those of float64 cosines, equal when closer than 1e-13, and are computed on the CPU. At most
    `chunk` x `chunk` scores exist at a time, and one float32 copy of the embeddings.
    `average_precision=False` skips `image_to_text.map`, which saves a third of the time. Raises
    ValueError where shapes, `image_of_text`, `ks` or `chunk` make no sense.
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
        place = torch.arange(1, sorted_positives.shape[1] + 1, dtype=torch.float64)
        exists = sorted_positives[queries] >= 0
        precision = torch.where(exists, place / (place + captions_ahead[queries]), 0)
        mean_precision = float((precision.sum(dim=1) / exists.sum(dim=1)).mean())
    text_mrr = float((1 / text_ranks).mean())
    return Retrieval(
        # A caption has one right answer, so its average precision is its reciprocal rank.
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
    """The mean of `retrieval_metrics` over consecutive folds of the images, each with its own captions only.

    Five folds of the 5,000 COCO images are the field's COCO-1K. `ranks` and `queries` are those of all folds,
    in order of the folds. Raises ValueError as `retrieval_metrics` does, and where a fold would have no
    captions.
    """
    owner = _checked(image, text, image_of_text, ks, chunk)
    if not 1 <= folds <= len(image):
        raise ValueError(f"retrieval_folds: folds = {folds}, wants 1 to the number of images, {len(image)}")
    results = []
    for fold in np.array_split(np.arange(len(image)), folds):
        captions = ((owner >= fold[0]) & (owner <= fold[-1])).nonzero()[:, 0]
        if not len(captions):
            problem = f"images {fold[0]} to {fold[-1]} have no captions"
            raise ValueError(f"retrieval_folds: {problem}; take fewer folds")
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
    """Every image's captions by falling score, then -1 up to the most that an image has."""
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
    """The mean over folds, given each fold's numbers and what its queries are called outside of it."""
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
    """`image_of_text` as int64 on the CPU, once everything fits together."""
    shapes = tuple(image.shape), tuple(text.shape)
    if image.ndim != 2 or text.ndim != 2 or shapes[0][1] != shapes[1][1] or not (len(image) and len(text)):
        raise ValueError(f"retrieval: wants image [I, D] and text [T, D], got {shapes[0]} and {shapes[1]}")
    if chunk < 1 or not ks or min(ks) < 1:
        numbers = f"chunk = {chunk}, ks = {tuple(ks)}"
        raise ValueError(f"retrieval: chunk and every k must be at least 1, got {numbers}")
    return checked_indices("image_of_text", image_of_text, len(text), len(image))
