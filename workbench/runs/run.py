"""Reads a training run from its folder."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import SettingError, damaged_file
from workbench.files import read_json, unsigned
from workbench.recipe import Recipe
from workbench.runs.folder import is_silent, read_recipe, read_status
from workbench.runs.records import Records

if TYPE_CHECKING:
    import pandas

    from workbench.evaluation.results_io import SplitResults
    from workbench.models.dual_encoder import DualEncoder
    from workbench.runs.checkpoint import Checkpoint
    from workbench.targets.cross_modal import AnyTeacher


Scores = dict[str, dict[str, float]]  # by split or set, and by metric
DATA_FACTS = {"split", "pairs", "captions", "fingerprint"}


class Run:
    """A training run, finished or not. It keeps only the path, and reads the folder at every access."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not (self.path / "recipe.yaml").is_file():
            raise SettingError(
                "run",
                str(path),
                "this folder has no recipe.yaml",
                "Give the folder that `workbench train` printed.",
            )

    def __repr__(self) -> str:
        status = self.status
        steps = f"step {status.get('step')} of {status.get('total_steps')}"
        return f"Run({str(self.path)!r}, {status.get('state')}, {steps})"

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe. Raises SettingError, naming the file, if it cannot be read."""
        return read_recipe(self.path)

    @property
    def status(self) -> dict[str, Any]:
        """State, step, seconds left and counters; {} before the run starts.

        The state is "gone" if the run is recorded as running but dead, and "damaged" if the file cannot be
        read.
        """
        status = read_status(self.path)
        gone = status.get("state") == "running" and is_silent(self.path, status)
        return {**status, "state": "gone"} if gone else status

    def facts(self, name: str) -> dict[str, Any]:
        """The facts that the run recorded about its `data` or `versions`; {} if there is no file.

        Raises SettingError, naming the file, if it is damaged.
        """
        file = self.path / f"{name}.json"
        try:
            content = unsigned(read_json(file)) if file.is_file() else {}
            if not isinstance(content, dict):
                raise ValueError("it holds no object")
            if name == "versions" and not all(isinstance(version, str) for version in content.values()):
                raise ValueError("its versions are not texts")
            if name == "data":
                for use, facts in content.items():
                    if not facts.keys() >= DATA_FACTS:
                        raise ValueError(f"its {use} lacks {', '.join(sorted(DATA_FACTS - facts.keys()))}")
                    if not all(isinstance(facts[key], int) for key in ("pairs", "captions")):
                        raise ValueError(f"its {use} has no valid counts")
        except (OSError, ValueError, AttributeError) as error:
            remedy = "Remove the file to continue without it, or resume the run, which writes it again."
            raise damaged_file("run", file, error, remedy) from None
        return content

    @property
    def start(self) -> str | None:
        """The weights from which the student started, None for random weights.

        Older runs did not record them; there the recipe is used.
        """
        file, student = self.path / "weights.json", self.recipe.student
        if file.is_file():
            try:
                return None if (start := unsigned(read_json(file))["student"]) is None else str(start)
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise damaged_file("run", file, error, "Remove the file.") from None
        named = student.model if student.model.startswith(("local-dir:", "hf-hub:")) else None
        parts = [student.pretrained or named, *dict.fromkeys(student.initial_weights.values())]
        return ", ".join(part for part in parts if part) or None

    @property
    def finished(self) -> bool:
        """Whether the training is complete and its last checkpoint is intact."""
        from workbench.runs import checkpoint

        status = self.status
        if status.get("state") != "finished":
            return False
        try:
            checkpoint.load(self.path / "checkpoints", status.get("step", -1), optimiser=False)
        except checkpoint.CheckpointError:
            return False
        return True

    @property
    def metrics(self) -> "pandas.DataFrame":
        """A table with one row per training step."""
        return self._records.metrics

    @property
    def validations(self) -> "pandas.DataFrame":
        """A table with one row per validation."""
        return self._records.validations

    @property
    def _records(self) -> Records:
        """All records. Raises SettingError for a damaged line, naming the file, and warns of missing ones."""
        records, status = Records(self.path / "metrics.jsonl", strict=True).read(), self.status
        if status.get("state") == "finished" and records.steps != status["step"]:
            lines = f"the last line of {records.path} is of step {records.steps}"
            print(f"warning: {lines}, and the run finished at step {status['step']}", file=sys.stderr)
        return records

    @property
    def epochs(self) -> dict[int, int]:
        """The training step at the end of every epoch that has a checkpoint, in ascending order."""
        from workbench.runs import checkpoint

        kept = checkpoint.list_checkpoints(self.path / "checkpoints")
        ends = {_epochs_done(path / checkpoint.STATE): step for step, path in kept.items()}
        return {epoch: step for epoch, step in ends.items() if epoch}

    def model(self, epoch: int | None = None) -> "DualEncoder":
        """Load the student of the last checkpoint, or of `epoch`, in evaluation mode and without loss heads.

        Raises SettingError if there is no such checkpoint. `training.keep: all` keeps every epoch.
        """
        return self.restored(epoch)[0]

    def restored(self, epoch: int | None = None) -> "tuple[DualEncoder, int]":
        """Load the student as `model` does, and return it with its training step."""
        from workbench.models.loading import load_dual_encoder
        from workbench.models.low_rank import merge_lora
        from workbench.models.package_weights import ASSETS
        from workbench.models.trainable import set_trainable

        recipe = self.recipe
        if recipe.trains != "student":
            problem = "this run trained a cross-modal teacher, not a student"
            remedy = "Use `.cross_modal_teacher()`, or give the run of a student."
            raise SettingError("run", str(self.path), problem, remedy)
        saved = self._checkpoint(epoch)
        model = load_dual_encoder(
            recipe.student.model,
            recipe.student.pretrained,
            frozen=recipe.student.frozen,
            freeze_batch_norm=recipe.student.freeze_batch_norm,
            rotary_positions=recipe.student.rotary_positions,
            relations=recipe.student.relations is not None,
            without_weights=True,
            setting="student",
            allow_download=recipe.allow_download,
        )
        prefix = "student.clip." if recipe.training.ema is None else "average.module.clip."
        own = {name: value for name, value in saved.tensors.items() if name.startswith(prefix)}
        weights = {name.removeprefix(prefix): value for name, value in own.items()}
        if self.path.is_relative_to(ASSETS) and recipe.student.pretrained:
            # A shipped student comes without the layers that stayed as they were at the start.
            start = load_dual_encoder(recipe.student.model, recipe.student.pretrained).clip
            weights = start.state_dict() | weights
        if recipe.student.trainable_image == "lora":
            # The low-rank weights are attached, loaded and merged, which gives a plain model.
            set_trainable(model, "lora", recipe.student.trainable_text)
            model.clip.load_state_dict(weights)
            merge_lora(model)
        else:
            model.clip.load_state_dict(weights)
        return model.eval(), saved.step

    def cross_modal_teacher(self, epoch: int | None = None) -> "AnyTeacher":
        """Load the cross-modal teacher of the last checkpoint, or of `epoch`, in evaluation mode.

        Raises SettingError for the run of a student, and if there is no such checkpoint.
        """
        from workbench.targets.cross_modal import new_teacher

        recipe = self.recipe
        if recipe.trains != "cross_modal_teacher":
            problem = "this run trained a student, not a cross-modal teacher"
            remedy = "Use `.model()`, or give a run of e.g. dclip_teacher."
            raise SettingError("run", str(self.path), problem, remedy)
        saved = self._checkpoint(epoch)
        teacher = new_teacher(recipe, len(saved.tensors["region_norm.weight"]))
        teacher.load_state_dict(saved.tensors)
        return teacher.eval()

    def _checkpoint(self, epoch: int | None) -> "Checkpoint":
        from workbench.models.package_weights import ASSETS
        from workbench.runs import checkpoint

        folder = self.path / "checkpoints"
        if epoch is None:
            saved = checkpoint.load_latest(folder, optimiser=False)
            if saved is None:
                raise SettingError("run", str(self.path), "it has no checkpoint yet", "Train it first.")
            end = self.status.get("step")
            # The shipped cross-modal teacher ends with an earlier checkpoint on purpose.
            is_last = saved.step == end or self.path.is_relative_to(ASSETS)
            if self.status.get("state") == "finished" and not is_last:
                print(
                    f"warning: {self.path} finished at step {end}, but its last checkpoint is damaged. Step "
                    f"{saved.step} is used; `workbench train` repeats the steps after it.",
                    file=sys.stderr,
                )
            return saved
        ends = self.epochs
        if epoch not in ends:
            epochs = ", ".join(map(str, ends)) or "none"
            problem = "there is no checkpoint at the end of this epoch"
            raise SettingError("epoch", epoch, problem, f"Available epochs: {epochs}.")
        return checkpoint.load(folder, ends[epoch], optimiser=False)

    def evaluate(self, suite: str | None = None, **data: Any) -> Scores:
        """Evaluate the last checkpoint with all suites of the recipe or just one, and return scores by split.

        Results are also written to evaluation/, and merged with those of other suites for the same
        checkpoint. `data` overrides the recipe's data settings, for instance `source="folder"`. Results on
        other data than the run's own are not written, and another source without splits is evaluated
        completely. The numbers of pictures and captions are printed. Raises SettingError for an unknown
        suite.
        """
        from workbench.evaluation.suites import measure, size_of
        from workbench.targets.cached import say_at_once

        recipe = self.recipe
        changes: dict[str, Any] = {f"data.{key}": value for key, value in data.items()}
        if suite is not None:
            changes["evaluation.suites"] = [suite]
        if changes:
            recipe = read_recipe(self.path, changes)
        own = recipe.data == self.recipe.data
        other = not self.trained_on(recipe.data.source)
        folder = self.path / "evaluation" if own else None
        model, step = self.restored()
        reports = measure(model, recipe, folder, whole=other, step=step, say=say_at_once)
        for name, report in reports.items():
            print(f"evaluated on {name}: {size_of(report)}")
        return {name: report["scores"] for name, report in reports.items()}

    def evaluate_epochs(self, suite: str | None = None, **data: Any) -> dict[int, Scores]:
        """Evaluate every kept epoch as `evaluate` does the last one, and return scores by epoch and split.

        The pretrained start is epoch 0. Results are stored, so that a repeated call evaluates only what is
        missing. `training.keep: all` keeps every epoch. Raises SettingError if there is none.
        """
        from workbench.runs.epochs import evaluate_epochs

        changes: dict[str, Any] = {f"data.{key}": value for key, value in data.items()}
        return evaluate_epochs(self, changes | ({} if suite is None else {"evaluation.suites": [suite]}))

    def trained_on(self, source: str) -> bool:
        """Whether `source` is the source of the run's own data."""
        sources = source, self.recipe.data.source
        return len({os.path.realpath(os.path.expanduser(path)) for path in sources}) == 1

    @property
    def evaluations(self) -> "dict[str, SplitResults]":
        """The stored evaluations by split. Raises SettingError, naming the file, if one is damaged."""
        from workbench.evaluation.results_io import read_evaluations

        return read_evaluations(self.path / "evaluation")

    def export(self, folder: str | Path) -> Path:
        """Export the student, with its model card, in open_clip's format. open_clip loads the folder as
        `local-dir:FOLDER` if it can build the model."""
        from workbench.export.export import TrainingFacts, check_folder, export

        folder = check_folder(folder)
        model, step = self.restored()
        data, versions = self.facts("data"), self.facts("versions")
        facts = TrainingFacts(self.recipe, step, self.status, data, versions, self.evaluations, self.start)
        return export(model, facts, folder)


def _epochs_done(file: Path) -> int | None:
    """The epoch that ends with a checkpoint, None if it is within an epoch or its state cannot be read."""
    try:
        done = read_json(file)["epochs_done"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return done if isinstance(done, int) else None
