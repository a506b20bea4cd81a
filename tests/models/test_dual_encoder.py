"""Two-tower models: loaded from every kind of place, equal to plain open_clip, refused with clear errors."""

import json
import shutil
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from workbench.errors import SettingError
from workbench.models.loading import CONFIGS, load_dual_encoder, save_trained, shipped_models

TINY = Path(__file__).parents[1] / "tiny_vit.json"
CAPTIONS = ["a red apple", "two dogs left of a tree, seen from above"]


@pytest.fixture(scope="module")
def student():
    torch.manual_seed(0)
    return load_dual_encoder("demo_student_plain").eval()


@pytest.fixture(scope="module")
def exported(student, tmp_path_factory):
    return student.save(tmp_path_factory.mktemp("exported"))


def without_token_embeddings(model):
    return sum(
        p.numel()
        for name, p in model.named_parameters()
        if "token_embedding" not in name and "word_embeddings" not in name
    )


def test_the_demo_pair_differs_where_it_should(student):
    teacher = load_dual_encoder("demo_teacher")
    assert set(shipped_models()) >= {"demo_student", "demo_teacher"}
    assert without_token_embeddings(student) * 5 <= without_token_embeddings(teacher)
    assert student.dim != teacher.dim
    assert student.transform != teacher.transform and student.transform.size != teacher.transform.size
    assert student.tokenizer.context_length != teacher.tokenizer.context_length


def test_embeddings_equal_plain_open_clip_on_an_exported_folder(student, exported):
    picture = (np.random.default_rng(0).random((70, 90, 3)) * 255).astype(np.uint8)
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{exported}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{exported}")
    model.eval()
    with torch.no_grad():
        text = model.encode_text(tokenizer(CAPTIONS))
        torch.testing.assert_close(
            student.encode_text(student.tokenize(CAPTIONS)), text, rtol=1e-5, atol=1e-6
        )
        theirs = transform(Image.fromarray(picture))[None]
        pixels = (theirs * student.std + student.mean) * 255
        ours = student.transform(torch.from_numpy(picture).permute(2, 0, 1))[None]
        assert (pixels - ours).abs().max() <= 2.01  # Pillow rounds between its two passes
        mine = student.encode_image(pixels.round().to(torch.uint8))
        torch.testing.assert_close(mine, model.encode_image(theirs), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("form", ["local-dir:{}", "{}"])
def test_an_exported_folder_loads_with_its_weights(student, exported, form):
    again = load_dual_encoder(form.format(exported))
    assert again.fingerprint() == student.fingerprint()


def test_a_json_file_and_a_name_of_open_clip_load():
    assert load_dual_encoder(str(TINY)).dim == 16
    model = load_dual_encoder("ViT-S-32")
    assert model.dim == 384 and model.transform.size == (224, 224)
    assert model.tokenize(["a cat"]).shape == (1, 77)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ViT-B-23",), r"student\.model = 'ViT-B-23'.*ViT-B-32"),
        (("demo_studnet",), r"student\.model.*demo_student"),
        (("ViT-B-32", "laion2b_nonsense"), r"student\.pretrained = 'laion2b_nonsense'.*laion2b_s34b_b79k"),
        (("ViT-B-32", "laion2b_s34b_b79k"), r"student\.model.*allow_download: true"),
        (("hf-hub:nobody/nothing",), r"student\.model.*allow_download: true"),
        (("demo_student", "nothing"), r"student\.pretrained = 'nothing'"),
    ],
)
def test_what_is_not_there_is_named(arguments, message, monkeypatch):
    import socket

    def no_network(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    with pytest.raises(SettingError, match=message):
        load_dual_encoder(*arguments, setting="student")


def test_weights_of_another_model_are_refused(exported):
    with pytest.raises(SettingError, match="do not fit"):
        load_dual_encoder(str(TINY), str(exported / "open_clip_model.safetensors"))


def test_a_malicious_weights_file_is_refused_and_not_run(tmp_path):
    import pickle

    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    (tmp_path / "weights.pt").write_bytes(pickle.dumps({"state_dict": Evil()}, protocol=2))
    with pytest.raises(SettingError, match="pretrained"):
        load_dual_encoder(str(TINY), str(tmp_path / "weights.pt"))
    assert not (tmp_path / "executed").exists()


def test_fingerprint_follows_weights_transform_and_tokenizer_but_not_the_folder(exported, tmp_path):
    first = load_dual_encoder(str(exported)).fingerprint()
    moved = Path(shutil.copytree(exported, tmp_path / "moved"))
    assert load_dual_encoder(str(moved)).fingerprint() == first
    config = json.loads((moved / "open_clip_config.json").read_text())
    config["preprocess_cfg"]["interpolation"] = "bicubic"
    (moved / "open_clip_config.json").write_text(json.dumps(config))
    changed = load_dual_encoder(str(moved)).fingerprint()
    assert [key for key in first if first[key] != changed[key]] == ["transform"]
    model = load_dual_encoder(str(exported))
    model.clip.logit_scale.data += 1
    assert [key for key in first if first[key] != model.fingerprint()[key]] == ["weights"]


def test_scale_is_the_clamped_multiplier(student):
    assert float(student.scale.detach()) == pytest.approx(1 / 0.07, rel=1e-5)
    model = load_dual_encoder(str(TINY))
    for log, expected in ((10.0, 100.0), (-3.0, 1.0)):
        model.clip.logit_scale.data.fill_(log)
        assert float(model.scale.detach()) == pytest.approx(expected)


def test_frozen_modules_neither_learn_nor_update_statistics():
    model = load_dual_encoder("demo_student_plain", frozen=["visual.trunk.blocks.0", "text"])
    model.train()
    before = {name: value.clone() for name, value in model.clip.state_dict().items()}
    images = torch.randint(0, 256, (4, 3, 96, 96), dtype=torch.uint8)
    (model.encode_image(images).sum() + model.encode_text(model.tokenize(["a cat"] * 4)).sum()).backward()
    with_gradient = {name for name, p in model.clip.named_parameters() if p.grad is not None}
    assert (
        not any(name.startswith(("visual.trunk.blocks.0.", "text.")) for name in with_gradient)
        and with_gradient
    )
    after = model.clip.state_dict()
    moved = {name for name in before if "running_mean" in name and not torch.equal(before[name], after[name])}
    assert moved and not any("blocks.0." in name for name in moved)


def test_a_module_that_is_not_there_is_refused_with_the_nearest():
    with pytest.raises(SettingError, match=r"student\.frozen = 'visual\.trnk'.*visual\.trunk"):
        load_dual_encoder("demo_student", frozen=["visual.trnk"])


def test_padding_that_no_row_uses_changes_nothing():
    teacher = load_dual_encoder("demo_teacher").eval()
    short = teacher.tokenize(CAPTIONS)
    full = teacher.tokenizer(CAPTIONS)
    assert short.shape[1] < full.shape[1] == 40
    with torch.no_grad():
        torch.testing.assert_close(
            teacher.encode_text(short), teacher.clip.encode_text(full), rtol=1e-4, atol=1e-5
        )


def test_shipped_weights_leave_out_what_a_package_carries(tmp_path):
    model = load_dual_encoder("demo_teacher", initial_weights={"text.transformer": "minilm"})
    model.clip.text.transformer.encoder.layer[5].output.dense.weight.data += 0.5
    path = tmp_path / "trained.safetensors"
    save_trained(model, path, {"text.transformer": "minilm"})
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        kept = set(file.keys())
    assert "text.transformer.encoder.layer.5.output.dense.weight" in kept
    assert "text.transformer.embeddings.word_embeddings.weight" not in kept
    again = load_dual_encoder("demo_teacher", str(path))
    for name, value in model.clip.state_dict().items():
        torch.testing.assert_close(again.clip.state_dict()[name], value, rtol=1e-3, atol=1e-3, msg=name)


@pytest.mark.slow
def test_the_tokenizer_is_the_one_the_script_makes(tmp_path):
    from tools.make_tokenizer import make_tokenizer
    from workbench.data.scenes.dataset import scenes

    make_tokenizer(scenes("train").all_captions, tmp_path)
    made = json.loads((tmp_path / "tokenizer.json").read_text())
    assert made == json.loads((CONFIGS / "demo_student" / "tokenizer.json").read_text())
