"""Interactive contrastive learning: the student's embeddings retrieve their positives from the teacher's."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from workbench.objectives.chunked import check_chunk, chunked_matching
from workbench.objectives.contrastive import matching
from workbench.objectives.learned_scale import LearnedScale
from workbench.objectives.registry import LossInputs, Objective, Widths
from workbench.objectives.ring import ring_mixture
from workbench.objectives.similarity import Embeddings, Loss, Scale, check_batch, check_width, unit


def interactive_contrastive_loss(
    student_image: Embeddings,
    student_text: Embeddings,
    teacher_image: Embeddings,
    teacher_text: Embeddings,
    scale: Scale,
    *,
    rows: slice | None = None,
    chunk: int | None = None,
    ring: Sequence[int] | None = None,
) -> Loss:
    """ICL, mean over the batch: 1/2 [CE(c s_v t_t^T, I) + CE(c s_t t_v^T, I)], student queries, teacher keys.

    Embeddings are [batch, dim] of any norm and of one width. `scale` (c) multiplies the cosine similarities
    and is separate from the student's. `rows`, `chunk` and `ring` as in `contrastive_loss`, with the
    student's embeddings as queries. Raises ValueError if batch sizes or widths differ. CLIP-KD (arXiv
    2307.12732), eq. 14-16; its code multiplies by the logarithm of the scale.
    """
    sides = {
        "student_image": student_image,
        "student_text": student_text,
        "teacher_image": teacher_image,
        "teacher_text": teacher_text,
    }
    batch = check_batch("interactive_contrastive_loss", **sides)
    check_width("interactive_contrastive_loss", "; project the student with the head first", **sides)
    check_chunk("interactive_contrastive_loss", chunk)
    if ring:
        batch = sum(ring)
        ways = (student_image, teacher_text, scale), (student_text, teacher_image, scale)
        image_to_text, text_to_image = (ring_mixture(way, None, (1.0, 0.0), ring, chunk)[0] for way in ways)
    elif chunk:
        image_to_text = chunked_matching(student_image, teacher_text, scale, chunk, rows)
        text_to_image = chunked_matching(student_text, teacher_image, scale, chunk, rows)
    else:
        student_image, student_text, teacher_image, teacher_text = unit(*sides.values())
        image_to_text = matching(student_image, teacher_text, scale, rows)
        text_to_image = matching(student_text, teacher_image, scale, rows)
    return (image_to_text + text_to_image) / (2 * batch)


def _icl(inputs: LossInputs, modules: Any) -> Loss:
    return interactive_contrastive_loss(
        *inputs.projected,
        *inputs.teacher,
        modules.interactive_scale(),
        rows=inputs.rows,
        chunk=inputs.chunk,
        ring=inputs.ring,
    )


def _modules(widths: Widths) -> dict[str, nn.Module]:
    return {"interactive_scale": LearnedScale()}


ICL = Objective(
    name="icl",
    function=_icl,
    order=5,
    colour="#ee3377",
    needs="teacher",
    reach="ring",
    requires=("teacher_image", "teacher_text"),
    head=("image", "text"),
    modules=_modules,
)
