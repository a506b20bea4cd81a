"""Contrastive relational distillation: the student ranks the batch as its teacher does."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from workbench.objectives.similarity import (
    Embeddings,
    Loss,
    Scale,
    both_directions,
    check_batch,
    check_width,
    unit,
)


def relational_distillation(
    student_image: Embeddings,
    student_text: Embeddings,
    teacher_image: Embeddings,
    teacher_text: Embeddings,
    student_scale: Scale,
    teacher_scale: Scale,
    *,
    rows: slice | None = None,
) -> Loss:
    """CRD: 1/2 [KL(softmax Z_t || softmax Z_s) + the same on the transposes], mean over the batch.

    Embeddings are [batch, dim] of any norm; the student's width may differ from the teacher's. Each side's
    cosine similarities are multiplied by its own scale. Nothing is detached: what requires a gradient gets
    one. With `rows`, only these image and text queries' share of the mean is computed, as in
    `contrastive_loss`. Raises ValueError where batch sizes differ, or image and text widths of one side.
    CLIP-KD (arXiv 2307.12732), eq. 8-10.
    """
    batch = check_batch(
        "relational_distillation",
        student_image=student_image,
        student_text=student_text,
        teacher_image=teacher_image,
        teacher_text=teacher_text,
    )
    check_width("relational_distillation", student_image=student_image, student_text=student_text)
    check_width("relational_distillation", teacher_image=teacher_image, teacher_text=teacher_text)
    student_image, student_text = unit(student_image, student_text)
    teacher_image, teacher_text = unit(teacher_image, teacher_text)
    student = both_directions(student_image, student_text, student_scale, rows)
    teacher = both_directions(teacher_image, teacher_text, teacher_scale, rows)
    return (divergence(teacher[0], student[0]) + divergence(teacher[1], student[1])) / (2 * batch)


def divergence(
    teacher_logits: Float[Tensor, "_rows _batch"], student_logits: Float[Tensor, "_rows _batch"]
) -> Loss:
    """Sum over the queries of KL(softmax of the teacher || softmax of the student)."""
    return F.kl_div(
        F.log_softmax(student_logits, dim=1),
        F.log_softmax(teacher_logits, dim=1),
        reduction="sum",
        log_target=True,
    )
