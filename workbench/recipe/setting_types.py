"""The types of settings, and the marks that say how they enter a recipe's fingerprint."""

from typing import Annotated, Any, Literal

from pydantic import Field

Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]
Part = Annotated[float, Field(ge=0, lt=1)]
Portion = Annotated[float, Field(ge=0, le=1)]
Names = Annotated[tuple[str, ...], Field(strict=False)]  # YAML has lists; a frozen recipe holds tuples
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
# Settings that change how a run is carried out and not what comes of it: they stay out of the fingerprint.
NOT_FINGERPRINTED: dict[str, Any] = {"aside": True}
# Settings that came later: at their default they stay out of it, and out of other names, so that what is
# older is still found.
IF_CHANGED: dict[str, Any] = {"later": True}
