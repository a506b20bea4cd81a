"""Concept learning: image and caption both predict the concepts of the caption."""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from workbench.objectives.learned_scale import LearnedScale
from workbench.objectives.registry import LossInputs, Objective, Widths
from workbench.objectives.similarity import Embeddings, Loss, check_batch, check_width, mapped, unit


class ConceptClassifier(nn.Module):
    """Maps unit embeddings [batch, dim] to logits [batch, clusters]: cosines with a learned direction per
    concept, times a learned scale in [1, 100]."""

    def __init__(self, dim: int, clusters: int) -> None:
        super().__init__()
        self.directions = nn.Parameter(torch.randn(clusters, dim) / math.sqrt(dim))
        self.scale = LearnedScale()

    def forward(self, embeddings: Embeddings) -> Float[Tensor, "_batch _clusters"]:
        """The logits, whose softmax is the probabilities of the concepts."""
        return self.scale() * F.linear(embeddings, unit(self.directions)[0].to(embeddings.dtype))


def concept_loss(
    image: Embeddings,
    text: Embeddings,
    soft_labels: Float[Tensor, "_batch _clusters"],
    classifier: Callable[[Tensor], Tensor],
    *,
    rows: slice | None = None,
) -> Loss:
    """L_conc: mean over the batch of 1/2 [CE(q, softmax(classifier(v_hat))) + CE(q,
    softmax(classifier(t_hat)))].

    `image` and `text` are [batch, dim] of any norm, `soft_labels` (q) is [batch, clusters] with rows that sum
    to 1, and `classifier`, shared by both towers, maps unit embeddings to logits [batch, clusters]. With
    `rows`, only the share of these rows in the mean. Raises ValueError if batch sizes differ, or the width of
    the logits from that of the labels. Knowledge-CLIP (Kao 2024), L_conc; the paper does not define its
    softmax, and ours is that of scaled cosines.
    """
    batch = check_batch("concept_loss", image=image, text=text, soft_labels=soft_labels)
    check_width("concept_loss", image=image, text=text)
    chosen = rows or slice(None)
    labels = soft_labels[chosen]
    loss = image.new_zeros(())
    for embeddings in unit(image, text):
        logits = mapped(classifier, embeddings[chosen])
        check_width("concept_loss", classifier_output=logits, soft_labels=soft_labels)
        loss = loss - (labels * F.log_softmax(logits, dim=1)).sum()
    return loss / (2 * batch)


def _concepts(inputs: LossInputs, modules: Any) -> Loss:
    return concept_loss(*inputs.student, inputs.soft_labels, modules.concept_classifier, rows=inputs.rows)


def _modules(widths: Widths) -> dict[str, nn.Module]:
    assert widths.concepts is not None  # the objective requires it
    return {"concept_classifier": ConceptClassifier(widths.student, widths.concepts)}


CONCEPTS = Objective(
    name="concepts",
    function=_concepts,
    order=9,
    colour="#999933",
    needs="text_teacher",
    reach="pair",
    requires=("soft_labels",),
    modules=_modules,
)
