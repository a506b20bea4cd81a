"""YAML as everybody means it."""

import math

import pytest
import yaml

from workbench.recipe.yaml_io import in_yaml, read_yaml, write_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1.5E+3", 1500.0),
        (".5", 0.5),
        ("-3", -3),
        ("007", "007"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2024-01-31", "2024-01-31"),
        ("no", "no"),
        ("true", True),
        ("~", None),
        ("", None),
        ("[0.9, 1.0]", [0.9, 1.0]),
        ("-.inf", -math.inf),
        ("e5", "e5"),
    ],
)
def test_yaml_means_what_it_says(text: str, value: object) -> None:
    read = read_yaml(text)
    assert read == value
    assert type(read) is type(value)


def test_yaml_makes_plain_values_only_and_refuses_keys_given_twice() -> None:
    with pytest.raises(yaml.YAMLError):
        read_yaml("!!python/object/apply:os.system ['true']")
    with pytest.raises(yaml.YAMLError, match="given twice"):
        read_yaml("a: 1\nb: 2\na: 3\n")


BILLION = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 30))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BILLION, "more than 20,000 values"),
        ("a: &a [*a]", "holds itself"),
        ("[" * 20_000, "nested too deeply"),
        ("[" * 20_000 + "]" * 20_000, "nested too deeply"),
        ("{a: " * 20_000, "nested too deeply"),
        ("a: " + "9" * 5_000, "digits"),
        ("a: x" + "x" * (1 << 20), "at most 1,048,576 are read"),
    ],
)
def test_bombs_are_refused_at_once(text: str, words: str) -> None:
    with pytest.raises(yaml.YAMLError, match=words):
        read_yaml(text)


@pytest.mark.parametrize(
    "value",
    ["1e-4", "no", "null", "", "a #b", "x: y", "007", 1e-5, 3, None, [1, "a"], {"a": [1.0]}, True, "été"],
)
def test_what_is_written_is_read_again(value: object) -> None:
    assert read_yaml(write_yaml({"key": value})) == {"key": value}
    assert read_yaml(in_yaml([value])) == [value]
