"""The vocabulary of the embedded dataset: complete, without repetitions, and said in correct English."""

import re

import pytest

from workbench.data.scenes.artwork import scene_sprite
from workbench.data.scenes.catalogue import CATEGORIES, STYLES, article, concepts
from workbench.data.scenes.layout import SIZES


def test_names_and_codepoints_occur_once():
    every = concepts()
    assert 600 <= len(every) <= 720
    assert len({concept.name.lower() for concept in every}) == len(every)
    assert len({concept.codepoint for concept in every}) == len(every)
    assert {concept.category for concept in every} == set(CATEGORIES)


def test_names_are_plain_words():
    for concept in concepts():
        assert re.fullmatch(r"[A-Za-zñ'-]+( [A-Za-z-]+)*", concept.name), concept.name
        # "a small large drum" would contradict itself.
        assert not set(concept.name.split()) & {
            *SIZES,
            "tall",
            "tiny",
            "big",
            "left",
            "right",
            "above",
            "below",
        }


@pytest.mark.parametrize(
    ("name", "phrase", "small"),
    [
        ("cat", "a cat", "a small cat"),
        ("owl", "an owl", "a small owl"),
        ("unicorn", "a unicorn", "a small unicorn"),
        ("hourglass", "an hourglass", "a small hourglass"),
        ("X-ray image", "an X-ray image", "a small X-ray image"),
        ("one-piece swimsuit", "a one-piece swimsuit", "a small one-piece swimsuit"),
        ("euro banknote", "a euro banknote", "a small euro banknote"),
        ("underground train", "an underground train", "a small underground train"),
        ("grapes", "grapes", "small grapes"),
        ("skis", "skis", "small skis"),
        ("pair of scissors", "a pair of scissors", "a small pair of scissors"),
        ("loaf of bread", "a loaf of bread", "a small loaf of bread"),
    ],
)
def test_phrases(name, phrase, small):
    (concept,) = [concept for concept in concepts() if concept.name == name]
    assert (concept.phrase, concept.describe("small")) == (phrase, small)


def test_articles_agree_with_the_first_letter_but_for_the_named_exceptions():
    exceptions = {
        name
        for concept in concepts()
        if article(name := concept.name) != ("an" if name[0].lower() in "aeiou" else "a")
    }
    assert exceptions == {"unicorn", "euro banknote", "one-piece swimsuit", "hourglass", "X-ray image"}


def test_names_that_look_plural_are_marked_or_singular():
    singular = (
        "bus",
        "lotus",
        "cactus",
        "hibiscus",
        "octopus",
        "tyrannosaurus",
        "hippopotamus",
        "rhinoceros",
    )
    singular += ("abacus", "compass", "dress", "glass")
    for concept in concepts():
        head = re.split(r" (?:of|in|on|with|behind|at) ", concept.name)[0].split()[-1]
        looks_plural = head.endswith("s") and not head.endswith(singular)
        assert concept.plural == looks_plural, concept.name


def test_held_out_names_are_spread_over_the_categories():
    every = concepts()
    assert 0.13 <= sum(concept.held_out for concept in every) / len(every) <= 0.17
    for category in CATEGORIES:
        members = [concept for concept in every if concept.category == category]
        held_out = sum(concept.held_out for concept in members)
        assert 1 <= held_out <= len(members) / 4, category


def test_half_of_the_known_concepts_are_trained_on_in_both_artworks():
    known = [concept for concept in concepts() if not concept.held_out]
    both = sum(concept.trained_styles == STYLES for concept in known)
    assert abs(both / len(known) - 0.5) < 0.03
    assert {concept.trained_styles for concept in known} == {STYLES, ("twemoji",)}
    assert all(concept.trained_styles == () for concept in concepts() if concept.held_out)


@pytest.mark.parametrize("style", STYLES)
def test_every_concept_has_a_drawing(style):
    for concept in concepts():
        sprite = scene_sprite(concept, style, 24)
        assert sprite.mode == "RGBA" and max(sprite.size) == 24, concept.name
        assert sprite.getchannel("A").getextrema()[1] > 200, concept.name
