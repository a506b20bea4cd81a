"""Run by test_optimisation: loss and gradients of one batch, or ten steps, by one process or several."""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from workbench.models.execution import synchronise_batch_norm
from workbench.models.loading import load_dual_encoder
from workbench.objectives import DistillationLoss
from workbench.objectives.ensemble import Member
from workbench.training.learner import (
    BatchTargets,
    Inputs,
    Learner,
    Outputs,
    backward,
    batch_loss,
    freeze_unreached,
)

WEIGHTS = {
    "task": 1.0,
    "crd": 0.7,
    "fd": 4.0,
    "mfd": 2.0,
    "gd": 0.3,
    "icl": 0.5,
    "afd": 0.8,
    "embedding": 1.1,
    "concepts": 0.6,
    "cross_modal": 0.9,
    "cosine": 0.4,
    "preservation": 0.2,
    "image_relations": 0.35,
}
SEED = 5
TINY_RESNET = str(Path(__file__).parents[1] / "tiny_resnet.json")


def make_learner(model: str, dropout: bool = False, *options: str) -> Learner:
    """The same first weights in every process; with dropout behind the last norm of both towers.

    Further `options`: "frozen" stops the image tower, "batchnorm" takes one with BatchNorm over all
    processes, "hard" brings captions that are nearly true, "teachers" makes two of the teacher, the name of
    an objective leaves out the others.
    """
    torch.manual_seed(0)
    student = load_dual_encoder(
        TINY_RESNET if "batchnorm" in options else model, frozen=["visual"] if "frozen" in options else []
    )
    if "batchnorm" in options:
        synchronise_batch_norm(student)
    if dropout:
        student.clip.visual.ln_post = nn.Sequential(student.clip.visual.ln_post, nn.Dropout(0.4))
        student.clip.ln_final = nn.Sequential(student.clip.ln_final, nn.Dropout(0.4))
    weights = {name: weight for name, weight in WEIGHTS.items() if name in options} or WEIGHTS
    teachers = [Member(16), Member(8, weight=3.0)] if "teachers" in options else 24
    mixture = DistillationLoss(weights, student.dim, teachers, target_dim=10, concepts=6)
    return Learner(student, mixture).double().train()


def some(
    data: dict[str, Tensor], rows: slice, hard: bool = False, several: bool = False
) -> tuple[Inputs, BatchTargets]:
    batch = Inputs(data["images"][rows], data["tokens"][rows], data["kept"][rows])
    theirs = data["teacher_image"][rows], data["teacher_text"][rows]
    others = (data[name][rows] for name in ("text_target", "soft_labels", "cross_modal_target"))
    targets = BatchTargets(*theirs, (20.0, 30.0) if several else 20.0, *others)
    if hard:
        brought = data["hard"][rows]
        return batch._replace(false=data["false"][rows], hard=brought), targets._replace(hard=brought)
    return batch, targets


def found(learner: Learner, terms: dict[str, Tensor]) -> dict[str, Tensor]:
    result = {
        f"gradient/{name}": item.grad.contiguous()
        for name, item in learner.named_parameters()
        if item.grad is not None
    }
    result |= {f"statistics/{name}": item for name, item in learner.named_buffers() if "running" in name}
    return result | {f"term/{name}": value.double().reshape(1) for name, value in terms.items()}


def whole(
    model: str, data: dict[str, Tensor], parts: list[tuple[slice, int]], dropout: bool
) -> dict[str, Tensor]:
    """All at once in one graph, where each part of the batch has its own random numbers: (rows, seed)."""
    learner = make_learner(model, dropout)
    pieces = []
    for rows, seed in parts:
        torch.manual_seed(seed)
        pieces.append(learner(*some(data, rows)[0]))
    fields = zip(*(piece[:-1] for piece in pieces), strict=True)
    sides = [None if side[0] is None else torch.cat(side) for side in fields]
    loss, terms = batch_loss(
        learner.mixture, Outputs(*sides, pieces[0].scale), some(data, slice(None))[1], [len(sides[0])]
    )
    loss.backward()
    return found(learner, terms)


def main(model: str, inputs: Path, out: Path, cases: list[str]) -> None:
    """Write what this process finds in every case: `CUT:MICRO`, rows of the first process and micro-batch or
    0, gradients and terms of a batch; `CUT:MICRO:dropout`, the same with dropout, and so for the options of
    `make_learner`; `steps`, the weights after ten steps."""
    several = "RANK" in os.environ
    if several:
        dist.init_process_group("gloo")
    rank, world = (dist.get_rank(), dist.get_world_size()) if several else (0, 1)
    torch.set_num_threads(1)
    data = load_file(inputs)
    size = len(data["images"])
    for case in cases:
        cut, micro_batch, *options = ("4", "0") if case == "steps" else case.split(":")
        learner = make_learner(model, "dropout" in options, *options)
        asked = "hard" in options, "teachers" in options
        freeze_unreached(learner, *some(data, slice(2), *asked))
        wrapped = DistributedDataParallel(learner) if world > 1 else learner
        # Shares need not be equal: a process drops the pairs it cannot read.
        bounds = [0, int(cut), size] if several else [0, size]
        mine = slice(bounds[rank], bounds[rank + 1])
        if case == "steps":
            result = ten_steps(wrapped, learner, data, mine)
        else:
            batch, targets = some(data, mine, *asked)
            terms, _ = backward(wrapped, learner.mixture, batch, targets, int(micro_batch) or None, SEED)
            result = found(learner, terms)
        save_file(result, out.with_name(f"{out.name}-{case.replace(':', '-')}-{rank}"))
    if several:
        dist.destroy_process_group()


def ten_steps(
    wrapped: nn.Module, learner: Learner, data: dict[str, Tensor], mine: slice
) -> dict[str, Tensor]:
    """Weights and the last loss after ten steps over the batch in ever another order."""
    learning = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(learning, lr=1e-2)
    for step in range(10):
        order = torch.randperm(len(data["images"]), generator=torch.Generator().manual_seed(step))
        batch, targets = some({name: item[order] for name, item in data.items()}, mine)
        optimiser.zero_grad()
        terms, _ = backward(wrapped, learner.mixture, batch, targets, None, SEED)
        optimiser.step()
        learner.mixture.clamp_scales_()
    weights = {name: item.detach().contiguous() for name, item in learner.named_parameters()}
    return weights | {"loss": terms["loss"].double().reshape(1)}


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
