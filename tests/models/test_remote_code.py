"""Code that lies in a model's files is never run, whatever a user answers."""

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from workbench.errors import SettingError
from workbench.models.caption_decoder import load_caption_decoder
from workbench.models.loading import load_dual_encoder
from workbench.models.text_teacher import load_text_teacher

ROOT = Path(__file__).parents[2]
CODE = """
import pathlib
pathlib.Path({flag!r}).touch()
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
class Config(PretrainedConfig): model_type = "planted"
class Model(PreTrainedModel): config_class = Config
class Words(PreTrainedTokenizerFast): pass
"""
CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
}


def test_every_loader_refuses_code() -> None:
    calls = []
    for folder in ("workbench", "tools", "benchmarks"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "from_pretrained":
                    given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                    assert given.get("trust_remote_code") == "False", f"{file}:{node.lineno}"
                    calls.append(file)
    assert len(calls) > 5
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        assert "from_pretrained" not in notebook.read_text(encoding="utf-8"), notebook


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, in the hub's cache too, whose configuration names code; every question is answered by y."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    repository = tmp_path / "hub" / "models--me--planted"
    folder = repository / "snapshots" / "one"
    folder.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("one")
    (folder / "planted.py").write_text(CODE.format(flag=str(tmp_path / "ran")))
    classes = {"AutoConfig": "planted.Config", "AutoModel": "planted.Model"}
    classes |= {"AutoTokenizer": ["planted.Words", "planted.Words"]}
    (folder / "config.json").write_text(json.dumps({"model_type": "planted", "auto_map": classes}))
    tokenizer = {"tokenizer_class": "Words", "auto_map": {"AutoTokenizer": classes["AutoTokenizer"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return folder


def clip(folder: Path, **text: Any) -> str:
    """An open_clip configuration beside the planted code."""
    content = {"model_cfg": CLIP | {"text_cfg": {"context_length": 8} | text}}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    return str(folder)


ALLOWED = {"hf_tokenizer_name": "me/planted", "tokenizer_kwargs": {"trust_remote_code": True}}
LOADERS: dict[str, Callable[[Path], object]] = {
    "language model, folder": lambda folder: load_text_teacher(str(folder)),
    "language model, hub name": lambda folder: load_text_teacher("me/planted"),
    "caption decoder": lambda folder: load_caption_decoder(str(folder)),
    "text tower": lambda folder: load_dual_encoder(clip(folder, hf_model_name="me/planted")),
    "tokenizer": lambda folder: load_dual_encoder(clip(folder, hf_tokenizer_name="me/planted")),
    "tokenizer that allows it": lambda folder: load_dual_encoder(clip(folder, **ALLOWED)),
    "of the hub": lambda folder: load_dual_encoder(f"hf-hub:{clip(folder, **ALLOWED) and 'me/planted'}"),
}


@pytest.mark.parametrize("loader", LOADERS)
def test_planted_code_is_refused_without_a_question(loader: str, planted: Path) -> None:
    with pytest.raises(SettingError, match="code of its own, which is never run"):
        LOADERS[loader](planted)
    assert not (planted.parents[3] / "ran").exists()


def test_the_same_code_runs_where_it_is_allowed(planted: Path, tmp_path: Path) -> None:
    """So that the tests above could fail."""
    from transformers import AutoConfig

    AutoConfig.from_pretrained(planted, trust_remote_code=True)
    assert (tmp_path / "ran").exists()
