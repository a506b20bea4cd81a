"""Opens the test images of CIFAR-10 and CIFAR-100, as their authors and torchvision distribute them.

The Python version consists of pickles. They are read by an unpickler that accepts numbers, strings, lists,
dicts and arrays of bytes, builds the arrays itself, and refuses every other name before any code runs.
"""

import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from workbench.data.decode import BadSample
from workbench.data.labelled.labels import Labelled, read_lines
from workbench.data.pairs import Pairs
from workbench.data.source import read_file
from workbench.errors import SettingError

SIDE = 32
# Radford et al. 2021, for both data sets (openai/CLIP, data/prompts.md); open_clip only has ImageNet's.
_KINDS = ("", "blurry ", "black and white ", "low contrast ", "high contrast ", "bad ", "good ")
CIFAR_TEMPLATES = tuple(
    template
    for article in ("a", "the")
    for template in (
        *(f"a {kind}photo of {article} {{}}." for kind in _KINDS),
        *(f"a photo of {article} {size} {{}}." for size in ("small", "big")),
    )
)
_PIXELS = 3 * SIDE * SIDE
_LARGEST = 256 << 20
_ARRAY_NAMES = {
    *("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"),
    *("numpy.ndarray", "numpy.dtype"),
}


@dataclass(frozen=True)
class Layout:
    """A folder, its file of test images and its file of class names. In the binary version, a record starts
    with `label_bytes` labels, of which the last one counts."""

    folder: str
    images: str
    names: str
    labels: str = ""
    label_bytes: int = 0


_LAYOUTS = {
    "cifar10": (
        Layout("cifar-10-batches-py", "test_batch", "batches.meta", "label"),
        Layout("cifar-10-batches-bin", "test_batch.bin", "batches.meta.txt", label_bytes=1),
    ),
    "cifar100": (
        Layout("cifar-100-python", "test", "meta", "fine_label"),
        Layout("cifar-100-binary", "test.bin", "fine_label_names.txt", label_bytes=2),
    ),
}


def locate_cifar(kind: str, folder: Path) -> tuple[Path, Layout] | None:
    """The folder and layout of "cifar10" or "cifar100" in a folder, None if it is not in it."""
    for layout in _LAYOUTS[kind]:
        for base in (folder / layout.folder, folder):
            if (base / layout.images).is_file() and (base / layout.names).is_file():
                return base, layout
    return None


def open_cifar(base: Path, layout: Layout, source: str) -> Labelled:
    """Open the 10,000 test images of CIFAR, with CLIP's 18 templates. Classes keep the set's own order.

    Raises `SettingError` for damaged files and for pickles that contain anything but data.
    """
    if layout.label_bytes:
        names = read_lines(base / layout.names)
        pixels, labels = _binary(base / layout.images, layout.label_bytes)
    else:
        batch, about = (_unpickled(base / name) for name in (layout.images, layout.names))
        try:
            names = [_text(name) for name in about[f"{layout.labels}_names"]]
            pixels = _pixels(batch["data"])
            labels = np.array(batch[f"{layout.labels}s"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _damaged(base, f"{type(error).__name__}: {error}") from error
    if not len(labels) or labels.dtype.kind not in "iu" or labels.shape != (len(pixels),):
        raise _damaged(base, f"{len(pixels)} images and labels of shape {labels.shape}")
    if labels.min() < 0 or labels.max() >= len(names):
        raise _damaged(base, f"labels up to {labels.max()} for {len(names)} classes")
    class_names = [name.replace("_", " ") for name in names]
    table = pa.table(
        {
            "id": [f"test/{row:05d}" for row in range(len(labels))],
            "captions": [[class_names[label]] for label in labels],
        }
    )
    pairs = Pairs(table, _Stored(pixels), name=source, split="test")
    return Labelled(pairs, labels.astype(np.int64), class_names, CIFAR_TEMPLATES)


@dataclass(frozen=True)
class _Stored:
    """Returns pictures from an array [N, 3 x 32 x 32]: all red values, then green, then blue."""

    pixels: np.ndarray

    def __call__(self, row: int) -> torch.Tensor:
        return torch.from_numpy(self.pixels[row].reshape(3, SIDE, SIDE).copy())


def _binary(path: Path, label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    data = np.frombuffer(_bytes(path), dtype=np.uint8)
    if len(data) % (label_bytes + _PIXELS):
        raise _damaged(path, f"{len(data)} bytes are no whole number of records")
    records = data.reshape(-1, label_bytes + _PIXELS)
    return records[:, label_bytes:], records[:, label_bytes - 1]


class _StandIn:
    """Replaces an array or its type while unpickling, and only keeps its arguments and state."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _PlainUnpickler(pickle.Unpickler):
    """Builds numbers, strings, lists, dicts and stand-ins for arrays; calls nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _ARRAY_NAMES:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _StandIn


def _pixels(array: _StandIn) -> np.ndarray:
    """An array's bytes as uint8 [N, 3 x 32 x 32]. Raises TypeError or ValueError for other arrays."""
    _, shape, kind, column_major, data = array.state
    if kind.arguments[:1] not in ((b"u1",), ("u1",)) or column_major:
        raise TypeError("the images are no array of bytes")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape).reshape(-1, _PIXELS)


def _unpickled(path: Path) -> dict[str, Any]:
    """The dict in a pickle written by Python 2, its keys as text."""
    data = _bytes(path)
    try:
        content = _PlainUnpickler(io.BytesIO(data), encoding="bytes").load()
        return {_text(key): value for key, value in content.items()}
    except Exception as error:  # unpickling raises anything on damaged bytes
        raise _damaged(path, f"{type(error).__name__}: {error}") from error


def _bytes(path: Path) -> bytes:
    try:
        return read_file(path, _LARGEST)
    except BadSample as error:
        raise _damaged(path, error.reason) from error


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _damaged(path: Path, problem: str) -> SettingError:
    remedy = "Unpack it again from the authors' archive, of which torchvision checks the MD5."
    return SettingError("source", str(path), f"no file of CIFAR ({problem})", remedy)
