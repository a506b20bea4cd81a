"""Reads settings from text as their declared type says, and finds the words for those that cannot be used."""

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
    """{key: text} from `key=value` arguments of a command line; a later one wins."""
    values = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise SettingError(option, text, "it has no name and value", f"Write {option} NAME=VALUE.")
        values[key.strip()] = value
    return values


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Up to three of the known dotted names that `name` may have meant, best first."""

    def likeness(candidate: str) -> float:
        whole = difflib.SequenceMatcher(None, name, candidate).ratio()
        ours, theirs = name.rpartition(".")[2], candidate.rpartition(".")[2]
        # `learning_rate` and `lr` share initials and little else.
        initials = "".join(word[0] for word in ours.split("_") if word) == theirs
        last = 1.0 if initials else difflib.SequenceMatcher(None, ours, theirs).ratio()
        return max(whole, 0.4 * whole + 0.6 * last)

    scored = sorted(
        ((likeness(candidate), candidate) for candidate in known), key=lambda pair: (-pair[0], pair[1])
    )
    best = scored[0][0] if scored else 0.0
    return [candidate for score, candidate in scored[:3] if score >= max(0.55, best - 0.1)]


def suggestion(name: str, known: Iterable[str]) -> str:
    """A sentence that tells which name may have been meant, else which there are."""
    known = sorted(known)
    if close := nearest(name, known):
        return f"Did you mean {' or '.join(close)}?"
    return f"There are: {', '.join(candidate for candidate in known if '.' not in candidate) or 'none'}."


def typed(annotation: Any, value: object, setting: str, default: object = ...) -> Any:
    """`value` as a plain value of the annotated type; text is read as YAML where the type wants no text.

    So `"1e-4"` does for a float, `"null"` for an optional and `"[0.9, 1.0]"` for a pair, while a str may hold
    anything. No other conversion takes place (no float for an int, no int for a bool). Raises SettingError,
    naming `setting`.
    """
    adapter: TypeAdapter[Any] = TypeAdapter(annotation, config=ConfigDict(strict=True))
    value = plain(value)
    candidates = [value]
    if isinstance(value, str):
        with contextlib.suppress(yaml.YAMLError):
            read = read_yaml(value)
            # Text that YAML too reads as text stays as it is, `#` and quotes included.
            candidates = [value] if isinstance(read, str) else [read, value]
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
    """The error for a value of a wrong type or range."""
    remedy = "There is no default." if default is ... else f"The default is {in_yaml(default)}."
    return SettingError(setting, value, f"it must be {what_works(schema)}", remedy)


def what_works(schema: Mapping[str, Any]) -> str:
    """A JSON schema in words: "a whole number of at least 1, or null"."""
    if "anyOf" in schema:
        return ", or ".join(what_works(option) for option in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return " or ".join(str(value) for value in schema.get("enum", [schema.get("const")]))
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
    return names


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a field that is a section, an optional one included."""
    choices = get_args(field.annotation) or (field.annotation,)
    return next(
        (choice for choice in choices if isinstance(choice, type) and issubclass(choice, BaseModel)), None
    )


def set_by_path(
    tree: dict[str, Any], model: type[BaseModel], path: str, value: Any, text: bool = False
) -> None:
    """Put `value` under a dotted path into nested settings; sections merge, everything else is replaced.

    With `text`, text is read as the setting's type asks for. What follows a setting that holds names is one
    of them, dots included (`training.lr_multipliers.visual.trunk`). Raises SettingError for a path that
    `model` does not have, naming the nearest.
    """
    here, within, rest = tree, model, path
    while True:
        name, _, rest = rest.partition(".")
        field = within.model_fields.get(name)
        section = section_of(field) if field else None
        if section is None or not rest:
            break
        here[name] = here.get(name) or {}
        if not isinstance(here[name], dict):
            raise _no_section(path.removesuffix(f".{rest}"), here[name], section)
        here, within = here[name], section
    if field is None or (rest and get_origin(field.annotation) is not dict):
        raise SettingError(path, value, "there is no such setting", suggestion(path, setting_names(model)))
    if section is not None:
        changes = typed(dict[str, Any] | None, value, path) if text else value
        if isinstance(changes, Mapping):
            here[name] = here.get(name) or {}
            for key, item in changes.items():
                set_by_path(tree, model, f"{path}.{key}", item, text)
        else:
            here[name] = changes
    elif rest:
        entry = typed(get_args(field.annotation)[1], value, path) if text else value
        before = here.get(name) or {}
        if not isinstance(before, Mapping):
            schema = TypeAdapter(_annotation(field)).json_schema()
            raise wrong_value(path.removesuffix(f".{rest}"), before, schema, _default(field))
        here[name] = {**before, rest: entry}
    else:
        here[name] = typed(_annotation(field), value, path, _default(field)) if text else value


def to_setting_error(error: Mapping[str, Any], model: type[BaseModel], tree: Any) -> SettingError:
    """One of pydantic's complaints about nested settings, as the setting at fault and what would work."""
    if isinstance(raised := error.get("ctx", {}).get("error"), SettingError):
        return raised
    section: type[BaseModel] | None = model
    dotted, value = [], tree
    for part in error["loc"]:
        if section is None:
            break
        field = section.model_fields[part]
        dotted.append(part)
        value, section = value.get(part), section_of(field)
    setting = ".".join(dotted)
    if error["type"] == "missing":
        return SettingError(setting, None, "it is missing", "Give one.")
    if section is not None:
        return _no_section(setting, value, section)
    return wrong_value(setting, value, TypeAdapter(_annotation(field)).json_schema(), _default(field))


def _no_section(setting: str, value: object, section: type[BaseModel]) -> SettingError:
    some = ", ".join(list(section.model_fields)[:3])
    problem = f"it must be a section with settings of its own ({some} ...)"
    return SettingError(setting, value, problem, "Leave it out, or give some.")


def _annotation(field: FieldInfo) -> Any:
    return Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation


def _default(field: FieldInfo) -> Any:
    return ... if field.is_required() else field.default
