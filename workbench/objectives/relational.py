"""Contrastive relational distillation: the student ranks the batch like its teacher."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from workbench.objectives.chunked import check_chunk, chunked_divergence
from workbench.objectives.registry import LossInputs, Objective
from workbench.objectives.ring import ring_mixture
from workbench.objectives.similarity import (
    Embeddings,
    Loss,
    Scale,
    check_batch,
    check_width,
    logits,
    unit,
)

_Side = tuple[Embeddings, Embeddings, Scale]  # unit queries, unit keys, multiplier of their cosines


def relational_distillation(
    student_image: Embeddings,
    student_text: Embeddings,
    teacher_image: Embeddings,
    teacher_text: Embeddings,
    student_scale: Scale,
    teacher_scale: Scale,
    *,
    rows: slice | None = None,
    chunk: int | None = None,
    ring: Sequence[int] | None = None,
) -> Loss:
    """CRD: 1/2 [KL(softmax Z_t || softmax Z_s) + the same on the transposes], mean over the batch.

    Embeddings are [batch, dim] of any norm, and the student's width may differ from the teacher's. Each
    side's cosine similarities are multiplied by its own scale. There is no argument for a bias, as SigLIP's
    models have, because a constant added to all logits does not change a softmax. Nothing is detached: every
    input that requires a gradient receives one. `rows`, `chunk` and `ring` as in `contrastive_loss`. Raises
    ValueError if batch sizes differ, or image and text widths of one side. CLIP-KD (arXiv 2307.12732), eq.
    8-10.
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
    check_chunk("relational_distillation", chunk)
    sides = (student_image, student_text, student_scale), (teacher_image, teacher_text, teacher_scale)
    if ring:
        return ring_mixture(*sides, (0.0, 1.0), ring, chunk, both=True)[0] / (2 * sum(ring))
    if chunk:
        return chunked_divergence(*sides, chunk, rows, both=True) / (2 * batch)
    student_image, student_text = unit(student_image, student_text)
    teacher_image, teacher_text = unit(teacher_image, teacher_text)
    student = (student_image, student_text, student_scale)
    teacher = (teacher_image, teacher_text, teacher_scale)
    if rows is not None:
        total = _directed(student, teacher, rows) + _directed(_turned(student), _turned(teacher), rows)
    else:  # one matrix serves both directions
        ours, theirs = logits(*student), logits(*teacher)
        total = divergence(theirs, ours) + divergence(theirs.T, ours.T)
    return total / (2 * batch)


def _directed(student: _Side, teacher: _Side, rows: slice) -> Loss:
    """Sum over the unit queries in `rows`."""
    return divergence(logits(teacher[0][rows], *teacher[1:]), logits(student[0][rows], *student[1:]))


def _turned(side: _Side) -> _Side:
    return side[1], side[0], side[2]


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


def _crd(inputs: LossInputs, modules: Any) -> Loss:
    # As in Hinton et al. 2015 (arXiv 1503.02531): its square preserves the size of the gradient.
    temperature = inputs.temperature
    scales = inputs.student_scale / temperature, inputs.teacher_scale / temperature
    loss = relational_distillation(
        *inputs.student, *inputs.teacher, *scales, rows=inputs.rows, chunk=inputs.chunk, ring=inputs.ring
    )
    return temperature**2 * loss


def image_relations(
    student: Embeddings, teacher: Embeddings, scale: Scale, *, rows: slice | None = None
) -> Loss:
    """Mean_n KL(teacher || student) of the softmax over the similarities of image n to the batch's other
    images.

    `student` and `teacher` are image embeddings, [batch, dim] of any norm and any two widths. `scale`
    multiplies the cosines of both. Captions are not used, and an image is not compared with itself. With
    `rows`, only the share of these rows in the mean. 0 for a batch of fewer than two. Raises ValueError if
    batch sizes differ. Seed (Fang et al. 2021, arXiv 2101.04731), with the batch instead of its queue.
    """
    batch = check_batch("image_relations", student=student, teacher=teacher)
    own = torch.eye(batch, dtype=torch.bool, device=student.device)[rows or slice(None)]
    if batch < 2:
        return student.sum() * 0
    ours, theirs = (
        # Far below any cosine but finite, because KL gives NaN for an infinite logit.
        logits(side[rows or slice(None)], side, scale).masked_fill(own, -1e4)
        for (side,) in (unit(student), unit(teacher))
    )
    return divergence(theirs, ours) / batch


def _image_relations(inputs: LossInputs, modules: Any) -> Loss:
    return image_relations(inputs.student_image, inputs.teacher_image, inputs.teacher_scale, rows=inputs.rows)


CRD = Objective(
    name="crd",
    function=_crd,
    order=1,
    colour="#ee7733",
    needs="teacher",
    reach="ring",
    requires=("teacher_image", "teacher_text", "teacher_scale"),
)
IMAGE_RELATIONS = Objective(
    name="image_relations",
    function=_image_relations,
    order=12,
    colour="#66ccee",
    needs="teacher",
    requires=("teacher_image", "teacher_scale"),
    images_alone=True,
    later=True,
)
