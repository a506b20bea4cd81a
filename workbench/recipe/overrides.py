"""Converts text to the declared types of settings, applies overrides and describes unusable values."""

import contextlib
import difflib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from workbench.errors import SettingError
from workbench.recipe.yaml_io import in_yaml, plain, read_yaml


def assignments(texts: Iterable[str], option: str = "--set") -> dict[str, str]:
    """Parse `key=value` arguments of a command line into {key: text}. The last value of a key wins."""
    values = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise SettingError(option, text, "it is not an assignment", f"Write {option} NAME=VALUE.")
        values[key.strip()] = value
    return values


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Up to three known dotted names that are most similar to `name`, best first."""

    def likeness(candidate: str) -> float:
        whole = difflib.SequenceMatcher(None, name, candidate).ratio()
        key, candidate_key = name.rpartition(".")[2], candidate.rpartition(".")[2]
        # `learning_rate` and `lr` share only their initials.
        initials = "".join(word[0] for word in key.split("_") if word) == candidate_key
        last = 1.0 if initials else difflib.SequenceMatcher(None, key, candidate_key).ratio()
        return max(whole, 0.4 * whole + 0.6 * last)

    scored = sorted(
        ((likeness(candidate), candidate) for candidate in known), key=lambda pair: (-pair[0], pair[1])
    )
    best = scored[0][0] if scored else 0.0
    return [candidate for score, candidate in scored[:3] if score >= max(0.55, best - 0.1)]


def suggestion(name: str, known: Iterable[str]) -> str:
    """A sentence that suggests similar names, or lists all of them."""
    known = sorted(known)
    if close := nearest(name, known):
        return f"Did you mean {' or '.join(close)}?"
    return f"There are: {', '.join(candidate for candidate in known if '.' not in candidate) or 'none'}."


def typed(annotation: Any, value: object, setting: str, default: object = ...) -> Any:
    """Convert `value` to a plain value of the annotated type. Text is read as YAML unless the type is text.

    `"1e-4"` works for a float, `"null"` for an optional value and `"[0.9, 1.0]"` for a pair. There is no
    other conversion (no float for an int, no int for a bool). Raises SettingError, naming `setting`, if the
    value does not fit.
    """
    adapter: TypeAdapter[Any] = TypeAdapter(annotation, config=ConfigDict(strict=True))
    value = plain(value)
    candidates = [value]
    if isinstance(value, str):
        with contextlib.suppress(yaml.YAMLError):
            parsed = read_yaml(value)
            # Text that YAML also reads as text is kept unchanged, including `#` and quotes.
            candidates = [value] if isinstance(parsed, str) else [parsed, value]
    for candidate in candidates:
        try:
            adapter.validate_python(candidate)
        except ValidationError:
            continue
        return candidate
    raise wrong_value(setting, value, adapter.json_schema(), default)


def wrong_value(
    setting: str, value: object, schema: Mapping[str, Any], default: object = ...
) -> SettingError:
    """The error for a value of the wrong type or out of range."""
    remedy = "There is no default." if default is ... else f"The default is {in_yaml(default)}."
    return SettingError(setting, value, f"it must be {what_works(schema)}", remedy)


def what_works(schema: Mapping[str, Any]) -> str:
    """Describe a JSON schema in words, for instance "a whole number of at least 1, or null"."""
    if "anyOf" in schema:
        return ", or ".join(what_works(option) for option in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return " or ".join(str(value) for value in schema.get("enum", [schema.get("const")]))
    if "$ref" in schema:
        return "a section with settings of its own"
    kind = schema.get("type")
    if kind in ("integer", "number"):
        limits = [
            f"{words} {schema[key]:g}"
            for key, words in (
                ("minimum", "of at least"),
                ("exclusiveMinimum", "above"),
                ("maximum", "at most"),
                ("exclusiveMaximum", "below"),
            )
            if key in schema
        ]
        return " ".join(["a whole number" if kind == "integer" else "a number", " and ".join(limits)]).strip()
    if kind == "array":
        if "prefixItems" in schema:
            return f"a list of {len(schema['prefixItems'])}: " + ", then ".join(
                map(what_works, schema["prefixItems"])
            )
        inner = schema.get("items")
        return f"a list, each item {what_works(inner)}" if inner else "a list"
    if kind == "object":
        inner = schema.get("additionalProperties")
        return (
            f"a mapping from names, each to {what_works(inner)}"
            if isinstance(inner, Mapping)
            else "a mapping"
        )
    return {"string": "text", "boolean": "true or false", "null": "null"}.get(str(kind), "another value")


def setting_names(model: type[BaseModel], prefix: str = "") -> list[str]:
    """The dotted names of all settings and sections of a model."""
    names = []
    for name, field in model.model_fields.items():
        names.append(prefix + name)
        section = section_of(field)
        names += setting_names(section, f"{prefix}{name}.") if section else []
        item = item_of(field)
        names += setting_names(item, f"{prefix}{name}.0.") if item else []
    return names


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a field that is a section, also of an optional one; None for other fields."""
    choices = get_args(field.annotation) or (field.annotation,)
    return next(
        (choice for choice in choices if isinstance(choice, type) and issubclass(choice, BaseModel)), None
    )


def item_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model of the items of a field that is a list of sections, also of an optional one; None for other
    fields."""
    choices = [field.annotation]
    for choice in choices:
        choices += get_args(choice)
        if get_origin(choice) is tuple:
            sections = [part for part in get_args(choice) if isinstance(part, type)]
            return next((section for section in sections if issubclass(section, BaseModel)), None)
    return None


def set_by_path(
    tree: dict[str, Any], model: type[BaseModel], path: str, value: Any, text: bool = False
) -> None:
    """Set a dotted path in nested settings to `value`. Sections are merged, other values are replaced.

    With `text`, text is converted to the type of the setting. After a setting that is a mapping, the rest of
    the path is a key, including dots (`training.lr_multipliers.visual.trunk`). After a list of sections comes
    the position of one of them (`teachers.0.scale`). Raises SettingError for a path that `model` does not
    have, suggesting similar names.
    """
    branch, parent, rest = tree, model, path
    while True:
        name, _, rest = rest.partition(".")
        field = parent.model_fields.get(name)
        section = section_of(field) if field else None
        listed = item_of(field) if field else None
        number, _, inner = rest.partition(".")
        if listed and inner and (member := _member(branch.get(name), number)) is not None:
            branch[name] = [*branch[name]]
            branch[name][int(number)] = member
            branch, parent, rest = member, listed, inner
            continue
        if section is None or not rest:
            break
        branch[name] = branch.get(name) or {}
        if not isinstance(branch[name], dict):
            raise _no_section(path.removesuffix(f".{rest}"), branch[name], section)
        branch, parent = branch[name], section
    if field is None or (rest and get_origin(field.annotation) is not dict):
        raise SettingError(path, value, "there is no such setting", suggestion(path, setting_names(model)))
    if section is not None:
        changes = typed(dict[str, Any] | None, value, path) if text else value
        if isinstance(changes, Mapping):
            branch[name] = branch.get(name) or {}
            for key, item in changes.items():
                set_by_path(tree, model, f"{path}.{key}", item, text)
        else:
            branch[name] = changes
    elif rest:
        entry = typed(get_args(field.annotation)[1], value, path) if text else value
        before = branch.get(name) or {}
        if not isinstance(before, Mapping):
            schema = TypeAdapter(_annotation(field)).json_schema()
            raise wrong_value(path.removesuffix(f".{rest}"), before, schema, _default(field))
        branch[name] = {**before, rest: entry}
    else:
        # Sections in a list are checked with the whole recipe, which then names their settings.
        annotation = list[dict[str, Any]] | None if listed else _annotation(field)
        branch[name] = typed(annotation, value, path, _default(field)) if text else value


def _member(members: Any, number: str) -> dict[str, Any] | None:
    """A copy of the section at a position of a list; None if there is none."""
    if isinstance(members, list) and number.isdecimal() and int(number) < len(members):
        member = members[int(number)]
        return dict(member) if isinstance(member, Mapping) else None
    return None


def to_setting_error(error: Mapping[str, Any], model: type[BaseModel], tree: Any) -> SettingError:
    """Convert an error of pydantic to a SettingError that names the setting and what would work."""
    if isinstance(raised := error.get("ctx", {}).get("error"), SettingError):
        return raised
    section: type[BaseModel] | None = model
    item: type[BaseModel] | None = None
    dotted: list[str] = []
    value = tree
    for part in error["loc"]:
        if item is not None:
            section, value, item = item, value[part], None
        elif section is None:
            break
        elif part not in section.model_fields:
            setting = ".".join([*dotted, part])
            remedy = suggestion(part, section.model_fields)
            return SettingError(setting, value[part], "there is no such setting", remedy)
        else:
            field = section.model_fields[part]
            value, section, item = value.get(part), section_of(field), item_of(field)
        dotted.append(str(part))
    setting = ".".join(dotted)
    if error["type"] == "missing":
        return SettingError(setting, None, "it is missing", "Give one.")
    if section is not None:
        return _no_section(setting, value, section)
    return wrong_value(setting, value, TypeAdapter(_annotation(field)).json_schema(), _default(field))


def _no_section(setting: str, value: object, section: type[BaseModel]) -> SettingError:
    names = ", ".join(list(section.model_fields)[:3])
    problem = f"it must be a section with settings of its own ({names} ...)"
    return SettingError(setting, value, problem, "Remove it, or give some of these settings.")


def _annotation(field: FieldInfo) -> Any:
    return Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation


def _default(field: FieldInfo) -> Any:
    return ... if field.is_required() else field.default
