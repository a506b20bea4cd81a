"""Sends a run's metrics to an experiment tracker. The workbench itself reads only the run folder."""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from workbench.errors import SettingError
from workbench.recipe import Recipe

PROJECT = "workbench"


def check_tracker(recipe: Recipe) -> None:
    """Raise SettingError if the tracker's package is not installed."""
    name = recipe.training.track
    if name and find_spec(name) is None:
        remedy = f"`pip install 'workbench[{'track' if name == 'tensorboard' else name}]'`, or null"
        raise SettingError("training.track", name, f"the package {name} is not installed", remedy)


class Tracker:
    """The tracker of `training.track`, with one tracker run per run folder, which a resumed run continues.

    TensorBoard writes to `tensorboard` in the run folder, trackio to its own folder on this machine. wandb is
    offline (`wandb sync` uploads) unless the recipe allows downloads or WANDB_MODE is set.
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
        """Log the numbers of a step, with the prefix `validation/` for a validation."""
        prefix = "" if kind == "step" else f"{kind}/"
        numbers = {f"{prefix}{name}": value for name, value in values.items() if value is not None}
        self._tracker.log(numbers, step=step)

    def close(self) -> None:
        """Write pending records and end the tracker's run."""
        self._tracker.finish()
