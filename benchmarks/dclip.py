"""Does DCLIP work, and what of it? The whole chain against its controls and baselines.

    python benchmarks/dclip.py [dclip | overfitting] [--seeds 0 1 2] [--runs runs] [--out benchmarks/results]
                               [--workers CORES] [--finished]

On the embedded dataset: finds regions, trains cross-modal teachers and students, evaluates them beside the
start that they share, and writes dclip.json, .md (the table), dclip_epochs.json (every epoch of the longest
runs) and the runs' .html report. "overfitting" are students of few scenes: the files are named after it, and
its epochs are those recorded in training. Stop and start it as you like. The row of another detector needs
`python tools/make_scene_detector.py FOLDER --architecture yolo11n --epochs 2 --out RUNS/yolo11n.safetensors`
(a quarter of an hour on one core) and is left out without it.
"""

import argparse
import json

import numpy as np
import pandas as pd
from ablation import markdown
from trained import arguments, shared

import workbench
from workbench.files import atomic_write, write_json
from workbench.reports.html import write_report
from workbench.reports.wise_ft import evaluated_between, evaluated_start
from workbench.runs.epochs import evaluate_epochs

FINE_TUNING = "fine-tuning"
OTHER = "another detector, YOLO11n"  # in RUNS/yolo11n.safetensors
LONG = ("12 epochs", "12 epochs, preservation 0.3")  # rows whose every epoch is evaluated
ROWS: dict[str, tuple[str, dict[str, object]]] = {
    "no teacher": ("dclip_no_teacher_demo", {}),
    "caption as teacher": ("dclip_null_teacher_demo", {}),
    "DCLIP": ("dclip_demo", {}),
    "DCLIP, leak-free": ("dclip_leak_free_demo", {}),
    FINE_TUNING: ("fine_tuning_demo", {}),
    "text only": ("dclip_text_only_demo", {}),
    "shuffled regions": ("dclip_shuffled_regions_demo", {}),
    "no regions": ("dclip_no_regions_demo", {}),
    "mean in attention's place": ("dclip_no_attention_demo", {}),
    "no interaction": ("dclip_no_interaction_demo", {}),
    "three clusters": ("dclip_three_clusters_demo", {}),
    "equal regions": ("dclip_equal_regions_demo", {}),
    "pooling temperature 0.1": ("dclip_sharp_pooling_demo", {}),
    "rotary positions": ("dclip_rotary_demo", {}),
    "boxes of the data": ("dclip_true_boxes_demo", {}),
    "random boxes": ("dclip_demo", {"regions.proposer": "random"}),
    OTHER: ("dclip_demo", {}),
    "condensed patches": ("dclip_condensed_demo", {}),
    "image to text favoured": ("dclip_image_to_text_demo", {}),
    "preservation 0.3": ("dclip_demo", {"objectives.preservation": 0.3}),
    "12 epochs": ("dclip_demo", {"training.epochs": 12}),
    "12 epochs, preservation 0.3": (
        "dclip_demo",
        {"training.epochs": 12, "objectives.preservation": 0.3},
    ),
    "teacher of 1 epoch": ("dclip_demo", {"cross_modal.epoch": 1}),
    "teacher of 6 epochs": ("dclip_demo", {"cross_modal.epoch": 6}),
}
# The image tower of few scenes: its last stage, as in the recipe, or all of it.
LAST_STAGE: dict[str, object] = {"data.scenes": 400, "training.epochs": 20, "training.keep": 2}
WHOLE_TOWER: dict[str, object] = {
    **LAST_STAGE,
    "student.trainable_image": "all",
    "student.frozen": [],
    "student.cache_frozen": False,
    "student.freeze_batch_norm": True,
}
# What is asked of either: whether it overfits its teacher, and what stops it.
REMEDIES: dict[str, dict[str, object]] = {
    "": {},
    ", teacher alone": {"objectives.task": 0.0},
    ", no teacher": {"objectives.cross_modal": 0.0},
    ", 3 epochs": {"training.epochs": 3},
    ", preservation 1": {"objectives.preservation": 1.0},
    ", four times the scenes": {"data.scenes": 1600, "training.epochs": 5},  # 125 steps for 120
}
OVERFITTING: dict[str, tuple[str, dict[str, object]]] = {
    f"{student}{words}": ("dclip_demo", settings | more)
    for student, settings in {"last stage": LAST_STAGE, "whole tower": WHOLE_TOWER}.items()
    for words, more in REMEDIES.items()
} | {"whole tower, lower layers slower": ("dclip_demo", WHOLE_TOWER | {"training.layer_decay": 0.5})}
TABLES = {"dclip": ROWS, "overfitting": OVERFITTING}
ALPHAS = (0.25, 0.5, 0.75)  # of WiSE-FT, from the start to the first seed of fine-tuning
COLUMNS = {
    ("test", "text_to_image_r1"): "text to image R@1",
    ("test", "image_to_text_r1"): "image to text R@1",
    ("scenes-test-names-64", "zero_shot_top1"): "names as before, top-1",
    ("test_style", "text_to_image_r1"): "new artwork, text to image R@1",
    ("test_concepts", "text_to_image_r1"): "unseen names, text to image R@1",
    ("test", "swap_accuracy"): "swapped relation",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", nargs="?", choices=TABLES, default="dclip")
    chosen = arguments(parser).parse_args()

    detector = chosen.runs / "yolo11n.safetensors"
    rows = {row: made for row, made in TABLES[chosen.table].items() if row != OTHER or detector.is_file()}
    weights = {OTHER: {"regions.weights": str(detector)}}
    wanted = [
        (row, workbench.Recipe.load(name, {**settings, **weights.get(row, {}), "seed": seed}))
        for row, (name, settings) in rows.items()
        for seed in chosen.seeds
    ]
    runs = shared(wanted, chosen)
    trained_runs = [run for group in runs.values() for run in group]
    tuned = runs.get(FINE_TUNING, [])[:1]
    between = [evaluated_between(run, alpha, chosen.runs) for run in tuned for alpha in ALPHAS]
    # A run that another script made first has that script's evaluation, perhaps of fewer splits.
    start = next((run for run in trained_runs if run.recipe.evaluation.splits is None), trained_runs[0])
    everything = [evaluated_start(start, chosen.runs), *trained_runs, *between]
    mixed = [f"WiSE-FT, {alpha:g} of {FINE_TUNING}" for _ in tuned for alpha in ALPHAS]
    names = ["start", *(row for row, group in runs.items() for _ in group), *mixed]
    comparison = workbench.compare(everything, names=names)
    chosen.out.mkdir(parents=True, exist_ok=True)
    written = json.loads(comparison.to_json())
    counts = {row: len(group) for row, group in runs.items()}
    result = {"seeds": counts, "rows": written["rows"], "note": written["note"]}
    write_json(chosen.out / f"{chosen.table}.json", result)
    with atomic_write(chosen.out / f"{chosen.table}.md", "w") as stream:
        stream.write(markdown(comparison.table, list(comparison.groups), COLUMNS))
    curves: dict[str, object]
    if chosen.table == "dclip":
        curves = {row: mean_by_epoch(runs[row]) for row in LONG if row in runs}
    else:
        curves = {row: mean_training(group) for row, group in runs.items()}
    write_json(chosen.out / f"{chosen.table}_epochs.json", curves)
    print(comparison)
    print(write_report(everything, chosen.runs / f"{chosen.table}.html"))


def mean_by_epoch(runs: list[workbench.Run]) -> dict[int, dict[str, dict[str, float]]]:
    """The mean over seeds of retrieval and of the start's names, by epoch, set and metric; 0 is the start."""
    settings = {"evaluation.splits": ["test"], "evaluation.suites": ["retrieval", "zero_shot"]}
    results = [evaluate_epochs(run, settings) for run in runs]
    return {
        epoch: {
            place: {
                metric: sum(result[epoch][place][metric] for result in results) / len(results)
                for name, metric in COLUMNS
                if name == place and metric in scores
            }
            for place, scores in places.items()
        }
        for epoch, places in results[0].items()
    }


def mean_training(runs: list[workbench.Run]) -> dict[str, dict[int, float]]:
    """Text-to-image R@1 on the validation split, and the distance to the teacher on the pairs trained on
    (its term of the loss), as recorded in training, by epoch, averaged over seeds."""
    curves = {}
    for name, tables, column in (
        ("validation", [run.validations for run in runs], "text_to_image_r1"),
        ("distance", [run.metrics for run in runs], "cross_modal"),
    ):
        table = pd.concat(tables)
        if column in table:  # students without a teacher have no distance
            mean = table.groupby(np.ceil(table["epoch"]))[column].mean()
            curves[name] = {int(epoch): float(value) for epoch, value in mean.items()}
    return curves


if __name__ == "__main__":
    main()
