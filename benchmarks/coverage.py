"""Do the 95 % intervals hold what they promise? Simulated runs of two recipes that do not differ.

    python benchmarks/coverage.py [--trials 500] [--out benchmarks/results]

Every query is a hit or a miss, by how good its seed, how hard its picture and caption, and how much a recipe
likes the picture; both recipes have the same expectation. Counts how often each interval holds zero, and
how wide it is: a bootstrap over pictures with seeds averaged, one of seeds and pictures, Student's t
over seeds, and `crossed_interval`. Writes coverage.json and coverage.md. Some five minutes on a core.
"""

import argparse
from pathlib import Path

import numpy as np
from scipy import stats
from scipy.special import expit, logit

from workbench.evaluation.significance import crossed_interval
from workbench.files import atomic_write, write_json

PICTURES, CAPTIONS, RECALL = 400, 3, 0.4
SEEDS = (3, 5)
SPREADS = (0.0, 0.05, 0.1, 0.2, 0.4)  # standard deviation between seeds, of the logit of a hit
SHARED = 0.3  # of a seed's effect, by both recipes
RESAMPLES = 200
METHODS = {
    "pictures": "bootstrap over pictures",
    "both": "bootstrap over both",
    "t": "t over seeds",
    "crossed": "crossed_interval",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()

    random = np.random.default_rng(0)
    rows = []
    for seeds in SEEDS:
        for spread in SPREADS:
            row = coverage(seeds, spread, arguments.trials, random)
            rows.append(row)
            print(row, flush=True)
    write_json(arguments.out / "coverage.json", {"trials": arguments.trials, "rows": rows})
    with atomic_write(arguments.out / "coverage.md", "w") as stream:
        stream.write(markdown(rows))


def coverage(seeds: int, spread: float, trials: int, random: np.random.Generator) -> dict:
    """Share of intervals that hold zero and half their mean width, by method."""
    groups = np.repeat(np.arange(PICTURES), CAPTIONS)
    held, width, recalls = dict.fromkeys(METHODS, 0), dict.fromkeys(METHODS, 0.0), []
    for _ in range(trials):
        a, b = hits(seeds, spread, random)
        recalls.append(a.mean(1).std(ddof=1))
        intervals = {
            **bootstraps(a - b, random),
            "t": t_over_seeds((a - b).mean(1)),
            "crossed": crossed_interval(a, b, groups),
        }
        for name, interval in intervals.items():
            low, high = interval if isinstance(interval, tuple) else (interval.low, interval.high)
            held[name] += bool(low <= 0 <= high)
            width[name] += float(high - low) / 2
    return {
        "seeds": seeds,
        "spread": spread,
        "recall_spread": float(np.mean(recalls)),
        "coverage": {name: count / trials for name, count in held.items()},
        "half_width": {name: total / trials for name, total in width.items()},
    }


def hits(seeds: int, spread: float, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Results [S, N] of two recipes that do not differ, runs of one seed a pair."""
    picture, caption = random.normal(0, 1, (PICTURES, 1)), random.normal(0, 1, (PICTURES, CAPTIONS))
    common = random.normal(0, 1, (seeds, 1, 1))
    sides = []
    for _ in range(2):
        seed = SHARED**0.5 * common + (1 - SHARED) ** 0.5 * random.normal(0, 1, (seeds, 1, 1))
        liking = random.normal(0, 0.7, (PICTURES, 1)) + random.normal(0, 0.7, (seeds, PICTURES, 1))
        chance = expit(1.5 * logit(RECALL) + spread * seed + picture + caption + liking)
        sides.append((random.random(chance.shape) < chance).reshape(seeds, -1).astype(float))
    return sides[0], sides[1]


def bootstraps(difference: np.ndarray, random: np.random.Generator) -> dict[str, tuple[float, float]]:
    """Percentile intervals of a mean [S, N]: over pictures with seeds averaged, and over both."""
    pictures = difference.reshape(len(difference), PICTURES, CAPTIONS).mean(2)
    drawn = random.multinomial(PICTURES, np.full(PICTURES, 1 / PICTURES), RESAMPLES) / PICTURES
    seeds = random.multinomial(len(pictures), np.full(len(pictures), 1 / len(pictures)), RESAMPLES)
    by_seed = drawn @ pictures.T
    both = (by_seed * seeds / len(pictures)).sum(1)
    return {
        name: tuple(np.percentile(means, [2.5, 97.5]))
        for name, means in (("pictures", by_seed.mean(1)), ("both", both))
    }


def t_over_seeds(means: np.ndarray) -> tuple[float, float]:
    """Student's interval for a mean over seeds [S]."""
    half = stats.t.ppf(0.975, len(means) - 1) * means.std(ddof=1) / len(means) ** 0.5
    return means.mean() - half, means.mean() + half


def markdown(rows: list[dict]) -> str:
    """The table: coverage in percent, half the mean width in points."""
    lines = [
        f"| seeds | recall's spread between seeds | {' | '.join(METHODS.values())} |",
        f"|---|---|{'---|' * len(METHODS)}",
    ]
    for row in rows:
        cells = [
            f"{100 * row['coverage'][name]:.1f} (±{100 * row['half_width'][name]:.1f})" for name in METHODS
        ]
        lines.append(f"| {row['seeds']} | {100 * row['recall_spread']:.1f} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
