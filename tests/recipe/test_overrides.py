"""Text that stands for settings, and the words for those that cannot be used."""

import re
from pathlib import Path
from typing import Any, Literal, Optional

import numpy as np
import pytest

from workbench.errors import SettingError
from workbench.recipe import Recipe
from workbench.recipe.overrides import assignments, nearest, suggestion, typed


@pytest.mark.parametrize(
    ("annotation", "given", "plain"),
    [
        (float, "1e-4", 1e-4),
        (float, 1, 1),
        (float, np.float32(0.5), 0.5),
        (int, np.int64(3), 3),
        (int, "12", 12),
        (bool, "false", False),
        (str, "12", "12"),
        (str, "a #b", "a #b"),
        (str, "*.tar", "*.tar"),
        (str, "[x", "[x"),
        (str, "null", "null"),
        (str | None, "null", None),
        (str | None, Path("/a/b"), "/a/b"),
        (Optional[int], "null", None),  # noqa: UP045 (notebooks of others write it so)
        (list[float], "[1, 2e-1]", [1, 0.2]),
        (dict[str, float], "{visual.trunk: 0.1}", {"visual.trunk": 0.1}),
        (Literal["all"] | int, "all", "all"),
        (Any, "[1]", [1]),
    ],
)
def test_text_is_read_as_the_type_wants(annotation: Any, given: object, plain: object) -> None:
    value = typed(annotation, given, "name")
    assert value == plain
    assert type(value) is type(plain)


@pytest.mark.parametrize(
    ("annotation", "given"),
    [
        (int, "1.5"),
        (int, 1.0),
        (int, True),
        (int, "ten"),
        (float, "fast"),
        (bool, "yes"),
        (bool, 1),
        (list[int], "[a]"),
        (str, 3),
        (int, "null"),
    ],
)
def test_no_other_conversion_takes_place(annotation: Any, given: object) -> None:
    with pytest.raises(SettingError, match=r"^name = .*it must be") as caught:
        typed(annotation, given, "name")
    assert caught.value.setting == "name"


def test_the_message_tells_what_would_work() -> None:
    with pytest.raises(SettingError) as caught:
        typed(Literal["a", "b"] | int | None, "c", "name", None)
    assert (
        str(caught.value) == "name = 'c': it must be a or b, or a whole number, or null. The default is null."
    )


def test_assignments() -> None:
    assert assignments(["a.b=c=d", "x=", "a.b=2"]) == {"a.b": "2", "x": ""}
    for text in ("a", "=3"):
        with pytest.raises(SettingError, match="-p"):
            assignments([text], "-p")


def test_nearest_names() -> None:
    known = ["training.lr", "training.batch", "data.source", "seed"]
    assert nearest("training.learning_rate", known)[0] == "training.lr"
    assert nearest("batch", known)[0] == "training.batch"
    assert nearest("data.sorce", known) == ["data.source"]
    assert nearest("zzzz", known) == []
    assert suggestion("zzzz", ["b", "a"]) == "There are: a, b."


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"training": 3, "training.lr": 0.1}, "training = 3: it must be a section"),
        ({"student": {"model": "a"}, "student.model.b": 1}, "student.model.b"),
        (
            {"training.lr_multipliers": 3, "training.lr_multipliers.a": 1.0},
            "training.lr_multipliers = 3: it must",
        ),
    ],
)
def test_settings_below_what_is_no_section(settings: dict[str, object], words: str) -> None:
    with pytest.raises(SettingError, match=re.escape(words)):
        Recipe.from_settings({"name": "x", "student.model": "demo_student", **settings})
