"""Makes the shipped students from finished runs of demo recipes.

    workbench train task_only_demo --run-dir RUN
    workbench train clip_kd_demo --run-dir RUN2
    python tools/make_students.py RUN RUN2

Each has the run's records and the weights of its last checkpoint in float16, without the optimiser, and is
evaluated anew with these weights. Layers that stayed as they were in a shipped start are left out.
"""

import shutil
import sys
from pathlib import Path

import torch
from make_cross_modal_teacher import halve
from safetensors.torch import load_file, save_file

from workbench.files import read_json, signed, unsigned, write_json
from workbench.models.loading import load_dual_encoder
from workbench.recipe import Recipe
from workbench.runs import checkpoint
from workbench.runs.run import Run
from workbench.runs.shipped import STUDENTS


def ship(run: Run, folder: Path = STUDENTS) -> Run:
    """Copy a run's records and last weights to `folder`, and evaluate it there."""
    recipe = Recipe.load(run.recipe.name)
    assert run.recipe.fingerprint == recipe.fingerprint and run.finished, "ship finished runs of demo recipes"
    kept = checkpoint.list_checkpoints(run.path / "checkpoints")[run.status["step"]]
    target = folder / recipe.name
    shutil.rmtree(target, ignore_errors=True)
    place = target / "checkpoints" / kept.name
    place.mkdir(parents=True)
    recipe.save(target / "recipe.yaml")
    for name in ("metrics.jsonl", "versions.json", "data.json"):
        shutil.copyfile(run.path / name, target / name)
    sources = unsigned(read_json(run.path / "weights.json"))
    names = {part: path and Path(path).name for part, path in sources.items()}
    write_json(target / "weights.json", signed(names))
    shipped = ("state", "step", "total_steps")  # the rest describes the machine
    write_json(target / "status.json", {key: run.status[key] for key in shipped})
    for name in (checkpoint.MODEL, checkpoint.STATE, checkpoint.MANIFEST):
        shutil.copyfile(kept / name, place / name)
    leave_out_start(place / checkpoint.MODEL, recipe)
    halve(place)
    (target / "checkpoints" / checkpoint.POINTER).write_text(f"{place.name}\n")
    made = Run(target)
    made.evaluate()
    return made


def leave_out_start(file: Path, recipe: Recipe) -> None:
    """Remove the tensors that equal those of the student's pretrained start from a file of weights."""
    if recipe.student.pretrained is None:
        return
    start = load_dual_encoder(recipe.student.model, recipe.student.pretrained).clip.state_dict()
    prefix = "student.clip."
    learned = {
        name: tensor
        for name, tensor in load_file(file).items()
        if not torch.equal(tensor, start.get(name.removeprefix(prefix), tensor + 1))
    }
    save_file(learned, file)


if __name__ == "__main__":
    for path in sys.argv[1:]:
        print(ship(Run(path)))
