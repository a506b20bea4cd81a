"""Do the words of DCLIP's teacher attend to their own objects, and does training change that?

    python benchmarks/pointing.py [--seeds 0 1 2] [--runs runs] [--out benchmarks/results]

Trains the teachers of dclip_demo and dclip_leak_free_demo, which record their pointing accuracy on the
validation split after every epoch. Writes pointing.json and .md (the table).
"""

import argparse

import pandas as pd
from trained import arguments, place_of

import workbench
from workbench.files import atomic_write, write_json
from workbench.training.teacher import teacher_run

TEACHERS = {"published": "dclip_demo", "leak-free": "dclip_leak_free_demo"}
COLUMNS = ["teacher", "seed", "epoch", "pointing_accuracy", "pointing_chance", "pointing_by_weight"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    chosen = arguments(parser).parse_args()

    recipes = {
        (name, seed): workbench.Recipe.load(recipe, {"seed": seed})
        for seed in chosen.seeds
        for name, recipe in TEACHERS.items()
    }
    chosen.runs.mkdir(parents=True, exist_ok=True)
    pointing = pd.concat(
        teacher_run(recipe, place_of(recipe, chosen.runs)).validations.assign(teacher=name, seed=seed)
        for (name, seed), recipe in recipes.items()
    )[COLUMNS]
    write_json(chosen.out / "pointing.json", pointing.to_dict("records"))
    table = markdown(pointing)
    with atomic_write(chosen.out / "pointing.md", "w") as stream:
        stream.write(table)
    print(table)


def markdown(pointing: pd.DataFrame) -> str:
    """An epoch a row, a teacher a column, in percent: the mean over seeds with their range."""
    share = 100 * pointing.set_index(["teacher", "seed", "epoch"]).sort_index()
    lines = [f"| epoch | {' | '.join(TEACHERS)} | chance | heaviest region |", "|---|---|---|---|---|"]
    for epoch, group in share.groupby("epoch"):
        accuracy = group["pointing_accuracy"]
        cells = [
            f"{values.mean():.1f} ({values.min():.1f} to {values.max():.1f})"
            for values in (accuracy.loc[name] for name in TEACHERS)
        ]
        baselines = [f"{group[column].mean():.1f}" for column in COLUMNS[4:]]
        lines.append(f"| {epoch:g} | {' | '.join(cells + baselines)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
