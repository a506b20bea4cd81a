"""The registry: what is read from the source is what is imported, and one file adds an objective."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.figures.style import term_colour
from workbench.objectives.registry import declared_objectives, load_objectives
from workbench.recipe import Recipe

PACKAGE = Path(__file__).parents[2] / "workbench"
LOSS = '''"""A test's objective: the captions' embeddings point where the images' do."""

from workbench.objectives.feature import cosine_distillation
from workbench.objectives.registry import LossInputs, Objective


def _agreement(inputs: LossInputs, modules):
    return cosine_distillation(inputs.student_text, inputs.student_image, rows=inputs.rows)


AGREEMENT = Objective(name="agreement", function=_agreement, order=12, colour="#123456")
'''
TRAINING = """
import workbench
from workbench.figures.style import term_colour
from workbench.training.dry_run import dry_run
recipe = workbench.Recipe.load("task_only_demo", {"objectives.agreement": "0.5", "data.scenes": 40,
    "training.batch": 8, "training.steps": 2, "training.warmup_steps": 1, "evaluation.splits": ["val"]})
assert "agreement" in dict(dry_run(recipe))["loss of 2 random pairs"]
run = workbench.train(recipe, "run")
assert run.metrics["weighted/agreement"].gt(0).all(), run.metrics
assert term_colour("agreement") == "#123456"
"""


def test_source_and_import_say_the_same() -> None:
    declared, loaded = declared_objectives(), load_objectives()
    assert list(declared) == list(loaded)
    for name, objective in loaded.items():
        assert callable(objective.function)
        assert objective._replace(function=None, modules=None) == declared[name]


def test_orders_and_colours_differ() -> None:
    objectives = declared_objectives().values()
    assert [objective.order for objective in objectives] == list(range(len(objectives)))
    colours = [term_colour(objective.name) for objective in objectives]
    assert len(set(colours)) == len(colours)


def test_a_recipe_has_a_weight_for_each_and_trains_on_the_task_alone_by_default() -> None:
    objectives = Recipe.load("task_only_demo").objectives
    assert list(objectives.model_dump()) == list(declared_objectives())
    assert objectives.weights() == {"task": 1.0}


@pytest.mark.slow
def test_a_new_objective_is_one_file(tmp_path: Path) -> None:
    """Setting, training, curve, colour and dry run of an objective whose file was put into the package."""
    package = tmp_path / "workbench"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "objectives" / "agreement.py").write_text(LOSS, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", TRAINING], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
