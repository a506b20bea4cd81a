"""Run by test_optimisation: loss and gradients of one batch, by one process or several."""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch.nn.parallel import DistributedDataParallel

from workbench.models.loading import load_dual_encoder
from workbench.objectives import Mixture
from workbench.training.optimisation import Inputs, Learner, Targets, backward

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
}


def main(model: str, inputs: Path, out: Path, cases: list[tuple[int, int]]) -> None:
    """Write, for every case (rows of the first process, micro-batch or 0), the gradients and terms of this
    process."""
    several = "RANK" in os.environ
    if several:
        dist.init_process_group("gloo")
    rank, world = (dist.get_rank(), dist.get_world_size()) if several else (0, 1)
    torch.set_num_threads(1)
    data = load_file(inputs)
    for cut, micro_batch in cases:
        torch.manual_seed(0)
        student = load_dual_encoder(model)
        mixture = Mixture(WEIGHTS, student.dim, 24, target_dim=10, concepts=6)
        learner = Learner(student, mixture).double()
        learner.train()
        # Shares need not be equal: a process drops the pairs it cannot read.
        bounds = [0, cut, len(data["images"])] if several else [0, len(data["images"])]
        mine = slice(bounds[rank], bounds[rank + 1])
        batch = Inputs(data["images"][mine], data["tokens"][mine], data["kept"][mine])
        targets = Targets(
            data["teacher_image"][mine],
            data["teacher_text"][mine],
            20.0,
            data["text_target"][mine],
            data["soft_labels"][mine],
        )
        wrapped = DistributedDataParallel(learner) if world > 1 else learner
        terms, _ = backward(wrapped, mixture, batch, targets, micro_batch or None, seed=5)
        result = {
            f"gradient/{name}": parameter.grad.contiguous() for name, parameter in learner.named_parameters()
        }
        result |= {f"term/{name}": value.double().reshape(1) for name, value in terms.items()}
        save_file(result, out.with_name(f"{out.name}-{cut}-{micro_batch}-{rank}"))
    if several:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(
        sys.argv[1],
        Path(sys.argv[2]),
        Path(sys.argv[3]),
        [tuple(map(int, case.split(":"))) for case in sys.argv[4:]],
    )
