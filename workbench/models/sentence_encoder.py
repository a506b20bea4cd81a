"""Reads how a sentence encoder in sentence-transformers' format tokenizes and pools."""

from pathlib import Path
from typing import Any

from workbench.errors import SettingError, damaged_file
from workbench.files import read_json

FOLLOWED = ("Transformer", "Pooling", "Normalize")


def read_sentence_encoder(folder: Path, setting: str) -> dict[str, Any]:
    """`path`, `pooling`, `normalise`, `lower_case`, `prompt` and `max_seq_length`. {} for other folders.

    `path` is the folder of the language model. `pooling` is "cls", "mean", "last", or the encoder's own name
    of another mode. `prompt` precedes every text. Raises SettingError, naming `setting`, if the files are
    damaged or need anything else: further layers, custom code, or a prompt that is excluded from pooling.
    """
    if not (folder / "modules.json").is_file():
        return {}
    try:
        return _read(folder, setting)
    except SettingError:
        raise
    except Exception as error:  # JSON of any shape
        raise damaged_file(
            setting, folder / "modules.json", error, "Download the encoder's files again"
        ) from error


def _read(folder: Path, setting: str) -> dict[str, Any]:
    modules = {}
    for module in read_json(folder / "modules.json"):
        origin, _, kind = module["type"].rpartition(".")
        if kind not in FOLLOWED or origin.partition(".")[0] != "sentence_transformers" or kind in modules:
            problem = f"this sentence encoder has a module {kind} ({module['type']}), which is not supported"
            raise SettingError(setting, str(folder), problem, "Take one that only pools and normalises")
        modules[kind] = folder / module["path"]
    language_model = modules["Transformer"]
    reads: dict[str, Any] = {}
    for file in sorted(
        language_model.glob("sentence_*_config.json")
    ):  # sentence_bert_config, in old ones roberta
        reads |= read_json(file)
    file = folder / "config_sentence_transformers.json"
    prompts = read_json(file) if file.is_file() else {}
    pools = read_json(modules["Pooling"] / "config.json") if "Pooling" in modules else {}
    prompt = (prompts.get("prompts") or {}).get(prompts.get("default_prompt_name")) or ""
    if prompt and not pools.get("include_prompt", True):
        problem = (
            f"this sentence encoder leaves its prompt {prompt!r} out of the pooling, which is not supported"
        )
        raise SettingError(setting, str(folder), problem, "Take one without a default prompt")
    return {
        "path": language_model,
        "pooling": _pooling_mode(pools),
        "normalise": "Normalize" in modules,
        "lower_case": bool(reads.get("do_lower_case")),
        "prompt": prompt,
        "max_seq_length": reads.get("max_seq_length"),
    }


def _pooling_mode(settings: dict[str, Any]) -> str:
    """The mode in a pooling module's settings, several joined by "+". sentence-transformers 6 names the mode.
    Earlier versions have a flag for each."""
    names = {"cls": "cls", "cls_token": "cls", "mean": "mean", "mean_tokens": "mean", "lasttoken": "last"}
    mode = settings.get("pooling_mode")
    if mode is None:
        flag = "pooling_mode_"
        mode = [key.removeprefix(flag) for key, value in settings.items() if key.startswith(flag) and value]
    modes = [mode] if isinstance(mode, str) else list(mode)
    return "+".join(names.get(mode, mode) for mode in modes) or "mean"
