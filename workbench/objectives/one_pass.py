"""The task loss and CRD in one pass over chunks of the batch: they share the student's logits."""

from workbench.objectives.chunked import check_chunk, chunked_mixture
from workbench.objectives.similarity import Embeddings, Loss, Scale, check_batch, check_width


def contrastive_and_relational(
    student_image: Embeddings,
    student_text: Embeddings,
    teacher_image: Embeddings,
    teacher_text: Embeddings,
    student_scale: Scale,
    teacher_scale: Scale,
    weights: tuple[float, float],
    *,
    rows: slice | None = None,
    chunk: int,
) -> tuple[Loss, Loss, Loss]:
    """Weighted sum of `contrastive_loss` and `relational_distillation` for the time and memory of the latter.

    `weights` are those of the two; the other arguments are theirs. Returns (weighted sum, and without
    gradient the task loss and CRD). Raises ValueError as they do.
    """
    batch = check_batch(
        "contrastive_and_relational",
        student_image=student_image,
        student_text=student_text,
        teacher_image=teacher_image,
        teacher_text=teacher_text,
    )
    check_width("contrastive_and_relational", student_image=student_image, student_text=student_text)
    check_width("contrastive_and_relational", teacher_image=teacher_image, teacher_text=teacher_text)
    check_chunk("contrastive_and_relational", chunk)
    student = (student_image, student_text, student_scale)
    teacher = (teacher_image, teacher_text, teacher_scale)
    weighted, task, crd = chunked_mixture(student, teacher, weights, chunk, rows, both=True)
    return weighted / (2 * batch), task / (2 * batch), crd / (2 * batch)
