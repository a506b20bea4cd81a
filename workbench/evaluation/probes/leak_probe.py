"""Tests whether a cross-modal teacher uses the picture, by its recall with and without regions."""

import numpy as np
import torch

from workbench.evaluation.retrieval.metrics import retrieval_metrics
from workbench.targets.cross_modal import AnyTeacher, CrossModalInputs

PROBES: dict[str, dict[str, bool]] = {
    "whole": {},
    "emptied": {"emptied": True},
    "shuffled": {"shuffled": True},
}


@torch.no_grad()
def leak_probe(
    teacher: AnyTeacher, inputs: CrossModalInputs, captions: np.ndarray, batch: int = 256
) -> dict[str, float]:
    """Recall@1 of the teacher's embedding Z for captions, with "whole", "emptied" and "shuffled" regions.

    "emptied" removes the regions and "shuffled" uses those of another picture. Z is computed from the caption
    that it is matched with. If removing the regions costs nothing, the match used only the caption, and Z
    carries no information about the picture.
    """
    teacher.eval()
    text, recalls = inputs.embedding_of(captions).cpu(), {}
    parts = [captions[start : start + batch] for start in range(0, len(captions), batch)]
    for name, change in PROBES.items():
        embedded = torch.cat([teacher(**inputs(part, **change)).embedding.float().cpu() for part in parts])
        scores = retrieval_metrics(embedded, text, np.arange(len(captions)), average_precision=False)
        recalls[name] = scores.image_to_text.recall[1]
    return recalls
