"""Understand and improve CLIP by distillation: recipes, training, evaluation and pictures in one import.

Everything named here is loaded on first use, so that `import workbench` costs milliseconds and no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from workbench import data, evaluation, figures, models, objectives, reports, targets, training, widgets
    from workbench.data.labelled.load import load_labelled
    from workbench.data.load import load_pairs
    from workbench.recipe import Recipe
    from workbench.reports.compare import compare
    from workbench.runs.run import Run
    from workbench.training.launch import launch
    from workbench.training.trainer import train

_HOMES = {
    "Recipe": "workbench.recipe",
    "Run": "workbench.runs.run",
    "compare": "workbench.reports.compare",
    "launch": "workbench.training.launch",
    "load_labelled": "workbench.data.labelled.load",
    "load_pairs": "workbench.data.load",
    "train": "workbench.training.trainer",
}
_FOLDERS = (
    "data",
    "evaluation",
    "figures",
    "models",
    "objectives",
    "reports",
    "targets",
    "training",
    "widgets",
)

__all__ = [
    "Recipe",
    "Run",
    "__version__",
    "compare",
    "data",
    "evaluation",
    "figures",
    "launch",
    "load_labelled",
    "load_pairs",
    "models",
    "objectives",
    "reports",
    "targets",
    "train",
    "training",
    "widgets",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    elif name in _FOLDERS:
        value = importlib.import_module(f"workbench.{name}")
    else:
        raise AttributeError(f"module 'workbench' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_FOLDERS})
