"""Does a student learn relations from the grounded teacher, or only from hard negatives?

    python benchmarks/grounded_students.py [--seeds 0 1 2] [--runs runs] [--out benchmarks/results]
                                           [--workers CORES] [--finished]

On the embedded dataset: trains students of the shipped grounded teacher and their controls, evaluates them,
and writes grounded_students.json, .md (the table), relations.md (what those with relations owe to the
teacher) and the runs' .html report. Stop and start it as you like. `--finished` trains nothing and tabulates
what is there.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from ablation import markdown
from PIL import Image
from trained import arguments, shared

import workbench
from workbench.data.false_captions import FalseCaptions
from workbench.evaluation.probes.grounding import NAMES
from workbench.files import atomic_write, write_json
from workbench.reports.html import write_report
from workbench.training.teacher import bare

HARD = {"training.hard_negatives": 0.5}
SHIPPED = {"cross_modal.run": "grounded_demo"}
OTHERS = {"cross_modal.control": "shuffled_regions"}  # Z of the shipped teacher, before another's regions
ALONE = {"objectives.cross_modal": 0.0}
GROUNDED = "dclip_grounded_hard_negatives_demo"
TEXT, SPATIAL = "dclip_grounded_text_demo", "dclip_grounded_spatial_demo"
RELATIONS, LEARNED = "dclip_relations_demo", "relations: grounded teacher"
UNREAD = "relations: no teacher, words read by an untrained one"
ROWS: dict[str, tuple[str, dict[str, object]]] = {
    "no teacher": ("dclip_no_teacher_demo", {}),
    "no teacher, hard negatives": ("dclip_hard_negatives_demo", {}),
    "grounded teacher": ("dclip_grounded_demo", SHIPPED),
    "grounded teacher, hard negatives": (GROUNDED, {}),
    "other pictures' regions, hard negatives": (GROUNDED, OTHERS),
    "caption as teacher, hard negatives": ("dclip_null_teacher_demo", HARD),
    "spatial head, text learns: no teacher, hard negatives": (SPATIAL, ALONE),
    "spatial head, text learns: grounded teacher, hard negatives": (SPATIAL, {}),
    "text learns: no teacher, hard negatives": (TEXT, ALONE),
    "text learns: grounded teacher, hard negatives": (TEXT, {}),
    "spatial head, text learns: grounded teacher": (SPATIAL, {"training.hard_negatives": 0.0}),
    "relations: no teacher": (RELATIONS, ALONE),
    "relations: no teacher, hard negatives": (RELATIONS, {**ALONE, **HARD}),
    LEARNED: (RELATIONS, {}),
    "relations: grounded teacher, hard negatives": (RELATIONS, HARD),
    "relations: other pictures' regions": (RELATIONS, OTHERS),
    UNREAD: (RELATIONS, ALONE),
}
COLUMNS = {
    ("test", "text_to_image_r1"): "text to image R@1",
    ("test", "swap_accuracy"): "swapped relation",
    ("false_captions", "composition_swapped_attribute_accuracy"): "swapped attribute",
    ("false_captions", "composition_replaced_word_accuracy"): "replaced word",
    ("test_concepts", "text_to_image_r1"): "unseen names, text to image R@1",
    ("test_concepts", "swap_accuracy"): "unseen names, swapped relation",
}
PICTURES = 400  # of the test split, whose attributes are exchanged and words replaced


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    chosen = arguments(parser).parse_args()

    evaluation = {
        "evaluation.suites": ["retrieval", "composition"],
        "evaluation.splits": ["test", "test_concepts"],
        "evaluation.composition": [str(false_captions(chosen.runs / "false_captions"))],
        "evaluation.labelled": [],
    }
    unread = {"student.relations": str(untrained_teacher(chosen.runs / "untrained_teacher").path)}
    # Seed by seed, so that a stop on the way leaves whole tables.
    wanted = [
        (
            row,
            workbench.Recipe.load(
                name, {**settings, **evaluation, **(unread if row == UNREAD else {}), "seed": seed}
            ),
        )
        for seed in chosen.seeds
        for row, (name, settings) in ROWS.items()
    ]
    runs = shared(wanted, chosen)
    named = [(row, run) for row, group in runs.items() for run in group]
    everything = [run for _, run in named]
    comparison = workbench.compare(everything, names=[row for row, _ in named])
    chosen.out.mkdir(parents=True, exist_ok=True)
    written = json.loads(comparison.to_json())
    counts = {row: len(group) for row, group in runs.items()}
    result = {"seeds": counts, "rows": written["rows"], "note": written["note"]}
    write_json(chosen.out / "grounded_students.json", result)
    with atomic_write(chosen.out / "grounded_students.md", "w") as stream:
        stream.write(markdown(comparison.table, list(comparison.groups), COLUMNS))
    if LEARNED in runs:
        related = [LEARNED, *(row for row in runs if row.startswith("relations") and row != LEARNED)]
        sides = [(row, run) for row in related for run in runs[row]]
        among = workbench.compare([run for _, run in sides], names=[row for row, _ in sides])
        with atomic_write(chosen.out / "relations.md", "w") as stream:
            stream.write(markdown(among.table, list(among.groups), COLUMNS))
    print(counts)
    print(comparison)
    print(write_report(everything, chosen.runs / "grounded_students.html"))


def untrained_teacher(folder: Path) -> workbench.Run:
    """A grounded teacher that a run of one epoch at no rate to speak of left as it began."""
    settings = {"cross_modal.lr": 1e-12, "cross_modal.epochs": 1, "data.scenes": 200}
    return workbench.train(bare(workbench.Recipe.load("dclip_grounded_demo", settings)), folder)


def false_captions(folder: Path) -> Path:
    """A set of hard captions in SugarCrepe's form: test pictures whose attributes are exchanged, and whose
    words are replaced."""
    recipe = workbench.Recipe.load(GROUNDED)
    options = recipe.data.options(train=False)
    pairs = workbench.load_pairs(recipe.data.source, "test", **options).select(np.arange(PICTURES))
    false = FalseCaptions(pairs)
    folder.mkdir(parents=True, exist_ok=True)
    for row in range(len(pairs)):
        Image.fromarray(pairs.image(row).permute(1, 2, 0).numpy()).save(folder / f"{row}.png")
    for kind in ("attributes", "word"):
        questions = {}
        for number in np.flatnonzero(false.kinds == kind):
            position = int(false.caption[number])
            questions[str(number)] = {
                "filename": f"{pairs.image_of_caption[position]}.png",
                "caption": pairs.all_captions[position],
                "negative_caption": false.captions[number].text,
            }
        write_json(folder / f"{NAMES[kind]}.json", questions)
    return folder


if __name__ == "__main__":
    main()
