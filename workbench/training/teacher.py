"""Trains the cross-modal teacher on frozen towers with cached regions and words. Every epoch is kept."""

import math
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workbench.data.loader import epoch_order
from workbench.errors import SettingError
from workbench.files import write_json
from workbench.models.grounded import GroundedTeacher
from workbench.models.package_weights import ASSETS
from workbench.recipe import Recipe
from workbench.recipe.model_sections import Student
from workbench.recipe.schema import Targets, Training
from workbench.runs.folder import default_folder
from workbench.runs.run import Run
from workbench.targets.cross_modal import (
    cross_modal_inputs,
    new_teacher,
)
from workbench.targets.image_text import load_teacher
from workbench.training.batch_inputs import open_pairs
from workbench.training.checks import check_failures
from workbench.training.optimisation import Length, clip_gradient
from workbench.training.session import Session
from workbench.training.teacher_losses import PROBED, TeacherLosses, usable_rows, validation_scores

# Shipped runs, without optimiser and most epochs, by the name that `cross_modal.run` takes.
SHIPPED = ASSETS / "cross_modal_teacher"
SHIPPED_RUNS = {"demo": SHIPPED, "grounded_demo": ASSETS / "grounded_teacher"}
VALIDATIONS = 10  # the fewest in a run with at least as many epochs
POLL = 1.0  # seconds


def train_teacher(recipe: Recipe, run_dir: str | Path | None = None, *, device: Any = None) -> Run:
    """Train a recipe's cross-modal teacher in this process. A second call resumes an interrupted run.

    The loss is InfoNCE between Z of a picture with one of its captions and the frozen embedding of the same
    caption or, with `caption_pairing` "leak_free", of another caption. The grounded teacher's loss is
    `GroundedLoss`. Adam has a constant rate, so that epoch n of a longer run equals the end of a run of n
    epochs. Each epoch ends with a checkpoint that is kept and a leak probe on the validation split. `device`
    None is the recipe's. Raises SettingError for settings that cannot work. DCLIP (arXiv 2505.21549).
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
        usable = usable_rows(recipe, pairs, inputs)
        losses = TeacherLosses(recipe, inputs, held_out, frozen)

        # ---- optimiser, length, resume
        batch = min(settings.batch, len(usable))
        per_epoch = len(usable) // batch
        watched = per_epoch * max(1, settings.epochs // VALIDATIONS)
        length = Length(
            batch, per_epoch, settings.epochs * per_epoch, watched, recipe.training.checkpoint_every
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
            scores = validation_scores(teacher, held_out, frozen, captions, losses, batch)
            logger.record("validation", step, epoch=step / per_epoch, **scores)

        # ---- the loop
        if not step:
            validate()  # how much of the match is there before anything was learned
        while step < length.total:
            began = time.perf_counter()
            epoch, position = divmod(step, per_epoch)
            order = epoch_order(len(usable), recipe.seed, epoch)
            rows = usable[order[position * batch : (position + 1) * batch]]
            teacher.train()
            optimiser.zero_grad()
            loss = losses(teacher, rows, epoch)
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


def bare(recipe: Recipe) -> Recipe:
    """A recipe with only the settings that the cross-modal teacher depends on, and defaults for the others,
    so that recipes with the same teacher share its run."""
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


def open_teacher_run(name: str, setting: str = "cross_modal.run") -> Run:
    """The finished run of a cross-modal teacher: a shipped one (`demo`, `grounded_demo`), or one by folder.

    Raises SettingError, naming `setting`, for a folder without a run, a student's run or an unfinished one.
    """
    remedy = "demo, grounded_demo, a run of e.g. dclip_teacher, or null."
    folder = SHIPPED_RUNS.get(name) or Path(name).expanduser()
    if not (folder / "recipe.yaml").is_file():
        raise SettingError(setting, name, "neither a shipped teacher nor the folder of a run", remedy)
    run = Run(folder)
    if run.recipe.trains != "cross_modal_teacher":
        problem = "this run trained a student, not a cross-modal teacher"
        raise SettingError(setting, name, problem, remedy)
    if name not in SHIPPED_RUNS and not run.finished:
        state = run.status.get("state")
        problem = "its last checkpoint is damaged" if state == "finished" else f"it is not finished ({state})"
        raise SettingError(setting, name, problem, "Train it to its end first.")
    return run


def grounded_teacher(recipe: Recipe) -> GroundedTeacher:
    """The grounded teacher whose reading of words a student with relations takes over.

    Raises SettingError for another kind of teacher, and for one above another text tower than the student's.
    """
    setting, student = "student.relations", recipe.student
    if student.relations is None:
        problem = "the model in student.model has relations, and the recipe does not say whose"
        raise SettingError(setting, None, problem, "Use grounded_demo, or the run that it learned from.")
    run = open_teacher_run(student.relations, setting)
    teacher, own = run.cross_modal_teacher(recipe.cross_modal.epoch), run.recipe.teacher
    if not isinstance(teacher, GroundedTeacher):
        problem = "this teacher does not say where the things that words name should lie"
        remedy = "Use grounded_demo, or a run of dclip_grounded."
        raise SettingError(setting, student.relations, problem, remedy)
    if own is not None and (own.model, own.pretrained) != (student.model, student.pretrained):
        problem = f"it reads the words of {own.model} ({own.pretrained}), and the student has others"
        remedy = f"Use student.model={own.model} and student.pretrained={own.pretrained}."
        raise SettingError(setting, student.relations, problem, remedy)
    return teacher


def teacher_run(
    recipe: Recipe,
    folder: Path,
    *,
    main: bool = True,
    device: Any = "cpu",
    say: Callable[[str], object] = print,
) -> Run:
    """The finished run of the cross-modal teacher of a student's recipe.

    This is the run that `cross_modal.run` names, otherwise a run with the same settings beside the student's
    `folder`. If it does not exist, the `main` process trains it there while the others wait. Raises
    SettingError for an unfinished run or one with other towers, and RuntimeError if its training ends early.
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
        say(f"the cross-modal teacher trains first, in {place.name}")
        run = train_teacher(teacher_recipe, place, device=device)
        if run.status["state"] != "finished":
            raise KeyboardInterrupt
        return run
    while not (place / "recipe.yaml").is_file() or not Run(place).finished:
        time.sleep(POLL)
    return Run(place)
