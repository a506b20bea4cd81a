"""Builds every part of a recipe at its true size, with random weights, and takes one small step."""

import logging
import math
import resource
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.data.load import load_pairs
from workbench.errors import SettingError
from workbench.models.cross_modal import region_weights
from workbench.models.dual_encoder import DualEncoder
from workbench.models.execution import checkpoint_gradients
from workbench.models.frozen_encoder import FrozenEncoder, is_open_clip
from workbench.models.grounded import GroundedTeacher
from workbench.models.loading import load_dual_encoder
from workbench.models.masking import kept_patches, patch_grid
from workbench.models.regions.detector import SHIPPED, load_proposer, random_detector, select_regions
from workbench.models.tokens import caption_tokens, patch_tokens
from workbench.models.trainable import set_trainable, trainable_parameters
from workbench.objectives import DistillationLoss, contrastive_loss
from workbench.objectives.ensemble import Member
from workbench.objectives.registry import declared_objectives
from workbench.recipe import Recipe
from workbench.recipe.model_sections import Model, Student
from workbench.recipe.schema import TextTeacher
from workbench.targets.cross_modal import new_teacher
from workbench.targets.image_text import load_teacher
from workbench.training.checks import check_micro_batch
from workbench.training.learner import BatchTargets, Inputs, Learner, backward, freeze_unreached
from workbench.training.memory import FLOAT, HALF, gpu_memory, language_model

PAIRS = 2  # with which the step is taken
PICTURE = (3, 480, 640)
CAPTIONS = ["a red apple left of a dog on the grass", "two birds"]
ADAM = 4  # numbers per learned parameter: itself, its gradient, two moments

Row = tuple[str, str]


def dry_run(recipe: Recipe, processes: int = 1) -> list[Row]:
    """What a recipe needs, as rows of (what, how much): shapes, learned parameters, memory, steps.

    Nothing is downloaded, and neither weights nor data need to exist, except the weights of a teacher that is
    not an open_clip model. Models are built at their true architecture with random weights, and one step is
    taken with two random pictures. If the data exist they determine the number of steps, otherwise
    `data.limit` does. Of language models only the configuration is read. The memory is that of each of
    `processes`. Raises SettingError like training.
    """
    torch.manual_seed(recipe.seed)
    pairs, captions = _size(recipe)
    pictures = [torch.randint(0, 256, PICTURE, dtype=torch.uint8) for _ in range(PAIRS)]
    rows: list[Row] = [("recipe", f"{recipe.name}: {recipe.description}")]
    members: list[Member] = []
    target, width = None, None
    for name, settings in recipe.named_teachers.items():
        teacher: Any = (
            _model(settings, name) if is_open_clip(settings.model) else load_teacher(recipe, name=name).model
        )
        sides = teacher.sides if isinstance(teacher, FrozenEncoder) else ("image", "text")
        members.append(Member(teacher.dim, sides, getattr(settings, "weight", 1.0)))
        size = _count(teacher.parameters())
        rows += [(name, f"{settings.model}, {size} parameters, frozen")]
        rows += [("cached: its embeddings", _cache(pairs, 6 * teacher.dim))]
        if recipe.trains == "cross_modal_teacher" or recipe.objectives.cross_modal:
            more, target = _cross_modal(recipe, teacher, pictures, pairs)
            rows += more
    if recipe.text_teacher is not None:
        more, width = _text_teacher(recipe.text_teacher, captions)
        rows += more
    if recipe.trains == "student":
        rows += _student(recipe, members, target, width, pictures, pairs, processes)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e3 if sys.platform != "darwin" else 1e6)
    return [*rows, (f"memory of this process at its peak, {PAIRS} pairs", f"{peak:,.0f} MB")]


def _student(
    recipe: Recipe,
    members: list[Member],
    target: Tensor | None,
    width: int | None,
    pictures: list[Tensor],
    pairs: int | None,
    processes: int,
) -> list[Row]:
    student = _model(recipe.student, "student")
    if student.relations is not None:  # the targets have its width
        members = [member._replace(width=student.dim) for member in members]
        target = None if target is None else torch.randn(PAIRS, student.dim)
    set_trainable(student, recipe.student.trainable_image, recipe.student.trainable_text)
    if recipe.training.scale is not None:
        student.clip.logit_scale.requires_grad_(False)
    check_micro_batch(recipe, student)
    if recipe.training.gradient_checkpointing:
        checkpoint_gradients(student)
    if width is not None and recipe.text_teacher is not None:
        width = recipe.text_teacher.components or width
    weights, settings = recipe.objectives.weights(), recipe.training
    mixture = DistillationLoss(
        {name: weight for name, weight in weights.items() if _is_rehearsed(name, width)} or {"task": 1.0},
        student.dim,
        members,
        target_dim=width,
        concepts=recipe.concepts.clusters if width else None,
        chunk=settings.loss_chunk,
        direction_weights=settings.direction_weights,
    )
    learner = Learner(student, mixture, settings.scale, settings.ema)
    images = torch.stack([student.transform(picture) for picture in pictures])
    tokens = student.tokenize(CAPTIONS)
    kept = None
    if "mfd" in weights:
        patches = math.prod(patch_grid(student))
        kept = kept_patches(recipe.seed, 0, np.arange(PAIRS), patches, settings.masking.ratio)
    given = BatchTargets(cross_modal_target=target)
    if members:
        widths = {side: sum(one.width for one in members if side in one.sides) for side in ("image", "text")}
        embeddings = {f"teacher_{side}": torch.randn(PAIRS, width) for side, width in widths.items() if width}
        scale = (100.0,) * len(members) if len(members) > 1 else 100.0
        given = given._replace(**embeddings, teacher_scale=scale)
    if width is not None:
        given = given._replace(
            text_target=torch.randn(PAIRS, width),
            soft_labels=torch.rand(PAIRS, recipe.concepts.clusters).softmax(1),
        )
    inputs = Inputs(images, tokens, kept)
    if recipe.training.hard_negatives:
        hard = torch.ones(PAIRS)
        inputs, given = inputs._replace(false=tokens.flip(0), hard=hard), given._replace(hard=hard)
    unreached = freeze_unreached(learner, inputs, given)
    student.train()
    terms, outputs = backward(learner, mixture, inputs, given, None, recipe.seed)
    parts = trainable_parameters(student)
    learned = sum(p.numel() for p in learner.parameters() if p.requires_grad)
    need = gpu_memory(recipe, learner, inputs, given, processes)
    size = _count(student.clip.parameters())
    named = ", ".join(f"{part} {count:,}" for part, count in parts.items() if count)
    fixed = sum(p.numel() for p in learner.parameters()) - learned
    shown = ", ".join(f"{name} {float(value):.3f}" for name, value in terms.items())
    return [
        ("student", f"{recipe.student.model}, {size} parameters"),
        ("pictures, tokens", f"{list(images.shape)} uint8, {list(tokens.shape)}"),
        ("embeddings", f"{list(outputs.image.shape)} and {list(outputs.text.shape)}"),
        ("trained in the student", f"{sum(parts.values()):,} ({named or 'nothing'})"),
        ("reached by no objective", ", ".join(unreached) or "nothing"),
        ("heads of the losses", f"{learned - sum(parts.values()):,}"),
        ("weights, gradients, AdamW's moments", _megabytes(4 * (ADAM * learned + fixed))),
        (f"loss of {PAIRS} random pairs", shown),
        (f"GPU memory of each of {processes} processes", f"about {need.total / 1e9:,.1f} GB"),
        ("  weights, gradients, optimiser", _megabytes(need.state)),
        (f"  activations of {need.pairs:,} pairs", _megabytes(need.activations)),
        (f"  losses of a batch of {settings.batch:,}", _megabytes(need.losses)),
        *_steps(recipe.training.steps, recipe.training.epochs, recipe.training.batch, pairs),
    ]


def _is_rehearsed(objective: str, width: int | None) -> bool:
    """False for objectives that need a language model's embeddings, if their `width` is unknown."""
    return declared_objectives()[objective].needs != "text_teacher" or width is not None


def _text_teacher(settings: TextTeacher, captions: int | None) -> tuple[list[Row], int | None]:
    known = language_model(settings)
    if known is None:
        row = ("text teacher", f"{settings.model}, of unknown size: its configuration is not on this machine")
        return [row], None
    parameters, width = known
    need = f"about {HALF * parameters / 1e9:,.1f} GB in bfloat16"
    stored = f"{FLOAT * width / 1e3:,.1f} kB a caption"
    if captions:
        stored += f", {_megabytes(FLOAT * width * captions)} for {captions:,}"
    return [
        (
            "text teacher",
            f"{settings.model}, {parameters:,} parameters, frozen; embeddings of {width:,} numbers",
        ),
        ("  GPU memory while it embeds captions", need),
        ("cached: its embeddings of captions", stored),
    ], width


def _cross_modal(
    recipe: Recipe, towers: DualEncoder, pictures: list[Tensor], pairs: int | None
) -> tuple[list[Row], Tensor]:
    settings, regions = recipe.cross_modal, recipe.regions
    rows: list[Row] = []
    limit = regions.limit
    if regions.proposer == "patches":
        embedded = patch_tokens(towers, torch.stack([towers.transform(picture) for picture in pictures]))
        limit = embedded.shape[1]
        boxes = torch.rand(PAIRS, limit, 4)
    else:
        if regions.proposer == "yolo":
            rows += _detector(recipe, pictures)
        shares = []
        crops = []
        for row, picture in enumerate(pictures):
            _, height, width = picture.shape
            proposer = load_proposer("random", boxes=limit, seed=recipe.seed)
            selected = select_regions(proposer([picture], [None], [row])[0], height, width, limit)
            for left, top, right, bottom in selected.boxes / np.array([width, height, width, height]):
                shares.append([left, top, right, bottom])
                crops.append(towers.transform(picture, (left, top, right - left, bottom - top)))
        with torch.no_grad():
            embedded = towers.encode_image(torch.stack(crops)).unflatten(0, (PAIRS, limit))
        boxes = torch.tensor(np.array(shares), dtype=torch.float32).unflatten(0, (PAIRS, limit))
    words = caption_tokens(towers, towers.tokenize(CAPTIONS))
    mask = torch.ones(PAIRS, limit, dtype=torch.bool)
    weights = None
    if settings.weigh_regions:
        sizes = (boxes[..., 2:] - boxes[..., :2]).prod(-1).abs()
        weights = region_weights(torch.ones(PAIRS, limit), sizes, embedded, mask, words.tokens, words.mask)
    teacher = new_teacher(recipe, towers.dim)
    output = teacher(words.tokens, words.mask, embedded, mask, weights, boxes)
    loss = contrastive_loss(output.embedding, words.pooled, 1 / settings.temperature)
    if isinstance(teacher, GroundedTeacher):  # matches all pictures with all captions
        cosines, agreement = teacher.scores(words.tokens, words.mask, embedded, mask, boxes, words.pooled)
        loss = loss + F.cross_entropy((cosines + agreement) / settings.temperature, torch.arange(PAIRS))
    loss.backward()
    idle = [name for name, parameter in teacher.named_parameters() if parameter.grad is None]
    count = sum(parameter.numel() for parameter in teacher.parameters())
    rows += [
        ("regions, words", f"{list(embedded.shape)}, {list(words.tokens.shape)}"),
        ("attention of words to regions", f"{list(output.token_to_region.shape)}"),
        ("attention of regions to words", f"{list(output.region_to_token.shape)}"),
        ("Z, of a caption with its picture", f"{list(output.embedding.shape)}"),
        ("trained in the cross-modal teacher", f"{count:,}"),
        ("reached by no part of its loss", ", ".join(idle) or "nothing"),
        ("its weights, gradients, Adam's moments", _megabytes(4 * ADAM * count)),
        ("cached: regions", _cache(pairs, limit * (towers.dim * 2 + 28))),
        ("cached: Z and words, 5 captions of 12 words", _cache(pairs, 5 * 13 * towers.dim * 2)),
    ]
    steps = _steps(None, settings.epochs, settings.batch, pairs)
    return rows + [
        (f"cross-modal teacher's {what}", value) for what, value in steps
    ], output.embedding.detach()


def _detector(recipe: Recipe, pictures: list[Tensor]) -> list[Row]:
    settings = recipe.regions
    if settings.weights == SHIPPED:
        detector = load_proposer("yolo", weights=SHIPPED, image_size=settings.image_size)
        name = SHIPPED
    else:
        name = settings.weights.rpartition("/")[2].removesuffix(".pt")
        detector = random_detector(name, image_size=settings.image_size or 640)
    regions = detector(pictures, [None] * PAIRS, list(range(PAIRS)))
    boxes = sum(len(proposed.boxes) for proposed in regions)
    count = getattr(detector, "parameters", 0)
    return [("detector", f"{name}, {count:,} parameters; {boxes} boxes in {PAIRS} pictures of noise")]


def _model(settings: Model, part: str) -> DualEncoder:
    logging.disable(logging.WARNING)  # open_clip warns of random weights, which are intended here
    try:
        own = ("freeze_batch_norm", "rotary_positions", "relations") if isinstance(settings, Student) else ()
        options: Any = {name: bool(getattr(settings, name)) for name in own} | {"without_weights": True}
        return load_dual_encoder(settings.model, frozen=settings.frozen, setting=part, **options)
    finally:
        logging.disable(logging.NOTSET)


def _size(recipe: Recipe) -> tuple[int | None, int | None]:
    """The numbers of pairs and captions; those of the limit if the data do not exist."""
    try:
        pairs = load_pairs(recipe.data.source, recipe.data.train_split, **recipe.data_options())
    except SettingError:
        return recipe.data.limit, recipe.data.limit
    return len(pairs), int(pairs.first_caption[-1])


def _steps(steps: int | None, epochs: int | float, batch: int, pairs: int | None) -> list[Row]:
    if steps is not None:
        return [("steps", f"{steps:,} of {batch}")]
    if pairs is None:
        return [("steps", f"unknown without the data: {epochs:g} epochs in batches of {batch}")]
    every = max(1, pairs // min(batch, pairs))
    total = math.ceil(epochs * every)
    return [("steps", f"{total:,} of {min(batch, pairs)}: {epochs:g} epochs of {pairs:,} pairs")]


def _cache(pairs: int | None, bytes_a_picture: int) -> str:
    return f"{bytes_a_picture / 1e3:,.1f} kB a picture" + (
        f", {_megabytes(pairs * bytes_a_picture)} for {pairs:,}" if pairs else ""
    )


def _count(parameters: Iterable[Tensor]) -> str:
    return f"{sum(item.numel() for item in parameters):,}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
