"""Composition: whether a model prefers the true caption to one with the same words in swapped roles."""

from dataclasses import dataclass

import numpy as np
import torch

from workbench.evaluation.retrieval.normalized import TIE, Matrix, NormalizedEmbeddings, pair_cosines


@dataclass(frozen=True)
class Swap:
    """The share of images that prefer the true caption, and the result of each image."""

    accuracy: float
    correct: np.ndarray  # bool [N]


def swap_accuracy(image: Matrix, true_text: Matrix, swapped_text: Matrix) -> Swap:
    """Forced choice of captions: the share of images with cos(image, true) > cos(image, swapped).

    All three are [N, D] of any norm. Row n is an image, its true caption ("a red cube above a blue ball") and
    the swapped one ("a blue ball above a red cube"). Chance is 0.5. Ties and NaN count as errors. Raises
    ValueError if the shapes differ or are empty.
    """
    shapes = [tuple(side.shape) for side in (image, true_text, swapped_text)]
    if len(set(shapes)) != 1 or len(shapes[0]) != 2 or not len(image):
        raise ValueError(f"swap_accuracy: needs three arrays of one shape [N, D], got {shapes}")
    every = torch.arange(len(image))
    images = NormalizedEmbeddings(image)
    won = pair_cosines(images, every, NormalizedEmbeddings(true_text), every) > (
        pair_cosines(images, every, NormalizedEmbeddings(swapped_text), every) + TIE
    )
    return Swap(accuracy=float(won.double().mean()), correct=won.numpy())
