"""Scores the caption embeddings of language models before they are used as text teachers."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int

from workbench.evaluation.clusters import agreement
from workbench.evaluation.similarity import effective_rank, mean_cosine

CONTROL = "TF-IDF"


class TextTeacherScore(NamedTuple):
    """The scores of a teacher on a set of captions. Shares are in [0, 1]."""

    retrieval_r1: float  # share of captions whose nearest other caption describes the same picture
    nmi: float  # of k-means clusters with known categories
    purity: float
    effective_rank: float  # of the centred embeddings, from 1 to their width
    mean_cosine: float  # of two random captions; near 1 if all embeddings point in one direction
    mean_cosine_centred: float


def score_text_teacher(
    embeddings: Float[np.ndarray, "n dim"],
    image_of_caption: Int[np.ndarray, " n"],
    categories: Sequence[str | None],
    *,
    seed: int = 0,
) -> TextTeacherScore:
    """Score the embeddings of captions, several of which describe the same picture.

    `image_of_caption` are the pictures, and `categories` the known categories of captions, or None. Retrieval
    uses cosines of centred embeddings, and ties count as errors. K-means, with one cluster per category and 3
    starts, runs on captions that have a category.
    """
    from sklearn.cluster import KMeans

    centred = embeddings.astype(np.float64) - embeddings.mean(0, dtype=np.float64)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    known = np.flatnonzero([category is not None for category in categories])
    classes = np.array([category for category in categories if category is not None])
    nmi = purity = float("nan")
    if len(np.unique(classes)) > 1:
        clusterer = KMeans(len(np.unique(classes)), n_init=3, random_state=seed)
        nmi, purity, _ = agreement(clusterer.fit_predict(unit[known]).astype(np.int64), classes)
    return TextTeacherScore(
        caption_retrieval(unit, image_of_caption),
        nmi,
        purity,
        effective_rank(embeddings),
        mean_cosine(embeddings),
        mean_cosine(embeddings, centred=True),
    )


def caption_retrieval(
    unit: Float[np.ndarray, "n dim"], image_of_caption: Int[np.ndarray, " n"], chunk: int = 1024
) -> float:
    """The share of captions whose nearest other caption (by dot product) describes the same picture.

    Captions without another caption of the same picture are skipped. Ties with captions of other pictures
    count as errors. It is NaN if all captions are skipped.
    """
    points, image = torch.from_numpy(unit), torch.from_numpy(image_of_caption)
    hits = counted = 0
    for start in range(0, len(points), chunk):
        rows = torch.arange(start, min(start + chunk, len(points)))
        scores = points[rows] @ points.T
        same = image[rows][:, None] == image
        other = scores.masked_fill(same, -torch.inf).amax(1)
        same[torch.arange(len(rows)), rows] = False
        partner = scores.masked_fill(~same, -torch.inf).amax(1)
        hits += int((partner > other).sum())
        counted += int(same.any(1).sum())
    return hits / counted if counted else float("nan")


def tfidf_embeddings(captions: Sequence[str], dim: int = 256, seed: int = 0) -> Float[np.ndarray, "n _dim"]:
    """The control: TF-IDF of character n-grams (3 to 5), reduced to at most `dim` dimensions by SVD."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    counts = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True).fit_transform(
        captions
    )
    dim = min(dim, counts.shape[0] - 1, counts.shape[1] - 1)
    return np.asarray(TruncatedSVD(dim, random_state=seed).fit_transform(counts), dtype=np.float32)


def unfit(score: TextTeacherScore, control: TextTeacherScore) -> str | None:
    """The reason why a teacher is unfit, None if it is fit. It must beat a control that knows only spelling.

    Retrieval below the control's means that captions of the same picture are no closer than by their
    spelling. NMI below the control's means that categories are not separated.
    """
    reasons = []
    if score.retrieval_r1 < control.retrieval_r1:
        reasons.append(
            f"retrieves {score.retrieval_r1:.0%} of captions of the same picture ({control.retrieval_r1:.0%})"
        )
    if score.nmi < control.nmi:
        reasons.append(f"clusters have an NMI of {score.nmi:.2f} with categories ({control.nmi:.2f})")
    if not reasons:
        return None
    return f"unfit, worse than {CONTROL} in brackets: {'; '.join(reasons)}"


def score_text_teachers(
    teachers: Mapping[str, Float[np.ndarray, "n _dim"]],
    captions: Sequence[str],
    image_of_caption: Int[np.ndarray, " n"],
    categories: Sequence[str | None],
    *,
    seed: int = 0,
) -> dict[str, tuple[TextTeacherScore, str | None]]:
    """Score several teachers and the control on the same captions: (score, reason why unfit or None)."""
    control = score_text_teacher(
        tfidf_embeddings(captions, seed=seed), image_of_caption, categories, seed=seed
    )
    scores: dict[str, tuple[TextTeacherScore, str | None]] = {}
    for name, embeddings in teachers.items():
        score = score_text_teacher(embeddings, image_of_caption, categories, seed=seed)
        scores[name] = (score, unfit(score, control))
    return {**scores, CONTROL: (control, None)}
