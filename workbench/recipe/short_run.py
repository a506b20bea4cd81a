"""Settings of the short runs that notebooks train: a demo recipe at a fraction of its length."""

import os
from typing import Any

WARM_UP = 7  # one step in so many: the demo recipes warm up for 50 of 372


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
    """Overrides for `Recipe.load` that shorten a recipe to `steps` of `batch` pairs.

    The warm-up shrinks with the length. `scenes` drawn pictures, None: as many as the recipe has;
    of another `source`, at most so many of its own.
    `validations` during the run, the last one at its end. `at_once`: how many such runs share the processor
    cores.
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
