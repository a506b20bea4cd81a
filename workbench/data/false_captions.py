"""Makes captions that are nearly true: two things exchanged, two attributes exchanged, or one word replaced.

The rules work on English text without a tagger. Relations and attributes are word lists. Things are the names
that the data provide, otherwise the words between an article and the next function word.
"""

import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from workbench.data.pairs import Pairs
from workbench.data.scenes.catalogue import article

ARTICLES = ("a", "an", "the")
OPPOSITES = {"left": "right", "above": "below", "over": "under", "top": "bottom", "small": "large"}
OPPOSITES |= {second: first for first, second in OPPOSITES.items()}
PLACES = {"left", "right", "above", "below", "over", "under"}  # become true again if the things change places
# Relations that are not symmetric; "near", "with" and "beside" are.
RELATIONS = PLACES | {"on", "in", "into", "onto", "inside", "behind", "atop", "through", "beneath"}
SIZES = ("small", "large", "big", "tiny", "huge", "little")
ATTRIBUTES = (
    SIZES,
    ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "grey", "gray"),
    ("wooden", "metal", "plastic", "glass", "stone", "brick"),
    ("old", "young", "new"),
    ("tall", "short", "long"),
    ("round", "square"),
    ("open", "closed", "empty", "full"),
)  # a word is replaced by, or exchanged with, a word of the same line
_LINE_OF = {word: line for line in ATTRIBUTES for word in line}
_STRUCTURE = {
    *RELATIONS,
    *ARTICLES,
    "and",
    "or",
    "of",
    "to",
    "with",
    "at",
    "by",
    "from",
    "for",
    "near",
    "beside",
}
_STRUCTURE |= {
    "next",
    "is",
    "are",
    "was",
    "were",
    "be",
    "it",
    "its",
    "that",
    "which",
    "who",
    "while",
    "as",
    "up",
}
_STRUCTURE |= {"down", "off", "out", "there", "this", "these", "those", "his", "her", "their", "some"}
_WORD = re.compile(r"[^\W_][\w'’-]*|[^\w\s]")


class FalseCaption(NamedTuple):
    """A caption that is nearly true, and how it was made from the true one.

    `kind` is "objects" (exchanged), "attributes" (exchanged) or "word" (replaced). `exchanged` names two
    things: if they exchanged places and boxes in the picture, the caption would be true. None if there are no
    such things.
    """

    text: str
    kind: str
    exchanged: tuple[str, str] | None


class FalseCaptions:
    """The false captions of `pairs`: `captions` by number, their `kinds`, `caption` the position of the true
    caption of each, `of_caption` the number for each true caption, -1 where it has none."""

    def __init__(self, pairs: Pairs, seed: int = 0) -> None:
        made = false_captions(pairs, seed)
        self.first = pairs.first_caption
        self.caption = np.array([at for at, one in enumerate(made) if one is not None], dtype=np.int64)
        self.captions: list[FalseCaption] = [one for one in made if one is not None]
        self.kinds = np.array([one.kind for one in self.captions], dtype=object)
        self.of_caption = np.full(len(made), -1, dtype=np.int64)
        self.of_caption[self.caption] = np.arange(len(self.caption))

    def telling(self, row: int, position: int, rng: np.random.Generator) -> int:
        """A caption of picture `row` that has a false form, one that an exchange makes true before others;
        `position` where the picture has none."""
        numbers = self.of_caption[self.first[row] : self.first[row + 1]]
        numbers = numbers[numbers >= 0]
        telling = [number for number in numbers if self.captions[number].exchanged]
        drawn = telling or list(numbers)
        return int(self.caption[rng.choice(drawn)]) if drawn else position


class HardNegatives(NamedTuple):
    """Which pictures bring a caption that is nearly true, a function of seed, epoch and row: a `share` of
    them, as in NegCLIP (Yuksekgonul et al. 2023)."""

    false: FalseCaptions
    share: float
    seed: int

    def __call__(self, row: int, epoch: int, position: int) -> tuple[int, int]:
        """The position of the caption that the picture shows then, in place of `position`, and the number of
        its false form; -1 where it brings none."""
        rng = np.random.default_rng([self.seed, epoch, row])
        if rng.random() >= self.share:
            return position, -1
        position = self.false.telling(row, position, rng)
        return position, int(self.false.of_caption[position]) if position >= 0 else -1


class _Thing(NamedTuple):
    name: str
    start: int  # of the article, else of the name
    end: int


def false_caption(
    caption: str, names: Sequence[str] | None = None, others: Sequence[str] = (), seed: Sequence[int] = (0,)
) -> FalseCaption | None:
    """Make a caption that is nearly true of the picture of `caption`: by an exchange if possible, otherwise
    by replacing a word. Returns None if no rule applies.

    `names` are the things that the picture shows, None if unknown. `others` are the names of things that it
    does not show; a replacement is drawn from them by `seed`. NegCLIP (Yuksekgonul et al. 2023) exchanges any
    two words of one kind. Here only exchanges that make the caption false count: "a cat and a dog" stays.
    """
    things = _known(caption, names) if names is not None else _phrases(caption)
    for attempt in (_exchange_things, _exchange_attributes):
        made = attempt(caption, things)
        if made is not None and made.text.lower() != caption.lower():
            return made if names is not None else made._replace(exchanged=None)
    return _replace_word(caption, things, others, np.random.default_rng(list(seed)))


def false_captions(pairs: Pairs, seed: int = 0) -> list[FalseCaption | None]:
    """The false caption of every caption of `pairs`, in order, None if no rule applies.

    At most one caption of a picture has a word replaced. Exchanges are made wherever they are possible.
    """
    known = pairs.table["objects"].to_pylist() if "objects" in pairs.table.column_names else None
    if known is not None:
        vocabulary = sorted({name for names in known for name in names})
    else:
        vocabulary = sorted({thing.name for caption in pairs.all_captions for thing in _phrases(caption)})
    rows, made = pairs.image_of_caption, []
    said = [" ".join(captions).lower() for captions in pairs.table["captions"].to_pylist()]
    for number, caption in enumerate(pairs.all_captions):
        row = int(rows[number])
        drawn = np.random.default_rng([seed, number]).permutation(len(vocabulary))[:8]
        others = [vocabulary[at] for at in drawn if vocabulary[at].lower() not in said[row]]
        names = known[row] if known is not None else None
        made.append(false_caption(caption, names, others, (seed, number)))
    replaced = [number for number, one in enumerate(made) if one is not None and one.kind == "word"]
    order = np.random.default_rng(seed).permutation(len(replaced))
    kept = {int(rows[replaced[at]]): replaced[at] for at in order}  # one caption a picture
    return [
        one if one is None or one.kind != "word" or kept[int(rows[number])] == number else None
        for number, one in enumerate(made)
    ]


def _exchange_things(caption: str, things: list[_Thing]) -> FalseCaption | None:
    for first, second in itertools.pairwise(things):
        before = _words(caption[: first.start])
        between = _words(caption[first.end : second.start])
        relates = RELATIONS & set(between) or any(word.endswith("ing") for word in between)
        if {"and", ","} & set(between):
            continue
        inverted = bool(RELATIONS & set(before)) and set(between) <= {"is", "are"} and bool(between)
        if not (relates or inverted):
            continue
        one, other = caption[first.start : first.end], caption[second.start : second.end]
        if first.start == 0 and one[0].isupper() and not caption.isupper():
            one, other = one[0].lower() + one[1:], other[0].upper() + other[1:]
        text = (
            caption[: first.start] + other + caption[first.end : second.start] + one + caption[second.end :]
        )
        relation = set(between if relates else before) & RELATIONS
        exchanged = (first.name, second.name) if relation and relation <= PLACES else None
        return FalseCaption(text, "objects", exchanged)
    return None


def _exchange_attributes(caption: str, things: list[_Thing]) -> FalseCaption | None:
    described = []
    for thing in things:
        name_at = thing.end - len(thing.name)
        for word in re.finditer(_WORD, caption[:name_at]):
            inside = word.start() >= thing.start or caption[word.end() : name_at].strip() == ""
            if inside and word[0].lower() in _LINE_OF:
                described.append((thing, word))
    for number, (first, one) in enumerate(described):
        for second, other in described[number + 1 :]:
            line = _LINE_OF[one[0].lower()]
            if first is second or other[0].lower() not in line or one[0].lower() == other[0].lower():
                continue
            text = _put(caption, other.start(), other.end(), one[0].lower())
            text = _put(text, one.start(), one.end(), other[0].lower())
            return FalseCaption(text, "attributes", (first.name, second.name) if line is SIZES else None)
    return None


def _replace_word(
    caption: str, things: list[_Thing], others: Sequence[str], rng: np.random.Generator
) -> FalseCaption | None:
    options: list[tuple[int, int, str]] = []
    if others:
        options += [(thing.end - len(thing.name), thing.end, str(rng.choice(others))) for thing in things]
    covered = [(thing.end - len(thing.name), thing.end) for thing in things]
    neighbours = itertools.pairwise(thing.name.lower() for thing in _phrases(caption))
    alike = any(one == other for one, other in neighbours)  # a cat left of a cat is right of a cat as well
    for word in re.finditer(_WORD, caption):
        plain = word[0].lower()
        if any(start <= word.start() < end for start, end in covered):
            continue
        if plain in OPPOSITES and not (alike and plain in PLACES):
            options.append((word.start(), word.end(), OPPOSITES[plain]))
        elif plain in _LINE_OF and plain not in SIZES:
            rest = [other for other in _LINE_OF[plain] if other != plain]
            options.append((word.start(), word.end(), str(rng.choice(rest))))
    if not options:
        return None
    return FalseCaption(_put(caption, *options[int(rng.integers(len(options)))]), "word", None)


def _put(caption: str, start: int, end: int, word: str) -> str:
    """Replace part of a caption by `word`, and adapt the article before it. Letter case is kept, except for
    names within a sentence: "a Shinto gate" becomes "an owl"."""
    replaced = caption[start:end]
    if start == 0 or caption.isupper() or replaced.lower() in {*OPPOSITES, *_LINE_OF}:
        word = _in_case_of(replaced, word)

    def adapted(match: re.Match[str]) -> str:
        own = article(word)
        return (own.upper() if caption.isupper() else _in_case_of(match[1], own)) + match[2]

    before = re.sub(r"\b(a|an)(\s+)$", adapted, caption[:start], flags=re.I)
    return before + word + caption[end:]


def _in_case_of(model: str, word: str) -> str:
    """`word` in capitals or with a capital, as `model` is written."""
    if model.isupper() and len(model) > 1:
        return word.upper()
    return word[0].upper() + word[1:] if model[0].isupper() else word


def _known(caption: str, names: Sequence[str]) -> list[_Thing]:
    """The known things that the caption names exactly once, in the caption's order."""
    things = []
    for name in names:
        said = list(re.finditer(rf"(?<![\w-])(?:(?:a|an|the)\s+)?{re.escape(name)}(?![\w-])", caption, re.I))
        if len(said) == 1:
            things.append(_Thing(name, said[0].start(), said[0].end()))
    return sorted(things, key=lambda thing: thing.start)


def _phrases(caption: str) -> list[_Thing]:
    """The words after each article, up to a function word, a verb of movement or a punctuation mark. The
    names leave out attributes."""
    things, words = [], list(re.finditer(_WORD, caption))
    for at, word in enumerate(words):
        if word[0].lower() not in ARTICLES:
            continue
        part: list[re.Match[str]] = []
        for following in words[at + 1 :]:
            plain = following[0].lower()
            moving = bool(part) and plain.endswith("ing")
            if plain in _STRUCTURE or not plain[0].isalnum() or moving:
                break
            part.append(following)
        own = part
        while own and own[0][0].lower() in _LINE_OF:
            own = own[1:]
        if own:
            things.append(_Thing(caption[own[0].start() : own[-1].end()], word.start(), own[-1].end()))
    return things


def _words(text: str) -> list[str]:
    return [word[0].lower() for word in re.finditer(_WORD, text)]
