"""The sections of a recipe that name models: the student and its teachers. Imports no torch."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from workbench.recipe.setting_types import IF_CHANGED, NOT_FINGERPRINTED, Names, Positive


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Model(Section):
    """A two-tower model: its architecture, the origin of its weights, and its frozen parts."""

    model: str
    pretrained: str | None = None
    initial_weights: dict[str, str] = {}
    frozen: Names = ()


class Student(Model):
    """The student and its trainable parts. Parts in `frozen` are never trained.

    `trainable_image`: "attention" trains the projections of all attention blocks and of the embedding,
    "last_stage" the layers after the last change of resolution, "last_blocks" the last quarter of a
    transformer's blocks, "lora" low-rank updates (package peft). `freeze_batch_norm`: BatchNorm layers keep
    their statistics and train only scale and shift. `cache_frozen`: compute the output of the frozen first
    layers of the image tower once for every whole training picture, and cache it. `rotary_positions`: replace
    the absolute positions of a vision transformer's patches by rotary ones; its other weights stay.
    `relations`: a run of the grounded teacher, whose reading of words the text tower takes over. Both
    embeddings then also say where things lie.
    """

    trainable_image: Literal["all", "attention", "last_stage", "last_blocks", "lora", "none"] = "all"
    trainable_text: bool = True
    freeze_batch_norm: bool = False
    cache_frozen: bool = Field(default=False, json_schema_extra=NOT_FINGERPRINTED)
    rotary_positions: bool = Field(default=False, json_schema_extra=IF_CHANGED)
    relations: str | None = Field(default=None, json_schema_extra=IF_CHANGED)


class Teacher(Model):
    """A frozen teacher. `scale`: the multiplier of its cosines in the losses; null: its own."""

    scale: Positive | None = Field(default=None, json_schema_extra=IF_CHANGED)


class WeightedTeacher(Teacher):
    """One of several teachers. `weight`: its share in every objective, relative to the other teachers."""

    weight: Positive = 1.0
