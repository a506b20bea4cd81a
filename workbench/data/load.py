"""Opens the users' data: tar shards, Karpathy JSON, tables, folders of images, and the embedded dataset."""

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from workbench.data.caption_columns import SHARES, open_columns
from workbench.data.discovery import FORMATS, WHAT_WORKS_REMOTELY, Source, chosen_files, find_shards
from workbench.data.duplicates import merge_copies
from workbench.data.formats.coco import open_coco
from workbench.data.formats.folder import open_folder
from workbench.data.formats.karpathy import open_karpathy
from workbench.data.formats.shards import open_shards
from workbench.data.formats.tables import open_tables
from workbench.data.pairs import Pairs
from workbench.data.remote import is_remote
from workbench.data.scenes.dataset import SPLITS as SCENE_SPLITS
from workbench.data.scenes.dataset import scenes as embedded_scenes
from workbench.data.source import NoCaptions, Opened, Rejected
from workbench.data.splits import hashed_splits, in_order, meanings, split_named
from workbench.errors import SettingError

WHOLE = "all"  # the split of every pair if a source has no splits


def load_pairs(
    source: Source,
    split: str = "train",
    *,
    limit: int | None = None,
    seed: int = 0,
    scenes: int = 8000,
    image_size: int = 64,
    val_share: float = 0.05,
    test_share: float = 0.05,
    **options: Any,
) -> Pairs:
    """Open one split of a source: `scenes` (the embedded dataset), a file, folder, glob or brace pattern, or,
    for shards, a URL that fsspec knows (`s3://`, `gs://`, `hf://`, `https://`).

    `options` are those of `open_source`. Splits are the source's own: those of a Karpathy JSON, of a table's
    column `split`, or of the names of folders, shards and tables (`train`, `cc3m-validation-0000.tar`);
    `validation`, `valid` and `dev` mean `val`. A source without splits is split by a hash of each pair's id
    into `val_share`, `test_share` and the rest, so that a pair keeps its split when others come and go. The
    split "all" of such a source is the whole source. `limit` draws that many pairs of the split by `seed` and
    keeps the source's order; a larger limit contains the smaller. `scenes` is the size of the embedded
    training split and `image_size` its pixels; `seed` draws it too.

    Unusable pairs are counted in `Pairs.rejected`. Damage inside an image only shows when the image is read.
    `Pairs.facts` records how the source was read. Raises `SettingError` if no pair is usable or if more than
    the share `max_failed` of the pairs is rejected.
    """
    if _is_embedded(source, options.get("format", "auto")):
        if not isinstance(options.get("caption_column", ""), str):
            problem = "the embedded dataset has no columns of captions"
            raise SettingError("data.caption_column", options["caption_column"], problem, "Use caption.")
        count = scenes if split == "train" else None
        return _limited(embedded_scenes(split, count, image_size, seed), limit, seed)
    opened = open_source(source, **options)
    splits, split_from = _splits(opened, val_share, test_share, whole=split == WHOLE)
    wanted = split if split in splits else split_named(split) or split
    rows = np.flatnonzero(splits == wanted)
    if not len(rows):
        remedy = f"It has {', '.join(in_order(splits))}."
        raise SettingError("split", split, f"{os.fspath(source)} has no such split", remedy)
    sizes = {name: int((splits == name).sum()) for name in in_order(splits)}
    pairs = Pairs(
        opened.table.drop_columns([name for name in ("split", "draw") if name in opened.table.column_names]),
        opened.read,
        name=os.fspath(source),
        split=wanted,
        rejected=opened.rejected,
        max_failed=options.get("max_failed", 0.01),
        reader_rows=opened.rows,
        reopen=opened.reopen,
        facts={**opened.facts, "split from": split_from, "splits": sizes},
        captions_needed=options.get("captions_needed", True),
    )
    return _limited(pairs.select(rows), limit, seed)


def available_splits(
    source: Source,
    *,
    val_share: float = 0.05,
    test_share: float = 0.05,
    by_hash: bool = True,
    **options: Any,
) -> list[str]:
    """The splits of a source, train, val and test first. Takes the options of `load_pairs`.

    Without `by_hash`, a source without splits has the only split "all".
    """
    if _is_embedded(source, options.get("format", "auto")):
        return list(SCENE_SPLITS)
    for name in ("limit", "seed", "scenes", "image_size"):
        options.pop(name, None)
    opened = open_source(source, **options)
    return in_order(_splits(opened, val_share, test_share, whole=not by_hash)[0])


class OpenedSource(NamedTuple):
    """All pairs of a source: a `table` with `id`, `captions`, `digest` and `split`; the picture reader
    `read`, and the `rows` by which it knows the pairs (None: the rows of the table); what was `rejected`; and
    `facts` for the data report. `reopen` reads ids, captions and digests from an index in another process."""

    table: pa.Table
    read: Any
    rows: npt.NDArray[np.int64] | None
    rejected: Rejected
    facts: dict[str, Any]
    split_from: str
    reopen: Callable[[], pa.Table] | None = None


def open_source(
    source: Source,
    *,
    format: str = "auto",
    image_folder: str | os.PathLike[str] | None = None,
    image_column: str = "image",
    caption_column: str | Mapping[str, float] = "caption",
    caption_lines: bool = True,
    duplicates: str = "merge",
    max_failed: float = 0.01,
    max_pixels: int = 50_000_000,
    shard_cache: float | None = None,
    captions_needed: bool = True,
) -> OpenedSource:
    """Open a source with all its splits.

    `format` is shards, karpathy, coco, table or folder, and is recognised by default. Every line of a text
    file beside a picture, in a folder or a shard, is a caption. With `caption_lines` false the whole file is
    one caption, as for alt texts with line breaks. Without `captions_needed` a picture may have no caption,
    and a folder or a table none at all. A mapping from names of columns to shares gives a picture the
    captions of all of these columns, from which each epoch chooses by their shares (`caption_choice`).

    Pictures with equal bytes are merged into one picture with all their captions, in one split. To this end
    all pictures are read once, and again if a file's size or time changes. With `duplicates` "keep" they are
    not read: sizes and times of files, or versions of files behind a URL, then identify the content.
    `shard_cache` is how many gigabytes of remote shards to cache; None reads every picture from the remote
    shard. Raises `SettingError` like `load_pairs`.
    """
    if duplicates not in ("merge", "keep"):
        raise SettingError("data.duplicates", duplicates, "no such choice", "merge or keep")

    def open_one(column: str, needed: bool) -> tuple[str, Opened]:
        columns = image_folder, image_column, column
        return _open(source, format, *columns, caption_lines, max_pixels, shard_cache, captions_needed=needed)

    shares, of_reader = None, None
    if isinstance(caption_column, str):
        kind, opened = open_one(caption_column, captions_needed)
    else:
        shares = dict(caption_column)
        kind, opened, of_reader = open_columns(source, shares, captions_needed, open_one)
    _check_losses(source, opened, max_failed)
    digests = opened.read.digests(duplicates == "merge")
    digests = digests if of_reader is None else digests.take(pa.array(of_reader))
    reopen = opened.reopen and functools.partial(_with_digests, opened.reopen, digests)
    table, rows = _in_plain_splits(opened.table.append_column("digest", digests)), of_reader
    rejected = opened.lost.copy().absorb(opened.skipped)
    facts: dict[str, Any] = {"format": kind, "copies merged": 0, **({SHARES: shares} if shares else {})}
    if duplicates == "merge":
        merged = merge_copies(table)
        if len(merged.left_out):
            ids = table["id"].take(pa.array(merged.left_out[:3])).to_pylist()
            rejected.note("in another split too", ids[0], len(merged.left_out))
            rejected.name("in another split too", ids)
        facts["copies merged"] = merged.merged
        if len(merged.table) < len(table):
            # An index knows nothing of merged copies, so these pairs are kept in memory.
            kept = merged.rows if rows is None else rows[merged.rows]
            table, rows, reopen = merged.table, kept, None
    return OpenedSource(table, opened.read, rows, rejected, facts, opened.split_from, reopen)


def _with_digests(reopen: Callable[[], pa.Table], digests: pa.Array) -> pa.Table:
    return reopen().append_column("digest", digests)


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
    """Draw `count` of the rows by seed, in ascending order. A larger draw contains the smaller."""
    # The key's second word keeps this draw apart from the order of epochs, which has the same seed.
    return np.sort(np.random.Generator(np.random.Philox(key=[seed, 2**63])).permutation(available)[:count])


def _open(
    source: Source,
    format: str,
    image_folder: str | os.PathLike[str] | None,
    image_column: str,
    caption_column: str,
    caption_lines: bool,
    max_pixels: int,
    shard_cache: float | None,
    *,
    captions_needed: bool,
) -> tuple[str, Opened]:
    if format not in FORMATS:
        raise SettingError("data.format", format, "no such format", f"One of {', '.join(FORMATS)}.")
    folder = None if image_folder is None else Path(image_folder).expanduser()
    if folder is not None and not folder.is_dir():
        remedy = "Name the folder that image paths start from."
        raise SettingError("data.image_folder", str(folder), "no such folder", remedy)
    if is_remote(source):
        if format not in ("auto", "shards"):
            raise SettingError("data.format", format, "only shards are read from a URL", WHAT_WORKS_REMOTELY)
        shards = find_shards(os.fspath(source))
        return "shards", open_shards(
            *shards, max_pixels, caption_lines, shard_cache, captions_needed, caption_column
        )
    kind, base, names = chosen_files(source, format, captions_needed)
    if kind == "shards":
        return kind, open_shards(
            base, names, max_pixels, caption_lines, None, captions_needed, caption_column
        )
    if kind == "karpathy":
        return kind, open_karpathy(base, names, folder, max_pixels, captions_needed)
    if kind == "coco":
        return kind, open_coco(base, names, folder, max_pixels, captions_needed)
    if kind == "table":
        return kind, open_tables(
            base, names, folder, image_column, caption_column, max_pixels, captions_needed
        )
    return kind, open_folder(base, names, max_pixels, caption_lines, captions_needed)


def _check_losses(source: Source, opened: Opened, max_failed: float) -> None:
    lost, kept = opened.lost.total(), opened.kept
    if kept and lost <= max_failed * (kept + lost):
        return
    reasons = opened.lost.copy().absorb(opened.skipped).described()
    problem = f"{lost} of {lost + kept} pairs cannot be used ({reasons or 'there are none'})"
    remedy = f"Repair or remove them, or raise data.max_failed (now {max_failed:g})."
    if not kept:
        remedy = "At least one pair must be usable."
    if "missing file" in opened.lost or "path leaves the image folder" in opened.lost:
        remedy += " Relative paths start from data.image_folder."
    if opened.lost["no caption"]:
        raise NoCaptions("data.source", os.fspath(source), problem, remedy)
    raise SettingError("data.source", os.fspath(source), problem, remedy)


def _in_plain_splits(table: pa.Table) -> pa.Table:
    """Replace the source's own words for its splits by their usual names."""
    words = table["split"].unique().drop_null().to_pylist()
    meaning = meanings(words)
    if all(word == split for word, split in meaning.items()):
        return table
    places = pc.index_in(table["split"], pa.array(words))
    plain = pa.array([meaning[word] for word in words]).take(places.combine_chunks())
    return table.set_column(table.column_names.index("split"), "split", plain)


def _splits(
    opened: OpenedSource, val_share: float, test_share: float, *, whole: bool = False
) -> tuple[npt.NDArray[np.object_], str]:
    """The split of every row, and the origin of the splits: the source itself, otherwise a hash of the ids
    or, with `whole`, none."""
    table = opened.table
    if table["split"].null_count < len(table):
        # As a few names and a code a row: one Python string a row would take more memory than the captions.
        encoded = pa.chunked_array([table["split"].combine_chunks().dictionary_encode()]).chunk(0)
        names = np.array([*encoded.dictionary.to_pylist(), None], dtype=object)
        return names[pc.fill_null(encoded.indices, len(names) - 1).to_numpy()], opened.split_from
    if whole:
        return np.full(len(table), WHOLE, dtype=object), "none, the whole of it"
    shares = f"{val_share:.3g} val, {test_share:.3g} test" if val_share or test_share else "all train"
    splits = hashed_splits(table, val_share, test_share)
    return splits, f"a hash of the ids ({shares})"
