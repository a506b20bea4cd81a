"""What the values of settings may be whatever the setting: text that files can hold, numbers of 64 bits."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from workbench.errors import SettingError


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every plain value in nested settings, with the dotted name of its setting; keys are values too."""
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
    """Raise SettingError for text that is no Unicode, and for a whole number that no setting has."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            problem = "it holds half of a character (a lone surrogate), which cannot be written to a file"
            raise SettingError(setting, value, problem, "Give text that is Unicode.") from None
    elif isinstance(value, int) and abs(value) >= 2**63:
        digits = len(f"{abs(value):x}") * 6 // 5
        shown = f"a number of about {digits} digits"
        raise SettingError(setting, shown, "it is too large", "Numbers go up to 2^63 - 1.")


def tidy(name: str) -> str:
    """The nearest name that a file may have."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.")[:60] or "my-recipe"
