"""Rebuilds DCLIP's own choice of training pictures, and counts how much of Karpathy's test split is in it.

The authors took the first pictures of COCO's 2017 training captions and of Flickr30k's list in file order,
regardless of the splits that they later tested on (source: their released data builder). For licences see
`workbench.data.build.mix`.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workbench.data.build import mix
from workbench.data.build.mix import KarpathySplits, Row, described, draw, picture_names, table_rows
from workbench.data.discovery import Source
from workbench.data.formats.coco import read_coco_captions
from workbench.data.formats.flickr import read_flickr_captions
from workbench.data.load import load_pairs
from workbench.errors import SettingError
from workbench.files import write_json

# Before a tenth is removed for validation.
COUNTS = {"coco": 50_000, "flickr": 15_000, "extra": 10_000}
VALIDATION_SHARE = 0.1


def build_overlapping(
    folder: Path,
    *,
    coco_captions: Path | None = None,
    flickr_captions: Path | None = None,
    coco: Path | None = None,
    flickr: Path | None = None,
    extra: Source | None = None,
    coco_images: Source | None = None,
    flickr_images: Source | None = None,
    counts: Mapping[str, int] = COUNTS,
    seed: int = 0,
) -> dict[str, Any]:
    """Write the authors' choice as `train.jsonl` and `val.jsonl`, and count the test pictures in it.

    `coco_captions` is captions_train2017.json and `flickr_captions` is results.csv or results_20130124.token.
    The first pictures in the order of their captions are taken, with all their captions. `coco` and `flickr`
    are Karpathy's JSONs, whose test and validation pictures are counted in the whole choice, and again in
    the training part that remains after a tenth, drawn by `seed`, goes to validation (the authors drew theirs
    without a seed). Nothing is excluded: this measures a leak and is not a training set for results. The
    pictures need not exist to be counted. Raises SettingError for files of another layout and for too few
    pictures.
    """
    sources = {
        "coco": (coco_captions, coco, coco_images, read_coco_captions),
        "flickr": (flickr_captions, flickr, flickr_images, read_flickr_captions),
    }
    settings = {
        "kind": "overlap",
        "seed": seed,
        "files": {name: [str(file) for file in files[:3]] for name, files in sources.items()},
        "extra": str(extra),
        "counts": dict(counts),
    }
    if (record := mix.finished_record(folder, settings)) is not None:
        return record
    rows, parts, splits = list[Row](), dict[str, Any](), dict[str, KarpathySplits]()
    for name, (captions_file, karpathy, images, read) in sources.items():
        if captions_file is None:
            continue
        captions = read(captions_file, f"--{name}-captions")
        if len(captions) < counts[name]:
            problem = f"{captions_file} has captions of {len(captions)} pictures"
            raise SettingError("--count", f"{name}={counts[name]}", problem, f"At most {len(captions)}.")
        below = Path(images) if images is not None else captions_file.parent
        for picture in list(captions)[: counts[name]]:
            path = os.path.abspath(below / picture)
            rows.append({"image": path, "caption": captions[picture], "id": picture, "split": "train"})
        parts[name] = {"available": len(captions), "pictures": counts[name]}
        if karpathy is not None:
            splits[name] = KarpathySplits.read(karpathy)
    if extra is not None:
        pairs = load_pairs(extra, "train", val_share=0.0, test_share=0.0)
        selected = pairs.select(draw(range(len(pairs)), counts["extra"], seed, "extra"))
        write_json(folder / mix.RECORD, {"finished": False, "settings": settings})
        rows += table_rows(selected, extra, "train", folder)
        parts["extra"] = {"available": len(pairs), **described(selected)}
    if not rows:
        problem, remedy = "there is nothing to mix", "Name at least one of them"
        raise SettingError("--coco-captions, --flickr-captions", None, problem, remedy)
    order = np.random.Generator(np.random.Philox(key=[seed, 2**62])).permutation(len(rows))
    held_out = set(order[: int(VALIDATION_SHARE * len(rows))].tolist())
    training = [row for number, row in enumerate(rows) if number not in held_out]
    validation = [{**rows[number], "split": "val"} for number in sorted(held_out)]
    about = {
        "sources": parts,
        "missing pictures": sum(not os.path.isfile(folder / row["image"]) for row in rows),
        "overlap": {
            name: {"all": overlap(rows, karpathy), "train.jsonl": overlap(training, karpathy)}
            for name, karpathy in splits.items()
        },
    }
    return mix.finish(folder, settings, training, validation, about)


def overlap(rows: Sequence[Row], splits: KarpathySplits) -> dict[str, int]:
    """The number of rows that show a picture of Karpathy's test split and of his validation split."""
    names = {split: splits.of(split) for split in ("test", "val")}
    return {
        split: sum(bool(picture_names(row["id"]) & known) for row in rows) for split, known in names.items()
    }
