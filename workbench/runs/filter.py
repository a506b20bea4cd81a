"""Filters a table of runs by words, settings and scores."""

import operator
import re
from collections.abc import Iterable
from typing import Any

import yaml

from workbench.recipe.yaml_io import read_yaml
from workbench.runs.table import RunRow

CONDITION = re.compile(r"(?P<name>[^<>=]+)(?P<sign>[<>]=?|=)(?P<value>.*)")
COMPARISONS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def matching(rows: Iterable[RunRow], text: str) -> list[RunRow]:
    """The rows that match every word of `text`: a part of the name, folder or state, or `setting=value`.

    A setting may be given by its last parts (`lr=0.001`). Without a value it only has to exist. Numbers are
    compared with <, <=, > and >= too, and so are the columns `step` and `seed` and the scores
    (`text_to_image_r1>0.3`).
    """
    words = _words(text)
    return [row for row in rows if all(_matches(row, word) for word in words)]


def unknown_settings(rows: Iterable[RunRow], text: str) -> list[str]:
    """The settings, columns and scores in a filter that no run has."""
    known = dict.fromkeys(name for row in rows for name in row.comparable)
    names = [parts["name"] for word in _words(text) if (parts := CONDITION.fullmatch(word))]
    return [name for name in names if not any(_is_called(setting, name) for setting in known)]


def _words(text: str) -> list[str]:
    return re.sub(r"\s*([<>]=?|=)\s*", r"\1", text).split()


def _matches(row: RunRow, word: str) -> bool:
    if condition := CONDITION.fullmatch(word):
        name, sign, text = condition["name"], condition["sign"], condition["value"]
        values = [value for setting, value in row.comparable.items() if _is_called(setting, name)]
        return any(not text or _is_true(value, sign, text) for value in values)
    return word.casefold() in f"{row.name} {row.folder} {row.state}".casefold()


def _is_called(setting: str, name: str) -> bool:
    return f".{setting}".endswith(f".{name}")


def _is_true(value: Any, sign: str, text: str) -> bool:
    if sign == "=":
        return _is_same(value, text)
    try:
        return bool(COMPARISONS[sign](value, float(text)))
    except (TypeError, ValueError):
        return False  # not a number


def _is_same(value: Any, text: str) -> bool:
    try:
        return bool(str(value) == text or value == read_yaml(text))
    except (yaml.YAMLError, ValueError):
        return False
