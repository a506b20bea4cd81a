"""How a sentence encoder in sentence-transformers' format pools the states of its language model."""

from pathlib import Path
from typing import Any

from workbench.errors import SettingError
from workbench.files import read_json


def read_sentence_encoder(folder: Path, setting: str) -> dict[str, Any]:
    """`pooling`, `normalise` and perhaps `max_seq_length`; {} for a folder of anything else.

    `pooling` is "cls", "mean", "last", or the encoder's own name of another mode.
    Raises SettingError, naming `setting`, where it goes on after pooling with something to learn.
    """
    if not (folder / "modules.json").is_file():
        return {}
    modules = read_json(folder / "modules.json")
    kinds = [module["type"].rpartition(".")[2] for module in modules]
    extra = [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]
    if extra:
        problem = f"this sentence encoder goes on with {', '.join(extra)} after its language model"
        raise SettingError(setting, str(folder), problem, "One that only pools and normalises")
    settings: dict[str, Any] = {"normalise": "Normalize" in kinds}
    for kind, module in zip(kinds, modules, strict=True):
        if kind == "Pooling":
            settings["pooling"] = _pooling_mode(read_json(folder / module["path"] / "config.json"))
    if (folder / "sentence_bert_config.json").is_file():
        settings["max_seq_length"] = read_json(folder / "sentence_bert_config.json").get("max_seq_length")
    return settings


def _pooling_mode(settings: dict[str, Any]) -> str:
    """Of a pooling module's settings: since sentence-transformers 6 they name the mode, before it each had a
    flag. Several at once come back joined by "+"."""
    names = {"cls": "cls", "cls_token": "cls", "mean": "mean", "mean_tokens": "mean", "lasttoken": "last"}
    mode = settings.get("pooling_mode")
    if mode is None:
        flag = "pooling_mode_"
        mode = [key.removeprefix(flag) for key, value in settings.items() if key.startswith(flag) and value]
    modes = [mode] if isinstance(mode, str) else list(mode)
    return "+".join(names.get(mode, mode) for mode in modes) or "mean"
