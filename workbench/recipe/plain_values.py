"""Checks for the values of all settings: text that can be written to files, and integers of 64 bits."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from workbench.errors import SettingError


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """All plain values in nested settings, including keys, with the dotted names of their settings."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield key, name
            yield from leaves(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from leaves(item, key)
    else:
        yield key, value


def check_plain(setting: str, value: Any) -> None:
    """Raise SettingError for text that is not valid Unicode, and for integers of more than 64 bits."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            problem = "it contains a lone surrogate, which cannot be written to a file"
            raise SettingError(setting, value, problem, "Give valid Unicode text.") from None
    elif isinstance(value, int) and abs(value) >= 2**63:
        digits = len(f"{abs(value):x}") * 6 // 5
        size = f"a number of about {digits} digits"
        raise SettingError(setting, size, "it is too large", "Numbers go up to 2^63 - 1.")


def tidy(name: str) -> str:
    """A valid file name that is similar to `name`."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.")[:60] or "my-recipe"
