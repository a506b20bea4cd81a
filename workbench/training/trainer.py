"""The training loop, to be read from top to bottom: check, set up, resume, step, validate, save."""

import math
import time
from collections import Counter
from pathlib import Path

import torch
from torch import nn

from workbench.data.loader import Batch
from workbench.data.pairs import Pairs
from workbench.evaluation.encode import encode_pairs
from workbench.evaluation.retrieval.metrics import retrieval_metrics
from workbench.models.dual_encoder import DualEncoder
from workbench.models.loading import load_dual_encoder
from workbench.models.trainable import set_trainable
from workbench.objectives import DistillationLoss
from workbench.recipe import Recipe
from workbench.runs.run import Run
from workbench.targets.build import TrainingTargets, build_targets, cached_pairs
from workbench.targets.cross_modal import AnyTeacher
from workbench.training.batch_inputs import TargetLookup, open_pairs, step_seed, stream
from workbench.training.checks import check_failures, check_student, check_world
from workbench.training.failures import NonFiniteSteps, memory_shortage
from workbench.training.learner import Gradient, Learner, backward, clip_gradient, freeze_unreached
from workbench.training.optimisation import Length, adamw, schedule
from workbench.training.session import Session
from workbench.training.teacher import teacher_run, train_teacher


def train(recipe: Recipe, run_dir: str | Path | None = None) -> Run:
    """Train a student as the recipe says, in this process; the same call again goes on where it stopped.

    Returns the Run, whose status is "finished", or "interrupted" after Ctrl-C or SIGTERM (what was learned is
    saved). Under `torchrun` every process calls this and they train together. Two runs of one recipe on one
    machine give identical weights on a CPU, interrupted or not. Raises SettingError for a setting that cannot
    work.
    """
    if recipe.trains == "cross_modal_teacher":
        return train_teacher(recipe, run_dir)
    settings = recipe.training
    with Session(recipe, run_dir) as session:
        if session.finished:
            return session.run

        # ---- every cheap refusal, then the targets
        check_world(recipe, session.world)
        pairs, validation = open_pairs(recipe)
        student = load_student(recipe)
        check_student(recipe, student, len(pairs), session.world)
        teacher = trained_cross_modal_teacher(session)
        wait = session.wait
        targets = build_targets(recipe, pairs, student, session.folder, teacher, wait=wait, **session.share)
        check_failures(targets.unreadable.values(), len(pairs), recipe)
        pairs = cached_pairs(recipe, pairs, student, **session.share)
        length = Length.of(recipe, len(pairs) - len(targets.unreadable), session.world)

        # ---- what learns, resumed from this run's own last checkpoint
        loss = distillation_loss(recipe, student, targets)
        learner = Learner(student, loss, settings.scale).to(session.device)
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
        logger.data(pairs, validation)
        size = f"{len(pairs)} pairs, {length.total} steps of {length.batch}"
        logger.info(f"{'resuming' if step else 'training'} {recipe.name} in {session.folder}: {size}")
        logger.info(weights_line(recipe, student, targets))
        if length.batch < settings.batch:
            logger.info(f"note: there are fewer pairs than training.batch = {settings.batch}")

        # ---- the loop
        non_finite = NonFiniteSteps(recipe, session.folder, learner)
        for epoch, batch in stream(session, pairs, student, length, step, targets.unreadable):
            began = time.perf_counter()
            logger.failed.update(batch.failed)  # by id: a pair fails again in every epoch
            check_failures(logger.failed.values(), len(pairs), recipe)
            rate = settings.lr * schedule(step, length.total, settings.warmup_steps)
            for group in optimiser.param_groups:
                group["lr"] = rate * group["factor"]
            optimiser.zero_grad()
            gradient = full_gradient(session, wrapped, learner, lookup, batch, epoch, step)
            finite = gradient is not None and math.isfinite(gradient.values["loss"] + gradient.norm)
            bad, stopping = session.agree(not finite, session.stop_requested)
            logger.skipped_steps += bad
            if non_finite.may_learn(bad, step, batch, gradient):
                optimiser.step()
                learner.clamp_scales_()
            step += 1
            if gradient is not None:
                seconds = time.perf_counter() - began
                logger.record(
                    "step",
                    step,
                    epoch=step / length.per_epoch,
                    **gradient.values,
                    **gradient.weighted(loss),
                    gradient_norm=gradient.norm,
                    scale=float(gradient.outputs.scale),
                    **lookup.progress(step, loss, gradient),
                    samples_per_second=len(batch) * session.world / seconds,
                    lr=rate,
                    seconds=seconds,
                )
            if length.validates_after(step):
                validate(session, wrapped, student, validation, step / length.per_epoch)
            if stopping or length.saves_after(step):
                state = {
                    "epochs_done": length.epochs_done(step),
                    "skipped_steps": logger.skipped_steps,
                    "failed": logger.failed,
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
    """The gradient of the global batch, clipped; None where no picture of the batch could be read."""
    if not len(batch) and session.world == 1:
        return None
    settings, world = session.recipe.training, session.world
    wrapped.train()
    inputs, targets = lookup.inputs(batch, epoch), lookup.targets(batch, epoch)
    share = max(1, settings.micro_batch // world) if settings.micro_batch else None
    noise = step_seed(session.recipe.seed, step, session.rank)
    with memory_shortage(session.recipe, learner, inputs, share, world), session.autocast():
        terms, outputs = backward(wrapped, learner.mixture, inputs, targets, share, noise)
    values = {name: float(value) for name, value in terms.items()}
    return Gradient(inputs, targets, outputs, values, clip_gradient(learner, settings.clip_norm))


def load_student(recipe: Recipe) -> DualEncoder:
    """The student as its recipe starts it, with the parts that learn; the same in every process, and so are
    random numbers from here on."""
    torch.manual_seed(recipe.seed)
    student = load_dual_encoder(
        recipe.student.model,
        recipe.student.pretrained,
        initial_weights=recipe.student.initial_weights,
        frozen=recipe.student.frozen,
        freeze_batch_norm=recipe.student.freeze_batch_norm,
        allow_download=recipe.allow_download,
        setting="student",
    )
    set_trainable(student, recipe.student.trainable_image, recipe.student.trainable_text)
    if recipe.training.scale is not None:
        student.clip.logit_scale.requires_grad_(False)
    return student


def weights_line(recipe: Recipe, student: DualEncoder, targets: TrainingTargets) -> str:
    """Where the weights of student and teacher came from, in one line."""
    parts = [student.weights_from, *dict.fromkeys(recipe.student.initial_weights.values())]
    start = ", ".join(part for part in parts if part) or "random weights"
    return f"student from {start}" + (
        f"; teacher from {targets.weights_from}" if targets.weights_from else ""
    )


def trained_cross_modal_teacher(session: Session) -> tuple[Recipe, AnyTeacher] | None:
    """The cross-modal teacher that the student learns from, with its recipe; trained first where there is
    none yet. None where the recipe has no use for one."""
    settings = session.recipe.cross_modal
    if not session.recipe.objectives.cross_modal or settings.control == "null":
        return None
    with torch.random.fork_rng(devices=[]):  # the student's random numbers do not depend on whose turn it was
        run = teacher_run(session.recipe, session.folder, main=session.main, device=session.device)
        return run.recipe, run.cross_modal_teacher(settings.epoch)


def distillation_loss(recipe: Recipe, student: DualEncoder, targets: TrainingTargets) -> DistillationLoss:
    """The recipe's objectives, with heads for the widths of student and targets."""
    return DistillationLoss(
        recipe.objectives.weights(),
        student.dim,
        targets.width,
        target_dim=targets.text.dim if targets.text else None,
        concepts=targets.text.clusters if targets.text else None,
        chunk=recipe.training.loss_chunk,
        direction_weights=recipe.training.direction_weights,
        temperature=recipe.training.distillation_temperature,
    )


def validate(
    session: Session, wrapped: nn.Module, student: DualEncoder, validation: Pairs, epoch: float
) -> None:
    """Record recall on the validation split; the first process computes it, the others wait."""
    if session.main and session.logger is not None:
        wrapped.eval()
        student.precision = session.recipe.training.precision
        embedded = encode_pairs(student, validation, session.recipe.evaluation.batch)
        scores = retrieval_metrics(
            embedded.image, embedded.text, embedded.image_of_text, average_precision=False
        )
        recalls = {f"text_to_image_r{k}": value for k, value in scores.text_to_image.recall.items()}
        recalls |= {f"image_to_text_r{k}": value for k, value in scores.image_to_text.recall.items()}
        session.logger.record("validation", session.logger.step, epoch=epoch, **recalls)
    session.wait()
