"""Makes a shipped cross-modal teacher from a finished run of dclip_teacher_demo, or of the grounded demo's
teacher.

    workbench train dclip_teacher_demo --run-dir RUN
    python tools/make_cross_modal_teacher.py RUN
    workbench train dclip_grounded_demo --run-dir runs/student
    python tools/make_cross_modal_teacher.py runs/cross_modal_teacher-seed0-*

The run's records and the weights after the epoch that dclip_demo or dclip_grounded_demo learns from, without
the optimiser; those of the grounded teacher in float16.
"""

import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from workbench.files import read_json, sha256_of_file, write_json
from workbench.recipe import Recipe
from workbench.runs import checkpoint
from workbench.runs.run import Run
from workbench.training.teacher import SHIPPED_RUNS, bare

STUDENTS = {"demo": "dclip_demo", "grounded_demo": "dclip_grounded_demo"}


def ship(run: Run, target: Path, student: Recipe, *, half: bool = False) -> Path:
    """Copy a run's records and the weights that `student` learns from to `target`; `half`: in float16. The
    run must be of its teacher."""
    recipe = bare(student)
    assert run.recipe.fingerprint == recipe.fingerprint, "this run is of another recipe"
    epoch = student.cross_modal.epoch or student.cross_modal.epochs
    folders = checkpoint.list_checkpoints(run.path / "checkpoints").values()
    kept = next(item for item in folders if read_json(item / checkpoint.STATE)["epochs_done"] == epoch)
    shutil.rmtree(target, ignore_errors=True)
    place = target / "checkpoints" / kept.name
    place.mkdir(parents=True)
    named = {"name": run.recipe.name, "description": run.recipe.description}
    recipe.model_copy(update=named).save(target / "recipe.yaml")
    for name in ("metrics.jsonl", "versions.json", "regions.json"):
        shutil.copyfile(run.path / name, target / name)
    shipped = ("state", "step", "total_steps")  # the rest describes the machine
    write_json(target / "status.json", {key: run.status[key] for key in shipped})
    for name in (checkpoint.MODEL, checkpoint.STATE, checkpoint.MANIFEST):
        shutil.copyfile(kept / name, place / name)
    if half:
        halve(place)
    (target / "checkpoints" / checkpoint.POINTER).write_text(f"{place.name}\n")
    return target


def halve(place: Path) -> None:
    """Store the checkpoint's weights in float16, and their new digest in its manifest."""
    file = place / checkpoint.MODEL
    save_file({name: value.to(torch.float16) for name, value in load_file(file).items()}, file)
    file.chmod(0o644)
    manifest = read_json(place / checkpoint.MANIFEST)
    manifest["files"][file.name] = {"bytes": file.stat().st_size, "sha256": sha256_of_file(file)}
    write_json(place / checkpoint.MANIFEST, manifest)


if __name__ == "__main__":
    trained = Run(sys.argv[1])
    name = "grounded_demo" if trained.recipe.cross_modal.interaction == "text_conditioned" else "demo"
    print(ship(trained, SHIPPED_RUNS[name], Recipe.load(STUDENTS[name]), half=name != "demo"))
