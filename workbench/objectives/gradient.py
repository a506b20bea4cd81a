"""Gradient distillation: the gradient of the student's loss approaches that of the teacher's."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from workbench.objectives.registry import LossInputs, Objective
from workbench.objectives.similarity import Embeddings, Loss, Scale, check_batch, check_width, logits, unit


def gradient_distillation(
    student_image: Embeddings,
    student_text: Embeddings,
    teacher_image: Embeddings,
    teacher_text: Embeddings,
    student_scale: Scale,
    teacher_scale: Scale,
    relative: bool = True,
    *,
    rows: slice | None = None,
) -> Loss:
    """GD: squared distance between the InfoNCE gradients of student and teacher, over four matrices.

    The matrices are those of `info_nce_gradients`. `relative` divides the sum of squares by max(the teacher's
    own, 1e-12), so that the loss of a student without gradient is 1 for any batch. Embeddings are [batch,
    dim] of any norm and of one width, and the scales multiply the cosine similarities. With `rows`, only the
    share of these rows. Raises ValueError if batch sizes or widths differ. CLIP-KD (arXiv 2307.12732), eq.
    13; its code divides by the scale instead of multiplying, averages over the width, and builds tensors of
    [batch, dim, batch].
    """
    sides = {
        "student_image": student_image,
        "student_text": student_text,
        "teacher_image": teacher_image,
        "teacher_text": teacher_text,
    }
    check_batch("gradient_distillation", **sides)
    check_width("gradient_distillation", "; project the student with the head first", **sides)
    student_image, student_text, teacher_image, teacher_text = unit(*sides.values())
    # The denominator is that of the whole batch, so all rows of the teacher are needed.
    teacher = info_nce_gradients(teacher_image, teacher_text, teacher_scale)
    student = info_nce_gradients(student_image, student_text, student_scale, rows)
    chosen = rows or slice(None)
    distance = torch.stack(
        [(ours - theirs[chosen]).square().sum() for ours, theirs in zip(student, teacher, strict=True)]
    ).sum()
    if not relative:
        return distance
    return distance / torch.stack([gradient.square().sum() for gradient in teacher]).sum().clamp(min=1e-12)


def info_nce_gradients(
    image: Embeddings, text: Embeddings, scale: Scale, rows: slice | None = None
) -> tuple[Float[Tensor, "_rows _dim"], ...]:
    """Gradients of the InfoNCE of each direction, mean over the batch, with respect to unit embeddings.

    In this order: image -> text with respect to image and to text, then text -> image with respect to text
    and to image. They are (P - I) keys * scale / batch and (P - I)^T queries * scale / batch, [batch, dim]
    each, or [n, dim] for the n embeddings of `rows`. Differentiable, through the softmax too.
    """
    factor = scale / len(image)
    chosen = rows or slice(None)
    with torch.autocast(image.device.type, enabled=False):
        gradients = []
        similarity = logits(image, text, scale)
        nothing = similarity.new_zeros(len(image))
        for scores, query, key in ((similarity, image, text), (similarity.T, text, image)):
            # Rows of P sum to one, so the diagonal of P - I is minus the rest of the row; p - 1 itself would
            # round to 0 in a batch that is nearly solved.
            wrong = F.softmax(scores, dim=1).diagonal_scatter(nothing)
            rest = wrong.sum(1, keepdim=True)
            of_query = wrong[chosen] @ key - (rest * key)[chosen]
            of_key = wrong[:, chosen].T @ query - (rest * query)[chosen]
            gradients += [factor * of_query, factor * of_key]
    return tuple(gradients)


def _gd(inputs: LossInputs, modules: Any) -> Loss:
    scales = inputs.student_scale, inputs.teacher_scale
    return gradient_distillation(*inputs.projected, *inputs.teacher, *scales, rows=inputs.rows)


GD = Objective(
    name="gd",
    function=_gd,
    order=4,
    colour="#cc3311",
    needs="teacher",
    requires=("teacher_image", "teacher_text", "teacher_scale"),
    head=("image", "text"),
)
