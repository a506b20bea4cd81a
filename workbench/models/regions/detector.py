"""Loads region proposers by name: detectors of ultralytics from files, and those that need no detector."""

import json
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from workbench.errors import SettingError
from workbench.files import cache_folder, sha256_of_file
from workbench.models.package_weights import ASSETS
from workbench.models.regions import ultralytics_adapter
from workbench.models.regions.proposers import (
    SIMPLE,
    ProposedRegions,
    Proposer,
    as_regions,
    select_regions,
    simple_proposer,
)

__all__ = ["load_proposer", "random_detector", "save_detector", "select_regions"]

PROPOSERS = ("yolo", *SIMPLE)
SHIPPED = "scene_detector"
SUFFIXES = (".pt", ".safetensors")
_MOST = 300  # boxes of one picture, ultralytics' own limit
_BATCH = 32  # pictures at a time
_STRIDE = 32  # of the coarsest feature map. Picture sizes are multiples of it


def load_proposer(
    name: str = "yolo",
    *,
    weights: str = SHIPPED,
    image_size: int | None = None,
    confidence: float = 0.25,
    overlap: float = 0.7,
    boxes: int = 16,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Proposer:
    """The proposer `name`: yolo, ground_truth, grid, random or whole_image.

    For yolo, `weights` is the shipped `scene_detector`, a `.safetensors` file in its format, a `.pt` file of
    any ultralytics detector, or the bare name of such a file (`yolov8x`) in the current folder or in the
    cache folder `detectors`. `image_size` is the side in pixels that pictures are fitted into (None: the size
    in training). `confidence` is the minimum of a box. `overlap` is the intersection over union above which
    the weaker of two boxes is dropped. For grid and random, `boxes` is the maximum for a picture. `seed` is
    that of the random boxes. Nothing is downloaded or unpickled. Raises SettingError, naming the setting,
    such as `regions.proposer` or `regions.weights`.
    """
    if name not in PROPOSERS:
        remedy = f"Take one of {', '.join(PROPOSERS)}."
        raise SettingError("regions.proposer", name, "there is no such proposer", remedy)
    if boxes < 1:
        raise SettingError("regions.boxes", boxes, "at least one box is needed", "Take 16, for example.")
    if name in SIMPLE:
        return simple_proposer(name, boxes, seed)
    path = _weights_file(weights)
    load = _load_packed if path.suffix == ".safetensors" else ultralytics_adapter.load
    model, trained_size = load(path)
    settings = (trained_size if image_size is None else image_size, confidence, overlap)
    return Detector(model, {"weights": sha256_of_file(path)}, *settings, device=device)


def random_detector(
    architecture: str = "yolov8x",
    *,
    classes: int = 80,
    image_size: int = 640,
    confidence: float = 0.25,
    overlap: float = 0.7,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> "Detector":
    """A detector of the true architecture with random weights, for dry runs and to count parameters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ultralytics_adapter.build(architecture, [str(number) for number in range(classes)])
    of = {"weights": f"random {architecture}", "classes": classes, "seed": seed}
    return Detector(model, of, image_size, confidence, overlap, device=device)


def save_detector(
    path: Path, model: nn.Module, architecture: str, image_size: int, measured: Mapping[str, Any]
) -> None:
    """Write a detector as float16 safetensors whose metadata holds its architecture and scores."""
    state = {
        key: (value.half() if value.is_floating_point() else value).contiguous()
        for key, value in model.state_dict().items()
    }
    names = ultralytics_adapter.names_of(model)
    facts = {
        "architecture": architecture,
        "names": names,
        "image_size": image_size,
        "measured": dict(measured),
    }
    save_file(state, path, metadata={"detector": json.dumps(facts)})


class Detector(Proposer):
    """Regions from an ultralytics detector.

    `model` is the network, and `of` identifies its weights for the fingerprint. `parameters` counts them.
    """

    def __init__(
        self,
        model: nn.Module,
        of: Mapping[str, Any],
        image_size: int,
        confidence: float,
        overlap: float,
        *,
        device: str | torch.device = "cpu",
    ) -> None:
        for setting, value in (("confidence", confidence), ("overlap", overlap)):
            if not 0 <= value <= 1:
                raise SettingError(
                    f"regions.{setting}", value, "this is not a share", "Take a number from 0 to 1."
                )
        if image_size < _STRIDE or image_size % _STRIDE:
            whole = max(1, round(image_size / _STRIDE)) * _STRIDE
            problem = f"this is not a multiple of {_STRIDE} pixels"
            raise SettingError("regions.image_size", image_size, problem, f"Take {whole}.")
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self.names = ultralytics_adapter.names_of(model)
        settings = {"image_size": image_size, "confidence": confidence, "overlap": overlap}
        version = metadata.version("ultralytics")
        super().__init__({"proposer": "yolo", **of, **settings, "ultralytics": version})
        limits = (image_size, confidence, overlap, _MOST)
        self._predict = ultralytics_adapter.predictor(model, *limits, _device_name(device))

    def __call__(
        self,
        pictures: Sequence[UInt8[Tensor, "3 _ _"]],
        known: Sequence[np.ndarray | None],
        rows: Sequence[int],
    ) -> list[ProposedRegions]:
        # ultralytics expects arrays in OpenCV's format: channels last, blue first.
        arrays = (picture.permute(1, 2, 0).numpy(force=True)[..., ::-1] for picture in pictures)
        blue_first = [np.ascontiguousarray(array) for array in arrays]
        regions = []
        for start in range(0, len(pictures), _BATCH):
            for result in self._predict(blue_first[start : start + _BATCH]):
                boxes = result.boxes.data.float().cpu().numpy()  # x0, y0, x1, y1, confidence, class
                best = boxes[np.argsort(-boxes[:, 4], kind="stable")]
                regions.append(as_regions(best[:, :4], best[:, 4], best[:, 5]))
        return regions


def _weights_file(weights: str) -> Path:
    path = Path(weights).expanduser()
    candidates = [ASSETS / f"{weights}.safetensors", path]
    remedy = "Give the path of an existing .pt or .safetensors file"
    if len(path.parts) == 1:
        file = path.name if path.suffix in SUFFIXES else f"{path.name}.pt"
        candidates += [Path(file), cache_folder("detectors", file)]
        folder = candidates[-1].parent
        remedy = f"Put {file}, as published, into the current folder or into {folder}"
    path = next((candidate for candidate in candidates if candidate.is_file()), Path())
    if path == Path():
        problem = "there is no such detector on this machine, and nothing is downloaded"
        raise SettingError("regions.weights", weights, problem, f"{remedy}, or take the shipped {SHIPPED}.")
    if path.suffix not in SUFFIXES:
        problem = "this is neither a .pt nor a .safetensors file"
        remedy = "Give an ultralytics detector in one of these formats."
        raise SettingError("regions.weights", weights, problem, remedy)
    return path


def _load_packed(path: Path) -> tuple[nn.Module, int]:
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["detector"])
        model = ultralytics_adapter.build(facts["architecture"], facts["names"])
        model.load_state_dict(load_file(path))
        image_size = int(facts["image_size"])
    except SettingError:
        raise
    except Exception as error:
        problem = f"these are not the weights of a detector ({error})"
        remedy = f"Take {SHIPPED}, or a .pt file of ultralytics."
        raise SettingError("regions.weights", str(path), problem, remedy) from error
    return model, image_size


def _device_name(device: str | torch.device) -> str:
    """The device's name for ultralytics, which knows no numbered CPU."""
    device = torch.device(device)
    return str(device) if device.type == "cuda" else device.type
