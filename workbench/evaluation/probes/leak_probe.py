"""Does the cross-modal teacher look at the picture at all? Its recall with regions as they are, and
without."""

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
    """Recall@1 of Z among the embeddings of these captions, by what its regions are: "whole" as they are,
    "emptied" taken away, "shuffled" another picture's.

    Z reads the very caption that it is matched with. If taking the regions away costs nothing, the match was
    made from the caption alone, and Z says nothing about the picture.
    """
    teacher.eval()
    text, recalls = inputs.embedding_of(captions).cpu(), {}
    parts = [captions[start : start + batch] for start in range(0, len(captions), batch)]
    for name, change in PROBES.items():
        embedded = torch.cat([teacher(**inputs(part, **change)).embedding.float().cpu() for part in parts])
        scores = retrieval_metrics(embedded, text, np.arange(len(captions)), average_precision=False)
        recalls[name] = scores.image_to_text.recall[1]
    return recalls
