"""A real but tiny experiment: drawn scenes, a small vision transformer, a saved teacher of another width."""

from pathlib import Path

import pytest

TINY = Path(__file__).parents[1] / "tiny_vit.json"


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory):
    import torch

    from workbench.models.loading import load_dual_encoder

    torch.manual_seed(7)
    return load_dual_encoder("demo_student").save(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="session")
def settings(teacher_folder):
    """Settings of a distillation of nine steps that takes a second or two;
    `workbench.recipe.Recipe.from_settings` takes them."""
    return {
        "name": "tiny",
        "data": {"scenes": 27, "image_size": 32, "max_failed": 0.0},
        "student": {"model": str(TINY)},
        "teacher": {"model": str(teacher_folder)},
        "objectives": {"task": 1.0, "crd": 1.0, "fd": 4.0, "icl": 1.0},
        "training": {
            "steps": 9,
            "batch": 8,
            "warmup_steps": 2,
            "validate_every": 100,
            "checkpoint_every": 2,
            "threads": 1,
            "device": "cpu",
            "augmentation": {"crop_scale": [0.6, 1.0]},
        },
    }


@pytest.fixture
def recipe(settings):
    """Makes the tiny experiment's recipe, with changes."""
    from workbench.recipe import Recipe

    return lambda **changes: Recipe.from_settings(
        settings, {name.replace("__", "."): value for name, value in changes.items()}
    )
