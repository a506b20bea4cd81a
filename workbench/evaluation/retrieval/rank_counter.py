"""Counts the candidates that score at least as high as the correct one, exactly and with float32 speed.

A rank is a count of comparisons, and rounding can change their outcome: equal embeddings at two places of a
float32 matrix product may get scores that differ in the last bit. Float32 scores therefore only decide clear
comparisons, by a margin that bounds their error. The few pairs within the margin are compared again in
float64, where scores closer than TIE are equal. A NaN score is never counted, which also serves to exclude
pairs.
"""

import copy

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.evaluation.retrieval.normalized import (
    TIE,
    NormalizedEmbeddings,
    all_cosines,
    pair_cosines,
    slices,
)
from workbench.objectives.threads import each_on_a_thread, thread_count

# Scores are computed in tiles, large enough for the matrix product, and counted in strips of their rows,
# small enough for a core's cache. Close pairs are searched by segments of a row, or by strips of a column.
TILE, STRIP, SEGMENT = 1024, 64, 128
DENSE = 1 / 128  # share of close pairs beyond which a float64 matrix product is cheaper than pair by pair


def count_ahead(
    image: NormalizedEmbeddings,
    text: NormalizedEmbeddings,
    owner: Int[Tensor, " captions"],
    own_score: Float[Tensor, " captions"],
    sorted_positives: Int[Tensor, "images rounds"],
    chunk: int,
) -> tuple[Int[Tensor, " captions"], Int[Tensor, "images rounds"]]:
    """Count for each caption the images ranked before its own, and for images the captions ranked before
    theirs.

    `owner` is each caption's image and `own_score` their float64 cosine. `sorted_positives` lists captions of
    each image (-1: none). For each of them the second result counts the captions of other images that score
    at least as high. A NaN score ranks before nothing, and everything ranks before an `own_score` of NaN.
    """
    strip, segment = min(STRIP, chunk), min(SEGMENT, chunk)
    image_unit, text_unit = image.unit(multiple=strip), text.unit(multiple=segment)
    captions = RankCounter(text, image, own_score[:, None], len(text_unit))
    images = RankCounter(
        image,
        text,
        torch.where(sorted_positives < 0, torch.nan, own_score[sorted_positives]),
        len(image_unit),
    )
    threads = thread_count(image_unit.device, min(chunk, len(image_unit)) // strip)
    highest = min(TILE, chunk // threads) // strip * strip
    bands_each = -(-len(image_unit) // (highest * threads))  # the same number for every thread
    height = -(-len(image_unit) // (bands_each * threads * strip)) * strip
    width = min(chunk, len(text_unit)) // segment * segment

    def count(share: tuple[list[slice], RankCounter, RankCounter]) -> None:
        bands, images, captions = share
        # One buffer for all tiles, because allocating megabytes for each would take as long as the counting.
        memory, flags = torch.empty(height * width), torch.empty(strip * width)
        for rows in bands:
            for columns in slices(len(text_unit), width):
                shape = (rows.stop - rows.start, columns.stop - columns.start)
                scores = memory[: shape[0] * shape[1]].view(shape)
                torch.mm(image_unit[rows], text_unit[columns].T, out=scores)
                local = owner[columns] - rows.start
                own = ((local >= 0) & (local < shape[0])).nonzero()[:, 0]
                scores[local[own], own] = torch.nan
                strip_flags = flags[: strip * shape[1]].view(strip, shape[1])
                _count_tile(scores, rows, columns, images, captions, strip_flags, segment)

    bands = list(slices(len(image_unit), height))
    shares = [(bands[n::threads], images.share(), captions.share()) for n in range(min(threads, len(bands)))]
    each_on_a_thread(count, shares)
    for _, counted_images, counted_captions in shares:
        images.ahead += counted_images.ahead
        captions.ahead += counted_captions.ahead

    foreign = len(text) - torch.bincount(owner, minlength=len(image))[:, None]
    return (
        torch.where(own_score.isnan(), len(image) - 1, captions.ahead[: len(text), 0].long()),
        torch.where(own_score[sorted_positives].isnan(), foreign, images.ahead[: len(image)].long()),
    )


class RankCounter:
    """Counts in `ahead` the rows of another side that score at least `threshold` [rows, rounds] with each
    row."""

    def __init__(
        self,
        asking: NormalizedEmbeddings,
        asked: NormalizedEmbeddings,
        threshold: Float[Tensor, "_rows _rounds"],
        padded: int,
    ) -> None:
        # The error of float32: half an ulp below 1 for each term of the sum, and the rounding of the rows.
        margin = asking.source.shape[1] * 2.0**-25 + 2.0**-22
        self.asking, self.asked = asking, asked
        self.threshold = torch.full((padded, threshold.shape[1]), torch.nan, dtype=torch.float64)
        self.threshold[: len(threshold)] = threshold
        self.above, self.below = (self.threshold + margin).float(), (self.threshold - margin).float()
        self.ahead = torch.zeros_like(self.threshold)

    def share(self) -> "RankCounter":
        """A counter with the same thresholds that starts at 0, for another thread."""
        other = copy.copy(self)
        other.ahead = torch.zeros_like(self.ahead)
        return other

    def rounds_of(self, rows: slice) -> list[int]:
        """The rounds in which any of these rows has a threshold."""
        return (~self.threshold[rows].isnan()).any(dim=0).nonzero()[:, 0].tolist()

    def recheck_ties(
        self,
        scores: Float[Tensor, "some candidates"],
        row: Int[Tensor, " some"],
        nth: Int[Tensor, " some"],
        first: Int[Tensor, " some"],
    ) -> None:
        """Count the close scores of `row` in round `nth` with the candidates from `first` on."""
        near = (scores >= self.below[row, nth][:, None]) & (scores <= self.above[row, nth][:, None])
        place, offset = near.nonzero(as_tuple=True)
        row, nth = row[place], nth[place]
        exact = pair_cosines(self.asking, row, self.asked, first[place] + offset)
        self.ahead.index_put_((row, nth), (exact >= self.threshold[row, nth] - TIE).double(), accumulate=True)

    def recheck_all_ties(
        self, scores: Float[Tensor, "rows candidates"], exact: Float[Tensor, "rows candidates"], start: int
    ) -> None:
        """Count the close scores of the rows from `start` on, whose float64 values are `exact`."""
        rows = slice(start, start + len(exact))
        for nth in range(self.ahead.shape[1]):
            above, below, threshold = (
                bound[rows, nth, None] for bound in (self.above, self.below, self.threshold)
            )
            close = (scores >= below) & (scores <= above) & (exact >= threshold - TIE)
            self.ahead[rows, nth] += close.sum(dim=1)


def _count_tile(
    scores: Float[Tensor, "rows columns"],
    rows: slice,
    columns: slice,
    images: RankCounter,
    captions: RankCounter,
    flags: Float[Tensor, "strip columns"],
    segment: int,
) -> None:
    """Add the counts of one tile of scores to both counters, using `flags` as memory."""
    height, width = scores.shape
    strip, segments, rounds = len(flags), width // segment, images.ahead.shape[1]
    by_segment = flags.view(strip, segments, segment)
    close_to_captions = torch.zeros(height // strip, width)
    close_to_images = torch.zeros(height, rounds, segments)
    for number, part in enumerate(slices(height, strip)):
        # Comparing and summing is several times faster in 0.0 and 1.0 than in booleans; exact up to 2^24.
        ahead = torch.gt(scores[part], captions.above[columns, 0], out=flags).sum(dim=0)
        close = torch.ge(scores[part], captions.below[columns, 0], out=flags).sum(dim=0) - ahead
        captions.ahead[columns, 0] += ahead
        close_to_captions[number] = close
        asking = slice(rows.start + part.start, rows.start + part.stop)
        for nth in images.rounds_of(asking):
            torch.gt(scores[part], images.above[asking, nth, None], out=flags)
            ahead = by_segment.sum(dim=2)
            torch.ge(scores[part], images.below[asking, nth, None], out=flags)
            close_to_images[part, nth] = by_segment.sum(dim=2) - ahead
            images.ahead[asking, nth] += ahead.sum(dim=1)

    if close_to_captions.sum() + close_to_images.sum() > DENSE * scores.numel():
        real_rows = torch.arange(rows.start, min(rows.stop, len(images.asking)))
        real_columns = torch.arange(columns.start, min(columns.stop, len(captions.asking)))
        exact = all_cosines(images.asking, real_rows, captions.asking, real_columns)
        scores = scores[: len(real_rows), : len(real_columns)]
        images.recheck_all_ties(scores, exact, rows.start)
        captions.recheck_all_ties(scores.T, exact.T, columns.start)
        return
    at, caption = close_to_captions.nonzero(as_tuple=True)
    picked = scores.view(height // strip, strip, width)[at, :, caption]
    captions.recheck_ties(picked, columns.start + caption, torch.zeros_like(at), rows.start + at * strip)
    image, turn, at = close_to_images.nonzero(as_tuple=True)
    picked = scores.view(height, segments, segment)[image, at]
    images.recheck_ties(picked, rows.start + image, turn, columns.start + at * segment)
