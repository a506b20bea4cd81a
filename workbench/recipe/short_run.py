"""The settings of short runs in notebooks: a demo recipe at a fraction of its length."""

import os
from typing import Any

WARM_UP = 7  # one step in 7 is warm-up, as in the demo recipes with 50 of 372


def short_run(
    steps: int,
    batch: int,
    *,
    seed: int = 0,
    source: str = "scenes",
    scenes: int | None = None,
    validations: int = 1,
    at_once: int = 1,
) -> dict[str, Any]:
    """Overrides for `Recipe.load` that shorten a recipe to `steps` of `batch` pairs, with a shorter warm-up.

    `scenes` is the number of drawn pictures, None for that of the recipe; of another `source` it limits the
    pictures. There are `validations` during the run, the last one at its end. `at_once` is the number of runs
    that share the processor cores.
    """
    settings: dict[str, Any] = {
        "seed": seed,
        "training.steps": steps,
        "training.batch": batch,
        "training.warmup_steps": max(1, steps // WARM_UP),
        "training.validate_every": max(1, steps // validations),
    }
    if source != "scenes":
        settings |= {"data.source": source, "data.limit": scenes}
    elif scenes is not None:
        settings["data.scenes"] = scenes
    if at_once > 1:
        settings["training.threads"] = max(1, (os.cpu_count() or at_once) // at_once)
    return settings
