"""Evaluates the start of a run and every epoch that it has kept: what training gains, and what it forgets."""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.errors import SettingError
from workbench.files import atomic_folder, sha256_of_json
from workbench.recipe import lasting_settings
from workbench.runs.folder import read_recipe
from workbench.runs.run import Run, Scores

if TYPE_CHECKING:
    from workbench.models.dual_encoder import DualEncoder


def has_start(run: Run) -> bool:
    """Whether the whole student started from pretrained weights. Otherwise there is nothing to forget."""
    student = run.recipe.student
    parts = ", ".join(dict.fromkeys(student.initial_weights.values()))
    return run.start is not None and (student.pretrained is not None or run.start != parts)


def start_model(run: Run) -> "DualEncoder":
    """The student before its first training step."""
    from workbench.models.loading import load_dual_encoder

    recipe = run.recipe
    if recipe.student.relations:
        problem = "the start of a student with relations has none yet, so the two cannot be compared"
        raise SettingError("student.relations", recipe.student.relations, problem, "Compare two runs.")
    model = load_dual_encoder(
        recipe.student.model,
        recipe.student.pretrained,
        initial_weights=recipe.student.initial_weights,
        rotary_positions=recipe.student.rotary_positions,
        allow_download=recipe.allow_download,
        setting="student",
    )
    return model.eval()


def evaluate_epochs(run: Run, overrides: Mapping[str, object] | None = None) -> dict[int, Scores]:
    """Evaluate every epoch whose checkpoint the run has kept, and return scores by epoch, split and metric.

    Epoch 0 is the pretrained start of the student, if it has one. `overrides` are dotted settings of `data`
    and `evaluation`. The results of each epoch are written to evaluation/epochs/ once they are complete, and
    are read from there when the same is asked for again, so that an interrupted evaluation can be repeated.
    Raises SettingError for a run without such checkpoints.
    """
    from workbench.evaluation.suites import measure, size_of

    recipe, epochs = read_recipe(run.path, overrides), run.epochs
    if not epochs:
        problem = "it has no checkpoint at the end of an epoch"
        raise SettingError("run", str(run.path), problem, "Train it with training.keep=all.")
    whole, settings = not run.trained_on(recipe.data.source), lasting_settings(recipe)
    measured = sha256_of_json([settings["data"], settings["evaluation"]])[:8]
    scores: dict[int, Scores] = {}
    for epoch, step in {**({0: 0} if has_start(run) else {}), **epochs}.items():
        folder = run.path / "evaluation" / "epochs" / measured / f"epoch-{epoch:04d}-step-{step:08d}"
        if not (stored := _stored(folder)):
            model = run.model(epoch) if epoch else start_model(run)
            with atomic_folder(folder) as partial:
                reports = measure(model, recipe, partial, whole=whole, step=step)
            sizes = "; ".join(f"{name}: {size_of(report)}" for name, report in reports.items())
            print(f"evaluated epoch {epoch} of {max(epochs)} on {sizes}", flush=True)
            stored = {name: report["scores"] for name, report in reports.items()}
        scores[epoch] = stored
    return scores


def _stored(folder: Path) -> Scores:
    """The scores of an epoch that was evaluated before; {} if it was not, or if they are damaged."""
    from workbench.evaluation.results_io import read_evaluations

    try:
        return {name: part.report["scores"] for name, part in read_evaluations(folder).items()}
    except SettingError as error:
        print(f"warning: {error.value}: {error.problem}; the epoch is evaluated again", file=sys.stderr)
        shutil.rmtree(folder)
        return {}
