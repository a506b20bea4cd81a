"""The types of settings, and the marks for their role in a recipe's fingerprint."""

from typing import Annotated, Any, Literal

from pydantic import Field

Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]
Part = Annotated[float, Field(ge=0, lt=1)]
Portion = Annotated[float, Field(ge=0, le=1)]
Names = Annotated[tuple[str, ...], Field(strict=False)]  # a list in YAML, a tuple in the immutable recipe
Suite = Literal[
    "retrieval",
    "zero_shot",
    "composition",
    "search",
    "questions",
    "attributes",
    "exact_match",
    "captioning",
    "linear_probe",
    "knn",
]
# For settings that do not change the outcome of a run. They are not part of the fingerprint.
NOT_FINGERPRINTED: dict[str, Any] = {"aside": True}
# For settings that were added later. At their default they are not part of fingerprints and names, so that
# older runs and targets are still found.
IF_CHANGED: dict[str, Any] = {"later": True}
