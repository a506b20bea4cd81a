"""Trains the cross-modal teacher: frozen towers, cached regions and words, every epoch kept."""

import math
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workbench.data.loader import caption_choice, epoch_order
from workbench.data.pairs import Pairs
from workbench.errors import SettingError
from workbench.evaluation.probes.leak_probe import leak_probe
from workbench.evaluation.probes.pointing import pointing_accuracy
from workbench.files import write_json
from workbench.models.cross_modal import CrossModalTeacher
from workbench.models.loading import ASSETS
from workbench.objectives import contrastive_loss
from workbench.recipe import Recipe
from workbench.recipe.schema import Student, Targets, Training
from workbench.runs.folder import default_folder
from workbench.runs.run import Run
from workbench.targets.cross_modal import (
    CrossModalInputs,
    cross_modal_inputs,
    new_teacher,
)
from workbench.targets.image_text import Teacher, load_teacher
from workbench.training.batch_inputs import open_pairs
from workbench.training.checks import check_failures
from workbench.training.optimisation import Length, clip_gradient
from workbench.training.session import Session

SHIPPED = ASSETS / "cross_modal_teacher"  # a run without its optimiser and most of its epochs
PROBED = 1000  # captions, one a picture, that a validation looks at
POLL = 1.0  # seconds


def train_teacher(recipe: Recipe, run_dir: str | Path | None = None, *, device: Any = None) -> Run:
    """Train a recipe's cross-modal teacher, in this process; the same call again goes on where it stopped.

    The loss is InfoNCE between Z of a picture with one of its captions and the frozen embedding of the same
    caption, or of another with `caption_pairing` "leak_free". Adam at a constant rate, so that epoch n of a
    longer run is the end of a run of n. Each epoch ends with a checkpoint that is kept and a leak probe on
    the validation split. `device`: None for what the recipe says. Raises SettingError for settings that
    cannot work. DCLIP (arXiv 2505.21549).
    """
    recipe = bare(recipe)
    settings = recipe.cross_modal
    with Session(recipe, run_dir, device=device) as session:
        if session.world > 1:
            problem = "the cross-modal teacher learns from what is cached, in one process"
            raise SettingError("processes", session.world, problem, "1")
        if session.finished:
            return session.run

        # ---- data, towers, what is cached of them
        pairs, validation = open_pairs(recipe)
        frozen = load_teacher(recipe)
        torch.manual_seed(recipe.seed)
        teacher = new_teacher(recipe, frozen.dim).to(session.device)
        inputs = cross_modal_inputs(recipe, pairs, frozen, device=session.device, say=session.say)
        looked_at = validation.select(np.arange(min(len(validation), PROBED)))
        held_out = cross_modal_inputs(recipe, looked_at, frozen, device=session.device, say=session.say)
        unreadable = {pairs.id(row): why for row, why in inputs.regions.unreadable.items()}
        check_failures(unreadable, len(pairs), recipe)
        usable = _usable(recipe, pairs, inputs)

        # ---- optimiser, length, resume
        batch = min(settings.batch, len(usable))
        per_epoch = len(usable) // batch
        length = Length(
            batch, per_epoch, settings.epochs * per_epoch, per_epoch, recipe.training.checkpoint_every
        )
        optimiser = torch.optim.Adam(teacher.parameters(), lr=settings.lr)
        saved = session.resume(teacher, optimiser)
        step = saved.step if saved else 0
        logger = session.start(length.total, step)
        logger.rejected = pairs.rejected + Counter(inputs.regions.unreadable.values())
        logger.data(pairs, validation, inputs.regions.unreadable)
        write_json(session.folder / "regions.json", {"without_box": inputs.regions.without_box})
        size = f"{len(usable)} pictures, {length.total} steps of {batch}"
        logger.info(f"{'resuming' if step else 'training'} {recipe.name} in {session.folder}: {size}")

        def validate() -> None:
            captions = looked_at.first_caption[:-1]
            scores = _validation_scores(recipe, teacher, held_out, frozen, captions, batch)
            logger.record("validation", step, epoch=step / per_epoch, **scores)

        # ---- the loop
        if not step:
            validate()  # how much of the match is there before anything was learned
        while step < length.total:
            began = time.perf_counter()
            epoch, position = divmod(step, per_epoch)
            order = epoch_order(len(usable), recipe.seed, epoch)
            rows = usable[order[position * batch : (position + 1) * batch]]
            read, matched = _captions(recipe, pairs, rows, epoch)
            teacher.train()
            optimiser.zero_grad()
            loss = _loss(recipe, teacher, inputs, read, matched)
            loss.backward()
            norm = float(clip_gradient(teacher, None))
            if not math.isfinite(float(loss.detach()) + norm):
                problem = f"the loss or its gradient was not finite in step {step + 1}"
                raise FloatingPointError(f"{problem}: lower cross_modal.lr, now {settings.lr}")
            optimiser.step()
            step += 1
            seconds = time.perf_counter() - began
            logger.record(
                "step",
                step,
                epoch=step / per_epoch,
                loss=float(loss.detach()),
                gradient_norm=norm,
                scale=1 / settings.temperature,
                samples_per_second=len(rows) / seconds,
                lr=settings.lr,
                seconds=seconds,
            )
            stopping = session.stop_requested
            if length.validates_after(step):
                validate()
            if stopping or length.saves_after(step):
                state = {"epochs_done": length.epochs_done(step)}
                last = stopping or step == length.total
                session.save(step, teacher, optimiser, state, keep="all", last=last)
            if stopping:
                break
    return session.run


def _validation_scores(
    recipe: Recipe,
    teacher: CrossModalTeacher,
    held_out: CrossModalInputs,
    frozen: Teacher,
    captions: np.ndarray,
    batch: int,
) -> dict[str, float]:
    recalls = leak_probe(teacher, held_out, captions)
    scores = {f"recall_of_z_{name}": value for name, value in recalls.items()}
    pointing = pointing_accuracy(teacher, held_out, frozen.model, captions)
    if pointing is not None:
        scores |= {
            "pointing_accuracy": pointing.accuracy,
            "pointing_chance": pointing.chance,
            "pointing_by_weight": pointing.by_weight,
            "pointing_covered": pointing.covered,
        }
    loss = validation_loss(recipe, teacher, held_out, batch)
    return ({} if loss is None else {"loss": loss}) | scores


@torch.no_grad()
def validation_loss(
    recipe: Recipe, teacher: CrossModalTeacher, held_out: CrossModalInputs, batch: int
) -> float | None:
    """The mean loss over batches of held-out pictures: the first caption is read, and matched with itself or,
    `leak_free`, with the second. None where no batch of two is left, as without second captions."""
    pairs = held_out.pairs
    rows = _paired(recipe, pairs, held_out)[:PROBED]
    read = pairs.first_caption[rows]
    matched = read if recipe.cross_modal.caption_pairing == "same" else read + 1
    # The loss grows with the batch, so a smaller rest at the end stays out.
    batch = min(batch, len(rows))
    if batch < 2:
        return None
    starts = range(0, len(rows) - batch + 1, batch)
    parts = [slice(start, start + batch) for start in starts]
    teacher.eval()
    return float(np.mean([float(_loss(recipe, teacher, held_out, read[p], matched[p])) for p in parts]))


def bare(recipe: Recipe) -> Recipe:
    """What of a recipe its cross-modal teacher depends on, as a recipe for that teacher; the rest is at its
    default, so that recipes of one teacher share it."""
    if recipe.teacher is None:
        problem = "a cross-modal teacher reads with frozen towers, and there are none"
        raise SettingError("teacher", None, problem, "Set teacher.model.")
    kept = recipe.training
    return Recipe(
        name=recipe.name,
        description=recipe.description,
        seed=recipe.seed,
        allow_download=recipe.allow_download,
        trains="cross_modal_teacher",
        data=recipe.data.model_copy(update={"decoded": None, "order": "shuffled"}),
        student=Student(model=recipe.teacher.model, pretrained=recipe.teacher.pretrained),
        teacher=recipe.teacher,
        targets=Targets(batch=recipe.targets.batch),
        regions=recipe.regions,
        cross_modal=recipe.cross_modal.model_copy(update={"run": None, "epoch": None}),
        training=Training(
            precision=kept.precision,  # of the frozen towers' embeddings
            device=kept.device,
            threads=kept.threads,
            checkpoint_every=kept.checkpoint_every,
            validation_pairs=kept.validation_pairs,
            track=kept.track,
        ),
    )


def open_teacher_run(name: str) -> Run:
    """The finished run of a cross-modal teacher: the shipped one (`demo`), or the one in a folder.

    Raises SettingError for a student's run, and for one that is not finished.
    """
    run = Run(SHIPPED if name == "demo" else Path(name).expanduser())
    if run.recipe.trains != "cross_modal_teacher":
        problem = "this run trained a student, not a cross-modal teacher"
        raise SettingError("cross_modal.run", name, problem, "demo, a run of e.g. dclip_teacher, or null.")
    if not run.finished:
        state = run.status.get("state")
        problem = "its last checkpoint is damaged" if state == "finished" else f"it is not finished ({state})"
        raise SettingError("cross_modal.run", name, problem, "Train it to its end first.")
    return run


def teacher_run(recipe: Recipe, folder: Path, *, main: bool = True, device: Any = "cpu") -> Run:
    """The finished run of the cross-modal teacher that a student's recipe learns from.

    The one that `cross_modal.run` names, else one of the same settings beside the student's `folder`, trained
    there by the `main` process where there is none yet, while the others wait. Raises SettingError for a run
    that is not finished, or of other towers; RuntimeError where it could not be trained to its end.
    """
    if recipe.cross_modal.run is not None:
        run = open_teacher_run(recipe.cross_modal.run)
        if run.recipe.teacher != recipe.teacher:
            problem = f"its towers are {run.recipe.teacher}, those of this recipe {recipe.teacher}"
            raise SettingError("cross_modal.run", str(run.path), problem, "The same `teacher` in both.")
        return run
    teacher_recipe = bare(recipe).model_copy(update={"name": "cross_modal_teacher", "description": ""})
    for path in sorted(folder.parent.glob(f"*-seed{teacher_recipe.seed}-{teacher_recipe.fingerprint[:8]}")):
        if (path / "recipe.yaml").is_file() and Run(path).finished:
            return Run(path)
    place = folder.parent / default_folder(teacher_recipe).name
    if main:
        run = train_teacher(teacher_recipe, place, device=device)
        if run.status["state"] != "finished":
            raise KeyboardInterrupt
        return run
    while not (place / "recipe.yaml").is_file() or not Run(place).finished:
        time.sleep(POLL)
    return Run(place)


def _paired(recipe: Recipe, pairs: Pairs, inputs: CrossModalInputs) -> np.ndarray:
    rows = np.setdiff1d(np.arange(len(pairs)), np.array(list(inputs.regions.unreadable), dtype=np.int64))
    if recipe.cross_modal.caption_pairing == "leak_free":
        rows = rows[np.diff(pairs.first_caption)[rows] > 1]
    return rows


def _usable(recipe: Recipe, pairs: Pairs, inputs: CrossModalInputs) -> np.ndarray:
    """Rows of pictures that can be read and, where two captions are needed, have two."""
    rows = _paired(recipe, pairs, inputs)
    if len(rows) < 2:
        problem = f"it leaves {len(rows)} of {len(pairs)} pictures to learn from"
        remedy = "same, or pictures of several captions"
        raise SettingError("cross_modal.caption_pairing", recipe.cross_modal.caption_pairing, problem, remedy)
    return rows


def _captions(recipe: Recipe, pairs: Pairs, rows: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """The caption that is read of each picture in this epoch, and the one that is matched."""
    read = np.array([caption_choice(pairs.first_caption, int(row), recipe.seed, epoch) for row in rows])
    if recipe.cross_modal.caption_pairing == "same":
        return read, read
    first = pairs.first_caption[rows]
    count = pairs.first_caption[rows + 1] - first
    step = 1 + (rows + epoch) % (count - 1)
    return read, first + (read - first + step) % count


def _loss(
    recipe: Recipe,
    teacher: CrossModalTeacher,
    inputs: CrossModalInputs,
    read: np.ndarray,
    matched: np.ndarray,
) -> torch.Tensor:
    scale = 1 / recipe.cross_modal.temperature
    return contrastive_loss(teacher(**inputs(read)).embedding, inputs.embedding_of(matched), scale)
