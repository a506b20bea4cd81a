"""Measures how far a student agrees with its teacher on embeddings and on rankings."""

from typing import NamedTuple

import numpy as np
import torch

from workbench.evaluation.retrieval.normalized import Matrix, NormalizedEmbeddings, all_cosines, pair_cosines


class Agreement(NamedTuple):
    """The agreement of a student and its teacher on N pairs. Cosines are NaN if their widths differ."""

    image_cosine: float  # mean cosine of the student's and the teacher's embedding of a picture
    text_cosine: float  # the same for captions
    rank: float  # Spearman correlation of a query's cosines to all candidates, mean of both directions
    same_first: float  # share of queries for which both rank the same candidate first


def teacher_agreement(
    student_image: Matrix, student_text: Matrix, teacher_image: Matrix, teacher_text: Matrix
) -> Agreement:
    """Measure the agreement on N pairs. Row n of each argument [N, D], of any norm, belongs to pair n.

    The teacher may have another width, because ranks need no common space; cosines do. A query whose cosines
    are all equal has a correlation of 0. Holds two N x N matrices in float64. Raises ValueError if the shapes
    do not fit or N < 2.
    """
    sides = (student_image, student_text, teacher_image, teacher_text)
    shapes = [tuple(side.shape) for side in sides]
    rows = {shape[0] for shape in shapes}
    if any(len(shape) != 2 for shape in shapes) or len(rows) != 1 or rows <= {0, 1}:
        raise ValueError(
            f"teacher_agreement: needs four arrays [N, D] with one N of at least 2, got {shapes}"
        )
    if shapes[0] != shapes[1] or shapes[2] != shapes[3]:
        raise ValueError(f"teacher_agreement: the towers of one model differ in width: {shapes}")
    every = torch.arange(len(student_image))
    unit = [NormalizedEmbeddings(side) for side in sides]
    student_images, student_texts, teacher_images, teacher_texts = unit
    image_cosine = text_cosine = float("nan")
    if shapes[0] == shapes[2]:
        image_cosine = float(pair_cosines(student_images, every, teacher_images, every).mean())
        text_cosine = float(pair_cosines(student_texts, every, teacher_texts, every).mean())
    student, teacher = (
        all_cosines(image, every, text, every).numpy()
        for image, text in ((student_images, student_texts), (teacher_images, teacher_texts))
    )
    directions = ((student, teacher), (student.T, teacher.T))
    return Agreement(
        image_cosine,
        text_cosine,
        rank=float(np.mean([_spearman(a, b) for a, b in directions])),
        same_first=float(np.mean([a.argmax(1) == b.argmax(1) for a, b in directions])),
    )


def neighbour_overlap(student: Matrix, teacher: Matrix, neighbours: int = 10) -> tuple[float, float]:
    """The share of a row's nearest rows that it has in both spaces, mean over rows, and what chance gives.

    `student` [n, D] and `teacher` [n, D'] of any norm embed the same n things; nearness is the cosine. Raises
    ValueError unless both have n >= 3 rows.
    """
    if len(student) != len(teacher) or len(student) < 3:
        raise ValueError(f"neighbour_overlap: {len(student)} and {len(teacher)} rows; give 3 or more of each")
    count = min(neighbours, len(student) - 2)
    every = torch.arange(len(student))
    nearest = []
    for side in (student, teacher):
        unit = NormalizedEmbeddings(side)
        cosines = all_cosines(unit, every, unit, every)
        nearest.append(cosines.fill_diagonal_(-torch.inf).topk(count, dim=1).indices)
    shared = (nearest[0][:, :, None] == nearest[1][:, None, :]).sum((1, 2))
    return float(shared.double().mean()) / count, count / (len(student) - 1)


def _spearman(one: np.ndarray, other: np.ndarray) -> float:
    """The rank correlation of corresponding rows, averaged over rows."""
    from scipy.stats import rankdata

    ranks = [rankdata(side, axis=1) for side in (one, other)]
    a, b = (rank - rank.mean(1, keepdims=True) for rank in ranks)
    norm = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(1) / np.where(norm > 0, norm, 1)).mean())
