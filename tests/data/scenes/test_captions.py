"""Captions in all their forms, read by hand once and kept here."""

import numpy as np

from workbench.data.scenes.captions import write_captions
from workbench.data.scenes.catalogue import Concept
from workbench.data.scenes.layout import Placed, Scene

OWL = Concept("owl", "bird", "1F989", False, False, ("twemoji",))
GRAPES = Concept("grapes", "fruit", "1F347", True, False, ("twemoji",))
CAT = Concept("cat", "mammal", "1F408", False, False, ("twemoji",))

LEFT, RIGHT, FAR_RIGHT = (0.05, 0.4, 0.3, 0.6), (0.6, 0.4, 0.9, 0.6), (0.7, 0.05, 0.95, 0.3)


def forms(*objects: Placed, name_background: bool = True) -> list[set[str | None]]:
    """All that is ever said in each of the five places, and of the swapped caption."""
    said: list[set[str | None]] = [set() for _ in range(6)]
    for seed in range(400):
        written = write_captions(Scene(objects, "red"), np.random.default_rng(seed), name_background)
        for result, text in zip(said, (*written.texts, written.swapped), strict=True):
            result.add(text)
    return said


def test_one_object():
    name, attributes, place, inverse, listed, swapped = forms(
        Placed(OWL, "twemoji", "large", False, FAR_RIGHT)
    )
    assert name == {"an owl on red", "a picture of an owl on red", "a drawing of an owl on red"}
    assert attributes == {
        "a large owl on a red background",
        "a red background with a large owl",
        "on a red background, a large owl",
        "a picture of a large owl on red",
    }
    assert place == {
        "an owl in the top right corner of a red picture",
        "an owl is in the top right corner of a red picture",
    }
    assert inverse == {
        "in the top right corner of a red picture is an owl",
        "the top right corner of a red picture shows an owl",
    }
    assert listed == {
        "one thing on a red background: an owl",
        "nothing but an owl on a red background",
        "red background, an owl",
        "only an owl, on red",
    }
    assert swapped == {None}


def test_training_names_one_object_with_and_without_background():
    name, _, place, *_ = forms(Placed(GRAPES, "twemoji", "small", False, LEFT), name_background=False)
    assert {"grapes", "grapes on red"} <= name
    assert {"grapes are on the left side of the picture", "grapes on the left side of a red picture"} <= place


def test_two_objects():
    name, attributes, direct, inverse, listed, swapped = forms(
        Placed(GRAPES, "twemoji", "small", False, LEFT), Placed(OWL, "openmoji", "large", True, RIGHT)
    )
    assert "grapes and an owl together" in name
    assert "small grapes and a large owl on a red background" in attributes
    true = {
        *(
            "grapes to the left of an owl",
            "grapes are to the left of an owl",
            "to the left of an owl are grapes",
        ),
        *("an owl right of grapes", "an owl is right of grapes", "right of grapes is an owl"),
        *("a picture of grapes left of an owl", "a picture of an owl to the right of grapes"),
    }
    assert true <= direct and true <= inverse
    assert not (direct | inverse) & swapped
    assert {"an owl is to the left of grapes", "right of an owl are grapes"} <= swapped
    assert "two things on a red background: grapes and an owl" in listed


def test_the_swapped_caption_is_the_relation_with_the_names_exchanged():
    scene = Scene(
        (Placed(CAT, "twemoji", "small", False, LEFT), Placed(OWL, "twemoji", "small", False, RIGHT)), "red"
    )
    for seed in range(50):
        written = write_captions(scene, np.random.default_rng(seed), True)
        exchanged = written.texts[2].replace("a cat", "X").replace("an owl", "a cat").replace("X", "an owl")
        assert written.swapped == exchanged


def test_three_objects_relate_only_pairs_that_are_clear():
    _, _, direct, inverse, listed, swapped = forms(
        Placed(GRAPES, "twemoji", "small", False, LEFT),
        Placed(OWL, "twemoji", "large", False, (0.6, 0.5, 0.9, 0.7)),
        Placed(CAT, "twemoji", "small", False, FAR_RIGHT),
    )
    # The cat is up and to the right of the grapes, nearly on the diagonal, but clearly above the owl.
    assert "a cat above an owl" in direct and "grapes left of an owl" in direct
    assert "red background, grapes, an owl, a cat" in listed
    assert swapped == {None}
    assert all("picture of" in text or text for text in inverse)
