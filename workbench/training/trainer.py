"""The training loop, to be read from top to bottom: set up, resume, step, validate, save, finish."""

import contextlib
import math
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from workbench.data.load import load_pairs
from workbench.data.loader import Batch, batches
from workbench.errors import SettingError
from workbench.evaluation.encode import encode_pairs
from workbench.evaluation.retrieval.metrics import retrieval_metrics
from workbench.files import write_json
from workbench.models.loading import load_dual_encoder
from workbench.models.trainable import set_trainable, trainable_parameters
from workbench.objectives import DistillationLoss
from workbench.recipe import Recipe
from workbench.runs import checkpoint
from workbench.runs.folder import claim_folder, default_folder, locked
from workbench.runs.logger import RunLogger
from workbench.runs.run import Run
from workbench.targets.decoded_cache import decoded_pairs
from workbench.targets.frozen_maps import mapped_pairs
from workbench.targets.image_text import compute_targets, load_teacher
from workbench.targets.text_teacher import text_teacher_targets
from workbench.training.batch_inputs import (
    StudentTransform,
    TargetLookup,
    check_failures,
    check_micro_batch,
    step_seed,
)
from workbench.training.failures import MemoryShortage, is_out_of_memory, largest_fitting, save_replay
from workbench.training.interrupt import StopRequest, stop_on_signal
from workbench.training.machine import accelerate_on, versions
from workbench.training.optimisation import Learner, agree, backward, parameter_groups, schedule
from workbench.training.teacher import cross_modal_teacher_targets, train_teacher

MAX_BAD_STEPS = 3


def train(recipe: Recipe, run_dir: str | Path | None = None) -> Run:
    """Train a student as the recipe says, in this process; the same call again goes on where it stopped.

    Returns the Run, whose status is "finished", or "interrupted" after Ctrl-C or SIGTERM (what was learned is
    saved). Under `torchrun` every process calls this and they train together. Two runs of one recipe on one
    machine give identical weights on a CPU, interrupted or not. Raises SettingError for a setting that cannot
    work.
    """
    if recipe.trains == "cross_modal_teacher":
        return train_teacher(recipe, run_dir)
    folder = Path(run_dir) if run_dir is not None else default_folder(recipe)
    if recipe.training.threads:
        torch.set_num_threads(recipe.training.threads)
    accelerator = accelerate_on(recipe)
    main, world, rank = accelerator.is_main_process, accelerator.num_processes, accelerator.process_index
    if recipe.training.batch % world:
        raise SettingError(
            "training.batch",
            recipe.training.batch,
            f"{world} processes cannot share it",
            f"a multiple of {world}",
        )

    with locked(folder) if main else contextlib.nullcontext():
        if main:
            claim_folder(folder, recipe)
        accelerator.wait_for_everyone()
        if Run(folder).status.get("state") == "finished":
            return Run(folder)

        # ---- data, models, targets
        pairs = load_pairs(recipe.data.source, recipe.data.train_split, **recipe.data.options())
        validation = load_pairs(
            recipe.data.source, recipe.data.validation_split, **recipe.data.options(train=False)
        )
        # Every process starts from the same weights, heads of the losses included.
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
        teacher = load_teacher(recipe) if recipe.teacher else None
        store, unreadable = None, {}
        if teacher:
            store = compute_targets(recipe, pairs, teacher, device=accelerator.device, rank=rank, world=world)
            unreadable = store.bad_rows["image"]
            check_failures(unreadable.values(), len(pairs), recipe)
        pair = None
        if teacher and recipe.objectives.cross_modal:
            pair = cross_modal_teacher_targets(
                recipe, pairs, teacher, folder, device=accelerator.device, rank=rank, world=world
            )
        if main:
            text_teacher_targets(recipe, pairs, folder / "knowledge")
        accelerator.wait_for_everyone()
        knowledge = text_teacher_targets(recipe, pairs, folder / "knowledge")
        mixture = DistillationLoss(
            recipe.objectives.weights(),
            student.dim,
            teacher.dim if teacher else None,
            target_dim=knowledge.dim if knowledge else None,
            concepts=knowledge.clusters if knowledge else None,
            chunk=recipe.training.loss_chunk,
            direction_weights=recipe.training.direction_weights,
            temperature=recipe.training.distillation_temperature,
        )
        scale = teacher.scale if teacher else None
        text_is_known = bool(
            teacher
            and not trainable_parameters(student)["text"]
            and student.text_digest() == teacher.model.text_digest()
        )
        lookup = TargetLookup(
            recipe, student, accelerator.device, store, scale, knowledge, pair, text_is_known
        )
        del teacher  # its targets stay, its weights need not
        check_micro_batch(recipe, student)
        pairs = decoded_pairs(recipe, pairs, rank=rank, world=world)
        pairs = mapped_pairs(recipe, pairs, student, device=accelerator.device, rank=rank, world=world)

        # ---- optimiser and length
        learner = Learner(student, mixture, recipe.training.scale)
        groups = parameter_groups(learner, recipe.training.weight_decay, recipe.training.lr_multipliers)
        optimiser = torch.optim.AdamW(
            groups, lr=recipe.training.lr, betas=recipe.training.betas, eps=recipe.training.eps
        )
        readable = len(pairs) - len(unreadable)
        batch_size = min(recipe.training.batch, readable - readable % world)
        if batch_size < 2:
            raise SettingError(
                "data.source", recipe.data.source, f"it has {readable} training pairs", "Give two or more"
            )
        steps_per_epoch = readable // batch_size
        total = recipe.training.steps or math.ceil(recipe.training.epochs * steps_per_epoch)

        # ---- resume: 1. this run's own last checkpoint, 2. else the weights the recipe starts from
        wrapped, optimiser = accelerator.prepare(learner, optimiser)
        step = 0
        saved = checkpoint.load_latest(folder / "checkpoints")
        if saved is not None:
            learner.load_state_dict(saved.tensors)
            optimiser.load_state_dict(saved.optimiser)
            step = saved.step
        logger = RunLogger(folder, total, writes=main)
        logger.skipped_steps = saved.state["skipped_steps"] if saved else 0
        logger.rejected = pairs.rejected + Counter(unreadable.values())
        logger.failed = dict(saved.state["failed"]) if saved else {}
        logger.start(step)
        logger.data(pairs, validation)
        if main:
            write_json(folder / "versions.json", versions(str(accelerator.device)))
            verb = "resuming" if step else "training"
            size = f"{len(pairs)} pairs, {total} steps of {batch_size}"
            logger.info(f"{verb} {recipe.name} in {folder}: {size}")
            if batch_size < recipe.training.batch:
                logger.info(f"note: there are fewer pairs than training.batch = {recipe.training.batch}")

        def save() -> None:
            if main:
                state = {
                    "epochs_done": None if step % steps_per_epoch else step // steps_per_epoch,
                    "skipped_steps": logger.skipped_steps,
                    "failed": logger.failed,
                }
                checkpoint.save(
                    folder / "checkpoints",
                    step,
                    learner.state_dict(),
                    optimiser.state_dict(),
                    state,
                    keep=recipe.training.keep,
                )

        def validate() -> None:
            if main:
                wrapped.eval()
                embedded = encode_pairs(student, validation, recipe.evaluation.batch)
                scores = retrieval_metrics(
                    embedded.image, embedded.text, embedded.image_of_text, average_precision=False
                )
                recalls = {f"text_to_image_r{k}": value for k, value in scores.text_to_image.recall.items()}
                recalls |= {f"image_to_text_r{k}": value for k, value in scores.image_to_text.recall.items()}
                logger.record("validation", step, epoch=step / steps_per_epoch, **recalls)
            accelerator.wait_for_everyone()

        unsaved = 0

        def look_and_save(stopping: bool) -> None:
            nonlocal unsaved
            if step % (recipe.training.validate_every or steps_per_epoch) == 0 or step == total:
                validate()
            due = step % recipe.training.checkpoint_every == 0 or step % steps_per_epoch == 0
            if due or stopping or step == total:
                try:
                    save()
                    unsaved = 0
                except checkpoint.CheckpointError as error:
                    unsaved += 1
                    logger.info(f"warning: {error}; the last good checkpoint stays")
                    if unsaved == 3 or stopping or step == total:
                        raise

        # ---- the loop
        view = StudentTransform(recipe, student)
        bad_in_a_row = 0
        state, message = "running", ""
        try:
            with stop_on_signal() as request:
                stream: Iterator[Batch] = iter(())
                while step < total:
                    epoch, position = divmod(step, steps_per_epoch)
                    batch = next(stream, None)
                    if batch is None:
                        stream = batches(
                            pairs,
                            view,
                            student.tokenize,
                            batch=batch_size,
                            seed=recipe.seed,
                            epoch=epoch,
                            start=position,
                            rank=rank,
                            world=world,
                            workers=recipe.data.workers,
                            exclude=np.array(sorted(unreadable), dtype=np.int64),
                        )
                        continue
                    began = time.perf_counter()
                    logger.failed.update(batch.failed)  # by id: a pair fails again in every epoch
                    check_failures(logger.failed.values(), len(pairs), recipe)
                    if not len(batch) and world == 1:
                        step += 1
                        logger.skipped_steps += 1
                        stopping = bool(request)
                        look_and_save(stopping)
                        if stopping:
                            break
                        continue
                    wrapped.train()
                    rate = schedule(step, total, recipe.training.warmup_steps)
                    for group in optimiser.param_groups:
                        group["lr"] = recipe.training.lr * group["factor"] * rate
                    optimiser.zero_grad()
                    inputs, targets = lookup.inputs(batch, epoch), lookup.targets(batch, epoch)
                    micro_batch = recipe.training.micro_batch
                    share = max(1, micro_batch // world) if micro_batch else None
                    try:
                        noise = step_seed(recipe.seed, step, rank)
                        with accelerator.autocast():
                            terms, outputs = backward(wrapped, mixture, inputs, targets, share, noise)
                    except Exception as error:
                        if not is_out_of_memory(error):
                            raise
                        fits = largest_fitting(learner, inputs, share)
                        raise MemoryShortage(
                            batch_size,
                            micro_batch,
                            fits and fits * world,
                            student.trains_batch_statistics,
                        ) from error
                    limit = recipe.training.clip_norm or math.inf
                    norm = float(
                        torch.nn.utils.clip_grad_norm_(
                            [p for p in learner.parameters() if p.grad is not None], limit
                        )
                    )
                    values = {name: float(value) for name, value in terms.items()}
                    bad, stopping = agree(
                        not math.isfinite(values["loss"] + norm), bool(request), accelerator.device
                    )
                    if bad:
                        bad_in_a_row += 1
                        logger.skipped_steps += 1
                        if bad_in_a_row == MAX_BAD_STEPS:
                            where = folder / f"non-finite-step-{step}"
                            save_replay(where, learner, batch, inputs, targets, recipe, step, values)
                            raise FloatingPointError(
                                f"loss or gradient was not finite in {MAX_BAD_STEPS} steps in a row; "
                                f"all that is needed to replay the last is in {where}"
                            )
                    else:
                        bad_in_a_row = 0
                        optimiser.step()
                        student.clip.logit_scale.data.clamp_(0, math.log(100))
                        mixture.clamp_scales_()
                    step += 1
                    seconds = time.perf_counter() - began
                    logger.record(
                        "step",
                        step,
                        epoch=step / steps_per_epoch,
                        **values,
                        **{
                            f"weighted/{name}": recipe.objectives.weights()[name] * values[name]
                            for name in values
                            if name != "loss"
                        },
                        gradient_norm=norm,
                        scale=float(outputs.scale),
                        **lookup.progress(step, mixture, values, outputs, targets),
                        samples_per_second=len(batch) * world / seconds,
                        lr=recipe.training.lr * rate,
                        seconds=seconds,
                    )
                    look_and_save(stopping)
                    if stopping:
                        break
            state = "finished" if step == total else "interrupted"
            message = _interruption(request) if state == "interrupted" else ""
        except BaseException as error:
            state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            message = message or f"{type(error).__name__}: {error}"
            raise
        finally:
            logger.status(state, message)
            logger.close()
        accelerator.wait_for_everyone()
    return Run(folder)


def _interruption(request: StopRequest) -> str:
    return (
        f"stopped by {signal.Signals(request.signal).name}; the same call goes on from here"
        if request.signal
        else ""
    )
