"""Reads and writes YAML of plain values, with the scalars of YAML 1.2 and limits on size and depth."""

import os
import re
from collections.abc import Hashable, Iterable, Mapping
from numbers import Integral, Real
from typing import Any, ClassVar

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError
from yaml.events import AliasEvent

MOST_CHARACTERS = 1 << 20  # of a text
MOST_NODES = 20_000  # values and keys, including those repeated by aliases
DEEPEST = 64  # levels of nested lists and mappings
_TAG = "tag:yaml.org,2002:"
_NUMBER = r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
_FLOAT = re.compile(rf"^({_NUMBER}|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$")


class _Loader(yaml.SafeLoader):
    """Reads `1e-4` as a number and `no` and `12:30` as text, and refuses repeated keys and excessive size."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._nodes = self._depth = 0
        self._sizes: dict[str, int] = {}  # by anchor, in nodes

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()
        if isinstance(event, AliasEvent):
            anchor: Any = event.anchor
            if anchor in self.anchors and anchor not in self._sizes:
                raise yaml.YAMLError(f"*{anchor} holds itself")
            self._nodes += self._sizes.get(anchor, 0)
        self._nodes, self._depth, before = self._nodes + 1, self._depth + 1, self._nodes
        if self._nodes > MOST_NODES or self._depth > DEEPEST:
            problem = f"more than {MOST_NODES:,} values" if self._depth <= DEEPEST else "nested too deeply"
            raise ComposerError(None, None, problem, event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if not isinstance(event, AliasEvent) and event.anchor is not None:
            self._sizes[event.anchor] = self._nodes - before
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = set()
        for named, _ in node.value:
            key = self.construct_object(named, deep=True)
            if isinstance(key, Hashable):
                if key in keys:
                    problem = f"the key {key!r} is given twice"
                    raise ConstructorError(None, None, problem, named.start_mark)
                keys.add(key)
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """Quotes text that either version of YAML would read as another type. Flat lists stay on one line."""

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
    """Read the plain value in YAML text. Raises yaml.YAMLError, also for excessive size or depth."""
    if len(text) > MOST_CHARACTERS:
        raise yaml.YAMLError(f"it has {len(text):,} characters, and at most {MOST_CHARACTERS:,} are read")
    try:
        return yaml.load(text, _Loader)  # a SafeLoader, which creates only plain values
    except (ValueError, RecursionError) as error:  # Python refuses numbers of thousands of digits
        raise yaml.YAMLError(str(error)) from None


def write_yaml(value: object) -> str:
    """Write a value as YAML that `read_yaml` reads back unchanged, with keys in their order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def in_yaml(value: object) -> str:
    """A value as one line of YAML, as it is written on the command line."""
    text = yaml.dump(plain(value), Dumper=_Dumper, default_flow_style=True, allow_unicode=True, width=10_000)
    return text.removesuffix("\n...\n").strip()


def plain(value: object) -> Any:
    """Convert paths, tuples and NumPy numbers, which notebooks pass, to the types of YAML."""
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
