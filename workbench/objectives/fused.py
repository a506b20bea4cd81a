"""Augmented feature distillation: student and teacher are fused, and the fusions matched across
modalities."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from workbench.objectives.contrastive import contrastive_loss
from workbench.objectives.learned_scale import LearnedScale
from workbench.objectives.registry import LossInputs, Objective, Widths
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
    ring: Sequence[int] | None = None,
) -> Loss:
    """AFD: symmetric InfoNCE between fuse_image([s_v ; t_v]) and fuse_text([s_t ; t_t]), mean over the batch.

    Embeddings are [batch, dim] of any norm, and the student's width may differ from the teacher's.
    `fuse_image` and `fuse_text` map [batch, student dim + teacher dim] to [batch, dim] with any common dim.
    `scale` multiplies the cosine similarities and is separate from the student's. `rows` and `ring` as in
    `contrastive_loss`. Raises ValueError if batch sizes differ, or image and text widths of one side. CLIP-KD
    (arXiv 2307.12732), eq. 17-19; its code multiplies by the logarithm of the scale.
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
    return contrastive_loss(image, text, scale, rows=rows, ring=ring)


def _afd(inputs: LossInputs, modules: Any) -> Loss:
    fuse = modules.fuse_image, modules.fuse_text
    return fused_contrastive_loss(
        *inputs.student, *inputs.teacher, *fuse, modules.fused_scale(), rows=inputs.rows, ring=inputs.ring
    )


def _modules(widths: Widths) -> dict[str, nn.Module]:
    student, teacher = widths.student, widths.of("teacher_image")
    assert teacher is not None  # the objective requires it
    return {
        "fuse_image": nn.Linear(student + teacher, teacher),
        "fuse_text": nn.Linear(student + teacher, teacher),
        "fused_scale": LearnedScale(),
    }


AFD = Objective(
    name="afd",
    function=_afd,
    order=6,
    colour="#332288",
    needs="teacher",
    reach="ring",
    requires=("teacher_image", "teacher_text"),
    modules=_modules,
)
