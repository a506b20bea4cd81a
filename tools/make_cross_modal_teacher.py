"""Makes the shipped cross-modal teacher from a finished run of dclip_teacher_demo.

    workbench train dclip_teacher_demo --run-dir RUN
    python tools/make_cross_modal_teacher.py RUN

The run's records and the weights after the epoch that dclip_demo learns from, without the optimiser.
"""

import shutil
import sys
from pathlib import Path

from workbench.files import read_json, write_json
from workbench.recipe import Recipe
from workbench.runs import checkpoint
from workbench.runs.run import Run
from workbench.training.teacher import SHIPPED, bare


def ship(run: Run, target: Path, epoch: int) -> Path:
    """Copy a run's records and one epoch's weights to `target`; the run must be of the demo's recipe."""
    recipe = bare(Recipe.load("dclip_teacher_demo"))
    assert run.recipe.fingerprint == recipe.fingerprint, "this run is of another recipe"
    folders = checkpoint.list_checkpoints(run.path / "checkpoints").values()
    kept = next(each for each in folders if read_json(each / checkpoint.STATE)["epochs_done"] == epoch)
    shutil.rmtree(target, ignore_errors=True)
    place = target / "checkpoints" / kept.name
    place.mkdir(parents=True)
    recipe.save(target / "recipe.yaml")
    for name in ("metrics.jsonl", "versions.json", "regions.json"):
        shutil.copyfile(run.path / name, target / name)
    shipped = ("state", "step", "total_steps")  # the rest describes the machine
    write_json(target / "status.json", {key: run.status[key] for key in shipped})
    for name in (checkpoint.MODEL, checkpoint.STATE, checkpoint.MANIFEST):
        shutil.copyfile(kept / name, place / name)
    (target / "checkpoints" / checkpoint.POINTER).write_text(f"{place.name}\n")
    return target


if __name__ == "__main__":
    wanted = Recipe.load("dclip_demo").cross_modal.epoch
    assert wanted is not None
    print(ship(Run(sys.argv[1]), SHIPPED, wanted))
