"""A weighted sum of objectives, with the learned parts that some of them need."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from workbench.errors import SettingError
from workbench.objectives.contrastive import contrastive_loss
from workbench.objectives.feature import cosine_distillation, feature_distillation
from workbench.objectives.interactive import interactive_contrastive_loss
from workbench.objectives.relational import relational_distillation
from workbench.objectives.similarity import Embeddings, Loss, Scale

MAX_LOG_SCALE = math.log(100)


class Batch(NamedTuple):
    """What a term may read: embeddings of one (global) batch, the scales, this process's own rows."""

    student_image: Tensor
    student_text: Tensor
    projected_image: Tensor
    projected_text: Tensor
    student_scale: Scale
    teacher_image: Tensor
    teacher_text: Tensor
    teacher_scale: Scale
    interactive_scale: Scale
    rows: slice | None


class Term(NamedTuple):
    """How one name in a recipe's `objectives` is computed, and what it needs besides the student."""

    value: Callable[[Batch], Tensor]
    reads: tuple[str, ...] = ()  # optional arguments of Mixture.forward it cannot do without
    projected: bool = False  # compares student with teacher entry by entry, so wants the teacher's width


_TEACHER = ("teacher_image", "teacher_text")

TERMS: dict[str, Term] = {
    "task": Term(lambda b: contrastive_loss(b.student_image, b.student_text, b.student_scale, rows=b.rows)),
    "crd": Term(
        lambda b: relational_distillation(
            b.student_image,
            b.student_text,
            b.teacher_image,
            b.teacher_text,
            b.student_scale,
            b.teacher_scale,
            rows=b.rows,
        ),
        reads=(*_TEACHER, "teacher_scale"),
    ),
    "fd": Term(
        lambda b: (
            feature_distillation(b.projected_image, b.teacher_image, rows=b.rows)
            + feature_distillation(b.projected_text, b.teacher_text, rows=b.rows)
        ),
        reads=_TEACHER,
        projected=True,
    ),
    "icl": Term(
        lambda b: interactive_contrastive_loss(
            b.projected_image,
            b.projected_text,
            b.teacher_image,
            b.teacher_text,
            b.interactive_scale,
            rows=b.rows,
        ),
        reads=_TEACHER,
        projected=True,
    ),
    "cosine": Term(
        lambda b: (
            cosine_distillation(b.projected_image, b.teacher_image, rows=b.rows)
            + cosine_distillation(b.projected_text, b.teacher_text, rows=b.rows)
        ),
        reads=_TEACHER,
        projected=True,
    ),
}


class Mixture(nn.Module):
    """The weighted sum of the objectives in `weights`; those of weight 0 cost nothing and learn nothing.

    `weights` maps names of `TERMS` to numbers >= 0; SettingError names the one that cannot be used.
    `teacher_dim` is None where there is no teacher. Where the widths differ and a term compares entry by
    entry, `image_head` and `text_head` are learned linear maps from student to teacher width (else the
    identity). ICL learns a scale of its own. Initial values come from torch's global generator: seed it alike
    on every rank.
    """

    def __init__(self, weights: Mapping[str, int | float], student_dim: int, teacher_dim: int | None) -> None:
        super().__init__()
        _check(weights, teacher_dim)
        self.weights = {name: float(weight) for name, weight in weights.items() if weight > 0}
        self.image_head: nn.Module = nn.Identity()
        self.text_head: nn.Module = nn.Identity()
        projects = any(TERMS[name].projected for name in self.weights)
        if projects and teacher_dim is not None and teacher_dim != student_dim:
            self.image_head = nn.Linear(student_dim, teacher_dim)
            self.text_head = nn.Linear(student_dim, teacher_dim)
        self.interactive_log_scale: nn.Parameter | None = None
        if "icl" in self.weights:
            self.interactive_log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    @property
    def interactive_scale(self) -> Scale | None:
        """ICL's multiplier of cosine similarities, in [1, 100]; None without ICL."""
        if self.interactive_log_scale is None:
            return None
        log_scale = self.interactive_log_scale
        # clamp() has no gradient at its bounds, where `clamp_scales_` puts a scale: it could never leave.
        beyond = (log_scale - log_scale.clamp(0, MAX_LOG_SCALE)).detach()
        return (log_scale - beyond).exp()

    @torch.no_grad()
    def clamp_scales_(self) -> None:
        """Bring learned log-scales back into [0, ln 100]; for after each optimiser step."""
        if self.interactive_log_scale is not None:
            self.interactive_log_scale.clamp_(0, MAX_LOG_SCALE)

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
        rows: slice | None = None,
    ) -> tuple[Loss, dict[str, Loss]]:
        """The weighted sum, and every active term's unweighted value.

        Embeddings are [batch, dim], gathered from all processes where there are several; `rows` is then this
        process's slice of them, and the values are its share of the batch mean. ValueError where a term lacks
        a teacher.
        """
        given = {
            "teacher_image": teacher_image,
            "teacher_text": teacher_text,
            "teacher_scale": teacher_scale,
            "interactive_scale": self.interactive_scale,
        }
        for name in self.weights:
            missing = [argument for argument in TERMS[name].reads if given[argument] is None]
            if missing:
                raise ValueError(
                    f"objective {name!r} learns from a teacher, and {', '.join(missing)} is missing"
                )
        batch = Batch(
            student_image,
            student_text,
            projected_image,
            projected_text,
            student_scale,
            rows=rows,
            **given,  # type: ignore[arg-type]  # the check above: whatever an active term reads is there
        )
        terms = {name: TERMS[name].value(batch) for name in self.weights}
        total = torch.stack([self.weights[name] * value for name, value in terms.items()]).sum()
        return total, terms


def _check(weights: Mapping[str, int | float], teacher_dim: int | None) -> None:
    for name, weight in weights.items():
        setting = f"objectives.{name}"
        if name not in TERMS:
            raise SettingError(setting, weight, "no such objective", f"Choose from {', '.join(TERMS)}")
        if not (math.isfinite(weight) and weight >= 0):
            raise SettingError(setting, weight, "not a usable weight", "Give a finite number, 0 or more")
        if weight > 0 and TERMS[name].reads and teacher_dim is None:
            raise SettingError(
                setting, weight, "learns from a teacher, and there is none", "Name a teacher, or give 0"
            )
    if not any(weight > 0 for weight in weights.values()):
        raise SettingError(
            "objectives", dict(weights), "every weight is 0", "Give at least one objective a weight"
        )
