"""The objectives once more, in loops over plain numbers, and embeddings to try them on."""

import math

import torch
from torch import Tensor


def wave(rows: int, width: int, phase: float) -> Tensor:
    """Embeddings that any program can make again: sin(1.3 i + 0.7 j + phase) + 0.1 i j / (1 + width)."""
    entries = [
        [math.sin(1.3 * i + 0.7 * j + phase) + 0.1 * i * j / (1 + width) for j in range(width)]
        for i in range(rows)
    ]
    return torch.tensor(entries, dtype=torch.float64)


def cosines(left: Tensor, right: Tensor) -> list[list[float]]:
    def length(row: list[float]) -> float:
        return math.sqrt(sum(entry * entry for entry in row))

    return [
        [sum(x * y for x, y in zip(a, b, strict=True)) / (length(a) * length(b)) for b in right.tolist()]
        for a in left.tolist()
    ]


def log_softmax(logits: list[float]) -> list[float]:
    peak = max(logits)
    total = math.log(sum(math.exp(each - peak) for each in logits)) + peak
    return [each - total for each in logits]


def info_nce(query: Tensor, key: Tensor, scale: float) -> float:
    rows = [log_softmax([scale * each for each in row]) for row in cosines(query, key)]
    return -sum(row[n] for n, row in enumerate(rows)) / len(rows)


def divergence(teacher: list[list[float]], student: list[list[float]]) -> float:
    total = 0.0
    for teacher_row, student_row in zip(teacher, student, strict=True):
        for t, s in zip(log_softmax(teacher_row), log_softmax(student_row), strict=True):
            total += math.exp(t) * (t - s)
    return total / len(teacher)


def transposed(matrix: list[list[float]]) -> list[list[float]]:
    return [list(column) for column in zip(*matrix, strict=True)]


def contrastive_loss(image: Tensor, text: Tensor, scale: float) -> float:
    return (info_nce(image, text, scale) + info_nce(text, image, scale)) / 2


def relational_distillation(
    student_image: Tensor,
    student_text: Tensor,
    teacher_image: Tensor,
    teacher_text: Tensor,
    student_scale: float,
    teacher_scale: float,
) -> float:
    student = [[student_scale * each for each in row] for row in cosines(student_image, student_text)]
    teacher = [[teacher_scale * each for each in row] for row in cosines(teacher_image, teacher_text)]
    return (divergence(teacher, student) + divergence(transposed(teacher), transposed(student))) / 2


def feature_distillation(student: Tensor, teacher: Tensor) -> float:
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        s_length, t_length = math.hypot(*s), math.hypot(*t)
        total += sum((x / s_length - y / t_length) ** 2 for x, y in zip(s, t, strict=True))
    return total / len(student)


def cosine_distillation(student: Tensor, teacher: Tensor) -> float:
    return sum(1 - row[n] for n, row in enumerate(cosines(student, teacher))) / len(student)


def interactive_contrastive_loss(
    student_image: Tensor, student_text: Tensor, teacher_image: Tensor, teacher_text: Tensor, scale: float
) -> float:
    return (info_nce(student_image, teacher_text, scale) + info_nce(student_text, teacher_image, scale)) / 2
