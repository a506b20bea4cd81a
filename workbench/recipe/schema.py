"""The sections of a recipe: every setting, its type, range and default. Imports no torch."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from workbench.objectives.registry import Objective, declared_objectives
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


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Data(Section):
    """Where the pairs of image and captions come from.

    `val_share`, `test_share`: of a source that has no splits of its own, which is divided by a hash of ids.
    `caption_lines`: a line of a text file beside a picture (folders, shards) is a caption; false: the whole
    file is one, as alt texts with line breaks are. `duplicates`: "merge" makes pictures that are equal in
    their bytes one picture with all their captions, in one split only, for which all are read once; "keep"
    reads none ahead. `decoded`: keep every training picture once, decoded, as a square of so many pixels a
    side; a little more than the student sees is enough. null: decode it anew in every epoch. `shard_cache`:
    gigabytes of remote shards (`source` a URL) kept whole on this machine, null: none, every picture is read
    where it lies. `order`: "shuffled" visits all pairs at random, "shards" reads a few tar shards at a time,
    each from its start to its end, for disks on which random access is slow.
    """

    source: str = "scenes"
    format: Literal["auto", "scenes", "shards", "karpathy", "coco", "table", "folder"] = "auto"
    image_folder: str | None = None
    image_column: str = "image"
    caption_column: str = "caption"
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
        """The keyword arguments of `load_pairs`; `limit` bounds training pairs only."""
        names = (
            "format",
            "image_folder",
            "image_column",
            "caption_column",
            "val_share",
            "test_share",
            "caption_lines",
            "duplicates",
            "max_failed",
            "max_pixels",
            "shard_cache",
            "scenes",
            "image_size",
        )
        return {name: getattr(self, name) for name in names} | {"limit": self.limit if train else None}


class Model(Section):
    """A two-tower model: what it is, where its weights come from, what of it stays as it is."""

    model: str
    pretrained: str | None = None
    initial_weights: dict[str, str] = {}
    frozen: Names = ()


class Student(Model):
    """The model that learns, and which of its parts do (`frozen` stays so whatever else is said).

    `trainable_image`: "attention" is the projections of every attention block and of the embedding,
    "last_stage" what follows the last change of resolution, "last_blocks" a quarter of a transformer's,
    "lora" low-rank updates (package peft). `freeze_batch_norm`: BatchNorm layers keep the statistics they
    come with, and only their scale and shift learn. `cache_frozen`: the frozen first layers of the image
    tower see every training picture once, whole, and what they make of it is kept.
    """

    trainable_image: Literal["all", "attention", "last_stage", "last_blocks", "lora", "none"] = "all"
    trainable_text: bool = True
    freeze_batch_norm: bool = False
    cache_frozen: bool = Field(default=False, json_schema_extra=NOT_FINGERPRINTED)


class Targets(Section):
    """What is cached of the teacher. `views`: crops per image that it and the student see, 0: whole."""

    views: Whole = 0
    folder: str | None = Field(default=None, json_schema_extra=NOT_FINGERPRINTED)
    batch: Count = Field(default=256, json_schema_extra=NOT_FINGERPRINTED)


class TextTeacher(Section):
    """A language model whose embeddings of the captions are targets of `objectives.embedding` and
    `concepts`.

    `pooling` and `layer` null: the model's own. `components`: PCA whitening to so many dimensions, null:
    none.
    """

    model: str
    pooling: Literal["mean", "last", "cls"] | None = None
    layer: int | None = None
    components: Count | None = None


class Concepts(Section):
    """Clusters of the text teacher's embeddings, and the labels that captions get from them.

    `reduce`: PCA dimensions that they are computed in. `perplexity`: the mean over captions of their soft
    labels. `labels`: "shuffled" permutes them over the captions, a placebo.
    """

    clusters: Count = 1024
    method: Literal["kmeans", "gaussian_mixture", "agglomerative", "hdbscan"] = "kmeans"
    reduce: Count = 64
    perplexity: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 4.0
    labels: Literal["soft", "hard", "shuffled"] = "soft"


class Regions(Section):
    """The regions of pictures that the cross-modal teacher reads.

    `proposer`: who finds them; "patches" are the places of the image tower's last feature map, without a
    detector. `weights`: the detector's file, or one that is shipped (scene_detector). `limit`: at most so
    many, the best by confidence x area. `confidence`, `overlap` (of two boxes) and `image_size` (null: the
    detector's own) are the detector's.
    """

    proposer: Literal["yolo", "ground_truth", "grid", "random", "whole_image", "patches"] = "yolo"
    weights: str = "scene_detector"
    limit: Count = 16
    confidence: Annotated[float, Field(ge=0, lt=1)] = 0.25
    overlap: Annotated[float, Field(gt=0, le=1)] = 0.7
    image_size: Annotated[int, Field(ge=32)] | None = None


class CrossModal(Section):
    """The cross-modal teacher of DCLIP, and how it is trained; its frozen towers are `teacher`.

    `run`: a finished run of it, null: trained first, where it is not yet. `epoch`: the one whose weights
    teach, null: the last. `control`: "null" puts the caption's own embedding in its place, "text_only" takes
    the regions away, "shuffled_regions" permutes them over the pictures. `caption_pairing` "leak_free"
    matches another caption of the picture than the one that was read. `weigh_regions`: by confidence, area
    and likeness to the caption.
    """

    run: str | None = None
    epoch: Count | None = None
    control: Literal["none", "null", "text_only", "shuffled_regions"] = "none"
    caption_pairing: Literal["same", "leak_free"] = "same"
    interaction: Literal["attention", "mean", "none"] = "attention"
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
        """Name to weight of the objectives in use."""
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
    """How training pictures vary: a square crop whose share of the area lies in `crop_scale`."""

    crop_scale: Annotated[tuple[Share, Share], Field(strict=False)] = (0.9, 1.0)


class Masking(Section):
    """What `objectives.mfd` hides of the student's pictures: a share `ratio` of their patches."""

    ratio: Annotated[float, Field(ge=0, lt=1)] = 0.75


class Training(Section):
    """The optimisation: its length, batch, rates, and how often it is looked at and saved.

    `validation_pairs`: at most so many pairs of the validation split, drawn once, are ranked while training;
    null: all.
    `scale`: a fixed multiplier of the student's cosines in the losses, null: its own, learned.
    `loss_chunk`: rows at a time in losses that compare all pairs of the batch, null: all at once.
    `loss_ring`: several processes pass their embeddings round instead of gathering the whole batch in each.
    `direction_weights`: of image to text and of text to image in the task loss, 1 together.
    `distillation_temperature`: what CRD divides the scales of teacher and student by; a teacher that is sure
    of every pair says more when it is above 1.
    `layer_decay`: each layer of a tower learns at so many times the rate of the layer above it, null: all
    alike. `ema`: keep an exponential moving average of the student with this decay, which is what is
    validated, evaluated and exported; null: none. `sync_batch_norm`: BatchNorm takes its statistics over the
    pairs of all processes. `gradient_checkpointing`: compute activations of blocks again for the gradient
    instead of keeping them. `compile`: compile both towers with torch.compile. `track`: an experiment tracker
    that the run's metrics are sent to as well.
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
    distillation_temperature: Positive = 1.0
    lr_multipliers: dict[str, NotNegative] = {}
    layer_decay: Share | None = Field(default=None, json_schema_extra=IF_CHANGED)
    ema: Annotated[float, Field(gt=0, lt=1)] | None = Field(default=None, json_schema_extra=IF_CHANGED)
    sync_batch_norm: bool = Field(default=False, json_schema_extra=IF_CHANGED)
    precision: Literal["float32", "bfloat16"] = "float32"
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(default="auto", json_schema_extra=NOT_FINGERPRINTED)
    augmentation: Augmentation = Augmentation()
    masking: Masking = Masking()
    validation_pairs: Count | None = Field(default=5000, json_schema_extra=NOT_FINGERPRINTED)
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
    """What is measured at the end.

    `splits`: null stands for every evaluation split that the source has. `retrieval`: further sets of
    pictures and captions, such as dataset_flickr30k.json; `SOURCE@FOLDER` says where the pictures lie, and
    `coco-1k:SOURCE` is the mean over five folds. `labelled`: zero-shot sets, as `load_labelled` takes them.
    `decoder`: what the suites exact_match and captioning write with.
    """

    splits: Names | None = Field(default=None, json_schema_extra=NOT_FINGERPRINTED)
    suites: Annotated[tuple[Suite, ...], Field(strict=False)] = Field(
        default=("retrieval", "zero_shot", "composition", "search"), json_schema_extra=NOT_FINGERPRINTED
    )
    retrieval: Names = Field(default=(), json_schema_extra={"aside": True, "later": True})
    labelled: Names = Field(default=(), json_schema_extra=NOT_FINGERPRINTED)
    decoder: str = Field(default="demo", json_schema_extra=NOT_FINGERPRINTED)
    batch: Count = Field(default=256, json_schema_extra=NOT_FINGERPRINTED)
