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
    total = math.log(sum(math.exp(item - peak) for item in logits)) + peak
    return [item - total for item in logits]


def info_nce(query: Tensor, key: Tensor, scale: float) -> float:
    rows = [log_softmax([scale * item for item in row]) for row in cosines(query, key)]
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
    student = [[student_scale * item for item in row] for row in cosines(student_image, student_text)]
    teacher = [[teacher_scale * item for item in row] for row in cosines(teacher_image, teacher_text)]
    return (divergence(teacher, student) + divergence(transposed(teacher), transposed(student))) / 2


def feature_distillation(student: Tensor, teacher: Tensor) -> float:
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        s_length, t_length = math.hypot(*s), math.hypot(*t)
        total += sum((x / s_length - y / t_length) ** 2 for x, y in zip(s, t, strict=True))
    return total / len(student)


def cosine_distillation(student: Tensor, teacher: Tensor) -> float:
    return sum(1 - row[n] for n, row in enumerate(cosines(student, teacher))) / len(student)


def unit(rows: Tensor) -> list[list[float]]:
    return [[entry / math.hypot(*row) for entry in row] for row in rows.tolist()]


def info_nce_gradients(query: Tensor, key: Tensor, scale: float) -> list[list[list[float]]]:
    """With respect to unit queries and unit keys, written out sum by sum."""
    queries, keys, batch = unit(query), unit(key), len(query)
    wrong = [
        [math.exp(item) for item in log_softmax([scale * c for c in row])] for row in cosines(query, key)
    ]
    for n in range(batch):
        wrong[n][n] = -sum(p for m, p in enumerate(wrong[n]) if m != n)
    width = range(len(queries[0]))
    of_queries = [
        [sum(wrong[n][m] * keys[m][d] for m in range(batch)) * scale / batch for d in width]
        for n in range(batch)
    ]
    of_keys = [
        [sum(wrong[n][m] * queries[n][d] for n in range(batch)) * scale / batch for d in width]
        for m in range(batch)
    ]
    return [of_queries, of_keys]


def gradient_distillation(
    student_image: Tensor,
    student_text: Tensor,
    teacher_image: Tensor,
    teacher_text: Tensor,
    student_scale: float,
    teacher_scale: float,
    relative: bool = True,
) -> float:
    ours, theirs = (
        info_nce_gradients(image, text, scale) + info_nce_gradients(text, image, scale)
        for image, text, scale in (
            (student_image, student_text, student_scale),
            (teacher_image, teacher_text, teacher_scale),
        )
    )
    pairs = [
        (x, y)
        for a, b in zip(ours, theirs, strict=True)
        for r, s in zip(a, b, strict=True)
        for x, y in zip(r, s, strict=True)
    ]
    size = max(sum(y * y for _, y in pairs), 1e-12) if relative else 1.0
    return sum((x - y) ** 2 for x, y in pairs) / size


def linear(rows: list[list[float]], weight: Tensor) -> Tensor:
    result = [
        [sum(x * w for x, w in zip(row, line, strict=True)) for line in weight.tolist()] for row in rows
    ]
    return torch.tensor(result, dtype=torch.float64)


def fused_contrastive_loss(
    student_image: Tensor,
    student_text: Tensor,
    teacher_image: Tensor,
    teacher_text: Tensor,
    fuse_image: Tensor,
    fuse_text: Tensor,
    scale: float,
) -> float:
    fused = [
        linear([s + t for s, t in zip(unit(student), unit(teacher), strict=True)], weight)
        for student, teacher, weight in (
            (student_image, teacher_image, fuse_image),
            (student_text, teacher_text, fuse_text),
        )
    ]
    return contrastive_loss(fused[0], fused[1], scale)


def embedding_regression(student_text: Tensor, target: Tensor, head: Tensor) -> float:
    predicted = linear(unit(student_text), head).tolist()
    errors = [
        (p - z) ** 2
        for a, b in zip(predicted, target.tolist(), strict=True)
        for p, z in zip(a, b, strict=True)
    ]
    return sum(errors) / len(errors)


def concept_loss(image: Tensor, text: Tensor, soft_labels: Tensor, classifier: Tensor) -> float:
    total = 0.0
    for side in (image, text):
        for logits, labels in zip(linear(unit(side), classifier).tolist(), soft_labels.tolist(), strict=True):
            total -= sum(q * p for q, p in zip(labels, log_softmax(logits), strict=True))
    return total / (2 * len(image))


def interactive_contrastive_loss(
    student_image: Tensor, student_text: Tensor, teacher_image: Tensor, teacher_text: Tensor, scale: float
) -> float:
    return (info_nce(student_image, teacher_text, scale) + info_nce(student_text, teacher_image, scale)) / 2
