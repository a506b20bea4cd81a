"""Several teachers of one student: their embeddings side by side, and the student's heads for them.

An objective is computed with each teacher and its own scale, and the mean over teachers is taken by their
weights. For CRD this is the ensemble of MobileCLIP (arXiv 2311.17049), a mean of KL divergences. Its gradient
is that of the cross-entropy to the teachers' mean probabilities (MobileCLIP's `average_after_softmax`).
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from workbench.objectives.registry import LossInputs


class Member(NamedTuple):
    """One of several teachers: the width of its embeddings, the sides that it embeds, and its weight."""

    width: int
    sides: tuple[str, ...] = ("image", "text")
    weight: float = 1.0


class Heads(nn.ModuleList):
    """Maps of the student's embeddings to the widths of several teachers, side by side in the output."""

    def forward(self, student: Tensor) -> Tensor:
        return torch.cat([head(student) for head in self], dim=1)


def heads(student_dim: int, members: Sequence[Member], side: str) -> nn.Module:
    """The heads for a side of the teachers that embed it.

    The first one is the identity if its width is the student's. All others are learned, because the spaces of
    two teachers differ even if their widths agree.
    """
    widths = [member.width for member in members if side in member.sides]
    same = widths[:1] == [student_dim]
    maps: list[nn.Module] = [nn.Identity()] * same
    maps += [nn.Linear(student_dim, width) for width in widths[same:]]
    return Heads(maps) if maps else nn.Identity()


def columns(members: Sequence[Member], side: str) -> list[slice]:
    """Where the embeddings of every teacher are among those of all, side by side; empty if it has none."""
    widths = [member.width if side in member.sides else 0 for member in members]
    return [slice(end - width, end) for width, end in zip(widths, accumulate(widths), strict=True)]


def of_member(inputs: LossInputs, members: Sequence[Member], number: int) -> LossInputs:
    """The inputs of an objective with one of the teachers alone."""
    changes: dict[str, Any] = {"teacher_scale": inputs.teacher_scale and inputs.teacher_scale[number]}
    for side in ("image", "text"):
        part = columns(members, side)[number]
        lacks = part.start == part.stop
        theirs = getattr(inputs, f"teacher_{side}")
        changes[f"teacher_{side}"] = None if theirs is None or lacks else theirs[:, part]
        for name in (f"projected_{side}", f"masked_{side}"):
            ours = getattr(inputs, name, None)
            # Without a head, these are the student's own embeddings, which no objective compares.
            if ours is not None and theirs is not None and ours.shape[1] == theirs.shape[1] and not lacks:
                changes[name] = ours[:, part]
    return inputs._replace(**changes)
