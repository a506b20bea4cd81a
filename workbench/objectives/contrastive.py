"""The task loss of CLIP: symmetric InfoNCE between images and their captions."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from workbench.objectives.chunked import check_chunk, chunked_matching
from workbench.objectives.registry import LossInputs, Objective
from workbench.objectives.ring import ring_mixture
from workbench.objectives.similarity import (
    Embeddings,
    Loss,
    Scale,
    check_batch,
    check_width,
    logits,
    unit,
)


def contrastive_loss(
    image: Embeddings,
    text: Embeddings,
    scale: Scale,
    *,
    rows: slice | None = None,
    chunk: int | None = None,
    ring: Sequence[int] | None = None,
    direction_weights: tuple[float, float] = (0.5, 0.5),
    false_text: Embeddings | None = None,
    hard: Float[Tensor, " batch"] | None = None,
) -> Loss:
    """Symmetric InfoNCE, mean over the batch: 1/2 [CE(Z, I) + CE(Z^T, I)], Z = scale * image_hat text_hat^T.

    `image` and `text` are [batch, dim] of any norm, and row n of one belongs to row n of the other. `scale`
    multiplies the cosine similarities. With `rows`, only the share of these image and text queries in the
    mean is computed (n x batch logits). Over slices that partition the batch, the shares and their gradients
    add up to the whole, which is how several processes divide one loss over gathered embeddings. With
    `chunk`, only that many queries are computed at a time: the same value and gradients in O(chunk x batch)
    memory. With `ring`, the number of rows of every process in torch's default group, `image`, `text` and the
    share are those of this process's own rows, and no process holds the whole batch. The gradient is that of
    all shares together, as after an all-gather. `direction_weights` replace the halves for images that
    retrieve their text and for texts that retrieve their image. `false_text` [batch, dim] are hard negative
    captions: those whose `hard` is not 0 are further negatives of all images (NegCLIP, Yuksekgonul et al.
    2023). Raises ValueError if batch sizes or widths differ, and for unequal directions or hard negatives in
    chunks or in a ring. Radford et al. 2021 (CLIP), figure 3.
    """
    batch = check_batch("contrastive_loss", image=image, text=text)
    check_width("contrastive_loss", image=image, text=text)
    check_chunk("contrastive_loss", chunk)
    way = "in a ring" if ring else "in chunks"
    if (chunk or ring) and direction_weights != (0.5, 0.5):
        raise ValueError(f"contrastive_loss: direction_weights {direction_weights} are not supported {way}")
    if (chunk or ring) and false_text is not None:
        raise ValueError(f"contrastive_loss: hard negative captions are not supported {way}")
    if ring:
        return ring_mixture((image, text, scale), None, (1.0, 0.0), ring, chunk, both=True)[0] / (
            2 * sum(ring)
        )
    if chunk:
        return chunked_matching(image, text, scale, chunk, rows, both=True) / (2 * batch)
    image, text = unit(image, text)
    if false_text is not None and hard is not None:
        check_width("contrastive_loss", image=image, false_text=false_text)
        wrong = unit(false_text[hard > 0])[0]
        mine = range(batch)[rows or slice(None)]
        scores = logits(image[mine.start : mine.stop], torch.cat([text, wrong]), scale)
        directions = matching_loss(scores, mine.start), matching(text, image, scale, rows)
    elif rows is not None:
        directions = matching(image, text, scale, rows), matching(text, image, scale, rows)
    else:  # one matrix serves both directions
        scores = logits(image, text, scale)
        directions = matching_loss(scores, 0), matching_loss(scores.T, 0)
    return (direction_weights[0] * directions[0] + direction_weights[1] * directions[1]) / batch


def matching(query: Embeddings, key: Embeddings, scale: Scale, rows: slice | None) -> Loss:
    """Sum of the cross-entropy of each unit query in `rows` (None: all) against the key of the same index."""
    chosen = range(len(query))[rows or slice(None)]
    return matching_loss(logits(query[chosen.start : chosen.stop], key, scale), chosen.start)


def matching_loss(scores: Float[Tensor, "_rows _batch"], first: int) -> Loss:
    """Sum of the cross-entropy of each row n of the logits against the key of index `first` + n."""
    partner = torch.arange(first, first + len(scores), device=scores.device)
    return F.cross_entropy(scores, partner, reduction="sum")


def _task(inputs: LossInputs, modules: Any) -> Loss:
    return contrastive_loss(
        *inputs.student,
        inputs.student_scale,
        rows=inputs.rows,
        chunk=inputs.chunk,
        ring=inputs.ring,
        direction_weights=inputs.direction_weights,
        false_text=inputs.false_text,
        hard=inputs.hard,
    )


TASK = Objective(name="task", function=_task, order=0, colour="#0077bb", reach="ring")
