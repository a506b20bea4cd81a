"""Composition: does the model prefer a caption to the same words with their roles exchanged?"""

from dataclasses import dataclass

import numpy as np
import torch

from workbench.evaluation.retrieval.normalized import TIE, Matrix, NormalizedEmbeddings, pair_cosines


@dataclass(frozen=True)
class Swap:
    """Share of images for which the true caption won, and for which."""

    accuracy: float
    correct: np.ndarray  # bool [N]


def swap_accuracy(image: Matrix, true_text: Matrix, swapped_text: Matrix) -> Swap:
    """Forced choice between a true and a swapped caption: how often cos(image, true) > cos(image, swapped).

    All three are [N, D] of any norm, row n of each belonging together ("a red cube above a blue ball" against
    "a blue ball above a red cube"). Chance is 0.5. Ties count against us, and so do embeddings that hold NaN.
    Raises ValueError where shapes differ or there is nothing to compare.
    """
    shapes = [tuple(side.shape) for side in (image, true_text, swapped_text)]
    if len(set(shapes)) != 1 or len(shapes[0]) != 2 or not len(image):
        raise ValueError(f"swap_accuracy: wants three arrays of one shape [N, D], got {shapes}")
    every = torch.arange(len(image))
    images = NormalizedEmbeddings(image)
    won = pair_cosines(images, every, NormalizedEmbeddings(true_text), every) > (
        pair_cosines(images, every, NormalizedEmbeddings(swapped_text), every) + TIE
    )
    return Swap(accuracy=float(won.double().mean()), correct=won.numpy())
