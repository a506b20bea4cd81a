"""How many seeds and pictures it takes to see an effect, from how much existing runs vary."""

from bisect import bisect_left
from dataclasses import dataclass

from scipy import stats

from workbench.evaluation.significance import TAIL, Components

POWER = 0.8  # share of experiments that should see the effect
MOST = 1000  # seeds; beyond them an effect counts as out of reach
MOST_PICTURES = 10**9


@dataclass(frozen=True)
class Variation:
    """Variances of a difference, of one seed on one picture: between seeds, between pictures, the rest."""

    seeds: float
    pictures: float
    rest: float

    @classmethod
    def of(cls, components: Components, seeds: int, pictures: int) -> "Variation":
        """What `components` of a mean over so many seeds and pictures say of a single one."""
        return cls(
            seeds * max(components.seeds - components.interaction, 0.0),
            pictures * max(components.pictures - components.interaction, 0.0),
            seeds * pictures * components.interaction,
        )

    def detectable(self, seeds: int, pictures: int) -> float:
        """The effect whose 95 % interval excludes zero in 80 % of experiments of this size."""
        interaction = self.rest / (seeds * pictures)
        by_seed, by_picture = self.seeds / seeds + interaction, self.pictures / pictures
        t = stats.t.ppf(TAIL, seeds - 1)
        half = (t**2 * by_seed + stats.norm.ppf(TAIL) ** 2 * by_picture) ** 0.5
        return float(half + stats.norm.ppf(POWER) * (by_seed + by_picture) ** 0.5)


def seeds_needed(effect: float, pictures: int, variation: Variation) -> int | None:
    """The least number of seeds, from two, at which `effect` is detectable; None where none is enough."""
    if variation.detectable(MOST, pictures) > effect:
        return None
    return next(seeds for seeds in range(2, MOST + 1) if variation.detectable(seeds, pictures) <= effect)


def pictures_needed(effect: float, seeds: int, variation: Variation) -> int | None:
    """The least number of pictures at which so many seeds detect `effect`; None where none is enough."""
    counts = range(1, MOST_PICTURES + 1)  # what is detectable falls with every picture
    place = bisect_left(counts, True, key=lambda count: variation.detectable(seeds, count) <= effect)
    return counts[place] if place < len(counts) else None
