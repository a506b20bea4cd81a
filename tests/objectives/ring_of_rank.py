"""Run by test_ring in several processes: losses whose embeddings pass by, against the whole batch's."""

import sys
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from workbench.objectives import (
    DistillationLoss,
    contrastive_loss,
    fused_contrastive_loss,
    interactive_contrastive_loss,
    relational_distillation,
)
from workbench.objectives.ensemble import Member
from workbench.training.gather import share_sizes
from workbench.training.learner import BatchTargets, Outputs, batch_loss

BATCH = 11
NAMES = ("student_image", "student_text", "teacher_image", "teacher_text")
Loss = Callable[..., Tensor]


def embeddings(width: int = 5, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    sides = [
        torch.randn(BATCH, dim, generator=generator, dtype=torch.float64) for dim in (5, 5, width, width)
    ]
    sides[0][3] = 0  # a row without a direction
    sides[1] *= 1e3
    return [side.to(dtype) for side in sides]


def shares(world: int) -> tuple[int, ...]:
    """Unequal ones."""
    return (4, BATCH - 4) if world == 2 else (5, 1, BATCH - 6)


LOSSES: dict[str, tuple[int, Loss]] = {
    "contrastive": (5, lambda si, st, ti, tt, a, b, **how: contrastive_loss(si, st, a, **how)),
    "relational": (3, relational_distillation),
    "interactive": (
        5,
        lambda si, st, ti, tt, a, b, **how: interactive_contrastive_loss(si, st, ti, tt, a, **how),
    ),
}


def gradients(loss: Loss, sides: list[Tensor], **how: object) -> tuple[Tensor, list[Tensor | None]]:
    """The value, and the gradients of embeddings and both scales; all of them learn, the teacher's too."""
    leaves = [side.clone().requires_grad_() for side in sides]
    leaves += [torch.tensor(scale, dtype=torch.float64, requires_grad=True) for scale in (14.0, 6.0)]
    value = loss(*leaves, **how)
    (3 * value).backward()
    return value.detach(), [leaf.grad for leaf in leaves]


def check_losses(ring: tuple[int, ...], mine: slice) -> None:
    for name, (width, loss) in LOSSES.items():
        whole, expected = gradients(loss, embeddings(width))
        for chunk in (None, 2):
            own = [side[mine] for side in embeddings(width)]
            value, received = gradients(loss, own, ring=ring, chunk=chunk)
            dist.all_reduce(value)
            torch.testing.assert_close(
                value, whole, rtol=1e-10, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}"
            )
            for number, (ours, theirs) in enumerate(zip(received, expected, strict=True)):
                assert (ours is None) == (theirs is None), (name, number)
                if ours is not None and ours.ndim == 0:
                    dist.all_reduce(ours)  # a process has its own share of what the scales get
                elif ours is not None:
                    theirs = theirs[mine]
                torch.testing.assert_close(
                    ours,
                    theirs,
                    rtol=1e-8,
                    atol=1e-10,
                    msg=lambda text, name=name, number=number: f"{name} {number}: {text}",
                )


def check_mixture(
    ring: tuple[int, ...],
    mine: slice,
    teachers: int | Sequence[Member] = 5,
    teacher_scale: float | tuple[float, ...] = 20.0,
) -> None:
    """Everything that a recipe may weigh in a ring, as training calls it, against the gathered batch."""
    weights = {"task": 1.0, "crd": 0.7, "icl": 0.5, "afd": 0.8, "fd": 2.0, "mfd": 0.6, "cosine": 0.3}
    weights |= {"embedding": 1.1, "concepts": 0.9}
    if isinstance(teachers, int):
        weights |= {"cross_modal": 0.4, "preservation": 0.2}  # which several teachers do not have
    results = []
    for ringed in (False, True):
        torch.manual_seed(0)
        mixture = DistillationLoss(weights, 5, teachers, target_dim=4, concepts=6, ring=ringed).double()
        sides = [side[mine].requires_grad_() for side in embeddings()]
        generator = torch.Generator().manual_seed(1)
        text_target, labels, masked = (
            torch.randn(BATCH, dim, generator=generator, dtype=torch.float64)[mine] for dim in (4, 6, 5)
        )
        masked.requires_grad_()
        scale = torch.tensor(14.0, dtype=torch.float64, requires_grad=True)
        outputs = Outputs(*sides[:2], *mixture.project(*sides[:2]), masked, None, scale)
        theirs = [side.detach() for side in sides[2:]]
        targets = BatchTargets(*theirs, teacher_scale, text_target, labels.softmax(1), theirs[0] + 1)
        loss, shown = batch_loss(
            mixture, outputs, targets, share_sizes(len(outputs.image), outputs.image.device)
        )
        loss.backward()
        learned = [scale.grad, *(parameter.grad for parameter in mixture.parameters())]
        for gradient in learned:
            dist.all_reduce(gradient)
        results.append([*shown.values(), sides[0].grad, sides[1].grad, masked.grad, *learned])
    for number, (ours, expected) in enumerate(zip(results[1], results[0], strict=True)):
        torch.testing.assert_close(
            ours, expected, rtol=1e-8, atol=1e-10, msg=lambda text, number=number: f"{number}: {text}"
        )


def check_sizes_and_mistakes(ring: tuple[int, ...], mine: slice) -> None:
    sides = embeddings()
    own = [side[mine] for side in sides]
    for wrong in ((*ring, 1), [rows + 1 for rows in ring], (0, *ring[1:])):
        try:
            contrastive_loss(own[0], own[1], 3.0, ring=wrong)
        except ValueError as error:
            assert str(tuple(wrong)) in str(error)
        else:
            raise AssertionError(wrong)
    half = [side[mine].to(torch.bfloat16).requires_grad_() for side in sides]
    value = contrastive_loss(half[0], half[1], 3.0, ring=ring)
    value.backward()
    assert value.dtype == torch.float32 and half[0].grad.dtype == torch.bfloat16
    image, text = (torch.nn.Linear(10, 3, dtype=torch.float64) for _ in range(2))
    fused_contrastive_loss(*own, image, text, 3.0, ring=ring)


def main() -> None:
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    rank, ring = dist.get_rank(), shares(dist.get_world_size())
    mine = slice(sum(ring[:rank]), sum(ring[: rank + 1]))
    check_losses(ring, mine)
    check_mixture(ring, mine)
    check_mixture(ring, mine, [Member(3), Member(2, weight=3.0)], (20.0, 9.0))
    check_sizes_and_mistakes(ring, mine)
    dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
