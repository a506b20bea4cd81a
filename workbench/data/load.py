"""Opens what users have: tar shards, Karpathy JSON, tables, folders of images, and the embedded dataset."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from workbench.data.discovery import WHAT_WORKS, Source, detect, find_files, fits, is_pattern, single
from workbench.data.formats.folder import open_folder
from workbench.data.formats.karpathy import open_karpathy
from workbench.data.formats.shards import open_shards
from workbench.data.formats.tables import open_tables
from workbench.data.pairs import Pairs
from workbench.data.scenes.dataset import SPLITS as SCENE_SPLITS
from workbench.data.scenes.dataset import scenes as embedded_scenes
from workbench.data.source import Opened, split_draw
from workbench.errors import SettingError

FORMATS = ("auto", "scenes", "shards", "karpathy", "table", "folder")
WHOLE = "all"  # every pair of a source without splits of its own
_USUAL_SPLITS = ("train", "val", "test")


def load_pairs(
    source: Source,
    split: str = "train",
    *,
    format: str = "auto",
    image_folder: str | os.PathLike[str] | None = None,
    image_column: str = "image",
    caption_column: str = "caption",
    limit: int | None = None,
    seed: int = 0,
    max_failed: float = 0.01,
    max_pixels: int = 50_000_000,
    scenes: int = 8000,
    image_size: int = 64,
    val_share: float = 0.05,
    test_share: float = 0.05,
) -> Pairs:
    """Open one split of a source: `scenes` (the embedded dataset), or a file, folder, glob or brace pattern.

    `format` is found from what is there unless given: shards, karpathy, table, folder or scenes.

    Splits are the source's own: a Karpathy JSON's, a table's column `split`, sub-folders train, val, test. A
    source without any is split by a hash of each pair's id, `val_share` and `test_share` of it, so that a
    pair stays where it is when others come and go; its split "all" is the whole of it. `limit` takes that
    many pairs of the split by `seed`, in the source's order; a larger limit contains the smaller. `scenes` is
    the size of the embedded training split, `image_size` its pixels, and `seed` draws it too.

    Pairs that cannot be used are counted in `Pairs.rejected`; damage inside an image shows when it is read.
    Raises `SettingError` where no pair is usable or more than `max_failed` of the pairs are rejected.
    """
    if _is_embedded(source, format):
        count = scenes if split == "train" else None
        return _limited(embedded_scenes(split, count, image_size, seed), limit, seed)
    opened = _open(source, format, image_folder, image_column, caption_column, max_failed, max_pixels)
    unsplit = opened.table["split"].null_count == len(opened.table)
    if split == WHOLE and unsplit:
        splits = np.full(len(opened.table), WHOLE, dtype=object)
    else:
        splits = _splits(opened.table, val_share, test_share)
    rows = np.flatnonzero(splits == split)
    if not len(rows):
        remedy = f"It has {', '.join(_in_order(splits))}."
        raise SettingError("split", split, f"{os.fspath(source)} has no such split", remedy)
    pairs = Pairs(
        opened.table.drop_columns([name for name in ("split", "draw") if name in opened.table.column_names]),
        opened.read,
        name=os.fspath(source),
        split=split,
        rejected=opened.lost + opened.skipped,
        max_failed=max_failed,
        reopen=opened.reopen,
    )
    return _limited(pairs.select(rows), limit, seed)


def available_splits(
    source: Source,
    *,
    format: str = "auto",
    val_share: float = 0.05,
    test_share: float = 0.05,
    by_hash: bool = True,
    **options: Any,
) -> list[str]:
    """The splits that a source has, train, val and test first; takes the options of `load_pairs`.

    Without `by_hash` a source that has no splits of its own has the one called "all".
    """
    if _is_embedded(source, format):
        return list(SCENE_SPLITS)
    table = _open(source, format, **options).table
    if not by_hash and table["split"].null_count == len(table):
        return [WHOLE]
    return _in_order(_splits(table, val_share, test_share))


def _is_embedded(source: Source, format: str) -> bool:
    if format == "scenes" and source != "scenes":
        remedy = "Set data.source to scenes as well, or data.format to auto."
        raise SettingError("data.source", os.fspath(source), "not the embedded dataset", remedy)
    return source == "scenes" and format in ("auto", "scenes")


def _limited(pairs: Pairs, limit: int | None, seed: int) -> Pairs:
    if limit is None or limit >= len(pairs):
        return pairs
    if limit < 1:
        raise SettingError("data.limit", limit, "no pairs would be left", "Take 1 or more, or null for all.")
    return pairs.select(draw_rows(len(pairs), limit, seed))


def draw_rows(available: int, count: int, seed: int) -> npt.NDArray[np.int64]:
    """`count` of the rows by seed, in ascending order; a larger draw contains the smaller."""
    # The key's second word keeps this draw apart from the order of epochs, which has the same seed.
    return np.sort(np.random.Generator(np.random.Philox(key=[seed, 2**63])).permutation(available)[:count])


def _open(
    source: Source,
    format: str,
    image_folder: str | os.PathLike[str] | None = None,
    image_column: str = "image",
    caption_column: str = "caption",
    max_failed: float = 0.01,
    max_pixels: int = 50_000_000,
    **_: Any,
) -> Opened:
    if format not in FORMATS:
        raise SettingError("data.format", format, "no such format", f"One of {', '.join(FORMATS)}.")
    folder = None if image_folder is None else Path(image_folder).expanduser()
    if folder is not None and not folder.is_dir():
        remedy = "Name the folder that image paths start from."
        raise SettingError("data.image_folder", str(folder), "no such folder", remedy)
    base, names = find_files(source)
    kind = detect(source, base, names) if format == "auto" else format
    chosen = [name for name in names if fits(name) == kind]
    if not chosen:
        problem = f"no file there fits data.format = {kind}"
        raise SettingError("data.source", os.fspath(source), problem, WHAT_WORKS)
    if kind == "shards":
        opened = open_shards(base, chosen, max_pixels)
    elif kind == "karpathy":
        opened = open_karpathy(base / single(source, chosen), folder, max_pixels)
    elif kind == "table":
        tables = [base / name for name in (chosen if is_pattern(source) else [single(source, chosen)])]
        opened = open_tables(tables, folder, image_column, caption_column, max_pixels)
    else:
        opened = open_folder(base, chosen, max_pixels)
    _check_losses(source, opened, max_failed)
    return opened


def _check_losses(source: Source, opened: Opened, max_failed: float) -> None:
    lost, kept = opened.lost.total(), opened.kept
    if kept and lost <= max_failed * (kept + lost):
        return
    counts = (opened.lost + opened.skipped).most_common()
    reasons = ", ".join(f"{reason}: {count}" for reason, count in counts)
    problem = f"{lost} of {lost + kept} pairs cannot be used ({reasons or 'there are none'})"
    remedy = f"Repair or remove them, or raise data.max_failed (now {max_failed:g})."
    if not kept:
        remedy = "At least one pair must be usable."
    if "missing file" in opened.lost or "path leaves the image folder" in opened.lost:
        remedy += " Relative paths start from data.image_folder."
    raise SettingError("data.source", os.fspath(source), problem, remedy)


def _splits(table: pa.Table, val_share: float, test_share: float) -> npt.NDArray[np.object_]:
    """The split of every row: the source's own, else by a hash of the id."""
    if table["split"].null_count < len(table):
        # As a few names and a code a row: a Python string for every row would take more than the captions.
        encoded = pa.chunked_array([table["split"].combine_chunks().dictionary_encode()]).chunk(0)
        names = np.array([*encoded.dictionary.to_pylist(), None], dtype=object)
        return names[pc.fill_null(encoded.indices, len(names) - 1).to_numpy()]
    if not (val_share >= 0 and test_share >= 0 and val_share + test_share < 1):
        shares, problem = (val_share, test_share), "not shares of a whole"
        raise SettingError("val_share, test_share", shares, problem, "Take less than 1 together.")
    draw = _draws(table) / 2**64
    starts = [1 - val_share - test_share, 1 - test_share]
    chosen = np.searchsorted(starts, draw, side="right").astype(np.int8)  # a place in _USUAL_SPLITS
    train, val, test = range(3)
    if len(table) >= 3 and not all(
        (chosen == split).any()
        for split, share in ((train, 1.0), (val, val_share), (test, test_share))
        if share
    ):
        # In a small source, the pair with the highest draw goes to an empty split.
        order = np.argsort(-draw, kind="stable")
        if not (chosen == train).any():
            chosen[order[-1]] = train
        for split, share in ((test, test_share), (val, val_share)):
            if share and not (chosen == split).any():
                chosen[next(row for row in order if (chosen == chosen[row]).sum() > 1)] = split
    return np.array(_USUAL_SPLITS, dtype=object)[chosen]


def _draws(table: pa.Table) -> npt.NDArray[np.uint64]:
    if "draw" in table.column_names:
        return np.asarray(table["draw"].to_numpy())
    ids = (identity for batch in table["id"].chunks for identity in batch.to_pylist())
    return np.fromiter(map(split_draw, ids), dtype=np.uint64, count=len(table))


def _in_order(splits: npt.NDArray[np.object_]) -> list[str]:
    names = set(splits) - {None}
    return [split for split in _USUAL_SPLITS if split in names] + sorted(names - set(_USUAL_SPLITS))
