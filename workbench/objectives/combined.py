"""A weighted sum of objectives, with the learned parts that some of them need."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from workbench.errors import SettingError
from workbench.objectives.concepts import ConceptClassifier, concept_loss
from workbench.objectives.contrastive import contrastive_loss
from workbench.objectives.feature import cosine_distillation, feature_distillation
from workbench.objectives.fused import fused_contrastive_loss
from workbench.objectives.gradient import gradient_distillation
from workbench.objectives.interactive import interactive_contrastive_loss
from workbench.objectives.learned_scale import LearnedScale
from workbench.objectives.one_pass import contrastive_and_relational
from workbench.objectives.regression import EmbeddingHead, embedding_regression
from workbench.objectives.relational import relational_distillation
from workbench.objectives.similarity import Embeddings, Loss, Scale


class Batch(NamedTuple):
    """What a term may read: embeddings of one (global) batch, scales, targets, this process's own rows."""

    student_image: Tensor
    student_text: Tensor
    projected_image: Tensor
    projected_text: Tensor
    student_scale: Scale
    teacher_image: Tensor
    teacher_text: Tensor
    teacher_scale: Scale
    masked_image: Tensor
    text_target: Tensor
    soft_labels: Tensor
    cross_modal_target: Tensor
    rows: slice | None
    chunk: int | None

    @property
    def student(self) -> tuple[Tensor, Tensor]:
        """The student's own embeddings, image and text."""
        return self.student_image, self.student_text

    @property
    def projected(self) -> tuple[Tensor, Tensor]:
        """The student's embeddings in the teacher's width, image and text."""
        return self.projected_image, self.projected_text

    @property
    def teacher(self) -> tuple[Tensor, Tensor]:
        """The teacher's embeddings, image and text."""
        return self.teacher_image, self.teacher_text


class Objective(NamedTuple):
    """How one name in a recipe's `objectives` is computed, and what it needs besides the student."""

    value: Callable[["DistillationLoss", Batch], Tensor]
    reads: tuple[str, ...] = ()  # optional arguments of DistillationLoss.forward it cannot do without
    projected: tuple[str, ...] = ()  # sides compared with the teacher entry by entry, in the teacher's width


def _task(parts: "DistillationLoss", b: Batch) -> Tensor:
    weights = parts.direction_weights
    return contrastive_loss(
        *b.student, b.student_scale, rows=b.rows, chunk=b.chunk, direction_weights=weights
    )


def _crd(parts: "DistillationLoss", b: Batch) -> Tensor:
    # As in Hinton et al. 2015 (arXiv 1503.02531): its square keeps the gradient's size.
    temperature = parts.temperature
    scales = b.student_scale / temperature, b.teacher_scale / temperature
    loss = relational_distillation(*b.student, *b.teacher, *scales, rows=b.rows, chunk=b.chunk)
    return temperature**2 * loss


def _fd(parts: "DistillationLoss", b: Batch) -> Tensor:
    image, text = zip(b.projected, b.teacher, strict=True)
    return feature_distillation(*image, rows=b.rows) + feature_distillation(*text, rows=b.rows)


def _mfd(parts: "DistillationLoss", b: Batch) -> Tensor:
    image = feature_distillation(b.masked_image, b.teacher_image, rows=b.rows)
    return image + feature_distillation(b.projected_text, b.teacher_text, rows=b.rows)


def _gd(parts: "DistillationLoss", b: Batch) -> Tensor:
    scales = b.student_scale, b.teacher_scale
    return gradient_distillation(*b.projected, *b.teacher, *scales, rows=b.rows)


def _icl(parts: "DistillationLoss", b: Batch) -> Tensor:
    scale = parts.interactive_scale()
    return interactive_contrastive_loss(*b.projected, *b.teacher, scale, rows=b.rows, chunk=b.chunk)


def _afd(parts: "DistillationLoss", b: Batch) -> Tensor:
    fusing = parts.fuse_image, parts.fuse_text
    return fused_contrastive_loss(*b.student, *b.teacher, *fusing, parts.fused_scale(), rows=b.rows)


def _cosine(parts: "DistillationLoss", b: Batch) -> Tensor:
    image, text = zip(b.projected, b.teacher, strict=True)
    return cosine_distillation(*image, rows=b.rows) + cosine_distillation(*text, rows=b.rows)


def _embedding(parts: "DistillationLoss", b: Batch) -> Tensor:
    return embedding_regression(b.student_text, b.text_target, parts.embedding_head, rows=b.rows)


def _concepts(parts: "DistillationLoss", b: Batch) -> Tensor:
    return concept_loss(*b.student, b.soft_labels, parts.concept_classifier, rows=b.rows)


def _cross_modal(parts: "DistillationLoss", b: Batch) -> Tensor:
    return cosine_distillation(b.projected_image, b.cross_modal_target, rows=b.rows)


def _preservation(parts: "DistillationLoss", b: Batch) -> Tensor:
    return cosine_distillation(b.projected_image, b.teacher_image, rows=b.rows)


_TEACHER = ("teacher_image", "teacher_text")
_BOTH = ("image", "text")

OBJECTIVES: dict[str, Objective] = {
    "task": Objective(_task),
    "crd": Objective(_crd, reads=(*_TEACHER, "teacher_scale")),
    "fd": Objective(_fd, reads=_TEACHER, projected=_BOTH),
    "mfd": Objective(_mfd, reads=(*_TEACHER, "masked_image"), projected=_BOTH),
    "gd": Objective(_gd, reads=(*_TEACHER, "teacher_scale"), projected=_BOTH),
    "icl": Objective(_icl, reads=_TEACHER, projected=_BOTH),
    "afd": Objective(_afd, reads=_TEACHER),
    "cosine": Objective(_cosine, reads=_TEACHER, projected=_BOTH),
    "embedding": Objective(_embedding, reads=("text_target",)),
    "concepts": Objective(_concepts, reads=("soft_labels",)),
    "cross_modal": Objective(_cross_modal, reads=("cross_modal_target",), projected=("image",)),
    "preservation": Objective(_preservation, reads=("teacher_image",), projected=("image",)),
}


class DistillationLoss(nn.Module):
    """The weighted sum of the objectives in `weights`; those of weight 0 cost nothing and learn nothing.

    `weights` maps names of `OBJECTIVES` to numbers >= 0; SettingError names the one that cannot be used. The
    widths and counts that follow are None where there is no such teacher: `teacher_dim` of the image-text
    teacher, `target_dim` of the language model's embeddings, `concepts`. Learned parts, each where a term
    wants it: `image_head` and `text_head`, linear maps from student to teacher width, the identity where
    these agree or nothing compares that side; `fuse_image` and `fuse_text`; `embedding_head`;
    `concept_classifier`; scales of ICL, AFD and concepts. Initial values come from torch's global generator:
    seed it alike on every rank. `chunk`: rows at a time in losses that compare all with all, None: the whole
    batch at once. `temperature`: what both scales are divided by in CRD.
    """

    def __init__(
        self,
        weights: Mapping[str, int | float],
        student_dim: int,
        teacher_dim: int | None,
        *,
        target_dim: int | None = None,
        concepts: int | None = None,
        chunk: int | None = None,
        direction_weights: tuple[float, float] = (0.5, 0.5),
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        widths = {"text_target": target_dim, "soft_labels": concepts}
        _check(weights, {**widths, "teacher_image": teacher_dim, "cross_modal_target": teacher_dim})
        self.weights = {name: float(weight) for name, weight in weights.items() if weight > 0}
        self.chunk = chunk
        self.direction_weights = direction_weights
        self.temperature = temperature
        self.image_head: nn.Module = nn.Identity()
        self.text_head: nn.Module = nn.Identity()
        projected = {side for name in self.weights for side in OBJECTIVES[name].projected}
        if teacher_dim is not None and teacher_dim != student_dim:
            if "image" in projected:
                self.image_head = nn.Linear(student_dim, teacher_dim)
            if "text" in projected:
                self.text_head = nn.Linear(student_dim, teacher_dim)
        if "icl" in self.weights:
            self.interactive_scale = LearnedScale()
        if "afd" in self.weights and teacher_dim is not None:
            self.fuse_image = nn.Linear(student_dim + teacher_dim, teacher_dim)
            self.fuse_text = nn.Linear(student_dim + teacher_dim, teacher_dim)
            self.fused_scale = LearnedScale()
        if "embedding" in self.weights and target_dim is not None:
            self.embedding_head = EmbeddingHead(student_dim, target_dim)
        if "concepts" in self.weights and concepts is not None:
            self.concept_classifier = ConceptClassifier(student_dim, concepts)

    def clamp_scales_(self) -> None:
        """Bring learned scales back into [1, 100]; for after each optimiser step."""
        for module in self.modules():
            if isinstance(module, LearnedScale):
                module.clamp_()

    def used_by_the_loss(self) -> Iterator[nn.Parameter]:
        """Parameters that `forward` reads and `project` does not."""
        for name, parameter in self.named_parameters():
            if not name.startswith(("image_head.", "text_head.")):
                yield parameter

    def project(self, image: Embeddings, text: Embeddings) -> tuple[Embeddings, Embeddings]:
        """Student embeddings in the teacher's width: through the heads, or as they are without heads."""
        return self.image_head(image), self.text_head(text)

    def forward(
        self,
        student_image: Embeddings,
        student_text: Embeddings,
        projected_image: Embeddings,
        projected_text: Embeddings,
        student_scale: Scale,
        teacher_image: Embeddings | None = None,
        teacher_text: Embeddings | None = None,
        teacher_scale: Scale | None = None,
        *,
        masked_image: Embeddings | None = None,
        text_target: Embeddings | None = None,
        soft_labels: Embeddings | None = None,
        cross_modal_target: Embeddings | None = None,
        rows: slice | None = None,
    ) -> tuple[Loss, dict[str, Loss]]:
        """The weighted sum, and every active term's unweighted value (of task and CRD in chunks, which share
        a pass, without gradient).

        Embeddings are [batch, dim], gathered from all processes where there are several; `rows` is then this
        process's slice of them, and the values are its share of the batch mean. `masked_image` are the
        student's embeddings of masked images in the teacher's width, `text_target` standardised caption
        embeddings of a language model, `soft_labels` distributions over concepts, `cross_modal_target` the
        cross-modal teacher's embeddings of the pairs, in the teacher's width. ValueError where a term lacks
        what it reads.
        """
        optional = {
            "teacher_image": teacher_image,
            "teacher_text": teacher_text,
            "teacher_scale": teacher_scale,
            "masked_image": masked_image,
            "text_target": text_target,
            "soft_labels": soft_labels,
            "cross_modal_target": cross_modal_target,
        }
        for name in self.weights:
            missing = [argument for argument in OBJECTIVES[name].reads if optional[argument] is None]
            if missing:
                raise ValueError(f"objective {name!r} cannot do without {', '.join(missing)}")
        batch = Batch(
            student_image,
            student_text,
            projected_image,
            projected_text,
            student_scale,
            rows=rows,
            chunk=self.chunk,
            **optional,  # type: ignore[arg-type]  # the check above: whatever an active term reads is there
        )
        terms: dict[str, Loss] = {}
        weighted = []
        if batch.chunk and self.temperature == 1 and {"task", "crd"} <= self.weights.keys():
            together, terms["task"], terms["crd"] = contrastive_and_relational(
                *batch.student,
                *batch.teacher,
                batch.student_scale,
                batch.teacher_scale,
                (self.weights["task"], self.weights["crd"]),
                rows=rows,
                chunk=batch.chunk,
            )
            weighted.append(together)
        for name, weight in self.weights.items():
            if name not in terms:
                terms[name] = OBJECTIVES[name].value(self, batch)
                weighted.append(weight * terms[name])
        return torch.stack(weighted).sum(), {name: terms[name] for name in self.weights}


def _check(weights: Mapping[str, int | float], widths: Mapping[str, int | None]) -> None:
    """SettingError for a weight that cannot be used; `widths` of what a term may read, None: it is absent."""
    teachers = {
        "teacher_image": "a teacher",
        "text_target": "a text teacher",
        "soft_labels": "a text teacher's concepts",
        "cross_modal_target": "a cross-modal teacher",
    }
    for name, weight in weights.items():
        setting = f"objectives.{name}"
        if name not in OBJECTIVES:
            raise SettingError(setting, weight, "no such objective", f"Choose from {', '.join(OBJECTIVES)}")
        if not (math.isfinite(weight) and weight >= 0):
            raise SettingError(setting, weight, "not a usable weight", "Give a finite number, 0 or more")
        for argument, teacher in teachers.items():
            if weight > 0 and argument in OBJECTIVES[name].reads and widths[argument] is None:
                raise SettingError(
                    setting,
                    weight,
                    f"learns from {teacher}, and there is none",
                    f"Name {teacher}, or give 0",
                )
    if not any(weight > 0 for weight in weights.values()):
        raise SettingError(
            "objectives", dict(weights), "every weight is 0", "Give at least one objective a weight"
        )
