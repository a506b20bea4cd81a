"""The training loop, from top to bottom: check, set up, resume, step, validate, save."""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from workbench.data.loader import Batch
from workbench.data.pairs import Pairs
from workbench.evaluation.composition_sets import composition_sets
from workbench.evaluation.retrieval.sets import retrieval_sets
from workbench.models.dual_encoder import DualEncoder
from workbench.models.execution import checkpoint_gradients, compile_towers, synchronise_batch_norm
from workbench.models.loading import load_dual_encoder
from workbench.models.tokens import cut_captions
from workbench.models.trainable import set_trainable
from workbench.objectives import DistillationLoss
from workbench.recipe import Recipe
from workbench.runs.run import Run
from workbench.targets.build import TrainingTargets, build_targets, cached_pairs
from workbench.targets.cross_modal import AnyTeacher
from workbench.training.batch_inputs import TargetLookup, open_pairs, step_seed, stream
from workbench.training.checks import check_failures, check_student, check_world
from workbench.training.failures import NonFiniteSteps, memory_shortage
from workbench.training.learner import Gradient, Learner, backward, freeze_unreached
from workbench.training.optimisation import Length, adamw, clip_gradient, schedule
from workbench.training.session import Session
from workbench.training.teacher import grounded_teacher, teacher_run, train_teacher
from workbench.training.validation import forgotten, validate, validation_sets


def train(recipe: Recipe, run_dir: str | Path | None = None, *, teacher: Any = None) -> Run:
    """Train a student according to a recipe in this process. A second call resumes an interrupted run.

    Returns the Run, whose status is "finished", or "interrupted" after Ctrl-C or SIGTERM, with its progress
    saved. Under `torchrun` every process calls this function, and they train together. Two runs of one recipe
    on one machine give identical weights on a CPU, interrupted or not. `teacher` is the object that
    `teacher.model: python` stands for, with `encode_image`, `encode_text` or both (docs/models.md). Raises
    SettingError for a setting that cannot work.
    """
    if recipe.trains == "cross_modal_teacher":
        return train_teacher(recipe, run_dir)
    settings = recipe.training
    with Session(recipe, run_dir) as session:
        if session.finished:
            return session.run

        # ---- all inexpensive checks, then the targets
        check_world(recipe, session.world)
        composition_sets(recipe, retrieval_sets(recipe))  # the data of the final evaluation exist
        pairs, validation = open_pairs(recipe)
        sets = validation_sets(recipe)
        student = load_student(recipe)
        check_student(recipe, student, len(pairs), session.world)
        trained = trained_cross_modal_teacher(session)
        targets = build_targets(
            *(recipe, pairs, student, session.folder, trained),
            given=teacher,
            begun_with=None if teacher is None else session.teacher_object,
            **session.share,
        )
        check_failures({pairs.id(row): why for row, why in targets.unreadable.items()}, len(pairs), recipe)
        pairs = cached_pairs(recipe, pairs, student, **session.share)
        length = Length.of(recipe, len(pairs) - len(targets.unreadable), session.world)

        # ---- what learns, resumed from this run's own last checkpoint
        loss = distillation_loss(recipe, student, targets)
        learner = Learner(student, loss, settings.scale, settings.ema).to(session.device)
        lookup = TargetLookup(recipe, student, session.device, targets)
        optimiser = adamw(learner, settings)
        freeze_unreached(learner, *lookup.example(student))
        wrapped, optimiser = session.prepare(learner, optimiser)
        saved = session.resume(learner, optimiser)
        step = saved.step if saved else 0
        logger = session.start(length.total, step)
        logger.skipped_steps = saved.state["skipped_steps"] if saved else 0
        logger.failed = dict(saved.state["failed"]) if saved else {}
        logger.rejected = pairs.rejected + Counter(targets.unreadable.values())
        cut = targets.cut, {"student": cut_captions(student, validation)}
        logger.data(pairs, validation, targets.unreadable, *cut)
        size = f"{len(pairs)} pairs, {length.total} steps of {length.batch}"
        logger.info(f"{'resuming' if step else 'training'} {recipe.name} in {session.folder}: {size}")
        session.write_weights(student_start(recipe, student), targets.weights_from, targets.object)
        logger.info(weights_line(recipe, student, targets))
        for note in notes(recipe, student, length, session.world, targets, validation):
            logger.info(f"note: {note}")

        # ---- the loop
        non_finite = NonFiniteSteps(recipe, session.folder, learner)
        if saved:
            start, session.ended_early = saved.state.get("zero_shot", {}), saved.state.get("ended_early")
        else:
            start = validate(session, wrapped, learner.result, validation, sets, 0) if sets else {}
        if session.ended_early:
            length = length._replace(total=step)
        for epoch, batch in stream(session, pairs, student, length, step, targets.unreadable, targets.false):
            began = time.perf_counter()
            logger.failed.update(batch.failed)  # by id: a pair fails again in every epoch
            check_failures(logger.failed, len(pairs), recipe)
            rate = settings.lr * schedule(step, length.total, settings.warmup_steps)
            for group in optimiser.param_groups:
                group["lr"] = rate * group["factor"]
            optimiser.zero_grad()
            gradient = full_gradient(session, wrapped, learner, lookup, batch, epoch, step)
            values, bad, stopping = read_step(session, lookup, loss, gradient, step)
            logger.skipped_steps += bad
            if non_finite.may_learn(bad, step, batch, gradient):
                optimiser.step()
                learner.after_step_()
            step += 1
            if values:
                seconds = time.perf_counter() - began + batch.waited
                logger.record(
                    "step",
                    step,
                    epoch=step / length.per_epoch,
                    **values,
                    samples_per_second=len(batch) * session.world / seconds,
                    lr=rate,
                    seconds=seconds,
                    waiting=batch.waited / seconds,
                    **session.gpu_memory(),
                )
            if length.validates_after(step):
                now = validate(session, wrapped, learner.result, validation, sets, step / length.per_epoch)
                session.ended_early = forgotten(session, start, now)
            stopping = stopping or bool(session.ended_early)
            if stopping or length.saves_after(step):
                state = {
                    "epochs_done": length.epochs_done(step),
                    "skipped_steps": logger.skipped_steps,
                    "failed": logger.failed,
                    **({"zero_shot": start} if sets else {}),
                    **({"ended_early": session.ended_early} if session.ended_early else {}),
                }
                session.save(step, learner, optimiser, state, last=stopping or step == length.total)
            if stopping:
                break
    return session.run


def full_gradient(
    session: Session,
    wrapped: nn.Module,
    learner: Learner,
    lookup: TargetLookup,
    batch: Batch,
    epoch: int,
    step: int,
) -> Gradient | None:
    """The gradient of the global batch, clipped. None if no picture of the batch could be read."""
    if not len(batch) and session.world == 1:
        return None
    settings, world = session.recipe.training, session.world
    wrapped.train()
    inputs, targets = lookup.inputs(batch, epoch), lookup.targets(batch, epoch)
    share = max(1, settings.micro_batch // world) if settings.micro_batch else None
    noise = step_seed(session.recipe.seed, step, session.rank)
    with memory_shortage(session.recipe, learner, inputs, share, world), session.autocast():
        terms, outputs = backward(wrapped, learner.mixture, inputs, targets, share, noise)
    return Gradient(inputs, targets, outputs, terms, clip_gradient(learner, settings.clip_norm))


def read_step(
    session: Session, lookup: TargetLookup, loss: DistillationLoss, gradient: Gradient | None, step: int
) -> tuple[dict[str, float], bool, bool]:
    """The values that a step records ({} for an empty batch), whether the step must be skipped, and whether
    the run must stop."""
    if gradient is None:
        return session.read({}, False)
    progress = lookup.progress(step + 1, loss, gradient)
    measured = {"gradient_norm": gradient.norm, "scale": gradient.outputs.scale, **progress}
    values, bad, stopping = session.read(gradient.terms | measured, gradient.is_finite)
    weighted = {f"weighted/{name}": weight * values[name] for name, weight in loss.weights.items()}
    return {**values, **weighted}, bad, stopping


def load_student(recipe: Recipe) -> DualEncoder:
    """The initial student of a recipe, with its trainable parts. It is the same in every process, and so are
    the random numbers that follow."""
    torch.manual_seed(recipe.seed)
    student = load_dual_encoder(
        recipe.student.model,
        recipe.student.pretrained,
        initial_weights=recipe.student.initial_weights,
        frozen=recipe.student.frozen,
        freeze_batch_norm=recipe.student.freeze_batch_norm,
        rotary_positions=recipe.student.rotary_positions,
        relations=recipe.student.relations is not None,
        allow_download=recipe.allow_download,
        setting="student",
    )
    if student.relations is not None:
        student.relations.words.load_state_dict(grounded_teacher(recipe).state_dict())
    set_trainable(student, recipe.student.trainable_image, recipe.student.trainable_text)
    if recipe.training.scale is not None:
        student.clip.logit_scale.requires_grad_(False)
    if recipe.training.sync_batch_norm:
        synchronise_batch_norm(student)
    if recipe.training.gradient_checkpointing:
        checkpoint_gradients(student)
    if recipe.training.compile:
        compile_towers(student)
    return student


def notes(
    recipe: Recipe,
    student: DualEncoder,
    length: Length,
    world: int,
    targets: TrainingTargets,
    validation: Pairs,
) -> Iterator[str]:
    """Facts that help to interpret a run's numbers, before it starts."""
    settings = recipe.training
    for name, cut in targets.cut.items():
        if cut.cut:
            yield f"the {name} cuts {cut}"
    if not len(validation.all_captions):
        yield "the validation pictures have no captions, so recall is not measured while training"
    if length.batch < settings.batch:
        yield f"there are fewer pairs than training.batch = {settings.batch}"
    if world > 1 and student.trains_batch_statistics and not settings.sync_batch_norm:
        yield (
            f"each of {world} processes has BatchNorm statistics of its own {length.batch // world} pairs, "
            "so the results differ from those of one process. training.sync_batch_norm=true or "
            "student.freeze_batch_norm=true makes them the same."
        )


def student_start(recipe: Recipe, student: DualEncoder) -> str | None:
    """The source of the student's initial weights. None if they are random."""
    parts = [student.weights_from, *dict.fromkeys(recipe.student.initial_weights.values())]
    return ", ".join(part for part in parts if part) or None


def weights_line(recipe: Recipe, student: DualEncoder, targets: TrainingTargets) -> str:
    """The sources of the student's and the teachers' weights in one line, with the teachers' scales."""
    line = f"student from {student_start(recipe, student) or 'random weights'}"
    for teacher in targets.teachers:
        if teacher.weights_from is not None:
            bias = "" if teacher.bias is None else f" (its bias, {teacher.bias:.4g}, changes no softmax)"
            line += f"; teacher from {teacher.weights_from}, scale {teacher.scale:.4g}{bias}"
            line += f", weight {teacher.weight:g}" if len(targets.teachers) > 1 else ""
    return line


def trained_cross_modal_teacher(session: Session) -> tuple[Recipe, AnyTeacher] | None:
    """The student's cross-modal teacher with its recipe, trained first if necessary. None if the recipe uses
    none."""
    settings = session.recipe.cross_modal
    if not session.recipe.objectives.cross_modal or settings.control == "null":
        return None
    with torch.random.fork_rng(devices=[]):  # the student's random numbers must not depend on this training
        run = teacher_run(
            session.recipe, session.folder, main=session.main, device=session.device, say=session.say
        )
        return run.recipe, run.cross_modal_teacher(settings.epoch)


def distillation_loss(recipe: Recipe, student: DualEncoder, targets: TrainingTargets) -> DistillationLoss:
    """The recipe's objectives, with heads for the widths of student and targets."""
    members = targets.members
    if student.relations is not None:  # the targets have its width
        members = [member._replace(width=student.dim) for member in members]
    return DistillationLoss(
        recipe.objectives.weights(),
        student.dim,
        members,
        target_dim=targets.text.dim if targets.text else None,
        concepts=targets.text.clusters if targets.text else None,
        chunk=recipe.training.loss_chunk,
        ring=recipe.training.loss_ring,
        direction_weights=recipe.training.direction_weights,
        temperature=recipe.training.distillation_temperature,
    )
