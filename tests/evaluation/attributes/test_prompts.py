import numpy as np
import pyarrow as pa
import pytest
import torch

from workbench.data.labelled.labels import Attributes, Labelled
from workbench.data.pairs import Pairs
from workbench.evaluation.attributes.prompts import described_classes, single_sentences, without_each

NAMES = ["red wing", "blue wing", "long bill", "short bill", "crest"]
GROUPS = ["wing", "wing", "bill", "bill", None]


def little(**more: np.ndarray) -> Labelled:
    table = pa.table({"id": ["x", "y", "z"], "captions": [["a"], ["b"], ["c"]]})
    pairs = Pairs(table, lambda row: torch.zeros(3, 1, 1, dtype=torch.uint8), name="little", split="all")
    attributes = Attributes(NAMES, GROUPS, "a bird that has {}.", "a bird.", **more)
    unseen = np.array([False, True, False])
    return Labelled(pairs, np.array([2, 0, 1]), ["a", "b", "c"], ("{}",), attributes, unseen)


def test_classes_by_their_most_telling_attributes() -> None:
    strength = np.array([[0.9, 0.6, 0.6, 0.1, 1.0], [0.2, 0.7, 0.6, 0.0, 0.9], [0.1, 0.0, 0.6, 0.5, 0.4]])
    labelled = little(of_class=(strength >= 0.5).astype(np.float32), strength=strength.astype(np.float32))
    result = described_classes(labelled)
    # One value of a group, the strongest; the rarest in other classes first; nothing that a class has not.
    assert result.sentences == [
        "a bird that has red wing, crest, long bill.",
        "a bird that has blue wing, crest, long bill.",
        "a bird that has long bill.",
    ]
    assert result.labels.tolist() == [2, 0, 1] and result.unseen.tolist() == [False, True, False]
    assert described_classes(labelled, most=1).sentences == [
        "a bird that has red wing.",
        "a bird that has blue wing.",
        "a bird that has long bill.",
    ]


def test_unknown_strength_and_classes_without_attributes() -> None:
    strength = np.array([[np.nan, 0.9, 0, 0, 0], [np.nan, 0.5, 0, 0, 0], [np.nan] * 5], np.float32)
    has = np.array([[np.nan, 1, 0, 0, 0], [0, 1, 0, 0, 0], [np.nan] * 5], np.float32)
    sentences = described_classes(little(of_class=has, strength=strength)).sentences
    assert sentences == ["a bird that has blue wing.", "a bird that has blue wing.", "a bird."]


def test_where_images_have_the_attributes_their_combinations_are_the_classes() -> None:
    of_image = np.array([[0, 1, 0, 1, 0], [1, 0, 0, 1, np.nan], [0, 1, 0, 1, 0]], np.float32)
    result = described_classes(little(of_image=of_image))
    assert [result.sentences[label] for label in result.labels] == [
        "a bird that has blue wing, short bill.",
        "a bird that has red wing, short bill.",
        "a bird that has blue wing, short bill.",
    ]
    assert len(result.sentences) == 2 and result.unseen is None


def test_sentences_of_single_attributes() -> None:
    of_image = np.zeros((3, 5), np.float32)
    sentences = single_sentences(little(of_image=of_image).attributes)
    assert sentences[:2] == ["a bird that has red wing.", "a bird that has blue wing."]
    assert len(sentences) == 6 and sentences[-1] == "a bird."


def test_against_the_other_values_of_a_group_or_the_plain_sentence() -> None:
    texts = torch.tensor([[2.0, 0, 0], [0, 3, 0], [0, 0, 4], [1, 1, 0], [1, 0, 0]])
    plain = torch.tensor([0.0, 0.6, 0.8])
    result = without_each(["colour", "colour", "colour", None, "alone"], texts, plain)
    half = 0.5**0.5
    wanted = [[0, half, half], [half, 0, half], [half, half, 0], [0, 0.6, 0.8], [0, 0.6, 0.8]]
    torch.testing.assert_close(result, torch.tensor(wanted))


def test_a_set_without_attributes() -> None:
    labelled = little(of_image=np.zeros((3, 5), np.float32))
    plain = Labelled(labelled.pairs, labelled.labels, labelled.class_names, ("{}",))
    with pytest.raises(ValueError, match="little has no attributes"):
        described_classes(plain)
