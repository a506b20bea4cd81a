"""Started by torchrun: every shipped demo recipe in small, stopped on the way, resumed and evaluated.

torchrun --nproc_per_node 2 -m tests.training.recipes_of_rank FOLDER
"""

import os
import signal
import sys
from typing import Any

import workbench
from workbench.recipe import Recipe
from workbench.recipe.schema import Data
from workbench.training import trainer

PAIRS = 24
SMALL: dict[str, Any] = {
    "data.source": "scenes",
    "data.scenes": PAIRS,
    "training.batch": 8,
    "training.steps": 3,
    "training.warmup_steps": 1,
    "training.device": "cpu",
    "training.validation_pairs": PAIRS,
    "training.threads": 1,
    "targets.batch": 16,
    "concepts.clusters": 8,
    "concepts.reduce": 4,
    "cross_modal.epochs": 1,
    "cross_modal.epoch": None,
    "evaluation.splits": ["val"],
    "evaluation.suites": ["retrieval"],
    "evaluation.labelled": [],  # named pictures have tests of their own, and take most of the time
}


def small(name: str) -> Recipe:
    """The recipe with few pairs and steps; a cross-modal teacher's own has its length elsewhere."""
    whole = Recipe.load(name)
    changes = {key: value for key, value in SMALL.items() if key.partition(".")[0] != "training"}
    if whole.trains == "student":
        changes = SMALL
    else:
        changes["training.validation_pairs"] = PAIRS
    return Recipe.load(name, changes)


def train_and_resume(recipe: Recipe, folder: str) -> None:
    """SIGTERM reaches one of the processes in the second step, and all stop together."""
    original, calls = trainer.backward, []

    def interrupted(*arguments: Any, **keywords: Any) -> Any:
        calls.append(1)
        if len(calls) == 2 and os.environ["RANK"] == "1":
            signal.raise_signal(signal.SIGTERM)
        return original(*arguments, **keywords)

    trainer.backward = interrupted
    try:
        run = workbench.train(recipe, folder)
    finally:
        trainer.backward = original
    assert (run.status["state"], run.status["step"]) == ("interrupted", 2), run
    run = workbench.train(recipe, folder)
    assert run.status["state"] == "finished", run
    assert run.metrics["step"].tolist() == [1, 2, 3]
    if os.environ["RANK"] == "0":
        scores = run.evaluate("retrieval")["val"]
        assert 0 <= scores["text_to_image_r1"] <= 1
        print(f"{recipe.name}: trained, resumed, evaluated", flush=True)


def main() -> None:
    options = Data.options
    # Evaluation of hundreds of pictures would take most of the time.
    Data.options = lambda self, train=True: options(self, train) | {"limit": PAIRS}  # type: ignore[method-assign]
    for name in sys.argv[2:]:
        train_and_resume(small(name), os.path.join(sys.argv[1], name))


if __name__ == "__main__":
    main()
