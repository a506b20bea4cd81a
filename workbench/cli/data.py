"""The command that combines several training sets into one: mix."""

from pathlib import Path
from typing import Annotated, Any

import typer

from workbench.errors import SettingError
from workbench.recipe.overrides import assignments


def mix(
    out: Annotated[Path, typer.Argument(help="Folder to write. Repeat the command to resume.")],
    coco: Annotated[Path | None, typer.Option(help="Karpathy's dataset_coco.json.")] = None,
    coco_images: Annotated[
        Path | None,
        typer.Option(help="Folder with train2014 and val2014, or for --overlap with the pictures."),
    ] = None,
    flickr: Annotated[Path | None, typer.Option(help="Karpathy's dataset_flickr30k.json.")] = None,
    flickr_images: Annotated[Path | None, typer.Option(help="Folder with the pictures of Flickr30k.")] = None,
    extra: Annotated[
        str | None, typer.Option(help="A third source, e.g. shards of CC3M, in any form of data.source.")
    ] = None,
    count: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=N", help="Number of pictures of coco, flickr or extra. Repeatable [the paper's]."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the random choice of pictures.")] = 0,
    overlap: Annotated[
        bool, typer.Option("--overlap", help="Use the authors' own choice and count its test pictures.")
    ] = False,
    coco_captions: Annotated[Path | None, typer.Option(help="--overlap: captions_train2017.json.")] = None,
    flickr_captions: Annotated[
        Path | None, typer.Option(help="--overlap: results.csv or results_20130124.token.")
    ] = None,
) -> None:
    """Combine several sources into a training set, without the test pictures of Karpathy's splits."""
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
    summary = {name: value for name, value in record.items() if name not in ("settings", "finished")}
    print(json.dumps(summary, indent=2, ensure_ascii=False))
    print(f"data.source: {out.resolve()}/*.jsonl")


def _counts(options: list[str], defaults: dict[str, int]) -> dict[str, int]:
    counts = dict(defaults)
    for name, number in assignments(options, "--count").items():
        if name not in defaults or not number.isdecimal() or int(number) < 1:
            names = ", ".join(defaults)
            remedy = f"Give one of {names} and a number of pictures, e.g. --count extra=5000."
            raise SettingError("--count", f"{name}={number}", "this is not a count of a source", remedy)
        counts[name] = int(number)
    return counts
