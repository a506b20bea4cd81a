"""Power analysis: the seeds and pictures that an effect needs, given the variation of existing runs."""

from bisect import bisect_left
from dataclasses import dataclass

from workbench.evaluation.significance import TAIL, Components

POWER = 0.8  # share of experiments that should detect the effect
MOST = 1000  # seeds; an effect that needs more counts as undetectable
MOST_PICTURES = 10**9


@dataclass(frozen=True)
class Variation:
    """The variances of a difference for one seed and one picture: of seeds, of pictures, and the rest."""

    seeds: float
    pictures: float
    rest: float

    @classmethod
    def of(cls, components: Components, seeds: float, pictures: int) -> "Variation":
        """The variances for one seed and one picture, from those of a mean over several.

        If the sides of a difference have unequal numbers of seeds, `seeds` is their harmonic mean.
        """
        return cls(
            seeds * max(components.seeds - components.interaction, 0.0),
            pictures * max(components.pictures - components.interaction, 0.0),
            seeds * pictures * components.interaction,
        )

    def detectable(self, seeds: float, pictures: int) -> float:
        """The effect whose 95 % interval excludes zero in 80 % of experiments of this size."""
        from scipy import stats

        interaction = self.rest / (seeds * pictures)
        by_seed, by_picture = self.seeds / seeds + interaction, self.pictures / pictures
        t = stats.t.ppf(TAIL, seeds - 1)
        half = (t**2 * by_seed + stats.norm.ppf(TAIL) ** 2 * by_picture) ** 0.5
        return float(half + stats.norm.ppf(POWER) * (by_seed + by_picture) ** 0.5)


def seeds_needed(effect: float, pictures: int, variation: Variation) -> int | None:
    """The smallest number of seeds, at least two, that detects `effect`; None if no number does."""
    if variation.detectable(MOST, pictures) > effect:
        return None
    return next(seeds for seeds in range(2, MOST + 1) if variation.detectable(seeds, pictures) <= effect)


def pictures_needed(effect: float, seeds: int, variation: Variation) -> int | None:
    """The smallest number of pictures with which `seeds` detect `effect`; None if no number does."""
    counts = range(1, MOST_PICTURES + 1)  # the detectable effect decreases with every picture
    index = bisect_left(counts, True, key=lambda count: variation.detectable(seeds, count) <= effect)
    return counts[index] if index < len(counts) else None
