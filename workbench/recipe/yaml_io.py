"""YAML for plain values, read as YAML 1.2 and everybody means it, and written so that it is read again."""

import os
import re
from collections.abc import Hashable, Iterable, Mapping
from numbers import Integral, Real
from typing import Any, ClassVar

import yaml
from yaml.constructor import ConstructorError

_TAG = "tag:yaml.org,2002:"
_NUMBER = r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
_FLOAT = re.compile(rf"^({_NUMBER}|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$")


class _Loader(yaml.SafeLoader):
    """`1e-4` is a number, `no` a word, `12:30` too; and no key is given twice."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for number, key in enumerate(keys):
            if isinstance(key, Hashable) and key in keys[:number]:
                place = node.value[number][0].start_mark
                raise ConstructorError(None, None, f"the key {key!r} is given twice", place)
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """Quotes what either version of YAML would not read as text; lists of plain values stay on one line."""

    def represent_list(self, values: Iterable[Any]) -> Any:
        values = list(values)
        flat = not any(isinstance(value, dict | list) for value in values)
        return self.represent_sequence(_TAG + "seq", values, flow_style=flat)


_Loader.add_implicit_resolver(_TAG + "bool", re.compile("^(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(_TAG + "int", re.compile("^[-+]?(0|[1-9][0-9]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(_TAG + "float", _FLOAT, list("-+.0123456789"))
_Loader.add_implicit_resolver(_TAG + "null", re.compile("^(~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Dumper.add_implicit_resolver(_TAG + "float", _FLOAT, list("-+.0123456789"))
_Dumper.add_representer(list, _Dumper.represent_list)


def read_yaml(text: str) -> Any:
    """The plain value in YAML text; raises yaml.YAMLError."""
    return yaml.load(text, _Loader)  # a SafeLoader, so nothing but plain values can come of it


def write_yaml(value: object) -> str:
    """YAML text that `read_yaml` turns back into the same value, keys in the order given."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def in_yaml(value: object) -> str:
    """A value in one line, as one would write it on the command line."""
    text = yaml.dump(plain(value), Dumper=_Dumper, default_flow_style=True, allow_unicode=True, width=10_000)
    return text.removesuffix("\n...\n").strip()


def plain(value: object) -> Any:
    """`value` in YAML's own kinds: notebooks pass paths, tuples and NumPy numbers."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value
