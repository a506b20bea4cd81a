"""Pointing accuracy: against attention that is made to point, on regions that are known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from workbench.data.pairs import Pairs
from workbench.data.scenes.dataset import scenes
from workbench.evaluation.probes.pointing import name_pieces, overlaps, pointing_accuracy
from workbench.models.cross_modal import CrossModalTeacher
from workbench.models.loading import load_dual_encoder
from workbench.models.tokens import words
from workbench.targets.cross_modal import CrossModalInputs
from workbench.targets.regions import PictureRegions


@pytest.fixture(scope="module")
def model():
    return load_dual_encoder("demo_student").eval()


@pytest.fixture(scope="module")
def pairs():
    drawn = scenes("val", 30)
    return drawn.select([row for row in range(30) if len(drawn.details(row)["objects"]) == 2])


class Inputs(CrossModalInputs):
    """Two regions a picture, its objects in the order of the caption; `rows` as RegionTargets has it."""

    def __init__(self, pairs, shift=0.0):
        self.pairs, self.shift = pairs, shift
        self.regions = SimpleNamespace(rows=self.rows)

    def __call__(self, captions):
        return {"captions": captions}

    def rows(self, rows):
        boxes = np.stack(
            [np.asarray(self.pairs.details(int(row))["boxes"]) / 64 + self.shift for row in rows]
        )
        shape = boxes.shape[:2]
        areas = np.tile([0.2, 0.1], (len(rows), 1))
        return PictureRegions(
            np.zeros((*shape, 4)), np.ones(shape, bool), boxes, np.ones(shape), areas, np.zeros(shape, int)
        )


class Pointing(CrossModalTeacher):
    """A teacher whose words look at the region that `choose` says, by object."""

    def __init__(self, model, pairs, choose):
        torch.nn.Module.__init__(self)
        self.choose, self.pairs = choose, pairs
        self.tokenizer = (model,)  # in a tuple: not a part of it

    def __call__(self, captions):
        texts = self.pairs.all_captions
        attention = torch.full((len(captions), 1, 32, 2), 0.5)
        for at, caption in enumerate(captions):
            pieces = words(self.tokenizer[0], texts[caption])
            objects = self.pairs.details(int(self.pairs.image_of_caption[caption]))["objects"]
            for number, name in enumerate(objects):
                for place in name_pieces(self.tokenizer[0], pieces, name):
                    region = self.choose(number)
                    if region is not None:
                        attention[at, 0, place] = torch.nn.functional.one_hot(torch.tensor(region), 2)
        return SimpleNamespace(token_to_region=attention)


@pytest.mark.parametrize(
    ("choose", "accuracy"),
    [
        (lambda number: number, 1.0),  # every word at its own thing
        (lambda number: 1 - number, 0.0),  # exchanged
        (lambda number: 0, 0.5),  # every word at the same region, as the published teacher's
        (lambda number: None, 0.0),  # undecided: a tie is no pointing
    ],
)
def test_accuracy_is_the_share_of_words_that_look_at_their_thing(model, pairs, choose, accuracy):
    captions = pairs.first_caption[:-1]
    result = pointing_accuracy(Pointing(model, pairs, choose), Inputs(pairs), model, captions)
    assert result.accuracy == pytest.approx(accuracy)
    assert result.chance == 0.5 and result.covered == 1.0
    assert result.by_weight == 0.5  # the larger one, whichever word asks
    assert len(result.correct) == len(result.image) == 2 * len(pairs)


def test_a_thing_without_a_region_cannot_be_pointed_at(model, pairs):
    captions = pairs.first_caption[:-1]
    result = pointing_accuracy(
        Pointing(model, pairs, lambda number: number), Inputs(pairs, shift=2.0), model, captions
    )
    assert result.covered == result.accuracy == 0


def test_data_without_boxes_is_not_judged(model, pairs):
    bare = Pairs(pairs.table.drop_columns("boxes"), pairs.image, name="bare", split="val")
    teacher = Pointing(model, pairs, lambda number: number)
    assert pointing_accuracy(teacher, Inputs(bare), model, np.arange(3)) is None


def test_a_name_of_several_words_is_found_where_it_is_said(model):
    pieces = words(model, "a picture of a two-humped camel and a hot dog")
    for name in ("two-humped camel", "hot dog"):
        assert "".join(pieces[place] for place in name_pieces(model, pieces, name)).strip("Ġ")
    assert name_pieces(model, pieces, "zebra") == []


def test_overlap_by_hand():
    box = np.array([0.0, 0.0, 1.0, 1.0])
    others = np.array([[0.0, 0.0, 1.0, 1.0], [0.5, 0.0, 1.5, 1.0], [2.0, 2.0, 3.0, 3.0]])
    assert overlaps(box, others).tolist() == pytest.approx([1.0, 1 / 3, 0.0])
