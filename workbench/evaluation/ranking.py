"""How many candidates score at least as high as the right one: exact counts at the price of float32 scores.

A rank is a count, and a count depends on comparisons that rounding can turn: equal embeddings at two places
of a float32 matrix product may get scores that differ in the last bit. So float32 scores only settle what is
clear, by a margin that bounds their error; the few pairs inside the margin are compared again in float64,
where scores closer than TIE are equal.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.evaluation.cosines import TIE, Side, all_cosines, pair_cosines, slices

TILE = 1024  # images scored at once: more leave the processor's cache, fewer waste the matrix product


def count_ahead(
    image: Side,
    text: Side,
    owner: Int[Tensor, " captions"],
    own_score: Float[Tensor, " captions"],
    rounds: list[tuple[Tensor, Tensor]],
    chunk: int,
) -> tuple[Int[Tensor, " captions"], Int[Tensor, " captions"]]:
    """For every caption, the images and the captions that stand before it: two int64 counts per caption.

    `owner` is each caption's image and `own_score` their float64 cosine. The first count is of images other
    than its own that score at least `own_score` with the caption. The second is of captions of other images
    that score at least `own_score` with its image, and is made for the captions in `rounds` only: pairs
    (images ascending, one caption of each). A score that is not a number stands before nothing; where
    `own_score` is none, everything stands before it.
    """
    images_ahead = torch.zeros(len(text), dtype=torch.int64)
    captions_ahead = torch.zeros(len(text), dtype=torch.int64)
    image_unit, text_unit = image.unit(), text.unit()
    tile = min(TILE, chunk, len(image))
    # One piece of memory for all tiles: asking for megabytes each time would cost as much as comparing.
    scores_memory, flags_memory = torch.empty(2, tile * min(chunk, len(text)))
    for rows in slices(len(image), tile):
        image_rows = torch.arange(rows.start, rows.stop)
        for columns in slices(len(text), chunk):
            text_rows = torch.arange(columns.start, columns.stop)
            scores = scores_memory[: len(image_rows) * len(text_rows)].view(len(image_rows), len(text_rows))
            torch.mm(image_unit[rows], text_unit[columns].T, out=scores)
            local = owner[columns] - rows.start
            inside = ((local >= 0) & (local < len(image_rows))).nonzero()[:, 0]
            scores[local[inside], inside] = -torch.inf
            images_ahead[columns] += _count_at_least(
                scores.T, own_score[columns], (text, text_rows), (image, image_rows), flags_memory
            )
            for images, captions in rounds:
                low, high = torch.searchsorted(images, torch.tensor([rows.start, rows.stop])).tolist()
                queries, threshold_of = images[low:high], captions[low:high]
                block = scores if high - low == len(image_rows) else scores[queries - rows.start]
                captions_ahead[threshold_of] += _count_at_least(
                    block, own_score[threshold_of], (image, queries), (text, text_rows), flags_memory
                )
    lost = own_score.isnan()
    images_ahead[lost] = len(image) - 1
    captions_ahead[lost] = len(text) - torch.bincount(owner, minlength=len(image))[owner[lost]]
    return images_ahead, captions_ahead


def _count_at_least(
    scores: Float[Tensor, "queries candidates"],
    threshold: Float[Tensor, " queries"],
    query: tuple[Side, Tensor],
    candidate: tuple[Side, Tensor],
    flags_memory: Tensor,
) -> Int[Tensor, " queries"]:
    """For each query (row), how many candidates (columns) score at least its float64 `threshold`, up to TIE.

    `scores` are float32 with -inf where a candidate is not to be counted; `query` and `candidate` say which
    rows of which side they belong to.
    """
    # What float32 can be wrong by: half an ulp below 1 for each term of the sum, and rounding the rows.
    margin = query[0].source.shape[1] * 2.0**-25 + 2.0**-22
    above = (threshold + margin).float()[:, None]
    below = (threshold - margin).float()[:, None]
    # Comparing and summing is several times faster in 0.0 and 1.0 than in booleans; exact up to 2^24.
    flags = flags_memory[: scores.numel()].as_strided(scores.shape, scores.stride())
    ahead = torch.gt(scores, above, out=flags).sum(dim=1)
    close = torch.ge(scores, below, out=flags).sum(dim=1) - ahead
    ahead = ahead.long()
    unsure = close.nonzero()[:, 0]
    if not len(unsure):
        return ahead
    picked = scores[unsure]
    if close.sum() > scores.numel() / 64:  # so many that a float64 product is cheaper than pair by pair
        exact = all_cosines(query[0], query[1][unsure], *candidate)
        exact[picked.isneginf()] = -torch.inf
        ahead[unsure] = (exact >= threshold[unsure, None] - TIE).sum(dim=1)
        return ahead
    row, column = ((picked >= below[unsure]) & (picked <= above[unsure])).nonzero(as_tuple=True)
    row = unsure[row]
    exact = pair_cosines(query[0], query[1][row], candidate[0], candidate[1][column])
    return ahead.index_add(0, row, (exact >= threshold[row] - TIE).long())
