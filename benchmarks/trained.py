"""Runs of the ablations: trained and evaluated once, whichever tables they stand in, by several processes."""

import argparse
import functools
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

import workbench
from workbench.evaluation.suites import evaluate
from workbench.files import file_lock, sha256_of_json
from workbench.models.dual_encoder import DualEncoder
from workbench.training.teacher import bare, teacher_run


def arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """What every script of this kind takes."""
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes of one thread that share the runs"
    )
    parser.add_argument(
        "--finished", action="store_true", help="train nothing, and tabulate the runs that are finished"
    )
    parser.add_argument("--share", type=int, help=argparse.SUPPRESS)
    return parser


def shared(
    wanted: Sequence[tuple[str, workbench.Recipe]], chosen: argparse.Namespace
) -> dict[str, list[workbench.Run]]:
    """The finished, evaluated runs of (row, recipe), by row. `--workers` processes make the missing ones.

    A worker process ends here. Runs are found by their settings and not by their names, so that tables share
    what they have in common. With `--finished`, rows without a run are left out.
    """
    if chosen.finished:
        wanted = [(row, recipe) for row, recipe in wanted if is_made(recipe, chosen.runs)]
    recipes = [recipe for _, recipe in wanted]
    if chosen.share is not None:
        for recipe in recipes[chosen.share :: chosen.workers]:
            trained(recipe, chosen.runs)
        raise SystemExit
    if chosen.workers > 1 and not chosen.finished:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        workers = [
            subprocess.Popen([sys.executable, *sys.argv, "--share", str(share)], env=environment)
            for share in range(chosen.workers)
        ]
        if any([worker.wait() for worker in workers]):
            raise SystemExit("a share of the runs was not finished; the same command goes on")
    runs: dict[str, list[workbench.Run]] = {}
    for row, recipe in wanted:
        runs.setdefault(row, []).append(trained(recipe, chosen.runs))
    return runs


def place_of(recipe: workbench.Recipe, folder: Path) -> Path:
    """The run folder of a recipe."""
    return folder / f"seed{recipe.seed}-{recipe.fingerprint[:12]}"


def is_made(recipe: workbench.Recipe, folder: Path) -> bool:
    """Whether its run is finished and evaluated."""
    place = place_of(recipe, folder)
    return all(mark.is_file() for mark in _marks(recipe, place).values())


def _marks(recipe: workbench.Recipe, place: Path) -> dict[str, Path]:
    """The files that say which suites were evaluated with these settings. Tables that share a run may have
    other sets."""
    settings = recipe.evaluation.model_dump(mode="json", exclude={"suites"})
    digest = sha256_of_json(settings)[:8]
    return {suite: place / f".evaluated-{suite}-{digest}" for suite in recipe.evaluation.suites}


def trained(recipe: workbench.Recipe, folder: Path) -> workbench.Run:
    """The run of one recipe, evaluated with all its suites."""
    place = place_of(recipe, folder)
    if recipe.objectives.cross_modal and recipe.cross_modal.control != "null":
        with file_lock(folder / f".teacher-{bare(recipe).fingerprint[:12]}.lock"):
            teacher_run(recipe, place)  # one process trains it, the others find it
    run = workbench.train(recipe, place)
    if not run.finished:
        raise SystemExit(f"{run.path} was interrupted; the same command goes on")
    marks = _marks(recipe, run.path)
    missing = [suite for suite, mark in marks.items() if not mark.is_file()]
    if missing:
        suites = recipe.evaluation.model_copy(update={"suites": tuple(missing)})
        model, step = run.restored()
        remember_texts(model)
        evaluate(model, recipe.model_copy(update={"evaluation": suites}), run.path / "evaluation", step=step)
        for suite in missing:
            marks[suite].touch()
    return run


@functools.cache
def _embedded_texts(digest: str) -> dict[bytes, Tensor]:
    return {}


def remember_texts(model: DualEncoder) -> None:
    """Have the model embed a batch of captions once in this process: the text tower of many runs is frozen,
    and captions cost most of an evaluation."""
    known, embed = _embedded_texts(model.text_digest()), model.encode_text

    def encode_text(tokens: Tensor) -> Tensor:
        key = f"{tuple(tokens.shape)} {tokens.device}".encode() + tokens.cpu().numpy().tobytes()
        if key not in known:
            known[key] = embed(tokens)
        return known[key]

    model.encode_text = encode_text  # type: ignore[method-assign]
