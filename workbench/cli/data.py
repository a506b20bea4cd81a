"""The command that makes a training set out of several: mix."""

from pathlib import Path
from typing import Annotated, Any

import typer

from workbench.errors import SettingError
from workbench.recipe.overrides import assignments


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
