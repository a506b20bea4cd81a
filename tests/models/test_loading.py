"""Weights and tokens of other people's folders are open_clip's own; a teacher without weights is refused."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from workbench.errors import SettingError
from workbench.models.loading import load_dual_encoder
from workbench.recipe import Recipe
from workbench.targets.image_text import load_teacher

MODEL: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
TEXT: dict[str, Any] = MODEL["text_cfg"]
SAVE: dict[str, Callable[[dict[str, Any], Path], object]] = {
    "open_clip_model.safetensors": save_file,
    "open_clip_pytorch_model.bin": torch.save,
    "model.safetensors": save_file,
    "pytorch_model.bin": torch.save,
    "my_model.pth": torch.save,
    "another.safetensors": save_file,
}


def write(folder: Path, **text: Any) -> dict[str, Any]:
    """A configuration in a folder, and weights that belong to it."""
    folder.mkdir()
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    config = {**MODEL, "text_cfg": MODEL["text_cfg"] | text}
    content = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(content), encoding="utf-8")
    torch.manual_seed(7)
    logging.disable(logging.WARNING)
    try:
        return open_clip.create_model(f"local-dir:{folder}").state_dict()
    finally:
        logging.disable(logging.NOTSET)


def same(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("name", SAVE)
def test_weights_of_any_name_that_open_clip_reads(name: str, tmp_path: Path) -> None:
    state = write(tmp_path / "model")
    SAVE[name](state, tmp_path / "model" / name)
    model = load_dual_encoder(f"local-dir:{tmp_path / 'model'}")
    assert same(model.clip.state_dict(), state) and model.weights_from == str(tmp_path / "model" / name)


def test_of_several_the_one_that_open_clip_takes(tmp_path: Path) -> None:
    state = write(tmp_path / "model")
    wrong = {key: torch.zeros_like(value) for key, value in state.items()}
    save_file(wrong, tmp_path / "model" / "a.safetensors")
    torch.save(state, tmp_path / "model" / "open_clip_pytorch_model.bin")
    assert same(load_dual_encoder(str(tmp_path / "model")).clip.state_dict(), state)


@pytest.mark.parametrize("model", ["folder", "json"])
def test_a_checkpoint_of_open_clips_training(model: str, tmp_path: Path) -> None:
    state = write(tmp_path / "model")
    names = {f"module.{key}": value for key, value in state.items()}
    torch.save({"epoch": 3, "state_dict": names, "optimizer": {}}, tmp_path / "epoch_3.pt")
    (tmp_path / "tiny.json").write_text(json.dumps(MODEL), encoding="utf-8")
    path = tmp_path / ("model" if model == "folder" else "tiny.json")
    assert same(load_dual_encoder(str(path), str(tmp_path / "epoch_3.pt")).clip.state_dict(), state)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "epoch_3.pt",
            r"student\.model.*contains epoch_3\.pt\. Set student\.pretrained to .*model/epoch_3\.pt",
        ),
        ("model-00001-of-00002.safetensors", r"student\.pretrained.*one of 2 parts.*open_clip_model\.safe"),
        ("open_clip_pytorch_model.bin", r"student\.pretrained.*a pointer of Git LFS.*git lfs pull"),
        ("", r"student\.model.*this folder has no open_clip_config\.json"),
    ],
)
def test_weights_that_are_there_and_cannot_be_read_are_named(name: str, message: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write(folder)
    if name:
        part = "-of-" in name
        (folder / name).write_text("{}" if part else "version https://git-lfs.github.com/spec/v1\n")
    else:
        (folder / "open_clip_config.json").rename(folder / "config.json")  # as transformers has it
    with pytest.raises(SettingError, match=message):
        load_dual_encoder(f"local-dir:{folder}", setting="student")


def test_settings_of_another_student_are_named_with_the_way_out(tmp_path: Path) -> None:
    write(tmp_path / "model")
    for setting, value in (
        ("initial_weights", {"visual.trunk": "mobilenet_v2_stem"}),
        ("frozen", ["visual.trunk"]),
    ):
        with pytest.raises(
            SettingError, match=rf"student\.{setting} = 'visual\.trunk'.*student\.frozen=\[\]"
        ):
            load_dual_encoder(str(tmp_path / "model"), setting="student", **{setting: value})


def test_tokens_are_cleaned_as_the_configuration_says(tmp_path: Path) -> None:
    write(tmp_path / "model", tokenizer_kwargs={"clean": "canonicalize"})
    texts = ["A Photo of a Cat!", "it's a dog, isn't it?"]
    theirs = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'model'}")(texts)
    plain = open_clip.tokenizer.SimpleTokenizer(context_length=16)(texts)
    assert torch.equal(load_dual_encoder(str(tmp_path / "model")).tokenize(texts), theirs)
    assert not torch.equal(theirs, plain)


@pytest.mark.slow
def test_every_configuration_of_open_clip_has_its_tokens(tmp_path: Path, monkeypatch) -> None:
    """Tokenizers of the hub are stand-ins under their names; what the configurations do with them is real."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    texts = ["A Photo of a Cat!", "it's a dog, isn't it?", "  two   spaces ", "a " * 200, ""]
    plain = {key: value for key, value in TEXT.items() if key != "context_length"}
    ours: dict[str, torch.Tensor] = {}
    for number, name in enumerate(open_clip.list_models()):
        text = open_clip.get_model_config(name)["text_cfg"]
        keys = ("context_length", "hf_tokenizer_name", "tokenizer_kwargs", "tokenizer_mode")
        settings = {key: text[key] for key in keys if key in text}
        if "hf_tokenizer_name" in settings:
            hub_tokenizer(settings["hf_tokenizer_name"], tmp_path / "hub", number)
        key = json.dumps(settings, sort_keys=True)
        if key not in ours:
            (tmp_path / "tiny.json").write_text(json.dumps(MODEL | {"text_cfg": plain | settings}))
            ours[key] = load_dual_encoder(str(tmp_path / "tiny.json")).tokenize(texts)
        assert torch.equal(ours[key], open_clip.get_tokenizer(name)(texts)), name
    assert len(ours) > 20


def hub_tokenizer(name: str, hub: Path, seed: int) -> None:
    """A tokenizer in the hub's cache under `name`, which cares for case and marks and ends on a separator."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    folder = hub / f"models--{name.replace('/', '--')}"
    if folder.exists():
        return
    words = ["[PAD]", "[UNK]", "[SEP]", "A", "a", "Photo", "photo", "Cat", "cat", "!", "it", "'", "two"]
    words = words[:3] + words[3 + seed % 5 :] + words[3 : 3 + seed % 5]
    inner = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(single="$A [SEP]", special_tokens=[("[SEP]", 2)])
    marks = {"pad_token": "[PAD]", "unk_token": "[UNK]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=inner, **marks).save_pretrained(folder / "snapshots" / "one")
    (folder / "snapshots" / "one" / "config.json").write_text('{"model_type": "bert"}')
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("one")


DEEP = "[" * 20_000 + "]" * 20_000


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "7", '"text"', DEEP, '{"model_cfg": 3}', '{"model_cfg": {"text_cfg": []}}', "\xff\xfe",
     '{"model_cfg": {}, "preprocess_cfg": "none"}'],
)  # fmt: skip
def test_configurations_that_are_none(content: str, tmp_path: Path) -> None:
    for file in (tmp_path / "open_clip_config.json", tmp_path / "tiny.json"):
        file.write_text(content, encoding="latin-1")
    for path in (tmp_path, tmp_path / "tiny.json"):
        with pytest.raises(SettingError, match=r"model\.model|^model"):
            load_dual_encoder(str(path))


@pytest.mark.parametrize(
    "name", [7, ["a"], {"a": 1}, "/nowhere", "nobody/nothing", "../..", "a b", "x" * 5000]
)
def test_tokenizers_that_are_not_there(name: Any, tmp_path: Path) -> None:
    (tmp_path / "tiny.json").write_text(json.dumps(MODEL | {"text_cfg": TEXT | {"hf_tokenizer_name": name}}))
    with pytest.raises(SettingError, match="open_clip cannot build it"):
        load_dual_encoder(str(tmp_path / "tiny.json"))


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff" * 100, b"\x10" + bytes(7) + b'{"a": "no tensor"', (2**62).to_bytes(8, "little") + b"{}",
     b"\x34" + bytes(7) + b'{"__metadata__":{"initial_weights":"{no JSON in here}"}}'[:52].ljust(52)],
)  # fmt: skip
def test_weights_that_are_garbage(content: bytes, tmp_path: Path) -> None:
    write(tmp_path / "model")
    (tmp_path / "garbage.safetensors").write_bytes(content)
    (tmp_path / "model" / "open_clip_model.safetensors").write_bytes(content)
    for pretrained in (None, str(tmp_path / "garbage.safetensors")):
        with pytest.raises(SettingError, match=r"pretrained.*cannot be read, or do not fit"):
            load_dual_encoder(str(tmp_path / "model"), pretrained)


def test_a_teacher_without_weights_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "model")
    (tmp_path / "tiny.json").write_text(json.dumps(MODEL), encoding="utf-8")
    for path in (tmp_path / "model", tmp_path / "tiny.json", "ViT-B-32"):
        teacher = {"model": str(path), "pretrained": None, "initial_weights": {}}
        recipe = Recipe.load("clip_kd_demo", {"teacher": teacher})
        with pytest.raises(SettingError, match=r"teacher\.model.*it has no weights"):
            load_teacher(recipe)


class Hostile:
    """Unpickled, it would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self.path,)


def test_a_damaged_or_hostile_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "model")
    torch.save(
        {"state_dict": Hostile(tmp_path / "touched")}, tmp_path / "model" / "open_clip_pytorch_model.bin"
    )
    with pytest.raises(SettingError, match=r"pretrained.*cannot be read, or do not fit"):
        load_dual_encoder(str(tmp_path / "model"))
    assert not (tmp_path / "touched").exists()
    (tmp_path / "model" / "open_clip_pytorch_model.bin").write_bytes(b"PK\x03\x04 no zip")
    with pytest.raises(SettingError, match=r"pretrained.*cannot be read, or do not fit"):
        load_dual_encoder(str(tmp_path / "model"))


def test_a_frozen_teacher_keeps_a_scale_above_100(tmp_path: Path) -> None:
    state = write(tmp_path / "model")
    state["logit_scale"].fill_(torch.tensor(117.0).log())
    save_file(state, tmp_path / "model" / "open_clip_model.safetensors")
    teacher = {"model": str(tmp_path / "model"), "pretrained": None, "initial_weights": {}}
    assert load_teacher(Recipe.load("clip_kd_demo", {"teacher": teacher})).scale == pytest.approx(117.0)
