"""Teachers of other libraries, and objects: each trains, is resumed and finds its cached targets."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import normalize

import workbench
from tests.models.test_text_teacher import sentence_encoder
from workbench.data.load import load_pairs
from workbench.errors import SettingError
from workbench.models.frozen_encoder import load_frozen_encoder
from workbench.models.loading import CONFIGS, load_dual_encoder
from workbench.recipe import Recipe
from workbench.runs.checkpoint import load_latest
from workbench.targets.image_text import compute_targets, load_teacher
from workbench.training.dry_run import dry_run

SCENES = 8
TIMM = "mobilenetv3_small_050"
TORCHVISION = "mobilenet_v3_small"


class Colours:
    """Mean colours of quarters of a picture, and letters of a caption; counts what it was asked."""

    image_size = 32

    def __init__(self, *sides: str) -> None:
        self.asked = 0
        for side in sides:
            setattr(self, f"encode_{side}", getattr(self, f"_{side}"))

    def _image(self, pictures: torch.Tensor) -> torch.Tensor:
        self.asked += len(pictures)
        return torch.nn.functional.adaptive_avg_pool2d(pictures.float(), 2).flatten(1) + 1

    def _text(self, captions: list[str]) -> np.ndarray:
        self.asked += len(captions)
        return np.array([[1 + caption.count(letter) for letter in "abcdefghilmn"] for caption in captions])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in true architectures, saved as each library saves them."""
    import timm
    import torchvision
    from transformers import BertConfig, BertModel, ViTConfig, ViTImageProcessor, ViTModel

    folder = tmp_path_factory.mktemp("teachers")
    torch.manual_seed(0)
    save_file(timm.create_model(TIMM).state_dict(), folder / "timm.safetensors")
    torch.save(torchvision.models.get_model(TORCHVISION).state_dict(), folder / "torchvision.pth")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    ViTModel(ViTConfig(**sizes, image_size=32, patch_size=16)).save_pretrained(folder / "vit")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder / "vit")
    clip(folder / "clip", sizes)
    siglip(folder / "siglip", sizes)
    language = BertConfig(**sizes, vocab_size=len(own_tokenizer()), max_position_embeddings=32)
    BertModel(language).save_pretrained(folder / "bert")
    own_tokenizer().save_pretrained(folder / "bert")
    sentence_encoder(folder / "bert", folder / "sentence", {"pooling_mode": "mean"})
    return folder


def own_tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(CONFIGS / "demo_student")


def siglip(folder: Path, sizes: dict[str, int]) -> None:
    """With a bias, and a scale above 100."""
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    tokenizer = own_tokenizer()
    text = sizes | {"vocab_size": len(tokenizer), "max_position_embeddings": 16}
    config = SiglipConfig(text_config=text, vision_config=sizes | {"image_size": 32, "patch_size": 16})
    model = SiglipModel(config)
    with torch.no_grad():
        model.logit_scale.fill_(np.log(117.0))
        model.logit_bias.fill_(-12.9)
    model.save_pretrained(folder)
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def clip(folder: Path, sizes: dict[str, int]) -> None:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    tokenizer = own_tokenizer()
    text = sizes | {"vocab_size": len(tokenizer), "max_position_embeddings": 16}
    text |= {"eos_token_id": tokenizer("a")["input_ids"][-1]}  # as CLIP's own tokenizer ends
    vision = sizes | {"image_size": 32, "patch_size": 16}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
    CLIPModel(config).save_pretrained(folder)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPImageProcessor(**size).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture
def recipe(settings: dict[str, Any], files: Path, tmp_path: Path) -> Any:
    def make(model: str, pretrained: str | None = None, objectives: Any = None, **training: Any) -> Recipe:
        return Recipe.from_settings(
            settings
            | {
                "data": {"scenes": SCENES, "image_size": 32},
                "teacher": {"model": model, "pretrained": pretrained and str(files / pretrained)},
                "objectives": objectives or {"task": 1.0, "fd": 1.0},
                "targets": {"folder": str(tmp_path / "store")},
                "training": settings["training"] | {"batch": 4, "steps": 4, "warmup_steps": 1} | training,
            }
        )

    return make


def named(kind: str, files: Path) -> tuple[str, str | None]:
    return {
        "timm": (f"timm/{TIMM}", "timm.safetensors"),
        "torchvision": (f"torchvision/{TORCHVISION}", "torchvision.pth"),
        "vit": (str(files / "vit"), None),
        "clip": (str(files / "clip"), None),
        "siglip": (str(files / "siglip"), None),
        "minilm": ("minilm", None),
        "sentence": (str(files / "sentence"), None),
        "python": ("python", None),
    }[kind]


SIDES = {
    "timm": {"image"},
    "torchvision": {"image"},
    "vit": {"image"},
    "clip": {"image", "text"},
    "siglip": {"image", "text"},
    "minilm": {"text"},
    "sentence": {"text"},
    "python": {"image", "text"},
}


@pytest.mark.parametrize("kind", SIDES)
def test_it_teaches_resumes_and_is_asked_once(
    kind: str, recipe: Any, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, pretrained = named(kind, files)
    given = {"teacher": Colours("image", "text")} if kind == "python" else {}
    wanted = recipe(model, pretrained)
    straight = workbench.train(wanted, tmp_path / "straight", **given)
    assert straight.finished and (straight.metrics["fd"] > 0).all()

    # From here on the teacher may only be read from its cache.
    def unexpected(*_: Any) -> None:
        raise AssertionError("the teacher was asked again")

    monkeypatch.setattr("workbench.targets.image_text._unit", unexpected)
    resumed_at(2, monkeypatch)
    part = workbench.train(wanted, tmp_path / "part", **given)
    assert part.status["state"] == "interrupted" and load_latest(part.path / "checkpoints").step == 2
    monkeypatch.undo()
    monkeypatch.setattr("workbench.targets.image_text._unit", unexpected)
    again = workbench.train(wanted, tmp_path / "part", **given)
    ends = [load_latest(run.path / "checkpoints").tensors for run in (straight, again)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    columns = {name for folder in (tmp_path / "store").rglob("*.npy") for name in [folder.stem]}
    assert columns >= SIDES[kind] and not columns & ({"image", "text"} - SIDES[kind])


def resumed_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the run after a step, as SIGTERM does."""
    from workbench.training import trainer

    reads = []
    real = trainer.read_step

    def read_step(*arguments: Any) -> Any:
        values, bad, stopping = real(*arguments)
        reads.append(1)
        return values, bad, stopping or len(reads) == step

    monkeypatch.setattr(trainer, "read_step", read_step)


@pytest.mark.parametrize("kind", ["timm", "torchvision", "vit", "clip", "siglip"])
def test_it_sees_pictures_as_its_own_library_does(kind: str, recipe: Any, files: Path) -> None:
    from PIL import Image

    store = compute_targets(recipe(*named(kind, files)), say=None)
    pairs = load_pairs("scenes", "train", scenes=SCENES, image_size=32)
    pictures = [Image.fromarray(pairs.image(row).permute(1, 2, 0).numpy()) for row in range(SCENES)]
    expected = normalize(in_its_library(kind, pictures, files), dim=1)
    # torchvision resizes tensors nearly as PIL does.
    assert (torch.from_numpy(store.column("image")[0].astype(np.float32)) * expected).sum(1).min() > 0.999


@torch.no_grad()
def in_its_library(kind: str, pictures: list[Any], files: Path) -> torch.Tensor:
    import timm
    import torchvision
    from transformers import AutoImageProcessor, AutoModel

    if kind == "timm":
        tower = timm.create_model(TIMM, checkpoint_path=str(files / "timm.safetensors")).eval()
        tower.reset_classifier(0)
        view = timm.data.create_transform(**timm.data.resolve_model_data_config(tower))
        return tower(torch.stack([view(picture) for picture in pictures]))
    if kind == "torchvision":
        tower = torchvision.models.get_model(TORCHVISION).eval()
        tower.load_state_dict(torch.load(files / "torchvision.pth", weights_only=True))
        view = torchvision.models.get_model_weights(TORCHVISION).DEFAULT.transforms()
        tower.classifier[3] = torch.nn.Identity()
        return tower(torch.stack([view(picture) for picture in pictures]))
    model, processor = (part.from_pretrained(files / kind) for part in (AutoModel, AutoImageProcessor))
    inputs = processor(pictures, return_tensors="pt")
    output = model(**inputs) if kind == "vit" else model.get_image_features(**inputs)
    return output.pooler_output


def test_clip_reads_captions_as_its_own_library_does(files: Path) -> None:
    from transformers import AutoTokenizer, CLIPModel

    captions = ["two red apples", "a dog", "a long caption " * 20]
    model, tokenizer = (part.from_pretrained(files / "clip") for part in (CLIPModel, AutoTokenizer))
    teacher = load_frozen_encoder(str(files / "clip"))
    tokens = tokenizer(captions, padding="max_length", max_length=16, truncation=True, return_tensors="pt")
    with torch.no_grad():
        expected = model.get_text_features(**tokens).pooler_output
    torch.testing.assert_close(teacher.embed_texts(captions), expected)
    assert float(teacher.scale) == pytest.approx(float(model.logit_scale.detach().exp()))


def test_siglip_reads_captions_and_keeps_its_scale_and_bias(files: Path) -> None:
    from transformers import AutoTokenizer, SiglipModel

    captions = ["two red apples", "a dog", "a long caption " * 20]
    model, tokenizer = (part.from_pretrained(files / "siglip") for part in (SiglipModel, AutoTokenizer))
    tokens = tokenizer(captions, padding="max_length", max_length=16, truncation=True, return_tensors="pt")
    with torch.no_grad():  # its own examples give no attention mask: it was trained to see the padding
        expected = model.get_text_features(tokens["input_ids"]).pooler_output
    teacher = load_frozen_encoder(str(files / "siglip"))
    torch.testing.assert_close(teacher.embed_texts(captions), expected)
    assert (float(teacher.scale), teacher.bias) == (pytest.approx(117.0), pytest.approx(-12.9))


def test_a_sentence_encoder_in_a_folder_takes_the_mean_of_its_words(files: Path) -> None:
    from transformers import BertModel

    model, tokenizer = BertModel.from_pretrained(files / "bert").eval(), own_tokenizer()
    for caption in ("two red apples", "a dog"):
        with torch.no_grad():
            states = model(**tokenizer(caption, return_tensors="pt")).last_hidden_state[0]
        own = load_frozen_encoder(str(files / "sentence")).embed_texts([caption])[0]
        assert torch.nn.functional.cosine_similarity(own, states.mean(0), dim=0) > 1 - 1e-5


def test_a_run_goes_on_with_its_own_object_alone(
    recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(fingerprint: str | None) -> Colours:
        other = Colours("image", "text")
        other.encode_text = lambda captions: 2.0 ** other._text(captions)  # type: ignore[attr-defined]
        other.fingerprint = fingerprint  # type: ignore[attr-defined]
        return other

    wanted = recipe("python")
    own = wanted.targets.model_copy(update={"folder": None})  # of each object
    wanted = wanted.model_copy(update={"targets": own})
    for folder, fingerprint in (("by answers", None), ("by name", "v1")):
        first = Colours("image", "text")
        first.fingerprint = fingerprint  # type: ignore[attr-defined]
        resumed_at(1, monkeypatch)
        workbench.train(wanted, tmp_path / folder, teacher=first)
        monkeypatch.undo()
        with pytest.raises(SettingError, match=r"teacher\.model = 'python': this object answers otherwise"):
            workbench.train(wanted, tmp_path / folder, teacher=changed(fingerprint and "v2"))
        assert workbench.train(
            wanted, tmp_path / folder, teacher=changed("v1") if fingerprint else first
        ).finished


def test_other_processes_cannot_have_the_object(recipe: Any, tmp_path: Path) -> None:
    from workbench.targets.build import teachers_answers

    wanted = recipe("python")
    for refused in (
        lambda: workbench.launch(wanted, run_dir=tmp_path / "run"),
        lambda: list(teachers_answers(wanted)),
        lambda: dry_run(wanted),
    ):
        with pytest.raises(SettingError, match=r"no object was given.*workbench\.train\(.*teacher=OBJECT\)"):
            refused()
    assert not (tmp_path / "run").exists()


def test_fingerprints_tell_weights_and_objects_apart(recipe: Any, files: Path) -> None:
    import timm

    first = load_teacher(recipe(*named("timm", files))).fingerprint
    assert first == load_teacher(recipe(*named("timm", files))).fingerprint
    torch.manual_seed(1)
    save_file(timm.create_model(TIMM).state_dict(), files / "other.safetensors")
    other = load_teacher(recipe(f"timm/{TIMM}", "other.safetensors")).fingerprint
    assert {key for key in first if first[key] != other[key]} == {"weights"}
    python = [load_teacher(recipe("python"), Colours("image", "text")).fingerprint for _ in range(2)]
    changed = Colours("image", "text")
    changed.encode_text = lambda captions: 2.0 ** changed._text(captions)  # type: ignore[attr-defined]
    assert python[0] == python[1] != load_teacher(recipe("python"), changed).fingerprint


@pytest.mark.parametrize("name", ["crd", "icl", "gd", "image_relations"])
def test_a_side_that_it_lacks_is_named_before_any_target(name: str, recipe: Any, tmp_path: Path) -> None:
    teacher = Colours("text" if name == "image_relations" else "image")
    side = "image" if name == "image_relations" else "text"
    with pytest.raises(SettingError, match=rf"no embeddings of {side}s, which objectives\.{name} .*fd"):
        workbench.train(
            recipe("python", objectives={"task": 1.0, name: 1.0}), tmp_path / "run", teacher=teacher
        )
    assert not (tmp_path / "store").exists()


def test_weights_are_never_random(recipe: Any, files: Path) -> None:
    for model in (f"timm/{TIMM}", f"torchvision/{TORCHVISION}"):
        with pytest.raises(SettingError, match=r"teacher\.pretrained = None: .*needs a weights file"):
            load_teacher(recipe(model))
    with pytest.raises(SettingError, match="do not fit"):
        load_teacher(recipe(f"timm/{TIMM}", "torchvision.pth"))
    with pytest.raises(SettingError, match=r"timm has no such model.*mobilenetv3_small"):
        load_teacher(recipe("timm/mobilenetv3_smal_050", "timm.safetensors"))


def test_a_folder_without_all_weights_is_refused(recipe: Any, files: Path) -> None:
    from safetensors.torch import load_file

    weights = load_file(files / "vit" / "model.safetensors")
    whole = (files / "vit" / "model.safetensors").read_bytes()
    name = next(name for name in weights if "layernorm.weight" in name)
    try:
        del weights[name]
        save_file(weights, files / "vit" / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(SettingError, match=r"teacher\.model .*weights lack 1"):
            load_teacher(recipe(str(files / "vit")))
    finally:
        (files / "vit" / "model.safetensors").write_bytes(whole)


def test_an_object_and_its_name_go_together(recipe: Any, files: Path) -> None:
    with pytest.raises(SettingError, match="no object was given"):
        load_teacher(recipe("python"))
    with pytest.raises(SettingError, match="not this model"):
        load_teacher(recipe(*named("vit", files)), Colours("image"))
    with pytest.raises(SettingError, match="neither encode_image nor encode_text"):
        load_teacher(recipe("python"), Colours())


def test_a_dry_run_knows_it(recipe: Any, files: Path) -> None:
    assert dict(dry_run(recipe(*named("vit", files))))["teacher"].startswith(str(files / "vit"))


def test_models_of_open_clip_stay_with_it(recipe: Any, tmp_path: Path) -> None:
    folder = load_dual_encoder("demo_student").save(tmp_path / "exported")
    assert load_teacher(recipe(str(folder))).sides == ("image", "text")
