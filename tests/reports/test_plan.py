"""What an experiment needs, said from runs that are there."""

import re

import pytest

from tests.fake_runs import write_run
from workbench.errors import SettingError
from workbench.reports.plan import plan


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


@pytest.mark.parametrize(("effect", "metric"), [(0.0, "text_to_image_r1"), (1.0, "text_to_image_r3")])
def test_what_cannot_be_planned_is_named(runs, effect, metric):
    with pytest.raises(SettingError, match=r"--detect|--metric"):
        plan(runs, effect, metric=metric)
