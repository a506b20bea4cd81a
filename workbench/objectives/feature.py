"""Feature distillation: the student's embeddings approach the teacher's."""

from typing import Any

from workbench.objectives.registry import LossInputs, Objective
from workbench.objectives.similarity import Embeddings, Loss, check_batch, check_width, unit

_HEAD_FIRST = "; project the student with the head first"


def feature_distillation(student: Embeddings, teacher: Embeddings, *, rows: slice | None = None) -> Loss:
    """FD, or MFD if the student saw a masked image: mean_n ||s_n - t_n||^2 of unit vectors = 2 (1 - cos).

    `student` and `teacher` are [batch, dim] of any norm and of one modality. With `rows`, only the share of
    these rows in the mean. Raises ValueError if batch sizes or widths differ. CLIP-KD (arXiv 2307.12732), eq.
    11 and 12; its code also averages over the width, so its weight 2000 is 3.9 here at width 512 and 2.6 at
    768.
    """
    batch = check_batch("feature_distillation", student=student, teacher=teacher)
    check_width("feature_distillation", _HEAD_FIRST, student=student, teacher=teacher)
    student, teacher = unit(student, teacher)
    chosen = rows or slice(None)
    return (student[chosen] - teacher[chosen]).square().sum() / batch


def cosine_distillation(student: Embeddings, teacher: Embeddings, *, rows: slice | None = None) -> Loss:
    """Mean_n (1 - cos(s_n, t_n)): half of `feature_distillation`.

    `student` and `teacher` are [batch, dim] of any norm; a row of zeros costs 1. With `rows`, only the share
    of these rows in the mean. Raises ValueError if batch sizes or widths differ. DCLIP, its loss against the
    cross-modal teacher.
    """
    batch = check_batch("cosine_distillation", student=student, teacher=teacher)
    check_width("cosine_distillation", _HEAD_FIRST, student=student, teacher=teacher)
    student, teacher = unit(student, teacher)
    chosen = rows or slice(None)
    return (1 - (student[chosen] * teacher[chosen]).sum(dim=-1)).sum() / batch


def _fd(inputs: LossInputs, modules: Any) -> Loss:
    sides = []
    if inputs.teacher_image is not None:
        sides.append(feature_distillation(inputs.projected_image, inputs.teacher_image, rows=inputs.rows))
    if inputs.teacher_text is not None:
        sides.append(feature_distillation(*_texts(inputs), rows=inputs.rows))
    return sum(sides[1:], sides[0])


def _mfd(inputs: LossInputs, modules: Any) -> Loss:
    image = feature_distillation(inputs.masked_image, inputs.teacher_image, rows=inputs.rows)
    return image + feature_distillation(*_texts(inputs), rows=inputs.rows)


def _cosine(inputs: LossInputs, modules: Any) -> Loss:
    sides = []
    if inputs.teacher_image is not None:
        sides.append(cosine_distillation(inputs.projected_image, inputs.teacher_image, rows=inputs.rows))
    if inputs.teacher_text is not None:
        sides.append(cosine_distillation(*_texts(inputs), rows=inputs.rows))
    both = sum(sides[1:], sides[0])
    if inputs.captioned is None or inputs.teacher_text is None:
        return both
    # A row of zeros costs 1, but a picture without a caption must cost nothing.
    missing = 1 - inputs.captioned[inputs.rows or slice(None)]
    return both - missing.sum() / len(inputs.captioned)


def _texts(inputs: LossInputs) -> tuple[Any, Any]:
    """The student's and the teacher's embeddings of the captions, zeros for pictures without a caption."""
    if inputs.captioned is None:
        return inputs.projected_text, inputs.teacher_text
    kept = inputs.captioned[:, None] > 0
    return inputs.projected_text.where(kept, 0), inputs.teacher_text.where(kept, 0)


def _cross_modal(inputs: LossInputs, modules: Any) -> Loss:
    return cosine_distillation(inputs.projected_image, inputs.cross_modal_target, rows=inputs.rows)


def _preservation(inputs: LossInputs, modules: Any) -> Loss:
    # The teacher is the student's start, which `build_targets` checks.
    return cosine_distillation(inputs.projected_image, inputs.teacher_image, rows=inputs.rows)


FD = Objective(
    name="fd",
    function=_fd,
    order=2,
    colour="#009988",
    needs="teacher",
    reach="pair",
    requires=("teacher_image", "teacher_text"),
    head=("image", "text"),
    images_alone=True,
    either_side=True,
)
MFD = Objective(
    name="mfd",
    function=_mfd,
    order=3,
    colour="#117733",
    needs="teacher",
    reach="pair",
    requires=("teacher_image", "teacher_text", "masked_image"),
    head=("image", "text"),
    images_alone=True,
)
COSINE = Objective(
    name="cosine",
    function=_cosine,
    order=7,
    colour="#882255",
    needs="teacher",
    reach="pair",
    requires=("teacher_image", "teacher_text"),
    head=("image", "text"),
    images_alone=True,
    either_side=True,
)
CROSS_MODAL = Objective(
    name="cross_modal",
    function=_cross_modal,
    order=10,
    colour="#aa4499",
    needs="teacher",
    reach="pair",
    requires=("cross_modal_target",),
    head=("image",),
)
PRESERVATION = Objective(
    name="preservation",
    function=_preservation,
    order=11,
    colour="#663300",
    needs="teacher",
    reach="pair",
    requires=("teacher_image",),
    head=("image",),
    images_alone=True,
)
