"""Augmented feature distillation: student and teacher fused, and the fusions matched across modalities."""

from collections.abc import Callable

import torch
from torch import Tensor

from workbench.objectives.contrastive import contrastive_loss
from workbench.objectives.similarity import Embeddings, Loss, Scale, check_batch, check_width, mapped, unit


def fused_contrastive_loss(
    student_image: Embeddings,
    student_text: Embeddings,
    teacher_image: Embeddings,
    teacher_text: Embeddings,
    fuse_image: Callable[[Tensor], Tensor],
    fuse_text: Callable[[Tensor], Tensor],
    scale: Scale,
    *,
    rows: slice | None = None,
) -> Loss:
    """AFD: symmetric InfoNCE between fuse_image([s_v ; t_v]) and fuse_text([s_t ; t_t]), mean over the batch.

    Embeddings are [batch, dim] of any norm, the student's width may differ from the teacher's; `fuse_image`
    and `fuse_text` map [batch, student dim + teacher dim] to [batch, any one dim]; `scale` multiplies the
    cosine similarities and is a scale of its own. With `rows`, only these queries' share of the mean, as in
    `contrastive_loss`. Raises ValueError where batch sizes differ, or image and text widths of one side.
    CLIP-KD (arXiv 2307.12732), eq. 17-19; its code multiplies by the logarithm of the scale.
    """
    check_batch(
        "fused_contrastive_loss",
        student_image=student_image,
        student_text=student_text,
        teacher_image=teacher_image,
        teacher_text=teacher_text,
    )
    check_width("fused_contrastive_loss", student_image=student_image, student_text=student_text)
    check_width("fused_contrastive_loss", teacher_image=teacher_image, teacher_text=teacher_text)
    image = mapped(fuse_image, torch.cat(unit(student_image, teacher_image), dim=1))
    text = mapped(fuse_text, torch.cat(unit(student_text, teacher_text), dim=1))
    return contrastive_loss(image, text, scale, rows=rows)
