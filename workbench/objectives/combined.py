"""A weighted sum of objectives, with the learned parts that some of them need."""

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from workbench.errors import SettingError
from workbench.objectives.chunked import contrastive_and_relational
from workbench.objectives.ensemble import Member, columns, heads, of_member
from workbench.objectives.learned_scale import LearnedScale
from workbench.objectives.registry import LossInputs, Widths, load_objectives
from workbench.objectives.similarity import Embeddings, Loss, Scale

OBJECTIVES = load_objectives()
PROVIDERS = {
    "text_target": "a text teacher",
    "soft_labels": "a text teacher's concepts",
    "cross_modal_target": "a cross-modal teacher",
}


class DistillationLoss(nn.Module):
    """The weighted sum of the objectives in `weights`. Objectives of weight 0 cost nothing and learn nothing.

    `weights` maps names of `OBJECTIVES` to numbers >= 0; SettingError names a weight that cannot be used. The
    widths that follow are None without such a teacher: `teacher_dim` of the image-text teacher, or a `Member`
    for each of several, `target_dim` of the language model's embeddings, and the number of `concepts`.
    Learned parts are `image_head` and `text_head`, linear maps from student to teacher width, which are the
    identity if the widths agree or no objective compares that side, and the parts of the objectives
    themselves. Several teachers have heads and parts of their own (`ensemble.heads`), and the value of an
    objective is its mean over them by their weights. Initial values come from torch's global generator: seed
    it equally on every rank. `chunk` is the number of rows at a time in losses that compare all with all,
    None for the whole batch. With `ring`, several processes pass embeddings round
    instead of gathering them, for which every objective must have a `reach` below the batch. `temperature`
    divides both scales in CRD.
    """

    def __init__(
        self,
        weights: Mapping[str, int | float],
        student_dim: int,
        teacher_dim: int | Sequence[Member] | None,
        *,
        target_dim: int | None = None,
        concepts: int | None = None,
        chunk: int | None = None,
        ring: bool = False,
        direction_weights: tuple[float, float] = (0.5, 0.5),
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        members = () if teacher_dim is None else teacher_dim
        self.members = (Member(members),) if isinstance(members, int) else tuple(members)
        several = len(self.members) > 1
        width = self.members[0].width if self.members else None
        widths = Widths(student_dim, width, target_dim, concepts)
        _check(weights, widths)
        self.weights = {name: float(weight) for name, weight in weights.items() if weight > 0}
        self.chunk = chunk
        self.ring = ring
        self.direction_weights = direction_weights
        self.temperature = temperature
        projected = {side for name in self.weights for side in OBJECTIVES[name].head}

        def head(side: str) -> nn.Module:
            if several and side in projected:
                return heads(student_dim, self.members, side)
            return _head(student_dim, width if side in projected else None)

        self.image_head, self.text_head = head("image"), head("text")
        own_parts = [nn.ModuleDict() for _ in self.members] if several else []
        self.own_parts = nn.ModuleList(own_parts)  # of every teacher
        for name, objective in OBJECTIVES.items():
            if name not in self.weights or objective.modules is None:
                continue
            if several and objective.of_each_teacher:
                for parts, member in zip(own_parts, self.members, strict=True):
                    parts.update(objective.modules(widths._replace(teacher=member.width)))
                continue
            for part, module in objective.modules(widths).items():
                self.add_module(part, module)

    def clamp_scales_(self) -> None:
        """Clamp learned scales to [1, 100]. Call it after each optimiser step."""
        for module in self.modules():
            if isinstance(module, LearnedScale):
                module.clamp_()

    def used_by_the_loss(self) -> Iterator[nn.Parameter]:
        """The parameters that `forward` uses and `project` does not."""
        for name, parameter in self.named_parameters():
            if not name.startswith(("image_head.", "text_head.")):
                yield parameter

    def project(self, image: Embeddings, text: Embeddings) -> tuple[Embeddings, Embeddings]:
        """Map student embeddings to the teacher's width by the heads, if there are any."""
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
        teacher_scale: Scale | tuple[float, ...] | None = None,
        *,
        masked_image: Embeddings | None = None,
        text_target: Embeddings | None = None,
        soft_labels: Embeddings | None = None,
        cross_modal_target: Embeddings | None = None,
        captioned: Tensor | None = None,
        false_text: Embeddings | None = None,
        hard: Tensor | None = None,
        rows: slice | None = None,
        ring: tuple[int, ...] | None = None,
    ) -> tuple[Loss, dict[str, Loss]]:
        """The weighted sum, and every active objective's unweighted value (without gradient if task loss and
        CRD share a pass in chunks).

        Embeddings are [batch, dim], gathered from all processes if there are several. `rows` is then this
        process's slice of them, and the values are its share of the batch mean. With `ring`, the number of
        rows of every process, nothing is gathered and all inputs are this process's own rows. `masked_image`
        are the student's embeddings of masked images in the teacher's width, `text_target` standardised
        caption embeddings of a language model, `soft_labels` distributions over concepts, and
        `cross_modal_target` the cross-modal teacher's embeddings of the pairs in the teacher's width.
        `captioned` [batch] is 0 for pictures without captions; None means that all have one. `false_text` are
        the student's embeddings of hard negative captions, one for each picture whose `hard` [batch] is 1. Of
        several teachers the embeddings, and the student's in their widths, stand side by side, and
        `teacher_scale` has a number for each. Raises ValueError if an objective lacks an input that it
        requires.
        """
        inputs = LossInputs(
            student_image,
            student_text,
            projected_image,
            projected_text,
            student_scale,
            teacher_image,
            teacher_text,
            teacher_scale,
            masked_image,
            text_target,
            soft_labels,
            cross_modal_target,
            captioned,
            false_text,
            hard,
            rows,
            self.chunk,
            ring,
            self.direction_weights,
            self.temperature,
        )
        values: dict[str, Loss] = {}
        weighted = []
        both = {"task", "crd"} <= self.weights.keys() and len(self.members) == 1
        if (self.chunk or ring) and self.temperature == 1 and both:
            _check_inputs("crd", inputs)
            together, values["task"], values["crd"] = contrastive_and_relational(
                *inputs.student,
                *inputs.teacher,
                inputs.student_scale,
                inputs.teacher_scale,
                (self.weights["task"], self.weights["crd"]),
                rows=rows,
                chunk=self.chunk,
                ring=ring,
            )
            weighted.append(together)
        for name, weight in self.weights.items():
            if name not in values:
                values[name] = self.value(name, inputs)
                weighted.append(weight * values[name])
        return torch.stack(weighted).sum(), {name: values[name] for name in self.weights}

    def value(self, name: str, inputs: LossInputs) -> Loss:
        """The unweighted value of one objective, with several teachers their weighted mean. Raises ValueError
        if it lacks a required input."""
        if len(self.members) < 2 or not OBJECTIVES[name].of_each_teacher:
            return self._value(name, inputs, self)
        total = sum(member.weight for member in self.members)
        values = [
            member.weight / total * self._value(name, of_member(inputs, self.members, number), parts)
            for number, (member, parts) in enumerate(zip(self.members, self.own_parts, strict=True))
        ]
        return torch.stack(values).sum()

    def compared(self, side: str) -> list[slice]:
        """The columns in which the student's projected embeddings of a side can be compared with a teacher's,
        for each teacher that embeds it."""
        if len(self.members) < 2:
            return [slice(None)]
        return [part for part in columns(self.members, side) if part.start < part.stop]

    def _value(self, name: str, inputs: LossInputs, parts: nn.Module) -> Loss:
        _check_inputs(name, inputs)
        function = OBJECTIVES[name].function
        assert function is not None  # only entries that were read without importing lack it
        if inputs.ring is None or OBJECTIVES[name].reach == "ring":
            return function(inputs, parts)
        if OBJECTIVES[name].reach == "batch":
            raise ValueError(f"objective {name!r} needs the whole batch in every process, not a ring")
        return function(inputs, parts) * (len(inputs.student_image) / sum(inputs.ring))


def _head(student_dim: int, teacher_dim: int | None) -> nn.Module:
    if teacher_dim is None or teacher_dim == student_dim:
        return nn.Identity()
    return nn.Linear(student_dim, teacher_dim)


def _check_inputs(name: str, inputs: LossInputs) -> None:
    missing = [field for field in OBJECTIVES[name].requires if getattr(inputs, field) is None]
    if OBJECTIVES[name].either_side and len(missing) == 1 and missing[0] in ("teacher_image", "teacher_text"):
        return
    if missing:
        raise ValueError(f"objective {name!r} requires {', '.join(missing)}")


def _check(weights: Mapping[str, int | float], widths: Widths) -> None:
    """Raise SettingError for a weight that cannot be used."""
    for name, weight in weights.items():
        setting = f"objectives.{name}"
        if name not in OBJECTIVES:
            raise SettingError(setting, weight, "no such objective", f"Choose from {', '.join(OBJECTIVES)}")
        if not (math.isfinite(weight) and weight >= 0):
            raise SettingError(setting, weight, "not a usable weight", "Give a finite number, 0 or more")
        for field in OBJECTIVES[name].requires:
            if weight > 0 and widths.of(field) is None:
                provider = PROVIDERS.get(field, "a teacher")
                problem = f"learns from {provider}, and there is none"
                raise SettingError(setting, weight, problem, f"Name {provider}, or give 0")
    if not any(weight > 0 for weight in weights.values()):
        raise SettingError(
            "objectives", dict(weights), "every weight is 0", "Give at least one objective a weight"
        )
