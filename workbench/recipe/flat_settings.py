"""A recipe's settings by dotted name: for fingerprints, differences and names."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel


def flat(model: BaseModel, aside: bool, prefix: str = "", *, later: bool = True) -> Iterator[tuple[str, Any]]:
    """The dotted names and plain values of settings.

    `aside` includes settings that do not change the outcome. `later` includes later additions that are at
    their default.
    """
    plain = model.model_dump(mode="json")
    for name, field in type(model).model_fields.items():
        value, marks = getattr(model, name), field.json_schema_extra or {}
        assert isinstance(marks, dict)
        if isinstance(value, BaseModel):
            yield from flat(value, aside, f"{prefix}{name}.", later=later)
        elif (aside or "aside" not in marks) and (later or "later" not in marks or value != field.default):
            if isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
                plain[name] = [dict(flat(item, aside, later=later)) for item in value]
            yield prefix + name, plain[name]


def differences(a: BaseModel, b: BaseModel, aside: bool = False) -> dict[str, tuple[Any, Any]]:
    """The settings that differ, as {dotted name: (value in `a`, value in `b`)}.

    Settings that do not change the outcome are included only with `aside`.
    """
    first, second = dict(flat(a, aside)), dict(flat(b, aside))
    values = {name: (first.get(name), second.get(name)) for name in [*first, *second]}
    return {name: pair for name, pair in values.items() if pair[0] != pair[1]}


def lasting_settings(recipe: BaseModel) -> dict[str, Any]:
    """All settings as nested plain values, as older versions named them: later ones only where changed."""
    tree: dict[str, Any] = {}
    for name, value in flat(recipe, aside=True, later=False):
        *sections, key = name.split(".")
        branch = tree
        for section in sections:
            branch = branch.setdefault(section, {})
        branch[key] = value
    return tree
