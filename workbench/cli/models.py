"""Commands that make new models and training sets out of what is there: export, interpolate, mix."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.errors import SettingError
from workbench.recipe.overrides import assignments

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


def mix(
    out: Annotated[Path, typer.Argument(help="Folder to write; the same call again goes on.")],
    coco: Annotated[Path | None, typer.Option(help="Karpathy's dataset_coco.json.")] = None,
    coco_images: Annotated[
        Path | None,
        typer.Option(help="Folder that holds train2014 and val2014, or for --overlap the pictures."),
    ] = None,
    flickr: Annotated[Path | None, typer.Option(help="Karpathy's dataset_flickr30k.json.")] = None,
    flickr_images: Annotated[Path | None, typer.Option(help="Folder of Flickr30k's pictures.")] = None,
    extra: Annotated[
        str | None, typer.Option(help="A third source, e.g. shards of CC3M; whatever data.source may be.")
    ] = None,
    count: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=N", help="Pictures of coco, flickr, extra. Repeatable [the paper's]."),
    ] = None,
    seed: Annotated[int, typer.Option(help="What the pictures are drawn by.")] = 0,
    overlap: Annotated[
        bool, typer.Option("--overlap", help="The authors' own choice; counts the test pictures in it.")
    ] = False,
    coco_captions: Annotated[Path | None, typer.Option(help="--overlap: captions_train2017.json.")] = None,
    flickr_captions: Annotated[
        Path | None, typer.Option(help="--overlap: results.csv or results_20130124.token.")
    ] = None,
) -> None:
    """Put a training set together from several sources, without the pictures that Karpathy's splits test."""
    import json

    from workbench.data.build import mix as mixtures
    from workbench.data.build import overlap as authors

    options: dict[str, Any] = {
        "coco": coco,
        "flickr": flickr,
        "extra": extra,
        "coco_images": coco_images,
        "flickr_images": flickr_images,
        "seed": seed,
    }
    options["counts"] = _counts(count or [], authors.COUNTS if overlap else mixtures.COUNTS)
    if overlap:
        listed: dict[str, Any] = {"coco_captions": coco_captions, "flickr_captions": flickr_captions}
        record = authors.build_overlapping(out, **listed, **options)
    else:
        record = mixtures.build_mixture(out, **options)
    shown = {name: value for name, value in record.items() if name not in ("settings", "finished")}
    print(json.dumps(shown, indent=2, ensure_ascii=False))
    print(f"data.source: {out.resolve()}/*.jsonl")


def _counts(given: list[str], usual: dict[str, int]) -> dict[str, int]:
    counts = dict(usual)
    for name, number in assignments(given, "--count").items():
        if name not in usual or not number.isdecimal() or int(number) < 1:
            remedy = f"One of {', '.join(usual)} and a number of pictures, e.g. --count extra=5000."
            raise SettingError("--count", f"{name}={number}", "no count of a source", remedy)
        counts[name] = int(number)
    return counts
