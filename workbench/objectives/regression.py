"""Regression on a language model's caption embeddings, which the text tower learns to contain."""

import math
from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from workbench.objectives.registry import LossInputs, Objective, Widths
from workbench.objectives.similarity import Embeddings, Loss, check_batch, check_width, mapped, unit


class EmbeddingHead(nn.Linear):
    """A linear map of unit embeddings [batch, dim] to [batch, target dim].

    It first scales their entries from about 1 / sqrt(dim) to 1. Otherwise its weights would have to grow far
    beyond their initial size, and at the towers' learning rate the regression would hardly start.
    """

    def forward(self, input: Tensor) -> Tensor:
        """The regression's prediction."""
        return super().forward(input * math.sqrt(self.in_features))


def embedding_regression(
    student_text: Embeddings,
    target: Float[Tensor, "_batch _target"],
    head: Callable[[Tensor], Tensor],
    *,
    rows: slice | None = None,
) -> Loss:
    """L_emb: mean over the batch and the target's dimensions of (head(t_hat) - z)^2.

    `student_text` is [batch, dim] of any norm. `target` (z), [batch, target dim], is used unchanged:
    standardise it first (`workbench.targets.Standardiser`), so that predicting its mean has a loss of 1.
    `head` maps [n, dim] to [n, target dim]. With `rows`, only the share of these rows in the mean. Raises
    ValueError if batch sizes differ, or the width of the head from that of the target. Knowledge-CLIP (Kao
    2024), L_emb, which the paper does not standardise.
    """
    batch = check_batch("embedding_regression", student_text=student_text, target=target)
    chosen = rows or slice(None)
    predicted = mapped(head, unit(student_text)[0][chosen])
    check_width("embedding_regression", head_output=predicted, target=target)
    return (predicted - target[chosen]).square().sum() / (batch * target.shape[1])


def _embedding(inputs: LossInputs, modules: Any) -> Loss:
    return embedding_regression(
        inputs.student_text, inputs.text_target, modules.embedding_head, rows=inputs.rows
    )


def _modules(widths: Widths) -> dict[str, nn.Module]:
    assert widths.text_target is not None  # the objective requires it
    return {"embedding_head": EmbeddingHead(widths.student, widths.text_target)}


EMBEDDING = Objective(
    name="embedding",
    function=_embedding,
    order=8,
    colour="#33a6dd",
    needs="text_teacher",
    reach="pair",
    requires=("text_target",),
    modules=_modules,
)
