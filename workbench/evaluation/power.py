"""How many seeds and pictures it takes to see an effect, from what runs that are there vary by."""

from dataclasses import dataclass

from scipy import stats

from workbench.evaluation.significance import TAIL, Components

POWER = 0.8  # share of experiments that should see the effect
MOST = 1000  # seeds; beyond them an effect counts as out of reach


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
    low, high = 1, 1
    while variation.detectable(seeds, high) > effect:
        low, high = high, 2 * high
        if high > 10**9:
            return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if variation.detectable(seeds, middle) <= effect else (middle + 1, high)
    return high
