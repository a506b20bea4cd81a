"""Does a cross-modal teacher tell a caption from one that is nearly true, and does it need the picture?"""

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.evaluation.probes.composition import Swap
from workbench.evaluation.retrieval.normalized import TIE
from workbench.models.cross_modal import CrossModalOutput
from workbench.models.grounded import GroundedOutput
from workbench.targets.cross_modal import AnyTeacher, CrossModalInputs
from workbench.targets.false_captions import FalseTargets

NAMES = {"objects": "swapped_relation", "attributes": "swapped_attribute", "word": "replaced_word"}


def match(output: CrossModalOutput | GroundedOutput, text: Tensor) -> Tensor:
    """The agreement of corresponding pictures and captions, [batch]: the cosine of Z and the caption's
    embedding, plus the grounded teacher's score of single words."""
    cosines = _cosine(output, text)
    return cosines + output.agreement.float() if isinstance(output, GroundedOutput) else cosines


def _cosine(output: CrossModalOutput | GroundedOutput, text: Tensor) -> Tensor:
    return F.cosine_similarity(output.embedding.float(), text.float(), dim=-1)


@torch.no_grad()
def choices(
    teacher: AnyTeacher,
    inputs: CrossModalInputs,
    false: FalseTargets,
    batch: int = 256,
    by: Literal["match", "embedding", "target"] = "match",
    **regions: bool,
) -> dict[str, Swap]:
    """How often a picture prefers its caption to the false one, by kind: `swapped_relation` (two things
    exchanged), `swapped_attribute` and `replaced_word`. Kinds that do not occur are left out.

    Each caption is read with the picture. Chance is 0.5, and a tie counts as an error. `by` decides:
    "match", Z's cosine alone ("embedding"), or "target", which takes Z of the true caption for the picture,
    as a student does that has memorised its targets. `regions` is `shuffled` or `emptied`, as in
    `CrossModalInputs`.
    """
    teacher.eval()
    correct = []
    for start in range(0, len(false.captions), batch):
        numbers = np.arange(start, min(start + batch, len(false.captions)))
        captions = false.caption[numbers]
        rows = inputs.pairs.image_of_caption[captions]
        score = match if by == "match" else _cosine
        read = teacher(**inputs(captions, **regions))
        misread = (
            read if by == "target" else teacher(**inputs.of(false.tokens.rows(numbers), rows, **regions))
        )
        wrong = inputs.tensor(np.asarray(false.text[numbers]))
        margin = score(read, inputs.embedding_of(captions)) - score(misread, wrong)
        correct.append((margin > TIE).cpu().numpy())
    won = np.concatenate(correct) if correct else np.zeros(0, dtype=bool)
    results = {}
    for kind, name in NAMES.items():
        of_kind = won[false.kinds == kind]
        if len(of_kind):
            results[name] = Swap(float(of_kind.mean()), of_kind)
    return results


@torch.no_grad()
def match_recall(
    teacher: AnyTeacher, inputs: CrossModalInputs, captions: np.ndarray, batch: int = 256, **regions: bool
) -> dict[str, float]:
    """Recall@1 among these captions and their pictures, reading every picture with every caption.

    The keys are `image_to_text` and `text_to_image`, and ties count as errors. The number of readings is the
    square of the number of captions, so use some hundreds.
    """
    teacher.eval()
    rows, text = inputs.pairs.image_of_caption[captions], inputs.embedding_of(captions)
    words = inputs.tokens.rows(captions)
    scores = torch.empty(len(captions), len(captions), dtype=torch.float64)
    for place, row in enumerate(rows):
        for start in range(0, len(captions), batch):
            part = slice(start, start + batch)
            side = (words[0][part], words[1][part])
            same = np.full(len(side[0]), row)
            scores[place, part] = match(teacher(**inputs.of(side, same, **regions)), text[part]).double()
    return {
        name: float(((matrix >= matrix.diagonal()[:, None] - TIE).sum(1) == 1).float().mean())
        for name, matrix in (("image_to_text", scores), ("text_to_image", scores.T))
    }
