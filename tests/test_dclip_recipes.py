"""DCLIP's recipes: the paper's settings, and controls that differ from DCLIP in one thing."""

import itertools

import pytest

from workbench.models.trainable import CHOICES
from workbench.recipe import Recipe, differences

CONTROLS = {
    "dclip_leak_free_demo": {"cross_modal.caption_pairing"},
    "dclip_null_teacher_demo": {"cross_modal.control"},
    "dclip_text_only_demo": {"cross_modal.control"},
    "dclip_shuffled_regions_demo": {"cross_modal.control"},
    "dclip_no_regions_demo": {"regions.proposer"},
    "dclip_no_attention_demo": {"cross_modal.interaction"},
    "dclip_no_interaction_demo": {"cross_modal.interaction"},
    "dclip_no_teacher_demo": {"objectives.cross_modal"},
    "dclip_three_clusters_demo": {"cross_modal.clusters"},
    "dclip_equal_regions_demo": {"cross_modal.weigh_regions"},
    "dclip_sharp_pooling_demo": {"cross_modal.pooling_temperature"},
    "dclip_true_boxes_demo": {"regions.proposer"},
    "dclip_rotary_demo": {"cross_modal.rotary"},
    "dclip_image_to_text_demo": {"training.direction_weights"},
    "dclip_l14_demo": {"cross_modal.clusters", "objectives.preservation"},
    "fine_tuning_demo": {
        "objectives.cross_modal",
        "student.frozen",
        "student.trainable_image",
        "student.trainable_text",
        "training.scale",
        "training.lr_multipliers",
    },
}


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_differs_in_one_thing(name: str) -> None:
    assert set(differences(Recipe.load("dclip_demo"), Recipe.load(name))) == CONTROLS[name]


def test_students_of_the_grounded_teacher_differ_in_one_thing_each() -> None:
    chain = {
        "dclip_grounded_demo": None,
        "dclip_grounded_hard_negatives_demo": {"cross_modal.run", "training.hard_negatives"},
        "dclip_grounded_text_demo": {
            "student.trainable_text",
            "student.frozen",
            "training.lr_multipliers",
        },
        "dclip_grounded_spatial_demo": {"student.model"},
    }
    for (before, _), (name, expected) in itertools.pairwise(chain.items()):
        differing = {
            setting if not setting.startswith("training.lr_multipliers") else "training.lr_multipliers"
            for setting in differences(Recipe.load(before), Recipe.load(name))
        }
        assert differing == expected, name
    control = differences(Recipe.load("dclip_no_teacher_demo"), Recipe.load("dclip_hard_negatives_demo"))
    assert set(control) == {"training.hard_negatives"}


def test_the_teacher_is_the_one_that_the_student_learns_from() -> None:
    differing = differences(Recipe.load("dclip_teacher_demo"), Recipe.load("dclip_demo"))
    assert not {name for name in differing if name.startswith(("data.", "regions.", "teacher."))}
    assert {name for name in differing if name.startswith("cross_modal.")} == {"cross_modal.epoch"}


def test_the_papers_settings() -> None:
    recipe = Recipe.load("dclip")
    training, teacher = recipe.training, recipe.cross_modal
    assert (training.lr, training.clip_norm, training.batch, training.micro_batch) == (1e-6, 0.5, 128, 32)
    assert (teacher.heads, teacher.pooling_temperature, teacher.temperature, teacher.lr) == (
        8,
        2.0,
        0.05,
        1e-5,
    )
    assert training.scale == pytest.approx(1 / 0.05)
    assert recipe.student.trainable_image == "attention" and not recipe.student.trainable_text
    assert recipe.objectives.weights() == {"task": 1.0, "cross_modal": 1.0}
    assert set(differences(recipe, Recipe.load("dclip_yolo11"))) == {"regions.weights"}
    large = Recipe.load("dclip_l14")
    assert large.cross_modal.clusters == 3 and large.objectives.preservation == 0.3
    assert not large.cross_modal.rotary


def test_every_choice_of_what_learns_exists() -> None:
    for choice in CHOICES:
        assert Recipe.load("dclip_demo", {"student.trainable_image": choice})
