"""The device that a recipe asks for."""

import os

import torch

from workbench.errors import SettingError
from workbench.recipe import Recipe


def best_device() -> torch.device:
    """This process's GPU if there is one (each of several processes has its own), otherwise the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def device_of(recipe: Recipe) -> torch.device:
    """The device of `training.device`, for everything that a recipe computes: targets, training, evaluation.

    Raises SettingError for a missing GPU.
    """
    name = recipe.training.device
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingError("training.device", "cuda", "this machine has no usable CUDA device", "auto or cpu")
    return best_device() if name in ("auto", "cuda") else torch.device(name)
