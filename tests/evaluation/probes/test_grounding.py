"""What tells a caption from one that is nearly true: against teachers whose answers are known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from workbench.evaluation.probes.grounding import choices, match, match_recall
from workbench.models.cross_modal import CrossModalOutput, CrossModalTeacher
from workbench.models.grounded import GroundedOutput
from workbench.targets.cross_modal import CrossModalInputs
from workbench.targets.false_captions import FalseTargets

COUNT, DIM = 6, 6


def output(embedding: torch.Tensor, agreement: torch.Tensor | None = None):
    maps = torch.zeros(len(embedding), 1, 1, 1)
    rest = (embedding, maps, maps, maps[:, 0, 0], maps[:, 0, 0])
    return CrossModalOutput(*rest) if agreement is None else GroundedOutput(*rest, agreement)


class Inputs(CrossModalInputs):
    """Six pictures with a caption each; what a teacher is given is only which caption and which picture."""

    def __init__(self) -> None:
        self.pairs = SimpleNamespace(image_of_caption=np.arange(COUNT))
        self.tokens = SimpleNamespace(rows=lambda numbers: (numbers, numbers))

    def __call__(self, captions, *, shuffled=False):
        return self.of((captions, captions), captions, shuffled=shuffled)

    def of(self, words, rows, *, shuffled=False):
        return {"caption": words[0], "row": (rows + 1) % COUNT if shuffled else rows}

    def embedding_of(self, captions):
        return torch.eye(DIM)[captions]

    def tensor(self, array):
        return torch.from_numpy(array)


class Looks(CrossModalTeacher):
    """Z is the picture's, whatever is read; false captions are those from 10 on."""

    def forward(self, caption, row):
        return output(
            torch.eye(DIM)[row], torch.tensor([-1.0 if number >= 10 else 0.0 for number in caption])
        )


class Reads(CrossModalTeacher):
    """Z is the caption's, whatever is seen: a leak."""

    def forward(self, caption, row):
        return output(torch.eye(DIM)[caption % 10])


def false(count: int) -> FalseTargets:
    made = FalseTargets.__new__(FalseTargets)
    made.captions = list(range(count))
    made.caption = np.arange(count)
    made.kinds = np.array(["objects", "objects", "word"], dtype=object)
    made.tokens = SimpleNamespace(rows=lambda at: (10 + at, at))
    made.text = np.eye(DIM, dtype=np.float32)[:count]
    return made


def test_match_is_the_cosine_and_what_words_add() -> None:
    z, text = torch.randn(4, 5), torch.randn(4, 5)
    cosines = torch.nn.functional.cosine_similarity(z, text)
    torch.testing.assert_close(match(output(z), text), cosines)
    torch.testing.assert_close(match(output(z, torch.ones(4)), text), cosines + 1)


def test_choices_by_kind() -> None:
    result = choices(Looks(DIM, 1), Inputs(), false(3), batch=2)
    assert {name: swap.accuracy for name, swap in result.items()} == {
        "swapped_relation": 1.0,
        "replaced_word": 1.0,
    }
    assert len(result["swapped_relation"].correct) == 2
    # One that cannot tell them apart: a tie counts against it.
    assert choices(Reads(DIM, 1), Inputs(), false(3))["swapped_relation"].accuracy == 0


def test_choices_by_z_alone() -> None:
    """What `Looks` adds of single words is left out: its Z, and their embedding, are one for both."""
    assert choices(Looks(DIM, 1), Inputs(), false(3), by="embedding")["swapped_relation"].accuracy == 0
    elsewhere = false(3)
    elsewhere.text = np.roll(elsewhere.text, 1, axis=0)
    # A caption's own Z is nearest to it; a student that embeds the picture as Z of the true one tells both.
    assert choices(Reads(DIM, 1), Inputs(), elsewhere, by="target")["swapped_relation"].accuracy == 1
    elsewhere.text = np.eye(DIM, dtype=np.float32)[:3]
    assert choices(Reads(DIM, 1), Inputs(), elsewhere, by="target")["swapped_relation"].accuracy == 0


@pytest.mark.parametrize(
    ("teacher", "own", "shuffled"), [(Looks(DIM, 1), 1.0, 0.0), (Reads(DIM, 1), 0.0, 0.0)]
)
def test_recall_reads_every_picture_with_every_caption(teacher, own, shuffled) -> None:
    captions = np.arange(COUNT)
    result = match_recall(teacher, Inputs(), captions, batch=4)
    assert result == {"image_to_text": own, "text_to_image": own}
    assert match_recall(teacher, Inputs(), captions, shuffled=True)["image_to_text"] == shuffled
