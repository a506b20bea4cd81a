"""What student and teacher were loaded from is recorded, and what they cut of captions; cards and WiSE-FT
read it."""

import json
import math

import pytest
import torch

import workbench
from workbench.errors import SettingError
from workbench.files import read_json, unsigned
from workbench.models.loading import load_dual_encoder
from workbench.recipe import Recipe
from workbench.reports.html import write_report
from workbench.reports.wise_ft import has_start, start_model

SIGLIP = {
    "embed_dim": 16,
    "init_logit_scale": math.log(117.33),
    "init_logit_bias": -12.93,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    """A folder of a model with what SigLIP's have: a scale above 100, and a bias."""
    folder = tmp_path_factory.mktemp("siglip")
    (folder / "siglip.json").write_text(json.dumps(SIGLIP))
    torch.manual_seed(7)
    return load_dual_encoder(str(folder / "siglip.json")).save(folder / "model")


@pytest.fixture(scope="module")
def run(siglip, tmp_path_factory):
    settings = {
        "name": "little",
        "data": {"scenes": 20, "image_size": 32},
        "student": {"model": f"local-dir:{siglip}"},
        "teacher": {"model": str(siglip)},
        "objectives": {"task": 1.0, "crd": 1.0},
        "training": {"steps": 2, "batch": 8, "warmup_steps": 0, "device": "cpu"},
        "evaluation": {"splits": ["val"], "suites": ["retrieval"]},
    }
    folder = tmp_path_factory.mktemp("runs") / "run"
    return workbench.train(Recipe.from_settings(settings), folder)


def test_a_frozen_model_keeps_its_scale_and_bias(siglip) -> None:
    model = load_dual_encoder(str(siglip)).eval()
    assert float(model.scale.detach()) == pytest.approx(117.33, rel=1e-5)
    assert model.bias == pytest.approx(-12.93)
    assert float(model.train().scale.detach()) == pytest.approx(100)  # what learns stays within bounds
    assert load_dual_encoder("demo_student").bias is None


def test_the_run_says_what_was_loaded_and_what_was_cut(run, siglip) -> None:
    weights = str(siglip / "open_clip_model.safetensors")
    assert unsigned(read_json(run.path / "weights.json")) == {"student": weights, "teacher": weights}
    assert run.start == weights and has_start(run)
    report = read_json(run.path / "data.json")
    cut, validation = report["train"]["captions_cut"], report["validation"]["captions_cut"]["student"]
    assert cut["student"] == cut["teacher"] and cut["student"]["context"] == 8
    captions = workbench.load_pairs("scenes", "train", scenes=20, image_size=32).all_captions
    tokenizer = load_dual_encoder(str(siglip)).tokenizer
    lengths = [len(tokenizer.encode(caption)) + 2 for caption in captions]
    assert 0 < cut["student"]["cut"] == sum(length > 8 for length in lengths) < len(captions)
    assert 0 < validation["cut"] < validation["captions"] == report["validation"]["captions"]
    assert float(start_model(run).scale.detach()) == pytest.approx(117.33, rel=1e-5)


def test_it_is_said_at_the_start(run, siglip, tmp_path, capsys) -> None:
    workbench.train(run.recipe.model_copy(update={"seed": 3}), tmp_path / "again")
    printed = capsys.readouterr().out
    assert "scale 117.3 (its bias, -12.93, changes no softmax)" in printed
    assert "the student cuts " in printed and "captions at 8 tokens, such as" in printed


def test_the_card_says_what_was_loaded(run, tmp_path, capsys) -> None:
    run.evaluate()
    printed = capsys.readouterr().out
    assert "evaluated on val: 500 pictures, 2,500 captions" in printed
    (evaluation, _) = run.evaluations["val"]
    assert f"val: the model cuts {evaluation['captions_cut']:,} of 2,500 captions at 8 tokens" in printed
    page = write_report([run], tmp_path / "page.html").read_text()
    counts = read_json(run.path / "data.json")["train"]["captions_cut"]
    assert f"<td>{counts['student']['cut']} (student), {counts['teacher']['cut']} (teacher)<td>" in page
    card = (run.export(tmp_path / "student") / "README.md").read_text()
    assert "Start: `.../open_clip_model.safetensors`." in card
    assert "val (500 pictures, 2,500 captions)" in card
    (run.path / "weights.json").rename(tmp_path / "weights.json")  # as a run of an older workbench
    try:
        assert run.start == run.recipe.student.model and has_start(run)
        (run.path / "weights.json").write_text("[]")
        with pytest.raises(SettingError, match=r"weights\.json.*damaged"):
            assert run.start
    finally:
        (tmp_path / "weights.json").rename(run.path / "weights.json")


def test_a_retrieval_set_that_is_not_there_is_refused_before_training(run, tmp_path) -> None:
    recipe = Recipe.load(str(run.path / "recipe.yaml"), {"evaluation.retrieval": ["nowhere.json"]})
    with pytest.raises(SettingError, match=r"evaluation\.retrieval = 'nowhere\.json'"):
        workbench.train(recipe, tmp_path / "refused")
