"""Is a language model fit to teach? What its caption embeddings know, before anything is distilled."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int

from workbench.evaluation.clusters import agreement
from workbench.evaluation.similarity import effective_rank, mean_cosine

CONTROL = "TF-IDF"


class TextTeacherScore(NamedTuple):
    """Of one teacher on one set of captions; shares are 0 to 1."""

    retrieval_r1: float  # captions whose nearest other caption describes the same picture
    nmi: float  # k-means against known categories
    purity: float
    effective_rank: float  # of the centred embeddings, 1 to their width
    mean_cosine: float  # of two captions drawn at random: near 1, all point one way
    mean_cosine_centred: float


def score_text_teacher(
    embeddings: Float[np.ndarray, "n dim"],
    image_of_caption: Int[np.ndarray, " n"],
    categories: Sequence[str | None],
    *,
    seed: int = 0,
) -> TextTeacherScore:
    """Score embeddings of captions, of which several describe one picture.

    `image_of_caption` tells which; `categories` names the known category of a caption, None where it has
    none. Retrieval is by cosine of centred embeddings, ties count against it. K-means (as many clusters as
    there are categories, 3 starts) runs on the captions with a category.
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
    """Share of captions whose nearest other caption (by dot product) is one of the same picture.

    Captions that are alone with their picture do not count; a tie with a caption of another picture does not
    find. NaN where all are alone.
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
    """The control: counts of 3 to 5 letters, weighted by rarity, in `dim` singular directions (or fewer)."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    counts = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True).fit_transform(
        captions
    )
    dim = min(dim, counts.shape[0] - 1, counts.shape[1] - 1)
    return np.asarray(TruncatedSVD(dim, random_state=seed).fit_transform(counts), dtype=np.float32)


def unfit(score: TextTeacherScore, control: TextTeacherScore) -> str | None:
    """Why a teacher should not teach, or None: it must know more than letters do.

    Less than the control's retrieval means that captions of one picture lie no nearer together than their
    spelling; below its NMI, that categories do not show.
    """
    reasons = []
    if score.retrieval_r1 < control.retrieval_r1:
        reasons.append(
            f"finds a picture's other captions {score.retrieval_r1:.0%} ({control.retrieval_r1:.0%})"
        )
    if score.nmi < control.nmi:
        reasons.append(f"clusters know {score.nmi:.2f} of the categories ({control.nmi:.2f})")
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
    """(score, why it is unfit or None) of every teacher's embeddings of the same captions, and the
    control's."""
    control = score_text_teacher(
        tfidf_embeddings(captions, seed=seed), image_of_caption, categories, seed=seed
    )
    scores: dict[str, tuple[TextTeacherScore, str | None]] = {}
    for name, embeddings in teachers.items():
        score = score_text_teacher(embeddings, image_of_caption, categories, seed=seed)
        scores[name] = (score, unfit(score, control))
    return {**scores, CONTROL: (control, None)}
