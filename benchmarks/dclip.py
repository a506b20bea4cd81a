"""Does DCLIP work, and what of it? The whole chain against its controls and baselines.

    python benchmarks/dclip.py [--seeds 0 1 2] [--control-seeds 0] [--only ROW ...]
                               [--runs runs] [--out benchmarks/results]

On the embedded dataset: finds regions, trains cross-modal teachers and students, evaluates them beside the
start that they share, and writes dclip.json, .md (the README's table) and the runs' .html report. Two
processes share the work, since models this small leave a second core idle; `--only` trains some rows and
writes nothing, which is what each of them does. Stop and start it as you like.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from ablation import markdown

import workbench
from workbench.files import atomic_write, write_json
from workbench.reports.html import write_report
from workbench.reports.starts import evaluated_between, evaluated_start

FINE_TUNING = "fine-tuning"
MAIN = {  # row: (recipe, settings)
    "no teacher": ("dclip_no_teacher_demo", {}),
    "null teacher": ("dclip_null_teacher_demo", {}),
    "DCLIP": ("dclip_demo", {}),
    "DCLIP, leak-free": ("dclip_leak_free_demo", {}),
}
CONTROLS = {
    FINE_TUNING: ("fine_tuning_demo", {}),
    "text only": ("dclip_text_only_demo", {}),
    "shuffled regions": ("dclip_shuffled_regions_demo", {}),
    "no regions": ("dclip_no_regions_demo", {}),
    "mean in attention's place": ("dclip_no_attention_demo", {}),
    "no interaction": ("dclip_no_interaction_demo", {}),
    "image to text favoured": ("dclip_image_to_text_demo", {}),
    "preservation 0.3": ("dclip_demo", {"objectives.preservation": 0.3}),
    "teacher of 1 epoch": ("dclip_demo", {"cross_modal.epoch": 1}),
    "teacher of 6 epochs": ("dclip_demo", {"cross_modal.epoch": 6}),
}
# Rows that share a cross-modal teacher stay together: one process trains it.
SHARES = (
    ("no teacher", "null teacher", "DCLIP", "teacher of 1 epoch", "teacher of 6 epochs", "preservation 0.3",
     "image to text favoured"),
    ("DCLIP, leak-free", "text only", "shuffled regions", "no regions", "mean in attention's place",
     "no interaction", FINE_TUNING),
)  # fmt: skip
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
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--control-seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--only", nargs="+", metavar="ROW", choices=[*MAIN, *CONTROLS])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    chosen = parser.parse_args()

    if not chosen.only:
        share_the_work()
    seeds = dict.fromkeys(MAIN, chosen.seeds) | dict.fromkeys(CONTROLS, chosen.control_seeds)
    runs = {
        row: [trained(row, *settings, seed, chosen.runs) for seed in seeds[row]]
        for row, settings in (MAIN | CONTROLS).items()
        if not chosen.only or row in chosen.only
    }
    if chosen.only:
        return
    trained_runs = [run for group in runs.values() for run in group]
    between = [evaluated_between(runs[FINE_TUNING][0], alpha, chosen.runs) for alpha in ALPHAS]
    everything = [evaluated_start(trained_runs[0], chosen.runs), *trained_runs, *between]
    comparison = workbench.compare(everything)
    chosen.out.mkdir(parents=True, exist_ok=True)
    written = json.loads(comparison.to_json())
    counts = {row: len(group) for row, group in runs.items()}
    result = {"seeds": counts, "rows": written["rows"], "note": written["note"]}
    write_json(chosen.out / "dclip.json", result)
    with atomic_write(chosen.out / "dclip.md", "w") as stream:
        stream.write(markdown(comparison.table, list(comparison.groups), COLUMNS))
    print(comparison)
    print(write_report(everything, chosen.runs / "dclip.html"))


def share_the_work() -> None:
    """Train every row, each share in a process of its own."""
    threads = max(1, (os.cpu_count() or 1) // len(SHARES))
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, *sys.argv, "--only"]
    workers = [subprocess.Popen([*command, *share], env=environment) for share in SHARES]
    if any([worker.wait() for worker in workers]):
        raise SystemExit("a share of the work was not finished; the same command goes on")


def trained(row: str, name: str, settings: dict[str, object], seed: int, folder: Path) -> workbench.Run:
    """The evaluated run of a row and seed, trained where it is not there."""
    recipe = workbench.Recipe.load(name, {**settings, "name": row, "seed": seed})
    run = workbench.train(recipe, folder / f"{name}-seed{seed}-{recipe.fingerprint[:8]}")
    if run.status["state"] != "finished":
        raise SystemExit(f"{run.path} was interrupted; the same command goes on")
    if not (run.path / "evaluation").is_dir():
        run.evaluate()
    return run


if __name__ == "__main__":
    main()
