"""The only access to ultralytics: offline, silent, without unpickling, with settings in our own cache folder.

By default ultralytics looks up DNS, sends analytics, installs packages, downloads missing files, unpickles
weights, writes into the user's configuration and changes process-wide settings.
"""

import contextlib
import functools
import logging
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import nn

from workbench.errors import SettingError
from workbench.files import cache_folder


@functools.cache
def ultralytics() -> ModuleType:
    """The package, imported on the first call. Also works if it was imported before."""
    folder = cache_folder("ultralytics")
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "YOLO_OFFLINE": "1",
        "YOLO_AUTOINSTALL": "false",
        "YOLO_VERBOSE": "false",
        "YOLO_CONFIG_DIR": str(folder),
        "ULTRALYTICS_SAFE_LOAD": "1",
    }
    environment = {**os.environ, **settings}
    # With several processes its import waits for all of them, and some may never import it.
    os.environ.update(settings, WORLD_SIZE="1")
    with process_settings_kept():
        import ultralytics
        from ultralytics.nn import tasks
        from ultralytics.utils import LOGGER, SETTINGS, checks, events
    for name in set(os.environ) - set(environment):  # OMP_NUM_THREADS=1 among them
        del os.environ[name]
    os.environ.update(environment)
    # The environment came too late for what had been imported before.
    tasks.SAFE_LOAD, checks.AUTOINSTALL, events.events.enabled = True, False, False
    LOGGER.setLevel(logging.ERROR)
    # Analytics and every experiment tracker; `dict.update`, since theirs would write the settings file.
    dict.update(SETTINGS, {name: False for name, value in SETTINGS.items() if isinstance(value, bool)})
    return ultralytics


def build(architecture: str, names: Sequence[str]) -> nn.Module:
    """A detector with an architecture of ultralytics, such as `yolov8n`, for classes of these names.

    The weights are drawn from torch's global generator. Raises SettingError for an unknown architecture.
    """
    root = Path(ultralytics().__path__[0]) / "cfg" / "models"
    from ultralytics.nn.tasks import DetectionModel, guess_model_task
    from ultralytics.utils import YAML

    files = {path.stem: path for path in root.rglob("*.yaml")}
    family = re.fullmatch(r"(yolov?\d+)([nsmlx])", architecture)
    name, scale = (family[1], family[2]) if family and architecture not in files else (architecture, "")
    layers: dict[str, Any] = YAML.load(files[name]) if name in files else {}
    known = name in files and scale in layers.get("scales", {"": None})
    if not known or guess_model_task(layers) != "detect":
        problem = "ultralytics has no such detector"
        raise SettingError("regions.weights", architecture, problem, "Take yolov8n or yolov8x.")
    layers |= {"scale": scale, "yaml_file": f"{architecture}.yaml"}
    model = DetectionModel(layers, nc=len(names), verbose=False)
    model.names = dict(enumerate(names))
    return model.eval()


def load(path: Path) -> tuple[nn.Module, int]:
    """The detector in an existing `.pt` file, and the picture size in pixels that it was trained with.

    No code from its pickle runs: ultralytics' safe mode allows only the classes that detectors consist of.
    Raises SettingError for a file that names others, is damaged, or has another task.
    """
    ultralytics()
    from ultralytics.nn.tasks import load_checkpoint

    remedy = "Give a detector's .pt file as ultralytics saves it."
    known = torch.serialization.get_safe_globals()
    try:
        model, _ = load_checkpoint(str(path.resolve()))
        image_size = int(np.max(model.args["imgsz"]))  # one number, or height and width
    except Exception as error:
        problem = "it is damaged, or its pickle names classes that no detector of ultralytics has"
        raise SettingError("regions.weights", str(path), problem, remedy) from error
    finally:  # safe mode would let them through every torch.load of this process
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(known)
    if model.task != "detect":
        raise SettingError("regions.weights", str(path), f"a model for the task {model.task}", remedy)
    return model, image_size


def predictor(
    model: nn.Module, image_size: int, confidence: float, overlap: float, most: int, device: str
) -> Any:
    """Ultralytics' predictor. It takes BGR pictures, uint8 [H, W, 3], and returns their results."""
    ultralytics()
    from ultralytics.models.rtdetr import RTDETRPredictor
    from ultralytics.models.yolo.detect import DetectionPredictor
    from ultralytics.nn.tasks import RTDETRDetectionModel

    class OneByOne(DetectionPredictor):
        def postprocess(self, preds: Any, img: Any, orig_imgs: list[np.ndarray], **rest: Any) -> list[Any]:
            # ultralytics' non-maximum suppression has a time limit for a batch. On a busy machine the last
            # pictures would lose their boxes.
            scores = preds[0] if isinstance(preds, list | tuple) else preds
            rows = [slice(row, row + 1) for row in range(len(orig_imgs))]
            single = super().postprocess
            return [single(scores[row], img[row], orig_imgs[row], **rest)[0] for row in rows]

    settings = {
        "task": "detect", "mode": "predict", "imgsz": image_size, "conf": confidence, "iou": overlap,
        "max_det": most, "device": device, "rect": False, "save": False, "verbose": False,
    }  # fmt: skip
    kind = RTDETRPredictor if isinstance(model, RTDETRDetectionModel) else OneByOne
    with process_settings_kept():
        detector = kind(overrides=settings)
        detector.setup_model(model, verbose=False)
    return detector


@contextlib.contextmanager
def process_settings_kept() -> Iterator[None]:
    """Undo what ultralytics changes for the whole process."""
    threads, open_picture = torch.get_num_threads(), PIL.Image.open
    with warnings.catch_warnings(), np.printoptions():
        # Torch's print options have no public way to be read.
        tensors = dict(vars(torch._tensor_str.PRINT_OPTS))
        try:
            yield
        finally:
            vars(torch._tensor_str.PRINT_OPTS).update(tensors)
            torch.set_num_threads(threads)
            PIL.Image.open = open_picture  # ultralytics' own installs packages for unknown formats


def names_of(model: Any) -> list[str]:
    """The names of a detector's classes, in order."""
    return [str(name) for _, name in sorted(model.names.items())]
