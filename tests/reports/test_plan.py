"""What an experiment needs, said from runs that are there."""

import re

import pytest

from tests.fake_runs import write_run
from workbench.errors import SettingError
from workbench.recipe import Recipe
from workbench.reports.compare import START
from workbench.reports.plan import plan
from workbench.runs.folder import write_recipe


@pytest.fixture
def runs(tmp_path):
    return [
        write_run(tmp_path / f"{recipe}{seed}", recipe, seed, splits={"test": shift})
        for recipe, shift in (("task_only_demo", 0.0), ("clip_kd_demo", 0.3))
        for seed in range(3)
    ]


def test_smaller_effects_need_more(runs):
    def first_number(effect):
        said = plan(runs, effect)
        assert "text-to-image R@1 on test" in said and "3 seeds, 60 pictures" in said
        result = re.search(r"60 pictures: ([\d,]+|no number) ", said)
        return float("inf") if result[1] == "no number" else int(result[1].replace(",", ""))

    assert 2 <= first_number(60.0) <= first_number(20.0) <= first_number(0.01) == float("inf")


def test_one_seed_or_one_recipe_tells_nothing(runs):
    with pytest.raises(SettingError, match="at least two seeds of each"):
        plan(runs[:3], 1.0)
    with pytest.raises(SettingError, match="at least two seeds of each"):
        plan([runs[0], runs[3]], 1.0)


@pytest.mark.parametrize(
    ("effect", "metric", "split", "message"),
    [
        (0.0, "text_to_image_r1", None, "--detect = 0.0"),
        (150.0, "text_to_image_r1", None, "--detect = 150.0.*below 100"),
        (float("inf"), "text_to_image_median_rank", None, "--detect = inf"),
        (1.0, "text_to_image_r3", None, "--metric = 'test text_to_image_r3'"),
        (1.0, "text_to_image_median_rank", None, "--metric.*no results of single queries"),
        (1.0, "text_to_image_r1", "val", "--split = 'val'.*One of: test"),
    ],
)
def test_what_cannot_be_planned_is_named(runs, effect, metric, split, message):
    with pytest.raises(SettingError, match=message):
        plan(runs, effect, metric=metric, split=split)


def test_a_start_and_unequal_seeds_are_no_fewer_seeds(runs):
    write_recipe(runs[0], Recipe.load("task_only_demo").model_copy(update={"name": START}))
    said = plan([runs[0], *runs[3:]], 60.0)
    assert "these runs (3 seeds, 60 pictures) detect" in said and "nan" not in said
    assert "these runs (2 and 3 seeds, 60 pictures) detect" in plan(runs[1:], 60.0)
