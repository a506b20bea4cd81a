"""The task loss of CLIP: symmetric InfoNCE between images and their captions."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from workbench.objectives.similarity import (
    Embeddings,
    Loss,
    Scale,
    both_directions,
    check_batch,
    check_width,
    unit,
)


def contrastive_loss(image: Embeddings, text: Embeddings, scale: Scale, *, rows: slice | None = None) -> Loss:
    """Symmetric InfoNCE, mean over the batch: 1/2 [CE(Z, I) + CE(Z^T, I)], Z = scale * image_hat text_hat^T.

    `image` and `text` are [batch, dim] of any norm, row n of one belonging to row n of the other; `scale`
    multiplies the cosine similarities. With `rows`, only these image and text queries' share of that mean is
    computed (n x batch logits): over slices that partition the batch the shares add up to the whole, and so
    do their gradients, which is how several processes divide one loss over gathered embeddings. Raises
    ValueError where batch sizes or widths differ. Radford et al. 2021 (CLIP), figure 3.
    """
    batch = check_batch("contrastive_loss", image=image, text=text)
    check_width("contrastive_loss", image=image, text=text)
    image, text = unit(image, text)
    image_to_text, text_to_image = both_directions(image, text, scale, rows)
    return (matching_loss(image_to_text, rows) + matching_loss(text_to_image, rows)) / (2 * batch)


def matching_loss(logits: Float[Tensor, "_rows _batch"], rows: slice | None) -> Loss:
    """Sum over the queries of the cross-entropy against the key of the same number."""
    partner = torch.arange(logits.shape[1], device=logits.device)
    return F.cross_entropy(logits, partner if rows is None else partner[rows], reduction="sum")
