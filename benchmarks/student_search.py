"""Which settings suit the demo student? Runs student_search.yaml; the validation splits decide.

    python benchmarks/student_search.py [--runs runs] [--out benchmarks/results] [--workers CORES]
                                        [--finished]

Trains what is not trained yet and writes student_search.md, a table with a row for every finished entry.
`--finished` trains nothing.
"""

import argparse
from pathlib import Path

from trained import arguments

import workbench
from workbench.batch.sweep_plan import load_sweep, plan
from workbench.batch.sweeps import outcome_of, run_sweep
from workbench.files import atomic_write

SWEEP = Path(__file__).with_suffix(".yaml")
ROWS = (  # in the order of the sweep's entries
    "chosen: learning rate 2e-3, 6 epochs, 3 of 5 stages frozen, trunk's rate x 0.3",
    "learning rate 1e-3",
    "learning rate 4e-3",
    "3 epochs",
    "12 epochs",
    "trunk's rate x 1",
    "trunk's rate x 0.1",
    "2 stages frozen",
    "4 stages frozen",
    "word embeddings of MiniLM",
    "crops of 90 to 100 % of the picture",
    "causal text tower that reads its last token",
    "96 px",
    "image tower from nothing",
    "no distillation",
    "no distillation, learning rate 1e-3",
)
COLUMNS = {
    ("val", "text_to_image_r1"): "text to image R@1",
    ("val", "image_to_text_r1"): "image to text R@1",
    ("val", "text_to_image_r10"): "text to image R@10",
    ("val", "zero_shot_names_top1"): "name, top-1",
    ("val_concepts", "text_to_image_r10"): "unseen names, text to image R@10",
    ("val_concepts", "zero_shot_names_top1"): "unseen names, name, top-1",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    chosen = arguments(parser).parse_args()
    folder = chosen.runs / SWEEP.stem
    if chosen.finished:
        outcomes = [outcome_of(planned) for planned in plan(load_sweep(SWEEP), folder)]
    else:
        outcomes = run_sweep(SWEEP, folder, at_once=chosen.workers)
    lines = [f"| settings | {' | '.join(COLUMNS.values())} |", f"|---|{'---|' * len(COLUMNS)}"]
    for words, outcome in zip(ROWS, outcomes, strict=True):
        if outcome.state != "finished":
            print(f"not finished: {words}; the same command goes on")
            continue
        evaluations = workbench.Run(outcome.planned.run_dir).evaluations
        cells = [f"{100 * evaluations[split].report['scores'][metric]:.1f}" for split, metric in COLUMNS]
        lines.append(f"| {words} | {' | '.join(cells)} |")
    chosen.out.mkdir(parents=True, exist_ok=True)
    with atomic_write(chosen.out / "student_search.md", "w") as stream:
        stream.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
