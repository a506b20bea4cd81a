"""The sections of a recipe: all settings with their types, ranges and defaults. Imports no torch."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, create_model

from workbench.objectives.registry import Objective, declared_objectives
from workbench.recipe.model_sections import Section
from workbench.recipe.setting_types import (
    IF_CHANGED,
    NOT_FINGERPRINTED,
    Count,
    Names,
    NotNegative,
    Part,
    Portion,
    Positive,
    Share,
    Suite,
    Whole,
)


class Data(Section):
    """The source of image-caption pairs.

    `caption_column`: the column of a table, or the field of a shard's json, with the captions; or several
    with shares, `{caption: 0.7, synthetic: 0.3}`: in each epoch a pair shows a caption of one of them, drawn
    by its share. Validation and evaluation read the first one alone.
    `val_share`, `test_share`: shares of a source without splits, which is divided by a hash of its ids.
    `caption_lines`: every line of a text file beside a picture (folders, shards) is a caption; false: the
    whole file is one caption, for alt texts with line breaks. `duplicates`: "merge" combines pictures with
    equal bytes into one picture with all their captions, in one split, and reads all pictures once for this;
    "keep" does not. `decoded`: cache every decoded training picture as a square with this side in pixels,
    which should be a little more than the student's input; null: decode pictures in every epoch.
    `shard_cache`: gigabytes of remote shards (`source` is a URL) to cache on this machine; null: read single
    pictures remotely. `order`: "shuffled" visits all pairs at random; "shards" reads a few tar shards at a
    time from start to end, for disks with slow random access.
    """

    source: str = "scenes"
    format: Literal["auto", "scenes", "shards", "karpathy", "coco", "table", "folder"] = "auto"
    image_folder: str | None = None
    image_column: str = "image"
    caption_column: str | dict[str, NotNegative] = "caption"
    caption_lines: bool = Field(default=True, json_schema_extra=IF_CHANGED)
    duplicates: Literal["merge", "keep"] = Field(default="merge", json_schema_extra=IF_CHANGED)
    train_split: str = "train"
    validation_split: str = "val"
    val_share: Part = Field(default=0.05, json_schema_extra=IF_CHANGED)
    test_share: Part = Field(default=0.05, json_schema_extra=IF_CHANGED)
    limit: Count | None = None
    scenes: Count = 8000
    image_size: Annotated[int, Field(ge=16)] = 64
    max_failed: Annotated[float, Field(ge=0, le=1)] = 0.01
    max_pixels: Count = 50_000_000
    decoded: Annotated[int, Field(ge=16, le=4096)] | None = None
    shard_cache: Positive | None = Field(default=None, json_schema_extra=NOT_FINGERPRINTED)
    order: Literal["shuffled", "shards"] = Field(default="shuffled", json_schema_extra=IF_CHANGED)
    workers: Whole = Field(default=0, json_schema_extra=NOT_FINGERPRINTED)

    def options(self, train: bool = True) -> dict[str, Any]:
        """The keyword arguments of `load_pairs`; `limit` bounds training pairs only, which alone have
        several caption columns."""
        names = (
            *("format", "image_folder", "image_column", "caption_column", "val_share", "test_share"),
            *("caption_lines", "duplicates", "max_failed", "max_pixels", "shard_cache"),
            *("scenes", "image_size"),
        )
        options = {name: getattr(self, name) for name in names} | {"limit": self.limit if train else None}
        if not train and not isinstance(self.caption_column, str):
            options["caption_column"] = next(iter(self.caption_column))
        return options


class Targets(Section):
    """The cached teacher outputs. `views`: crops per image for teacher and student, 0: whole images."""

    views: Whole = 0
    folder: str | None = Field(default=None, json_schema_extra=NOT_FINGERPRINTED)
    batch: Count = Field(default=256, json_schema_extra=NOT_FINGERPRINTED)


class TextTeacher(Section):
    """A language model whose caption embeddings are the targets of `objectives.embedding` and `concepts`.

    `pooling`, `layer`: null uses the model's own. `components`: dimensions of a PCA whitening; null: no
    whitening.
    """

    model: str
    pooling: Literal["mean", "last", "cls"] | None = None
    layer: int | None = None
    components: Count | None = None


class Concepts(Section):
    """Clusters of the text teacher's embeddings, and the captions' labels derived from them.

    `reduce`: PCA dimensions in which clusters are computed. `perplexity`: mean perplexity of the soft labels.
    `labels`: "shuffled" permutes the labels over captions, as a placebo.
    """

    clusters: Count = 1024
    method: Literal["kmeans", "gaussian_mixture", "agglomerative", "hdbscan"] = "kmeans"
    reduce: Count = 64
    perplexity: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 4.0
    labels: Literal["soft", "hard", "shuffled"] = "soft"


class Regions(Section):
    """The picture regions for the cross-modal teacher.

    `proposer`: the source of regions; "patches" are the positions of the image tower's last feature map,
    without a detector. `weights`: the detector's file, or a shipped one (scene_detector). `limit`: the
    largest number of regions, the best by confidence x area. `confidence`, `overlap` (of two boxes) and
    `image_size` (null: the detector's own) are settings of the detector.
    """

    proposer: Literal["yolo", "ground_truth", "grid", "random", "whole_image", "patches"] = "yolo"
    weights: str = "scene_detector"
    limit: Count = 16
    confidence: Annotated[float, Field(ge=0, lt=1)] = 0.25
    overlap: Annotated[float, Field(gt=0, le=1)] = 0.7
    image_size: Annotated[int, Field(ge=32)] | None = None


class CrossModal(Section):
    """The cross-modal teacher of DCLIP and its training. Its frozen towers are `teacher`.

    `run`: a finished run of the teacher; null: train it first if necessary. `epoch`: the epoch whose weights
    are used; null: the last. `control`: "null" replaces the teacher by the caption's own embedding,
    "text_only" removes the regions, "shuffled_regions" permutes them over pictures. `caption_pairing`:
    "leak_free" matches another caption of the picture than the input. `weigh_regions`: weight regions by
    confidence, area and similarity to the caption. `interaction`: "text_conditioned" is the grounded teacher,
    in which words choose regions and only regions are pooled. It learns from all pictures and captions of a
    batch with the loss in `matching`. `hard_negatives` is the share of pictures with a caption that is
    nearly true. "condensed" reads no words: a few learned `queries` compress the regions.
    """

    run: str | None = None
    epoch: Count | None = None
    control: Literal["none", "null", "text_only", "shuffled_regions"] = "none"
    caption_pairing: Literal["same", "leak_free"] = "same"
    interaction: Literal["attention", "mean", "none", "text_conditioned", "condensed"] = "attention"
    matching: Literal["softmax", "sigmoid"] = Field(default="softmax", json_schema_extra=IF_CHANGED)
    hard_negatives: Portion = Field(default=0.0, json_schema_extra=IF_CHANGED)
    queries: Count = Field(default=4, json_schema_extra=IF_CHANGED)
    target: Literal["mix", "image"] = "mix"
    heads: Count = 8
    pooling_temperature: Positive = 2.0
    clusters: Count = 1
    rotary: bool = False
    weigh_regions: bool = True
    epochs: Count = 3
    batch: Annotated[int, Field(ge=2)] = 32
    lr: Positive = 1e-5
    temperature: Positive = 0.05


class _Weights(Section):
    def weights(self) -> dict[str, float]:
        """The weights of the active objectives by name."""
        return {name: weight for name, weight in self.model_dump().items() if weight}


def _weight(objective: Objective) -> tuple[Any, Any]:
    default = 1.0 if objective.name == "task" else 0.0
    return NotNegative, Field(default=default, json_schema_extra=IF_CHANGED if objective.later else None)


if TYPE_CHECKING:

    class Objectives(_Weights):
        def __getattr__(self, name: str) -> float: ...
else:
    Objectives = create_model(
        "Objectives",
        __base__=_Weights,
        __doc__="The weight of every objective in `workbench.objectives`.",
        __module__=__name__,
        **{name: _weight(objective) for name, objective in declared_objectives().items()},
    )


class Augmentation(Section):
    """The augmentation of training pictures: a square crop whose share of the area lies in `crop_scale`."""

    crop_scale: Annotated[tuple[Share, Share], Field(strict=False)] = (0.9, 1.0)


class Masking(Section):
    """The masking of `objectives.mfd`: a share `ratio` of the patches of the student's pictures is hidden."""

    ratio: Annotated[float, Field(ge=0, lt=1)] = 0.75


class Training(Section):
    """The optimisation: length, batch, learning rates, validation and checkpoints.

    `validation_pairs`: the largest number of validation pairs during training, drawn once; null: all. The
    same number bounds the pictures of each set in `evaluation.during_training`. `max_forgotten`: stop once
    the top-1 accuracy on one of these sets is so many points below that of the student's start. `scale`: a
    fixed multiplier of the student's cosines in the losses; null: its own, learned. `loss_chunk`: rows
    computed at once in losses that compare all pairs of the batch; null: all rows. `loss_ring`: processes
    pass their embeddings in a ring instead of gathering the whole batch in each. `direction_weights`: of
    both directions of the task loss (image to text first), with sum 1. `hard_negatives`: share of pictures
    that bring a nearly true caption as a negative of the task (NegCLIP). `distillation_temperature`: divisor
    of both scales in CRD; above 1 it softens an overconfident teacher. `layer_decay`: ratio of a layer's
    learning rate to that of the layer above; null: equal rates. `ema`: decay of a moving average of the
    student, which is then validated, evaluated and exported; null: none. `sync_batch_norm`: BatchNorm
    statistics cover the pairs of all processes. `gradient_checkpointing`: recompute activations instead of
    storing them. `compile`: compile both towers. `track`: an experiment tracker that also receives the run's
    metrics.
    """

    epochs: Positive = 10.0
    steps: Count | None = None
    batch: Annotated[int, Field(ge=2)] = 128
    micro_batch: Count | None = None
    loss_chunk: Count | None = None
    loss_ring: bool = Field(default=False, json_schema_extra=NOT_FINGERPRINTED)
    lr: Positive = 1e-3
    weight_decay: NotNegative = 0.1
    betas: Annotated[
        tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]], Field(strict=False)
    ] = (0.9, 0.98)
    eps: Positive = 1e-6
    warmup_steps: Whole = 50
    clip_norm: Positive | None = 1.0
    scale: Positive | None = None
    direction_weights: Annotated[tuple[Portion, Portion], Field(strict=False)] = (0.5, 0.5)
    hard_negatives: Portion = Field(default=0.0, json_schema_extra=IF_CHANGED)
    distillation_temperature: Positive = 1.0
    lr_multipliers: dict[str, NotNegative] = Field(default={})
    layer_decay: Share | None = Field(default=None, json_schema_extra=IF_CHANGED)
    ema: Annotated[float, Field(gt=0, lt=1)] | None = Field(default=None, json_schema_extra=IF_CHANGED)
    sync_batch_norm: bool = Field(default=False, json_schema_extra=IF_CHANGED)
    precision: Literal["float32", "bfloat16"] = "float32"
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(default="auto", json_schema_extra=NOT_FINGERPRINTED)
    augmentation: Augmentation = Augmentation()
    masking: Masking = Masking()
    validation_pairs: Count | None = Field(default=5000, json_schema_extra=NOT_FINGERPRINTED)
    max_forgotten: Positive | None = Field(default=None, json_schema_extra=IF_CHANGED)
    validate_every: Count | None = Field(default=None, json_schema_extra=NOT_FINGERPRINTED)
    checkpoint_every: Count = Field(default=200, json_schema_extra=NOT_FINGERPRINTED)
    keep: Annotated[int, Field(ge=2)] | Literal["all"] = Field(default=2, json_schema_extra=NOT_FINGERPRINTED)
    threads: Count | None = Field(default=None, json_schema_extra=NOT_FINGERPRINTED)
    gradient_checkpointing: bool = Field(default=False, json_schema_extra=NOT_FINGERPRINTED)
    compile: bool = Field(default=False, json_schema_extra=NOT_FINGERPRINTED)
    track: Literal["tensorboard", "trackio", "wandb"] | None = Field(
        default=None, json_schema_extra=NOT_FINGERPRINTED
    )


class Evaluation(Section):
    """The evaluation after training, and `during_training`: zero-shot sets, in the form of `labelled`, on
    which the student's top-1 accuracy is measured before the first step and at every validation.

    `splits`: null uses all evaluation splits of the source. `retrieval`: further sets of pictures and
    captions, such as dataset_flickr30k.json; `SOURCE@FOLDER` gives the folder of the pictures, and
    `coco-1k:SOURCE` averages five folds. `composition`: sets of hard captions (SugarCrepe, ARO, Winoground)
    as folders or files. `labelled`: zero-shot sets in the form of `load_labelled`. `decoder`: the caption
    decoder of the suites exact_match and captioning.
    """

    splits: Names | None = Field(default=None, json_schema_extra=NOT_FINGERPRINTED)
    suites: Annotated[tuple[Suite, ...], Field(strict=False)] = Field(
        default=("retrieval", "zero_shot", "composition", "search"), json_schema_extra=NOT_FINGERPRINTED
    )
    retrieval: Names = Field(default=(), json_schema_extra={"aside": True, "later": True})
    composition: Names = Field(default=(), json_schema_extra={"aside": True, "later": True})
    labelled: Names = Field(default=(), json_schema_extra=NOT_FINGERPRINTED)
    during_training: Names = Field(default=(), json_schema_extra={"aside": True, "later": True})
    decoder: str = Field(default="demo", json_schema_extra=NOT_FINGERPRINTED)
    batch: Count = Field(default=256, json_schema_extra=NOT_FINGERPRINTED)
