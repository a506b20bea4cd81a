"""Commands that derive models from models: export, interpolate, train-decoder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli.output import Settings
from workbench.errors import SettingError

if TYPE_CHECKING:
    from workbench.models.dual_encoder import DualEncoder


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    folder: Annotated[Path, typer.Argument(help="Folder to write. open_clip loads it as local-dir:FOLDER.")],
    push: Annotated[
        str | None,
        typer.Option(metavar="ORG/NAME", help="Also upload it to the model hub, as hf-hub:ORG/NAME."),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="With --push: make the repository private.")
    ] = False,
) -> None:
    """Export a run's student, with its model card, as a folder in open_clip's format."""
    import workbench

    if private and not push:
        raise SettingError("--private", True, "nothing is uploaded", "Also give --push ORG/NAME.")
    path = workbench.Run(run).export(folder)
    print(f"local-dir:{path}")
    if (path / "image_tower.pt2").is_file():
        print("open_clip alone cannot load it (its README.md says what can); the .pt2 files need torch alone")
    if push:
        from workbench.export.export import push as upload

        print(upload(folder, push, private=private))


def interpolate(
    a: Annotated[
        str,
        typer.Argument(metavar="A", help="The model at alpha 0: a run folder or any model, e.g. the start."),
    ],
    b: Annotated[
        str, typer.Argument(metavar="B", help="The model at alpha 1, likewise, e.g. the trained run.")
    ],
    out: Annotated[
        Path, typer.Option(help="Folder to write, with one model per alpha in OUT/alpha-0.5 etc.")
    ],
    alpha: Annotated[list[float] | None, typer.Option(help="The share of B. Repeatable [0.5].")] = None,
    pretrained: Annotated[
        str | None, typer.Option(help="Weights of A if A is a model's name: a tag, a file, demo_teacher.")
    ] = None,
) -> None:
    """Interpolate between the weights of two models (WiSE-FT)."""
    from workbench.models.interpolate import interpolate as between

    start, end = _model(a, "A", pretrained), _model(b, "B", None)
    for share in alpha or [0.5]:
        folder = between(start, end, share).save(out / f"alpha-{share:g}")
        print(f"local-dir:{folder}")


def train_decoder(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="The recipe whose data it learns from.")],
    out: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to write, for evaluation.decoder.")],
    settings: Settings = None,
    decoder: Annotated[
        str, typer.Option(help="small, with the words of the captions as tokens, or a T5 such as t5-large.")
    ] = "small",
    steps: Annotated[int, typer.Option(min=1, help="Optimisation steps.")] = 6000,
    batch: Annotated[int, typer.Option(min=2, help="Captions per step.")] = 128,
    lr: Annotated[float | None, typer.Option(min=0, help="Learning rate [3e-3; a T5: 1e-4].")] = None,
) -> None:
    """Train the caption decoder of the exact_match suite on the captions of your data."""
    from workbench.evaluation.probes.exact_match import VALID, summary, train_caption_decoder
    from workbench.recipe import Recipe
    from workbench.recipe.overrides import assignments

    def say(step: int, loss: float) -> None:
        if step % 200 == 0 or step == steps:
            print(f"step {step} of {steps}: loss {loss:.4f}", flush=True)

    loaded = Recipe.load(recipe, assignments(settings or []))
    match, captions = train_caption_decoder(
        loaded, out, decoder=decoder, steps=steps, batch=batch, lr=lr, say=say
    )
    share = summary(match)["exact_match"]
    print(f"trained on {captions} captions; reproduces {share:.1%} of {len(match.raw)} others word for word")
    if share < VALID:
        print(f"Probes need {VALID:.0%}. Use more steps, more captions or a T5.")
    print(f"evaluation.decoder: {out.resolve()}")


def _model(run_or_model: str, setting: str, pretrained: str | None) -> "DualEncoder":
    from workbench.models.loading import load_dual_encoder
    from workbench.runs.run import Run

    folder = Path(run_or_model.removeprefix("local-dir:"))
    if (folder / "recipe.yaml").is_file():
        return Run(folder).model()
    if pretrained is None and not folder.is_dir() and not run_or_model.startswith("hf-hub:"):
        remedy = "Give a run, an exported folder, or for A also --pretrained."
        raise SettingError(setting, run_or_model, "a model's name alone has random weights", remedy)
    return load_dual_encoder(run_or_model, pretrained, setting=setting)
