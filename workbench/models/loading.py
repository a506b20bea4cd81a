"""Finds and loads two-tower models: shipped configurations, open_clip's own, and exported folders."""

import contextlib
import ctypes
import functools
import json
import logging
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from workbench.errors import SettingError, damaged_file, reason
from workbench.files import DISK_ERRORS, read_json, write_json
from workbench.models import package_weights, rotary
from workbench.models.dual_encoder import CONFIG_NAME, OWN_STUDENT, DualEncoder, nearest
from workbench.models.model_size import check_size, check_vocabulary
from workbench.models.relations import CONFIG_KEY, add_relations
from workbench.models.weights_files import weights_file, why_unusable

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h
TOWER_CONFIG_NAME = "config.json"  # transformers' own name
CONFIGS = Path(__file__).parent / "configs"


def load_dual_encoder(
    model: str,
    pretrained: str | None = None,
    *,
    initial_weights: Mapping[str, str] | None = None,
    frozen: Sequence[str] = (),
    freeze_batch_norm: bool = False,
    rotary_positions: bool = False,
    relations: bool = False,
    without_weights: bool = False,
    allow_download: bool = False,
    setting: str = "model",
) -> DualEncoder:
    """Load a two-tower model in float32 on the CPU.

    `model`: a shipped configuration (`shipped_models()`), an open_clip name (`ViT-B-32`), an exported folder
    (`local-dir:PATH` or the path itself), a JSON file in open_clip's format, or `hf-hub:ORG/NAME`.
    `pretrained`: an open_clip tag, a weights file (including checkpoints of open_clip's training), or shipped
    weights (`demo_teacher`). None loads the weights in the model's folder, under any file name that open_clip
    knows. If there are none, the weights stay random. `weights_from` of the model records the source.
    `initial_weights` copies packaged tower weights into modules (`{"visual.trunk": "mobilenet_v2"}`).
    `frozen`, `freeze_batch_norm`: see DualEncoder. `rotary_positions` replaces a vision transformer's
    absolute ones, as `rotary_positions` in a configuration's `vision_cfg` does. `relations` adds untrained
    `models.relations`, as `relations` in a configuration's `model_cfg` does. `without_weights` keeps the
    weights random, but takes activation and preprocessing from the tag. Downloads only if `allow_download`.
    Raises SettingError, naming `setting`, if something is missing.
    """
    import open_clip

    from workbench.models import conse, mobilenet_stem  # noqa: F401  both register towers with timm

    keep_freed_memory()
    name = model.removeprefix("local-dir:")
    config_file = _config_file(name)
    with tempfile.TemporaryDirectory() as scratch, hub_access(allow_download):
        if config_file is None:
            clip, config, tokenizer = _load_named(model, pretrained, without_weights, setting, allow_download)
            origin = model if ":" in model else pretrained
        else:
            config = _read_config(config_file, f"{setting}.model")
            text = config["model_cfg"].get("text_cfg", {})
            try:
                rotary_positions |= config["model_cfg"]["vision_cfg"].pop(rotary.CONFIG_KEY, False) is True
                of_weights = config["model_cfg"].pop(CONFIG_KEY, False) is True
                write_json(Path(scratch) / CONFIG_NAME, config)
                # open_clip warns that the folder has no weights; they come in the next step.
                logging.disable(logging.WARNING)
                if not config_file.is_relative_to(CONFIGS):
                    check_size(f"local-dir:{scratch}", config["model_cfg"])
                clip = open_clip.create_model(f"local-dir:{scratch}", pretrained_text=False)
                tokenizer = _tokenizer(config_file.parent, text)
                check_vocabulary(tokenizer(["a cat"]), text)
                if of_weights:
                    add_relations(clip, f"{setting}.model")
            except Exception as error:
                if isinstance(error, OSError) and error.errno in DISK_ERRORS:
                    raise
                problem = f"open_clip cannot build it ({reason(error)})"
                raise SettingError(f"{setting}.model", model, problem, "fix its JSON") from error
            finally:
                logging.disable(logging.NOTSET)
            config = {"model_cfg": config["model_cfg"], "preprocess_cfg": dict(clip.visual.preprocess_cfg)}
            weights = None if without_weights else weights_file(pretrained, config_file, setting)
            if weights is not None:
                _load_weights(clip, weights, setting)
            origin = str(weights) if weights else None
    for module, weights_name in ({} if without_weights else initial_weights or {}).items():
        package_weights.load_into(_submodule(clip, module, f"{setting}.initial_weights"), weights_name)
    if rotary_positions:
        rotary.use_rotary_positions(clip.visual, f"{setting}.rotary_positions")
        config["model_cfg"]["vision_cfg"] = config["model_cfg"]["vision_cfg"] | {rotary.CONFIG_KEY: True}
    if relations and not hasattr(clip, "relations"):
        add_relations(clip, f"{setting}.relations")
    if hasattr(clip, "relations"):
        config["model_cfg"] = config["model_cfg"] | {CONFIG_KEY: True}
    encoder = DualEncoder(clip.float(), config, tokenizer, frozen, freeze_batch_norm)
    encoder.weights_from = None if without_weights else origin
    return encoder


@functools.cache
def keep_freed_memory() -> None:
    """Make glibc reuse the memory of freed tensors. Does nothing without glibc.

    By default every large activation is allocated again by the system, which costs a good part of a step on a
    CPU.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def shipped_models() -> list[str]:
    """Names of the model configurations that come with the workbench."""
    return sorted(path.parent.name for path in CONFIGS.glob(f"*/{CONFIG_NAME}"))


def save_trained(model: DualEncoder, path: Path, from_packages: Mapping[str, str]) -> None:
    """Write the weights as float16 safetensors, without those that a package already carries.

    `from_packages` maps a module to the packaged weights that it started from. Tensors that still equal these
    are not written. The mapping goes into the file's metadata, so that `load_dual_encoder` can combine both.
    """
    reference = {}
    for module, name in from_packages.items():
        fresh = _submodule(model.clip, module, "from_packages")
        trained = {key: value.clone() for key, value in fresh.state_dict().items()}
        package_weights.load_into(fresh, name)
        reference.update({f"{module}.{key}": value.clone() for key, value in fresh.state_dict().items()})
        fresh.load_state_dict(trained)
    kept = {
        key: value.to(torch.float16).contiguous() if value.is_floating_point() else value.contiguous()
        for key, value in model.clip.state_dict().items()
        if key not in reference or not torch.equal(reference[key], value)
    }
    save_file(kept, path, metadata={"initial_weights": json.dumps(dict(from_packages))})


def _config_file(name: str) -> Path | None:
    path = Path(name).expanduser()
    for candidate in (path / CONFIG_NAME, CONFIGS / name / CONFIG_NAME):
        if candidate.is_file():
            return candidate
    return path if path.suffix == ".json" and path.is_file() else None


def _read_config(file: Path, setting: str) -> dict[str, Any]:
    """A configuration in open_clip's format. Towers in packages and in its own folder become paths."""
    try:
        config = read_json(file)
        config = config if "model_cfg" in config else {"model_cfg": config}
        text = config["model_cfg"].get("text_cfg", {})
        for key in ("hf_model_name", "hf_tokenizer_name"):
            if str(text.get(key, "")).startswith("package:"):
                package, _, inside = text[key].removeprefix("package:").partition("/")
                text[key] = str(package_weights.package_folder(package) / inside)
        if "hf_model_name" in text and (file.parent / TOWER_CONFIG_NAME).is_file():
            text["hf_model_name"] = str(file.parent.absolute())  # wherever it was exported to
    except SettingError:
        raise
    except Exception as error:  # JSON of any shape and depth
        raise damaged_file(setting, file, error, "A configuration in open_clip's format") from error
    return config


def _load_weights(clip: nn.Module, path: Path, setting: str) -> None:
    import open_clip

    packaged: dict[str, str] = {}
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                packaged = dict(json.loads((file.metadata() or {}).get("initial_weights", "{}")))
        if packaged:
            for module, name in packaged.items():
                package_weights.load_into(_submodule(clip, module, "pretrained"), name)
            clip.load_state_dict({**clip.state_dict(), **load_file(path)})
        else:
            open_clip.load_checkpoint(clip, str(path))  # by weights_only: nothing is unpickled
    except SettingError:
        raise
    except Exception as error:
        problem, remedy = why_unusable(path, error)
        raise SettingError(f"{setting}.pretrained", str(path), problem, remedy) from None


def _load_named(
    model: str, pretrained: str | None, without_weights: bool, setting: str, allow_download: bool
) -> tuple[Any, dict[str, Any], Any]:
    import open_clip

    plain = model.removeprefix("local-dir:")
    if plain != model or (":" not in model and model.replace("/", "-") not in open_clip.list_models()):
        remedy, problem = "Give a folder in open_clip's format.", f"this folder has no {CONFIG_NAME}"
        if not Path(plain).expanduser().is_dir():
            remedy = nearest(model, [*shipped_models(), *open_clip.list_models()])
            problem = "there is no such model, folder or JSON file"
        raise SettingError(f"{setting}.model", model, problem, remedy)
    tag: dict[str, Any] = {}
    if pretrained and not Path(pretrained).is_file():
        tags = open_clip.list_pretrained_tags_by_model(model)
        # A run may outlive the weights file that it started from.
        if pretrained not in tags and not without_weights:
            remedy = f"a file, or one of: {', '.join(tags)}"
            raise SettingError(f"{setting}.pretrained", pretrained, "there is no such tag or file", remedy)
        tag = open_clip.get_pretrained_cfg(model.replace("/", "-"), pretrained)
    # open_clip only warns where weights were trained with the other GELU.
    quick_gelu = bool(tag.get("quick_gelu"))
    try:
        clip = open_clip.create_model(
            model,
            pretrained=None if without_weights else pretrained,
            force_quick_gelu=quick_gelu,
            force_preprocess_cfg=tag,
            pretrained_text=False,
        )
        shape = open_clip.factory.get_model_config(model) | ({"quick_gelu": True} if quick_gelu else {})
        # A configuration on the hub may not allow code either.
        safe = {"trust_remote_code": False} if shape["text_cfg"].get("hf_tokenizer_name") else {}
        tokenizer = open_clip.get_tokenizer(model, **safe)
    except Exception as error:
        name, problem = f"{model} {pretrained or ''}".strip(), f"cannot be loaded ({reason(error)})"
        remedy = "put the files into the local hub cache, or set allow_download: true"
        remedy = "check the name" if allow_download else remedy
        raise SettingError(f"{setting}.model", name, problem, remedy) from error
    return clip, {"model_cfg": shape, "preprocess_cfg": dict(clip.visual.preprocess_cfg)}, tokenizer


def _tokenizer(folder: Path, text: dict[str, Any]) -> Any:
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

    name, length = text.get("hf_tokenizer_name"), text.get("context_length", 77)
    options = dict(text.get("tokenizer_kwargs", {}))
    if not name:
        return SimpleTokenizer(context_length=length, **options)
    options["trust_remote_code"] = False
    mode = {"tokenizer_mode": text["tokenizer_mode"]} if text.get("tokenizer_mode") else {}
    # As in open_clip, a tokenizer in the folder takes precedence over a named one.
    own = any((folder / file).is_file() for file in ("tokenizer.json", "tokenizer_config.json"))
    source = folder / name if name.startswith(".") else folder if own else name
    return HFTokenizer(str(source), context_length=length, **mode, **options)


def _submodule(clip: nn.Module, name: str, setting: str) -> nn.Module:
    modules = dict(clip.named_modules())
    if name not in modules:
        remedy = nearest(name, modules) + (f" {OWN_STUDENT}" if setting == "student.initial_weights" else "")
        raise SettingError(setting, name, "the model has no such module", remedy)
    return modules[name]


@contextlib.contextmanager
def hub_access(allowed: bool) -> Iterator[None]:
    """Keep the model hub's client off the network unless `allowed`, and never run code from a model's folder.

    open_clip passes no `trust_remote_code`. Without it, transformers would ask on the terminal.
    """
    from huggingface_hub import constants
    from transformers import dynamic_module_utils

    before = constants.HF_HUB_OFFLINE, dynamic_module_utils.TIME_OUT_REMOTE_CODE
    constants.HF_HUB_OFFLINE = before[0] or not allowed
    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0  # refuse without asking
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, dynamic_module_utils.TIME_OUT_REMOTE_CODE = before


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """Silence transformers' progress bars and its notes on weights that an encoder does not use."""
    from transformers.utils import logging as transformers_logging

    bars, level = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
