"""A training run, read from its folder."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import SettingError
from workbench.files import read_json
from workbench.recipe import Recipe
from workbench.runs.folder import read_recipe, read_status

if TYPE_CHECKING:
    import pandas

    from workbench.evaluation.results_io import SplitResults
    from workbench.models.dual_encoder import DualEncoder
    from workbench.runs.checkpoint import Checkpoint
    from workbench.targets.cross_modal import AnyTeacher


class Run:
    """A training run, finished or not, read from its folder; nothing here keeps anything but the path."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not (self.path / "recipe.yaml").is_file():
            raise SettingError(
                "run",
                str(path),
                "there is no recipe.yaml in this folder",
                "the folder that `workbench train` printed",
            )

    def __repr__(self) -> str:
        status = self.status
        steps = f"step {status.get('step')} of {status.get('total_steps')}"
        return f"Run({str(self.path)!r}, {status.get('state')}, {steps})"

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe; SettingError, naming the file, where it cannot be read."""
        return read_recipe(self.path)

    @property
    def status(self) -> dict[str, Any]:
        """State, step, seconds left and what was counted; {} before the first step."""
        return read_status(self.path)

    @property
    def metrics(self) -> "pandas.DataFrame":
        """One row a training step."""
        return self._records("step")

    @property
    def validations(self) -> "pandas.DataFrame":
        """One row a validation."""
        return self._records("validation")

    def _records(self, kind: str) -> "pandas.DataFrame":
        import pandas

        path = self.path / "metrics.jsonl"
        lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
        records = []
        for number, line in enumerate(lines, 1):
            try:
                record = dict(json.loads(line))
                if record["kind"] == kind:
                    records.append(record)
            except (ValueError, KeyError, TypeError):
                problem = f"line {number} of {len(lines)} is no record"
                raise SettingError("run", str(path), problem, "Take the damaged lines out.") from None
        return pandas.DataFrame(records).drop(columns="kind", errors="ignore")

    def model(self, epoch: int | None = None) -> "DualEncoder":
        """The student without the heads of the losses, in evaluation mode: as last saved, or after `epoch`.

        Raises SettingError where there is no such checkpoint; `training.keep: all` keeps every epoch.
        """
        return self.restored(epoch)[0]

    def restored(self, epoch: int | None = None) -> "tuple[DualEncoder, int]":
        """That student, and the training step that it is of."""
        from workbench.models.loading import load_dual_encoder
        from workbench.models.low_rank import merge_lora
        from workbench.models.trainable import set_trainable

        recipe = self.recipe
        if recipe.trains != "student":
            problem = "it trained a cross-modal teacher, which is no two-tower model"
            raise SettingError("run", str(self.path), problem, "`.cross_modal_teacher()`, or a student's run")
        saved = self._checkpoint(epoch)
        model = load_dual_encoder(
            recipe.student.model,
            recipe.student.pretrained,
            frozen=recipe.student.frozen,
            freeze_batch_norm=recipe.student.freeze_batch_norm,
            without_weights=True,
            setting="student",
            allow_download=recipe.allow_download,
        )
        prefix = "student.clip."
        weights = {
            name.removeprefix(prefix): value
            for name, value in saved.tensors.items()
            if name.startswith(prefix)
        }
        if recipe.student.trainable_image == "lora":
            # Low-rank additions are put on, filled, and added up: what comes back is a plain model.
            set_trainable(model, "lora", recipe.student.trainable_text)
            model.clip.load_state_dict(weights)
            merge_lora(model)
        else:
            model.clip.load_state_dict(weights)
        return model.eval(), saved.step

    def cross_modal_teacher(self, epoch: int | None = None) -> "AnyTeacher":
        """The cross-modal teacher that this run trained, in evaluation mode: as last saved, or after `epoch`.

        Raises SettingError for a student's run, and where there is no such checkpoint.
        """
        from workbench.targets.cross_modal import new_teacher

        recipe = self.recipe
        if recipe.trains != "cross_modal_teacher":
            problem = "it trained a student"
            raise SettingError("run", str(self.path), problem, "`.model()`, or a run of e.g. dclip_teacher")
        saved = self._checkpoint(epoch)
        teacher = new_teacher(recipe, len(saved.tensors["region_norm.weight"]))
        teacher.load_state_dict(saved.tensors)
        return teacher.eval()

    def _checkpoint(self, epoch: int | None) -> "Checkpoint":
        from workbench.runs import checkpoint

        folder = self.path / "checkpoints"
        if epoch is None:
            saved = checkpoint.load_latest(folder, optimiser=False)
            if saved is None:
                raise SettingError("run", str(self.path), "it has no checkpoint yet", "Train it further")
            return saved
        kept = checkpoint.list_checkpoints(folder)
        ends = {read_json(path / checkpoint.STATE)["epochs_done"]: step for step, path in kept.items()}
        ends.pop(None, None)
        if epoch not in ends:
            epochs = ", ".join(map(str, ends)) or "none"
            raise SettingError("epoch", epoch, "no checkpoint of its end is kept", f"There are: {epochs}")
        return checkpoint.load(folder, ends[epoch], optimiser=False)

    def evaluate(self, suite: str | None = None, **data: Any) -> dict[str, dict[str, float]]:
        """Numbers of the last checkpoint, by split, for all suites of the recipe or just one; also written to
        evaluation/, beside other suites' of the same checkpoint.

        `data` overrides the recipe's data settings (`source="folder"`): numbers on other data than the run's
        own are returned, and not written. Raises SettingError for an unknown suite.
        """
        from workbench.evaluation.suites import evaluate

        recipe = self.recipe
        changes: dict[str, Any] = {f"data.{key}": value for key, value in data.items()}
        if suite is not None:
            changes["evaluation.suites"] = [suite]
        if changes:
            recipe = Recipe.load(str(self.path / "recipe.yaml"), changes)
        own = recipe.data == self.recipe.data
        return evaluate(self.model(), recipe, self.path / "evaluation" if own else None)

    @property
    def evaluations(self) -> "dict[str, SplitResults]":
        """What evaluation wrote, by split; SettingError naming a damaged file."""
        from workbench.evaluation.results_io import read_evaluations

        return read_evaluations(self.path / "evaluation")

    def export(self, folder: str | Path) -> Path:
        """Write the student and its model card as a folder that plain open_clip loads with
        `local-dir:FOLDER`."""
        from workbench.export.export import TrainingFacts, check_folder, export

        folder = check_folder(folder)
        model, step = self.restored()
        files = {name: self.path / f"{name}.json" for name in ("data", "versions")}
        known = {name: read_json(file) if file.is_file() else {} for name, file in files.items()}
        facts = TrainingFacts(
            self.recipe, step, self.status, known["data"], known["versions"], self.evaluations
        )
        return export(model, facts, folder)
