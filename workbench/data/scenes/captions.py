"""Five captions for a scene: name, attributes, relation, inverse relation, list."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workbench.data.scenes.catalogue import Concept, article
from workbench.data.scenes.layout import Scene, inverse, place_in_picture, related_pairs

_FORMS = 4  # ways to phrase a relation
_SINGLE_FORMS = ("{}", "a picture of {}", "a drawing of {}")
_NAME_FORMS = ("{}", "a picture of {}", "{} together", "a scene with {}")
_NUMBERS = {1: "one thing", 2: "two things", 3: "three things"}
_DIRECTIONS = {
    "left": ("to the left of", "left of"),
    "right": ("to the right of", "right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}


@dataclass(frozen=True)
class Captions:
    """The five captions in their fixed order; `swapped` is the relation with its objects exchanged: false."""

    texts: tuple[str, str, str, str, str]
    swapped: str | None


def write_captions(scene: Scene, rng: np.random.Generator, name_background: bool) -> Captions:
    """Write the captions of a scene in randomly chosen words.

    Two scenes may show the same single object. With `name_background` every caption of such a scene therefore
    names the background too. Evaluation splits need that; training captions do it half of the time.
    """
    names = [thing.concept.phrase for thing in scene.objects]
    sized = [thing.concept.describe(thing.size) for thing in scene.objects]
    backdrop = f"{article(scene.background)} {scene.background} background"
    everything = _join(names)
    listed = (
        f"{_NUMBERS[len(names)]} on {backdrop}: {everything}",
        f"nothing but {everything} on {backdrop}",
        f"{scene.background} background, {', '.join(names)}",
        f"only {everything}, on {scene.background}",
    )
    attributes = (
        f"{_join(sized)} on {backdrop}",
        f"{backdrop} with {_join(sized)}",
        f"on {backdrop}, {_join(sized)}",
        f"a picture of {_join(sized)} on {scene.background}",
    )
    swapped = None
    if len(names) == 1:
        exact = name_background or rng.random() < 0.5
        ending = f" on {scene.background}" if exact else ""
        name = _pick(rng, [form.format(names[0]) + ending for form in _SINGLE_FORMS])
        picture = f"{article(scene.background)} {scene.background} picture" if exact else "the picture"
        thing = scene.objects[0]
        direct, turned = _places(thing.concept, place_in_picture(thing.box) or "", picture)
        relation_text, inverse_text = _pick(rng, direct), _pick(rng, turned)
    else:
        name = _pick(rng, [form.format(everything) for form in _NAME_FORMS])
        pairs = related_pairs([thing.box for thing in scene.objects])
        first, second, direction = pairs[int(rng.integers(len(pairs)))]
        if rng.random() < 0.5:
            first, second, direction = second, first, inverse(direction)
        a, b = scene.objects[first].concept, scene.objects[second].concept
        form = int(rng.integers(_FORMS))
        words, turned_words = (_pick(rng, _DIRECTIONS[way]) for way in (direction, inverse(direction)))
        relation_text = _relate(a, b, words, form)
        inverse_text = _relate(b, a, turned_words, int(rng.integers(_FORMS)))
        if len(names) == 2:
            swapped = _relate(b, a, words, form)
    texts = (name, _pick(rng, attributes), relation_text, inverse_text, _pick(rng, listed))
    return Captions(texts, swapped)


def _relate(a: Concept, b: Concept, words: str, form: int) -> str:
    """Phrase the position of `a` relative to `b`, in one of `_FORMS` ways."""
    return (
        f"{a.phrase} {words} {b.phrase}",
        f"{a.phrase} {_is(a)} {words} {b.phrase}",
        f"{words} {b.phrase} {_is(a)} {a.phrase}",
        f"a picture of {a.phrase} {words} {b.phrase}",
    )[form]


def _places(concept: Concept, place: str, picture: str) -> tuple[Sequence[str], Sequence[str]]:
    """The position of the only object, with the object or the position as the subject."""
    if " " in place:
        preposition, part = "in", f"the {place} corner of {picture}"
    elif place in ("left", "right"):
        preposition, part = "on", f"the {place} side of {picture}"
    else:
        preposition, part = "in" if place == "middle" else "at", f"the {place} of {picture}"
    where, verb = f"{preposition} {part}", _is(concept)
    return (
        (f"{concept.phrase} {where}", f"{concept.phrase} {verb} {where}"),
        (f"{where} {verb} {concept.phrase}", f"{part} shows {concept.phrase}"),
    )


def _is(concept: Concept) -> str:
    return "are" if concept.plural else "is"


def _join(phrases: Sequence[str]) -> str:
    """One phrase, "a and b", or "a, b and c"."""
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]
