"""How much of the photo teacher does a student of photographs without captions learn, and what is inherited?

    python benchmarks/photographs.py PHOTOGRAPHS CAPTIONS [--seeds 0 1 2] [--runs runs]
                                     [--out benchmarks/results] [--workers CORES]

Trains the recipe photos_demo on the folder PHOTOGRAPHS, and the same student with random weights in its image
tower. Evaluates both, and their teacher, on CAPTIONS, other photographs with captions, such as COCO's
captions_val2017.json. Writes photographs.json, .md (the table) and the runs' .html report.
"""

import argparse
import json
from pathlib import Path

from ablation import markdown
from trained import arguments, shared

import workbench
from workbench.evaluation.suites import measure
from workbench.files import atomic_write, write_json
from workbench.models.loading import load_dual_encoder
from workbench.reports.html import write_report

RECIPE, TEACHER = "photos_demo", "photo_teacher"
NOTHING = {  # nothing is inherited, so nothing can stay as it was
    "student.initial_weights": {"text.transformer": "minilm"},
    "student.frozen": [],
    "student.freeze_batch_norm": False,
    "training.lr_multipliers.visual.trunk": 1.0,
}
ROWS: dict[str, dict[str, object]] = {"student from nothing": NOTHING, "student": {}}
COLUMNS = {
    "text_to_image_r1": "text to image R@1",
    "text_to_image_r10": "text to image R@10",
    "image_to_text_r1": "image to text R@1",
    "image_to_text_r10": "image to text R@10",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photographs", type=Path)
    parser.add_argument("captions", type=Path)
    chosen = arguments(parser).parse_args()

    given = {
        "data.source": str(chosen.photographs.absolute()),
        "evaluation.retrieval": [str(chosen.captions.absolute())],
        "evaluation.splits": [],
    }
    wanted = [
        (row, workbench.Recipe.load(RECIPE, {**given, **settings, "seed": seed}))
        for seed in chosen.seeds
        for row, settings in ROWS.items()
    ]
    made = shared(wanted, chosen)
    named = [(row, run) for row, members in made.items() for run in members]
    runs = [run for _, run in named]
    comparison = workbench.compare(runs, names=[row for row, _ in named])
    (split,) = {split for split, _ in comparison.table.index}
    teacher = measure(load_dual_encoder(TEACHER), wanted[0][1])[split]["scores"]
    written = json.loads(comparison.to_json())
    chosen.out.mkdir(parents=True, exist_ok=True)
    result = {"seeds": chosen.seeds, "teacher": teacher, "rows": written["rows"], "note": written["note"]}
    write_json(chosen.out / "photographs.json", result)
    columns = {(split, metric): words for metric, words in COLUMNS.items()}
    cells = " | ".join(f"{100 * teacher[metric]:.1f}" for metric in COLUMNS)
    with atomic_write(chosen.out / "photographs.md", "w") as stream:
        stream.write(
            markdown(comparison.table, list(ROWS), columns) + f"| {TEACHER}, the teacher | {cells} |\n"
        )
    print(comparison)
    print(write_report(runs, chosen.runs / "photographs.html"))


if __name__ == "__main__":
    main()
