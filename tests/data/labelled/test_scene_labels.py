from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from workbench.data.labelled.scene_labels import has_scenes, scene_labels
from workbench.data.load import load_pairs
from workbench.data.pairs import Pairs
from workbench.data.scenes.catalogue import concepts


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    return load_pairs("scenes", "test_concepts").select(np.arange(60))


def test_attributes_are_what_the_scene_shows(pairs: Pairs) -> None:
    labelled = scene_labels(pairs)
    rows = [row for row in pairs.table.to_pylist() if len(row["objects"]) == 1]
    attributes = labelled.attributes
    assert len(rows) == len(labelled) > 10 and attributes.of_class is None
    assert list(dict.fromkeys(attributes.groups)) == ["category", "size", "background"]
    for row, has in zip(rows, attributes.of_image, strict=True):
        shown = {(attributes.groups[number], attributes.names[number]) for number in np.flatnonzero(has == 1)}
        assert shown == {
            ("category", row["categories"][0]),
            ("size", row["sizes"][0]),
            ("background", row["background"]),
        }
    assert set(np.unique(attributes.of_image)) == {0, 1}


def test_sentences_say_attributes_in_the_words_of_captions(pairs: Pairs) -> None:
    result = scene_labels(pairs).attributes
    few = replace(result, names=["aircraft", "large", "red"], groups=["category", "size", "background"])
    assert few.sentence([0, 1, 2]) == "a picture of a large aircraft on a red background"
    assert few.sentence([0]) == "a picture of an aircraft"
    assert few.sentence([1]) == "a picture of a large thing"
    assert few.sentence([2]) == "a picture of a thing on a red background"
    assert few.sentence([]) == "a picture of a thing"


def test_classes_shown_or_every_one_and_which_are_unseen(pairs: Pairs) -> None:
    shown, every = scene_labels(pairs), scene_labels(pairs, every=True)
    assert shown.unseen.all() and len(shown.class_names) == len(
        {name for names in pairs.table["objects"].to_pylist() for name in names}
    )
    held_out = sorted(concept.phrase for concept in concepts() if concept.held_out)
    assert len(every.class_names) == len(concepts())
    assert sorted(every.class_names[label] for label in np.flatnonzero(every.unseen)) == held_out
    assert [every.class_names[label] for label in every.labels] == [
        shown.class_names[label] for label in shown.labels
    ]
    categories = scene_labels(pairs, "categories", every=True)
    assert categories.unseen is None and len(categories.class_names) == 33
    assert categories.pairs.ids == shown.pairs.ids


def test_other_pairs_have_no_scenes(pairs: Pairs) -> None:
    assert has_scenes(pairs)
    table = pa.table({"id": ["a"], "captions": [["a dog"]]})
    assert not has_scenes(Pairs(table, lambda row: None, name="plain", split="all"))
    assert len(scene_labels(pairs.select([]))) == 0
