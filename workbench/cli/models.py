"""Commands that make models out of models: export, interpolate, train-decoder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli.output import Settings
from workbench.errors import SettingError

if TYPE_CHECKING:
    from workbench.models.dual_encoder import DualEncoder


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    folder: Annotated[Path, typer.Argument(help="Where to; open_clip loads it as local-dir:FOLDER.")],
    push: Annotated[
        str | None,
        typer.Option(metavar="ORG/NAME", help="Upload it to the model hub too, as hf-hub:ORG/NAME."),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="--push: nobody else may see it.")] = False,
) -> None:
    """Write a run's student and its model card as a folder that plain open_clip loads."""
    import workbench

    if private and not push:
        raise SettingError("--private", True, "nothing is uploaded", "Give --push ORG/NAME too.")
    place = workbench.Run(run).export(folder)
    print(f"local-dir:{place}")
    if (place / "image_tower.pt2").is_file():
        print("open_clip needs `import workbench.models.mobilenet_stem`; the .pt2 files need torch alone")
    if push:
        from workbench.export.export import push as upload

        print(upload(folder, push, private=private))


def interpolate(
    a: Annotated[
        str, typer.Argument(metavar="A", help="Alpha 0: a run folder or any model, e.g. the start.")
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="Alpha 1: likewise, e.g. the run that began there.")],
    out: Annotated[Path, typer.Option(help="Folder for one model per alpha, OUT/alpha-0.5 and so on.")],
    alpha: Annotated[list[float] | None, typer.Option(help="Share of B. Repeatable [0.5].")] = None,
    pretrained: Annotated[
        str | None, typer.Option(help="Weights of A where it is a model's name: a tag, a file, demo_teacher.")
    ] = None,
) -> None:
    """Write models whose weights lie between those of two others (WiSE-FT)."""
    from workbench.models.interpolate import interpolate as between

    start, end = _model(a, "A", pretrained), _model(b, "B", None)
    for share in alpha or [0.5]:
        folder = between(start, end, share).save(out / f"alpha-{share:g}")
        print(f"local-dir:{folder}")


def train_decoder(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Whose data it learns from.")],
    out: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to; then evaluation.decoder: FOLDER.")],
    settings: Settings = None,
    decoder: Annotated[
        str, typer.Option(help="small, whose tokens are the words of the captions, or a T5: t5-large.")
    ] = "small",
    steps: Annotated[int, typer.Option(min=1, help="Optimisation steps.")] = 6000,
    batch: Annotated[int, typer.Option(min=2, help="Captions per step.")] = 128,
    lr: Annotated[float | None, typer.Option(min=0, help="[3e-3; a T5: 1e-4]")] = None,
) -> None:
    """Train the caption decoder of the suite exact_match on the captions of your data."""
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
    print(
        f"learned from {captions} captions; writes {share:.1%} of {len(match.raw)} others back word for word"
    )
    if share < VALID:
        print(f"Probes need {VALID:.0%}: take more steps or captions, or a T5.")
    print(f"evaluation.decoder: {out.resolve()}")


def _model(run_or_model: str, setting: str, pretrained: str | None) -> "DualEncoder":
    from workbench.models.loading import load_dual_encoder
    from workbench.runs.run import Run

    folder = Path(run_or_model.removeprefix("local-dir:"))
    if (folder / "recipe.yaml").is_file():
        return Run(folder).model()
    if pretrained is None and not folder.is_dir() and not run_or_model.startswith("hf-hub:"):
        remedy = "Give a run, an exported folder, or for A its --pretrained."
        raise SettingError(setting, run_or_model, "a model by name alone has random weights", remedy)
    return load_dual_encoder(run_or_model, pretrained, setting=setting)
