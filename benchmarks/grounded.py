"""Does a cross-modal teacher look at the picture? The published one and the grounded one, with the same
regions.

    python benchmarks/grounded.py [--runs NAME=RUN ...] [--pictures 300] [--out benchmarks/results]

Pointing, recall with true, shuffled and empty regions, and captions that are nearly true, by the whole match
and by Z alone, by region source, split and number of things. Writes grounded.json and grounded.md (the table)
after every row. Stop and start it as you like.
"""

import argparse
from pathlib import Path

import numpy as np

import workbench
from workbench.evaluation.probes.grounding import choices, match_recall
from workbench.evaluation.probes.leak_probe import leak_probe
from workbench.evaluation.probes.pointing import pointing_accuracy
from workbench.files import atomic_write, read_json, write_json
from workbench.models.dual_encoder import weights_digest
from workbench.recipe import Recipe
from workbench.targets.cross_modal import cross_modal_inputs
from workbench.targets.false_captions import FalseTargets
from workbench.targets.image_text import load_teacher
from workbench.training.teacher import open_teacher_run

RUNS = {"published": "demo", "grounded": "grounded_demo"}
# (split, proposer, number of things; None: any)
MEASURED = (
    ("test", "yolo", None),
    ("test", "ground_truth", None),
    ("test", "grid", None),
    ("test", "patches", None),
    ("test_style", "yolo", None),
    ("test_concepts", "yolo", None),
    ("test", "yolo", 1),
    ("test", "yolo", 2),
    ("test", "yolo", 3),
)
MATCHED = 100  # captions that every picture is read with
COLUMNS = (
    *("pointing", "pointing_chance", "objects_with_a_region"),
    *("recall_of_z_whole", "recall_of_z_shuffled", "recall_of_z_emptied"),
    *("match_image_to_text", "match_image_to_text_shuffled"),
    *("swapped_relation", "swapped_attribute", "replaced_word"),
    *("swapped_relation_by_z", "swapped_relation_by_z_as_target"),
)


def measure(
    run: workbench.Run, split: str, proposer: str, things: int | None, pictures: int
) -> dict[str, float]:
    """Every number of one row, with the number of pictures, object words and false captions."""
    settings = {"regions.proposer": proposer, "data.limit": None}
    recipe = Recipe.from_settings(run.recipe.model_dump(mode="json"), settings)
    pairs = workbench.load_pairs(recipe.data.source, split, **recipe.data.options(train=False))
    chosen = pairs.table["objects"].to_pylist()
    rows = [row for row, names in enumerate(chosen) if things is None or len(names) == things][:pictures]
    pairs, frozen, teacher = pairs.select(rows), load_teacher(recipe), run.cross_modal_teacher()
    inputs = cross_modal_inputs(recipe, pairs, frozen)
    first = pairs.first_caption[:-1]
    result: dict[str, float] = {"pictures": len(pairs)}
    pointing = pointing_accuracy(teacher, inputs, frozen.model, first + 1)
    if pointing is not None:
        result |= {
            "pointing": pointing.accuracy,
            "pointing_chance": pointing.chance,
            "objects_with_a_region": pointing.covered,
            "object_words": len(pointing.correct),
        }
    result |= {f"recall_of_z_{name}": value for name, value in leak_probe(teacher, inputs, first).items()}
    some = first[:MATCHED]
    for name, change in (("", {}), ("_shuffled", {"shuffled": True})):
        result |= {
            f"match_{key}{name}": value
            for key, value in match_recall(teacher, inputs, some, **change).items()
        }
    false = FalseTargets(recipe, pairs, frozen)
    for ending, by in (("", "match"), ("_by_z", "embedding"), ("_by_z_as_target", "target")):
        for name, swap in choices(teacher, inputs, false, by=by).items():
            result |= {f"{name}{ending}": swap.accuracy, f"{name}_captions": len(swap.correct)}
    return result


def table(rows: dict[str, dict[str, float]]) -> str:
    """The rows as Markdown, in percent."""
    heads = ["teacher, regions", "pictures", *(column.replace("_", " ") for column in COLUMNS)]
    lines = [" | ".join(heads), " | ".join(["---"] * len(heads))]
    for name, row in rows.items():
        cells = [f"{100 * row[column]:.1f}" if column in row else "" for column in COLUMNS]
        lines.append(" | ".join([name, f"{row['pictures']:.0f}", *cells]))
    return "".join(f"| {line} |\n" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", nargs="+", default=[f"{name}={run}" for name, run in RUNS.items()])
    parser.add_argument("--pictures", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    chosen = parser.parse_args()
    path = chosen.out / "grounded.json"
    kept = read_json(path) if path.is_file() else {}
    runs = {}
    for named in chosen.runs:
        name, _, folder = named.partition("=")
        runs[name] = open_teacher_run(folder)
    shown = {}
    for split, proposer, things in MEASURED:
        for name, run in runs.items():
            label = f"{name}, {split}, {proposer}" + (f", {things} things" if things else "")
            digest = weights_digest(run.cross_modal_teacher().state_dict())
            key = f"{label}, {chosen.pictures} pictures, {digest[:12]}"
            if key not in kept:
                kept[key] = measure(run, split, proposer, things, chosen.pictures)
                write_json(path, kept)
                print(
                    label, {column: round(kept[key].get(column, np.nan), 3) for column in COLUMNS}, flush=True
                )
            shown[label] = kept[key]
            with atomic_write(chosen.out / "grounded.md", "w") as stream:
                stream.write(table(shown))


if __name__ == "__main__":
    main()
