"""Sends a run's metrics to an experiment tracker too; the run folder stays the only thing that is read."""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from workbench.errors import SettingError
from workbench.recipe import Recipe

PROJECT = "workbench"


def check_tracker(recipe: Recipe) -> None:
    """SettingError where the tracker's package is not installed."""
    name = recipe.training.track
    if name and find_spec(name) is None:
        remedy = f"`pip install 'workbench[{'track' if name == 'tensorboard' else name}]'`, or null"
        raise SettingError("training.track", name, f"the package {name} is not installed", remedy)


class Tracker:
    """The tracker of `training.track`, with one run for a run folder; a resumed run goes on in the same.

    TensorBoard writes into `tensorboard` in the folder, trackio into its own folder on this machine. wandb
    stays offline (`wandb sync` uploads) unless the recipe allows downloads or WANDB_MODE says otherwise.
    """

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        name = str(recipe.training.track)
        project, options = PROJECT, {"name": folder.name, "resume": "allow"}
        if name == "tensorboard":
            project, options = "tensorboard", {"logging_dir": str(folder)}
        if name == "trackio":
            os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
        if name == "wandb":
            mode = os.environ.get("WANDB_MODE") or ("online" if recipe.allow_download else "offline")
            options |= {"id": folder.name, "dir": str(folder), "mode": mode}
        self._tracker: Any = LOGGER_TYPE_TO_CLASS[name](project, **options)
        self._tracker.start()

    def record(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Numbers of a step under their names, those of a validation under `validation/`."""
        prefix = "" if kind == "step" else f"{kind}/"
        numbers = {f"{prefix}{name}": value for name, value in values.items() if value is not None}
        self._tracker.log(numbers, step=step)

    def close(self) -> None:
        """Write what is left."""
        self._tracker.finish()
