"""What a run trains on: its device and processes, and which software made it."""

import os
import platform
from importlib import metadata
from typing import Any

import torch

from workbench.errors import SettingError
from workbench.recipe import Recipe

PACKAGES = (
    "workbench",
    "torch",
    "torchvision",
    "open_clip_torch",
    "timm",
    "transformers",
    "accelerate",
    "numpy",
)


def versions(device: str) -> dict[str, str]:
    """Versions of what a result depends on; "absent" for a package that is not installed."""
    found = {"python": platform.python_version(), "platform": platform.platform(), "device": device}
    if device.startswith("cuda"):
        found["device_name"] = torch.cuda.get_device_name(device)
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def accelerate_on(recipe: Recipe) -> Any:
    """The Accelerator for a recipe's device and precision, one of as many processes as torchrun started."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    # A notebook trains several recipes in one process; accelerate would refuse a second precision.
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    precision = "bf16" if recipe.training.precision == "bfloat16" else "no"
    if recipe.training.device == "cuda" and not torch.cuda.is_available():
        raise SettingError("training.device", "cuda", "this machine has no usable CUDA device", "auto or cpu")
    # Left to itself, accelerate lets several processes without GPUs each train alone.
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.cuda.is_available()
    on_cpu = recipe.training.device == "cpu" or (recipe.training.device == "auto" and several)
    return Accelerator(cpu=on_cpu, mixed_precision=precision)
