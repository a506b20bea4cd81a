"""Recipes: what is refused and how, what overrides reach, what is kept in a file."""

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from workbench.errors import SettingError
from workbench.recipe import Recipe, differences, lasting_settings
from workbench.recipe.flat_settings import flat
from workbench.recipe.overrides import setting_names
from workbench.recipe.recipe import RECIPES
from workbench.recipe.yaml_io import read_yaml

BASE: dict[str, Any] = {"name": "x", "student": {"model": "s"}, "teacher": {"model": "t"}}


def recipe(**overrides: Any) -> Recipe:
    return Recipe.from_settings(BASE, {key.replace("__", "."): value for key, value in overrides.items()})


@pytest.mark.parametrize("name", Recipe.names())
def test_shipped_recipes_load_and_come_back_the_same(name: str, tmp_path: Path) -> None:
    loaded = Recipe.load(name)
    assert loaded.name == name
    assert loaded.description
    loaded.save(tmp_path / "copy.yaml")
    again = Recipe.load(tmp_path / "copy.yaml")
    assert again == loaded
    assert again.fingerprint == loaded.fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["copy.yaml"]


@pytest.mark.parametrize("name", Recipe.names())
def test_shipped_recipes_give_reasons(name: str) -> None:
    lines = next(RECIPES.rglob(f"{name}.yaml")).read_text().splitlines()
    assert lines[0].startswith("# ")
    settings = [line for line in lines if ": " in line and not line.lstrip().startswith("#")]
    if "extends" not in "".join(settings):
        assert sum(" # " in line for line in settings) >= len(settings) / 3


def test_the_control_differs_in_the_loss_only() -> None:
    assert {
        name.split(".")[0] for name in differences(Recipe.load("clip_kd_demo"), Recipe.load("task_only_demo"))
    } == {
        "teacher",
        "objectives",
    }


def test_defaults_are_those_agreed_on() -> None:
    plain = recipe()
    assert plain.objectives.weights() == {"task": 1.0}
    assert (plain.training.lr, plain.training.betas, plain.training.eps) == (1e-3, (0.9, 0.98), 1e-6)
    assert plain.evaluation.splits is None
    assert plain.evaluation.suites == ("retrieval", "zero_shot", "composition", "search")


@pytest.mark.parametrize(
    ("dotted", "given", "reached"),
    [
        ("training.lr", "1e-4", lambda r: r.training.lr == 1e-4),
        ("training.lr", 1, lambda r: r.training.lr == 1.0),
        ("training.clip_norm", "null", lambda r: r.training.clip_norm is None),
        ("training.keep", "all", lambda r: r.training.keep == "all"),
        (
            "training.augmentation.crop_scale",
            "[0.5, 1.0]",
            lambda r: r.training.augmentation.crop_scale == (0.5, 1.0),
        ),
        (
            "training.augmentation.crop_scale",
            (0.5, 1.0),
            lambda r: r.training.augmentation.crop_scale == (0.5, 1.0),
        ),
        (
            "training.lr_multipliers.visual.trunk",
            "0.1",
            lambda r: r.training.lr_multipliers == {"visual.trunk": 0.1},
        ),
        ("training.lr_multipliers", {"text": 2.0}, lambda r: r.training.lr_multipliers == {"text": 2.0}),
        (
            "student.initial_weights.visual",
            "mobilenet_v2",
            lambda r: r.student.initial_weights == {"visual": "mobilenet_v2"},
        ),
        ("student.frozen", "[text]", lambda r: r.student.frozen == ("text",)),
        ("objectives.crd", "2", lambda r: r.objectives.weights() == {"task": 1.0, "crd": 2.0}),
        ("allow_download", "true", lambda r: r.allow_download is True),
        ("data.source", Path("/data/x"), lambda r: r.data.source == "/data/x"),
        ("data.source", "123", lambda r: r.data.source == "123"),
        ("teacher", "null", lambda r: r.teacher is None),
        ("teacher", None, lambda r: r.teacher is None),
        ("teacher", "{model: u}", lambda r: r.teacher.model == "u"),
        (
            "training",
            {"epochs": 3, "batch": 64},
            lambda r: (r.training.epochs, r.training.batch, r.training.lr) == (3, 64, 1e-3),
        ),
    ],
)
def test_overrides_reach_every_setting(dotted: str, given: object, reached: Any) -> None:
    assert reached(Recipe.from_settings(BASE, {dotted: given}))


def test_a_section_that_was_null_can_be_filled() -> None:
    assert Recipe.load("task_only_demo", {"teacher.model": "t", "objectives.fd": "1"}).teacher is not None


@pytest.mark.parametrize(
    ("dotted", "meant"),
    [
        ("training.learning_rate", "training.lr"),
        ("training.batch_size", "training.batch"),
        ("epochs", "training.epochs"),
        ("objectves.crd", "objectives.crd"),
        ("data.sources", "data.source"),
        ("data.source.x", "data.source"),
        ("student.modle", "student.model"),
    ],
)
def test_unknown_settings_are_refused_with_the_nearest(dotted: str, meant: str) -> None:
    with pytest.raises(SettingError) as caught:
        Recipe.from_settings(BASE, {dotted: 1})
    assert caught.value.setting == dotted
    assert f"Did you mean {meant}" in caught.value.remedy


@pytest.mark.parametrize(
    ("text", "dotted", "meant"),
    [
        ("training: {learning_rate: 1}", "training.learning_rate", "training.lr"),
        ("objectves: {crd: 1}", "objectves", "objectives"),
        (
            "training: {augmentation: {crop: [0.5, 1.0]}}",
            "training.augmentation.crop",
            "training.augmentation.crop_scale",
        ),
        ("lr: 1e-3", "lr", "training.lr"),
    ],
)
def test_unknown_settings_in_files_are_refused_with_the_nearest(
    text: str, dotted: str, meant: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(SettingError) as caught:
        Recipe.load(tmp_path / "mine.yaml")
    assert caught.value.setting == dotted
    assert f"Did you mean {meant}" in caught.value.remedy


@pytest.mark.parametrize(
    ("dotted", "value", "words"),
    [
        ("training.lr", "fast", "a number above 0. The default is 0.001"),
        ("training.lr", 0.0, "a number above 0"),
        ("training.lr", float("nan"), "a number above 0"),
        ("training.batch", 0, "a whole number of at least 2"),
        ("training.batch", "1.5", "a whole number"),
        ("training.warmup_steps", -1, "at least 0"),
        ("training.betas", "[0.9, 1]", "a list of 2"),
        ("training.betas", "[0.9]", "a list of 2"),
        ("training.augmentation.crop_scale", [0.0, 1.0], "above 0 and at most 1"),
        ("training.precision", "fp16", "float32 or bfloat16"),
        ("training.lr_multipliers.visual", "x", "a number of at least 0"),
        ("targets.views", -1, "at least 0"),
        ("objectives.fd", -1.0, "at least 0"),
        ("data.format", "tars", "auto or scenes"),
        ("evaluation.suites", "[speed]", "retrieval or zero_shot"),
        ("allow_download", "yes", "true or false"),
        ("seed", "null", "a whole number"),
        ("seed", True, "a whole number"),
        ("training", "5", "a mapping"),
        ("training", None, "settings of its own"),
        ("student", None, "settings of its own"),
    ],
)
def test_wrong_values_are_refused_by_name(dotted: str, value: object, words: str) -> None:
    with pytest.raises(SettingError) as caught:
        Recipe.from_settings(BASE, {dotted: value})
    assert caught.value.setting == dotted
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "dotted", "words"),
    [
        ({"training": {"lr": "fast"}}, "training.lr", "a number above 0"),
        ({"training": {"lr": True}}, "training.lr", "a number above 0"),
        ({"training": {"lr_multipliers": {"visual": "x"}}}, "training.lr_multipliers", "each to a number"),
        ({"teacher": {"pretrained": "tag"}}, "teacher.model", "missing"),
        ({"teacher": 5}, "teacher", "settings of its own"),
        ({"training": None}, "training", "settings of its own"),
        ({"seed": -1}, "seed", "at least 0"),
    ],
)
def test_wrong_values_in_files_are_refused_by_name(settings: dict[str, Any], dotted: str, words: str) -> None:
    with pytest.raises(SettingError) as caught:
        Recipe.from_settings({"name": "x", "student": {"model": "s"}, **settings})
    assert caught.value.setting == dotted
    assert words in str(caught.value)


def test_a_recipe_without_a_student_is_refused() -> None:
    with pytest.raises(SettingError, match=r"^student = None: it is missing"):
        Recipe.from_settings({"name": "x"})


@pytest.mark.parametrize(
    ("overrides", "setting"),
    [
        ({"teacher": None, "objectives.fd": 1.0}, "objectives.fd"),
        ({"objectives.task": 0}, "objectives"),
        ({"training.micro_batch": 256}, "training.micro_batch"),
        ({"training.steps": 20}, "training.warmup_steps"),
        ({"training.augmentation.crop_scale": [1.0, 0.5]}, "training.augmentation.crop_scale"),
        ({"training.hard_negatives": 0.5, "training.loss_chunk": 8}, "training.hard_negatives"),
        ({"training.hard_negatives": 0.5, "training.loss_ring": True}, "training.hard_negatives"),
        (
            {"training.hard_negatives": 0.5, "objectives.task": 0, "objectives.fd": 1.0},
            "training.hard_negatives",
        ),
    ],
)
def test_settings_that_disagree_are_refused(overrides: dict[str, Any], setting: str) -> None:
    with pytest.raises(SettingError) as caught:
        Recipe.from_settings(BASE, overrides)
    assert caught.value.setting == setting
    assert caught.value.remedy


@pytest.mark.parametrize(
    "name", ["../../..", "/tmp/x", "a/b", "a\\b", "..", ".hidden", "-o", "\ud800", "a\nb", " a", "", 99 * "é"]
)
def test_a_name_that_no_file_can_have_is_refused(name: str) -> None:
    with pytest.raises(SettingError, match=r"^name = "):
        Recipe.from_settings(BASE, {"name": name})


def test_recipes_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        recipe().seed = 3
    with pytest.raises(ValidationError):
        recipe().training.lr = 3.0


def test_the_fingerprint_follows_what_changes_the_outcome() -> None:
    base = recipe()
    for aside in (
        "name",
        "description",
        "training.checkpoint_every",
        "training.device",
        "data.workers",
        "targets.folder",
    ):
        value: object = 7 if aside in ("training.checkpoint_every", "data.workers") else "cpu"
        other = Recipe.from_settings(BASE, {aside: value})
        assert other.fingerprint == base.fingerprint
        assert differences(base, other) == {}
        assert list(differences(base, other, aside=True)) == [aside]
    seen = {base.fingerprint}
    for dotted, value in (
        ("seed", 1),
        ("training.lr", 2e-3),
        ("data.limit", 5),
        ("objectives.crd", 1.0),
        ("teacher", None),
        ("teacher.model", "u"),
    ):
        other = Recipe.from_settings(BASE, {dotted: value})
        assert other.fingerprint not in seen
        seen.add(other.fingerprint)
        assert differences(base, other)
    for later in ("data.val_share", "data.test_share"):  # older than these, and still found
        assert Recipe.from_settings(BASE, {later: 0.05}).fingerprint == base.fingerprint
        other = Recipe.from_settings(BASE, {later: 0.1})
        assert other.fingerprint != base.fingerprint
        assert differences(base, other) == {later: (0.05, 0.1)}
    # What names were made of before there were such settings.
    plain = {name: value for name, value in base.model_dump(mode="json").items() if name != "teachers"}
    for section, settings in plain.items():
        if isinstance(settings, dict):
            fields = type(getattr(base, section)).model_fields
            later = [name for name in settings if "later" in (fields[name].json_schema_extra or {})]
            plain[section] = {name: value for name, value in settings.items() if name not in later}
    assert lasting_settings(base) == plain
    named = lasting_settings(Recipe.from_settings(BASE, {"evaluation.retrieval": ["coco.json"]}))
    assert named["evaluation"]["retrieval"] == ["coco.json"]
    with pytest.raises(SettingError, match=r"data\.test_share = 0\.5: together with data\.val_share it is 1"):
        Recipe.from_settings(BASE, {"data.val_share": 0.5, "data.test_share": 0.5})
    assert recipe(training__lr="0.002").fingerprint == recipe(training__lr=2e-3).fingerprint
    assert recipe(training__epochs=3).fingerprint == recipe(training__epochs=3.0).fingerprint


def test_younger_settings_leave_old_fingerprints_as_they_were() -> None:
    """A run that was made before a setting existed resumes; one that uses it is another run."""
    base = recipe()
    for dotted, default, other in (
        ("training.ema", None, 0.99),
        ("teacher.scale", None, 60.0),
        ("training.layer_decay", None, 0.7),
        ("training.sync_batch_norm", False, True),
        ("data.order", "shuffled", "shards"),
    ):
        assert Recipe.from_settings(BASE, {dotted: default}).fingerprint == base.fingerprint
        changed = Recipe.from_settings(BASE, {dotted: other})
        assert changed.fingerprint != base.fingerprint
        assert differences(base, changed) == {dotted: (default, other)}
    made_long_ago = {
        "clip_kd_demo": "faf32f76",
        "dclip_demo": "19ef0410",
        "knowledge_clip_demo": "3f3ce05e",
    }
    assert {name: Recipe.load(name).fingerprint[:8] for name in made_long_ago} == made_long_ago


def test_differences_name_settings_and_both_values() -> None:
    ours, theirs = recipe(training__batch=64), recipe(teacher=None, seed=2)
    result = differences(ours, theirs)
    assert result["training.batch"] == (64, 128)
    assert result["seed"] == (0, 2)
    assert result["teacher.model"] == ("t", None)
    assert differences(theirs, ours) == {name: (b, a) for name, (a, b) in result.items()}


def test_data_options_are_those_of_load_pairs() -> None:
    data = recipe(data__limit=10, data__image_size=96).data
    names = [
        "format",
        "image_folder",
        "image_column",
        "caption_column",
        "val_share",
        "caption_lines",
        "duplicates",
        "test_share",
        "limit",
        "max_failed",
        "max_pixels",
        "shard_cache",
        "scenes",
        "image_size",
    ]
    assert sorted(data.options()) == sorted(names)
    assert (data.options()["limit"], data.options(train=False)["limit"]) == (10, None)
    assert data.options()["image_size"] == 96


def test_extends_puts_one_recipe_over_another(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        "student: {model: s, initial_weights: {visual: a}}\nteacher: {model: t}\n"
        "training: {lr: 1e-2, batch: 32}\ndescription: base\n"
    )
    (tmp_path / "top.yaml").write_text(
        "extends: base.yaml\nstudent: {initial_weights: {text: b}}\nteacher: null\ntraining: {lr: 2e-2}\n"
    )
    top = Recipe.load(tmp_path / "top.yaml")
    assert (top.name, top.description) == ("top", "base")
    assert (top.training.lr, top.training.batch, top.teacher) == (2e-2, 32, None)
    # What holds names of its own is replaced, not mixed.
    assert (top.student.model, top.student.initial_weights) == ("s", {"text": "b"})
    assert "extends" not in read_yaml(top.to_yaml())
    (tmp_path / "mine.yaml").write_text("extends: clip_kd_demo\nseed: 5\n")
    assert differences(Recipe.load(tmp_path / "mine.yaml"), Recipe.load("clip_kd_demo")) == {"seed": (5, 0)}


def test_extends_in_a_circle_or_into_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    (tmp_path / "c.yaml").write_text("extends: clip_kd_dmo\n")
    with pytest.raises(SettingError, match="extend itself"):
        Recipe.load(tmp_path / "a.yaml")
    with pytest.raises(SettingError, match="Did you mean clip_kd_demo"):
        Recipe.load(tmp_path / "c.yaml")


def test_recipes_that_are_not_there_or_no_yaml_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"Did you mean clip_kd_demo\?"):
        Recipe.load("clip_kd_dmo")
    with pytest.raises(SettingError, match="no such file"):
        Recipe.load(tmp_path / "none.yaml")
    for content in (b"a: [1\n", b"a: 1\na: 2\n", b"\xff\xfe\x00", b"just words\n", b"", b"- 1\n"):
        (tmp_path / "bad.yaml").write_bytes(content)
        with pytest.raises(SettingError, match=r"bad\.yaml"):
            Recipe.load(tmp_path / "bad.yaml")


def test_saving_over_a_recipe_leaves_the_old_one_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe().save(tmp_path / "r.yaml")
    before = (tmp_path / "r.yaml").read_text()

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        recipe(seed=3).save(tmp_path / "r.yaml")
    assert (tmp_path / "r.yaml").read_text() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_every_setting_has_a_name() -> None:
    names = setting_names(Recipe)
    assert {
        "training.augmentation.crop_scale",
        "student.model",
        "teacher.pretrained",
        "objectives.icl",
    } <= set(names)
    assert len(names) == len(set(names))


SEVERAL: dict[str, Any] = {
    "name": "x",
    "student": {"model": "s"},
    "teachers": [{"model": "t"}, {"model": "u", "weight": 2.0, "scale": 60.0}],
    "objectives": {"crd": 1.0},
}


def test_several_teachers_are_saved_changed_and_fingerprinted(tmp_path: Path) -> None:
    several = Recipe.from_settings(SEVERAL, {"teachers.0.scale": "70"})
    assert [(one.weight, one.scale) for one in several.named_teachers.values()] == [(1.0, 70.0), (2.0, 60.0)]
    assert list(several.named_teachers) == ["teachers.0", "teachers.1"]
    several.save(tmp_path / "several.yaml")
    again = Recipe.load(tmp_path / "several.yaml")
    assert (again, again.fingerprint) == (several, several.fingerprint)
    assert again.fingerprint != Recipe.from_settings(SEVERAL).fingerprint
    listed = Recipe.from_settings(SEVERAL, {"teachers": "[{model: a}, {model: b, weight: 3.0}]"})
    assert [one.model for one in listed.teachers or ()] == ["a", "b"]
    assert list(recipe().named_teachers) == ["teacher"]
    # A setting that will be added at its default leaves this fingerprint alone, as for one teacher.
    assert "scale" not in dict(flat(Recipe.from_settings(SEVERAL), aside=False, later=False))["teachers"][0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"teachers": []}, r"teachers = \[\]: the list is empty"),
        ({"teacher": {"model": "q"}}, r"teachers = .*there is also teacher\.model = 'q'.*teacher=null"),
        ({"teachers.1.weight": "0"}, r"teachers\.1\.weight = '0': it must be a number above 0"),
        ({"teachers": [{"model": "t", "weight": -1.0}]}, r"teachers\.0\.weight = -1\.0: .*above 0"),
        ({"teachers": [{"weight": 1.0}]}, r"teachers\.0\.model = None: it is missing"),
        ({"teachers.0.scal": "2"}, r"teachers\.0\.scal = '2': there is no such setting.*teachers\.0\.scale"),
        ({"teachers": [{"model": "t", "scal": 2.0}]}, r"teachers\.0\.scal = 2\.0: .*Did you mean scale"),
        ({"teachers.2.scale": "2"}, r"teachers\.2\.scale = '2': there is no such setting"),
        ({"teachers": "5"}, r"teachers = '5': it must be a list, each item a mapping, or null"),
        ({"teachers": [{"model": "python"}] * 2}, r"only one object can be given"),
        ({"objectives.cross_modal": 1.0}, r"teachers = .*cross-modal teacher.*objectives\.cross_modal=0"),
        ({"trains": "cross_modal_teacher"}, r"teachers = .*cross-modal teacher"),
        ({"teachers": None}, r"objectives\.crd = 1\.0: it needs a teacher"),
    ],
)
def test_impossible_ensembles_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        Recipe.from_settings(SEVERAL, changes)


def test_shares_of_caption_columns() -> None:
    shares = {"caption": 0.7, "synthetic": 0.3}
    shared = Recipe.from_settings(BASE, {"data.caption_column": "{caption: 0.7, synthetic: 0.3}"})
    assert shared.data_options()["caption_column"] == shares
    assert shared.data_options(train=False)["caption_column"] == "caption"
    assert Recipe.from_settings(BASE, {"data.caption_column": "title"}).data.caption_column == "title"
    assert shared.fingerprint != recipe().fingerprint
    for changes, words in (
        ({"data.caption_column": {"caption": 0.0}}, "the sum of the shares is 0"),
        ({"data.caption_column": {}}, "the sum of the shares is 0"),
        (
            {"data.caption_column": {"caption": -0.1}},
            r"data\.caption_column = .*it must be text, or a mapping",
        ),
        ({"data.caption_column": shares, "training.hard_negatives": 0.5}, "hard negatives choose captions"),
    ):
        with pytest.raises(SettingError, match=words):
            Recipe.from_settings(BASE, changes)
