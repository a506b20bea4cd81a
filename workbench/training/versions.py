"""Which software and device made a run."""

import platform
from importlib import metadata

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
    import torch

    found = {"python": platform.python_version(), "platform": platform.platform(), "device": device}
    if device.startswith("cuda"):
        found["device_name"] = torch.cuda.get_device_name(device)
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "absent"
    return found
