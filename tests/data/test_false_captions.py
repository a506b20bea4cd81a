"""False captions: exchanges only where they make a caption false, by rules, on scenes and on real
sentences."""

import re

import pyarrow as pa
import pytest

from workbench.data.false_captions import FalseCaptions, HardNegatives, false_caption, false_captions
from workbench.data.load import load_pairs
from workbench.data.pairs import Pairs


@pytest.mark.parametrize(
    ("caption", "expected", "kind"),
    [
        ("a cat left of a dog", "a dog left of a cat", "objects"),
        ("to the right of a cat is a dog", "to the right of a dog is a cat", "objects"),
        ("A man riding a wave on top of a surfboard", "A wave riding a man on top of a surfboard", "objects"),
        (
            "two dogs on a red couch and a blue chair",
            "two dogs on a blue couch and a red chair",
            "attributes",
        ),
        ("a small owl and a large dog", "a large owl and a small dog", "attributes"),
        ("an old car and a new bus", "a new car and an old bus", "attributes"),
        ("A CAT LEFT OF A DOG", "A DOG LEFT OF A CAT", "objects"),
        ("A red cat and an Orange dog", "An orange cat and a Red dog", "attributes"),
    ],
)
def test_exchanges(caption: str, expected: str, kind: str) -> None:
    result = false_caption(caption)
    assert result is not None and (result.text, result.kind) == (expected, kind)
    assert result.exchanged is None  # without boxes nobody knows what an exchange makes true


@pytest.mark.parametrize(
    "caption",
    [
        "a cat and a dog",
        "a cat next to a dog",
        "a dog with a ball",
        "two birds",
        "",
        "on a green background, a cat and a dog",
    ],
)
def test_what_stays_true_is_not_exchanged(caption: str) -> None:
    result = false_caption(caption)
    assert result is None or result.kind == "word"


def test_a_word_is_replaced_by_one_that_is_not_shown() -> None:
    result = false_caption("a cat and a dog", others=["owl"])
    assert result is not None and result.kind == "word" and "owl" in result.text
    assert result.text in ("an owl and a dog", "a cat and an owl")  # with its article
    assert false_caption("a cat and a dog") is None


@pytest.mark.parametrize("caption", ["a cat left of a cat", "to the right of a cat is a cat"])
def test_two_alike_are_either_way_round(caption: str) -> None:
    assert false_caption(caption) is None


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("Red is it", "^(Orange|Yellow|Green|Blue|Purple|Pink|Brown|Black|White|Gr[ea]y) is it"),
        ("A CAT", "AN OWL"),
        ("A Shinto gate", "An owl"),
        ("a cat left of a cat", "owl left of a cat|a cat left of an owl"),
        ("Left of it", "Right of it"),
    ],
)
def test_a_replaced_word_keeps_its_letter_case(caption: str, expected: str) -> None:
    result = false_caption(caption, others=["owl"])
    assert result is not None and result.kind == "word" and re.search(expected, result.text), result


def test_known_things_say_what_an_exchange_makes_true() -> None:
    relation = false_caption("a hot dog is above a bell", ["bell", "hot dog"])
    assert relation is not None and relation.exchanged == ("hot dog", "bell")
    size = false_caption("a small bell and a large hot dog", ["bell", "hot dog"])
    assert size is not None and size.exchanged == ("bell", "hot dog")
    colour = false_caption("a red bell and a blue hot dog", ["bell", "hot dog"])
    assert colour is not None and colour.kind == "attributes" and colour.exchanged is None


def test_scenes_are_exchanged_as_they_say() -> None:
    pairs = load_pairs("scenes", "val")
    made, swapped = false_captions(pairs), pairs.table["swapped_caption"].to_pylist()
    agreeing = [made[5 * row + 2].text == text for row, text in enumerate(swapped) if text]
    assert sum(agreeing) > 0.95 * len(agreeing)
    truth = pairs.all_captions
    for at, one in enumerate(made):
        if one is not None:
            assert one.text != truth[at]
            shown = pairs.details(at // 5)["objects"]
            assert one.exchanged is None or set(one.exchanged) <= set(shown)
    assert made == false_captions(pairs)
    of_words = [at // 5 for at, one in enumerate(made) if one is not None and one.kind == "word"]
    assert len(of_words) == len(set(of_words))  # one a picture


def test_pairs_without_names_are_exchanged_by_rules() -> None:
    scenes = load_pairs("scenes", "val").select(range(40))
    bare = Pairs(scenes.table.select(["id", "captions"]), scenes.image, name="bare", split="val")
    kinds = {one.kind for one in false_captions(bare) if one is not None}
    assert kinds == {"objects", "attributes", "word"}


def test_hard_negatives_are_a_share_of_the_pictures_with_a_telling_caption() -> None:
    pairs = load_pairs("scenes", "train", scenes=40)
    false = FalseCaptions(pairs)
    brought = {}
    for share in (0.0, 0.5, 1.0):
        hard = HardNegatives(false, share, seed=3)
        brought[share] = 0
        for row, first in enumerate(pairs.first_caption[:-1]):
            position, number = hard(row, 2, int(first))
            assert (position, number) == hard(row, 2, int(first))  # of seed, epoch and row alone
            assert pairs.image_of_caption[position] == row
            if number < 0:
                assert position == first
                continue
            brought[share] += 1
            assert false.caption[number] == position
            assert false.captions[number].text != pairs.all_captions[position]
            own = false.of_caption[first : pairs.first_caption[row + 1]]
            exchanges = [false.captions[at].exchanged for at in own if at >= 0]
            assert bool(false.captions[number].exchanged) == any(exchanges)  # relations before other words
    assert brought[0.0] == 0 and 0 < brought[0.5] < brought[1.0] <= 40
    assert HardNegatives(false, 1.0, seed=3)(0, 2, -1)[1] >= 0


def test_pictures_without_captions_bring_none() -> None:
    table = pa.table({"id": ["a"], "captions": pa.array([[]], pa.list_(pa.string()))})
    pairs = Pairs(table, lambda row: None, name="bare", split="train", captions_needed=False)
    assert HardNegatives(FalseCaptions(pairs), 1.0, seed=0)(0, 0, -1) == (-1, -1)
