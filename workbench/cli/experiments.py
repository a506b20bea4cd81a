"""Commands that run, measure and compare experiments: sweep, evaluate, compare, plan, report, results."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.output import Settings, number, print_rows
from workbench.errors import SettingError
from workbench.recipe.overrides import assignments

Runs = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.")]


def sweep(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A sweep's YAML file.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the runs [sweeps/NAME].")] = None,
    at_once: Annotated[int, typer.Option(min=1, help="Number of runs at the same time.")] = 1,
    again: Annotated[bool, typer.Option("--again", help="Repeat failed runs.")] = False,
    ray: Annotated[bool, typer.Option("--ray", help="Run on the Ray cluster of RAY_ADDRESS.")] = False,
) -> None:
    """Train a grid or list of recipe overrides, with several seeds each. Repeat the command to resume."""
    from workbench.batch.sweeps import run_sweep, write_table

    folder = out or Path("sweeps") / file.stem
    outcomes = run_sweep(file, folder, at_once=at_once, again=again, ray=ray)
    print_rows([(outcome.planned.name, outcome.state, outcome.reason) for outcome in outcomes])
    table = write_table(outcomes, folder)
    if table:
        print(table.read_text(encoding="utf-8"))
        print(f"report: {folder.resolve() / 'report.html'}")
    raise typer.Exit(0 if all(outcome.state == "finished" for outcome in outcomes) else 1)


def evaluate(
    run_or_model: Annotated[
        str, typer.Argument(metavar="RUN_OR_MODEL", help="A run folder, or any model a recipe may name.")
    ],
    settings: Settings = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the results as JSON [RUN/evaluation, for the run's own data]."),
    ] = None,
    epochs: Annotated[
        str | None, typer.Option(metavar="all", help="Evaluate every kept epoch of a run, and its start.")
    ] = None,
) -> None:
    """Evaluate a run's student, or any model, on every evaluation split."""
    from workbench.evaluation.suites import measure
    from workbench.models.loading import load_dual_encoder
    from workbench.recipe import Recipe
    from workbench.runs.folder import read_recipe
    from workbench.runs.run import Run

    changes = assignments(settings or [])
    if epochs is not None:
        _evaluate_epochs(run_or_model, epochs, out, changes)
        return
    if (Path(run_or_model) / "recipe.yaml").is_file():
        run = Run(run_or_model)
        recipe = read_recipe(run.path, changes)
        # Results on other data must not replace the run's own.
        folder = out or (run.path / "evaluation" if recipe.data == run.recipe.data else None)
        (model, step), whole = run.restored(), not run.trained_on(recipe.data.source)
        print(f"weights of step {step} of {run.status.get('total_steps', 'unknown')}")
    else:
        recipe = Recipe.from_settings({"name": "evaluation", "student": {"model": run_or_model}}, changes)
        folder, step, whole = out, None, True
        model = load_dual_encoder(
            recipe.student.model,
            recipe.student.pretrained,
            allow_download=recipe.allow_download,
            setting="student",
        ).eval()
        if model.weights_from is None:
            problem = "it has no weights"
            remedy = "Use --set student.pretrained=TAG_OR_FILE, or give a folder with weights."
            raise SettingError("RUN_OR_MODEL", run_or_model, problem, remedy)
        print(f"weights: {model.weights_from}")
    reports = measure(model, recipe, folder, whole=whole, step=step, say=print)
    metrics = list(dict.fromkeys(name for report in reports.values() for name in report["scores"]))
    print_rows(
        [
            ("", *reports),
            *(
                (label, *(f"{report[key]:,}" if report.get(key) else "" for report in reports.values()))
                for label, key in (
                    ("pictures", "images"),
                    ("captions", "captions"),
                    ("questions", "questions"),
                    ("classes", "classes"),
                )
                if any(report.get(key) for report in reports.values())
            ),
            *(
                (name, *(number(report["scores"].get(name)) for report in reports.values()))
                for name in metrics
            ),
        ]
    )
    if folder:
        print(f"written to {folder}")


def _evaluate_epochs(path: str, epochs: str, out: Path | None, changes: Mapping[str, object]) -> None:
    from workbench.runs.epochs import evaluate_epochs
    from workbench.runs.run import Run

    if epochs != "all":
        problem = "only all kept epochs can be evaluated together"
        raise SettingError("--epochs", epochs, problem, "Use all.")
    if out is not None:
        problem = "results of epochs are written to evaluation/epochs in the run"
        raise SettingError("--out", str(out), problem, "Leave it out.")
    by_epoch = evaluate_epochs(Run(path), changes)
    rows = {(split, name) for scores in by_epoch.values() for split in scores for name in scores[split]}
    print_rows(
        [
            ("", "", *(f"epoch {epoch}" if epoch else "start" for epoch in by_epoch)),
            *(
                (split, name, *(number(scores.get(split, {}).get(name)) for scores in by_epoch.values()))
                for split, name in sorted(rows)
            ),
        ]
    )


def compare(runs: Runs) -> None:
    """Compare the results of several runs, with intervals of their differences."""
    import workbench

    print(workbench.compare([workbench.Run(path) for path in runs]))


def plan(
    runs: Runs,
    detect: Annotated[float, typer.Option(help="The difference to detect, in points or the metric's unit.")],
    metric: Annotated[str, typer.Option(help="A metric of the runs' evaluation.")] = "text_to_image_r1",
    split: Annotated[str, typer.Option(help="The split of the metric [the first].")] = "",
) -> None:
    """Estimate how many seeds and pictures a difference needs, from existing runs of two recipes."""
    from workbench.reports.plan import plan as planned

    print(planned(runs, detect, metric=metric, split=split or None))


def report(
    runs: Runs,
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
) -> None:
    """Write a self-contained HTML report of one or several runs. It opens offline."""
    from workbench.reports.html import write_report
    from workbench.runs.run import Run

    write_report([Run(path) for path in runs], out)
    print(out.resolve())


def results(
    name: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Tables to make [every table that a page shows]."),
    ] = None,
    runs: Annotated[Path | None, typer.Option(help="Folder of trained runs [runs, in the checkout].")] = None,
    tables_only: Annotated[
        bool,
        typer.Option("--tables-only", help="Run nothing. Only insert the existing benchmarks/results."),
    ] = False,
    show_list: Annotated[
        bool, typer.Option("--list", help="List the tables, their commands and their state.")
    ] = False,
) -> None:
    """Regenerate the tables of README.md and docs/ in a checkout. Takes hours and can be resumed."""
    checkout = Path(__file__).parents[2]
    script = checkout / "benchmarks" / "make_results.py"
    if not script.is_file():
        problem = "there is no folder benchmarks beside the package"
        raise SettingError("results", str(checkout), problem, "Run it in a clone of the repository.")
    options = ["--runs", str(runs)] if runs else []
    options += ["--tables-only"] if tables_only else []
    options += ["--list"] if show_list else []
    raise typer.Exit(subprocess.run([sys.executable, str(script), *options, *(name or [])]).returncode)
