"""Captions from several columns of a source, each with a share of the epochs in which a pair shows it."""

import math
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from workbench.data.duplicates import COLUMNS
from workbench.data.source import Opened
from workbench.errors import SettingError

SHARES = "caption shares"  # in the facts of pairs: the share of every column
_STREAM = 2  # of the random numbers; masks have 1


class Joined(NamedTuple):
    """A source with the captions of several columns, and the rows by which its reader knows the pairs."""

    kind: str
    opened: Opened
    rows: npt.NDArray[np.int64]


def check_shares(shares: Mapping[str, float]) -> None:
    """Raise SettingError unless the shares of the columns are numbers of at least 0, one of them above 0."""
    values = list(shares.values())
    if not all(math.isfinite(value) and value >= 0 for value in values) or not sum(values) > 0:
        problem = "these are no shares: their sum must be above 0, and none below 0"
        raise SettingError(
            "data.caption_column", dict(shares), problem, "Use {caption: 0.7, synthetic: 0.3}."
        )


def open_columns(
    source: Any,
    shares: Mapping[str, float],
    captions_needed: bool,
    open_one: Callable[[str, bool], tuple[str, Opened]],
) -> Joined:
    """Open a source once for each column with a share, and join the captions of every pair.

    `open_one(column, captions_needed)` opens it with the captions of one column. A pair needs a caption in
    one of the columns. Raises SettingError for formats without columns, and for a column without captions.
    """
    check_shares(shares)
    columns = [name for name, share in shares.items() if share > 0]
    opened = {}
    for column in columns:
        kind, opened[column] = open_one(column, False)
        if kind not in ("table", "shards"):
            problem = f"{os.fspath(source)} ({kind}) has no columns of captions"
            raise SettingError("data.caption_column", dict(shares), problem, "Use caption, or give a table.")
        if not pc.sum(pc.list_value_length(opened[column].table["captions"])).as_py():
            open_one(column, True)  # says which columns there are
            problem = f"no pair of {os.fspath(source)} has a caption there"
            raise SettingError("data.caption_column", column, problem, "Name another column.")
    first = opened[columns[0]]
    ids = first.table["id"].combine_chunks()
    places = [pc.index_in(ids, one.table["id"].combine_chunks()) for one in opened.values()]
    # A pair whose json is damaged, for instance, is lost in the columns that are read from it.
    rows = np.flatnonzero(np.all([place.is_valid() for place in places], axis=0))
    for other in opened.values():
        for ours, theirs in ((first.lost, other.lost), (first.skipped, other.skipped)):
            for reason, count in theirs.items():
                if (more := count - ours[reason]) > 0:
                    ours.note(reason, theirs.examples[reason][0], more)
    whole = first.table.take(pa.array(rows))
    lists = [
        one.table["captions"].combine_chunks().take(place.take(pa.array(rows)))
        for one, place in zip(opened.values(), places, strict=True)
    ]
    lengths = np.stack([pc.list_value_length(captions).to_numpy() for captions in lists])
    # Captions in the order of the columns within a pair, which is that of a stable sort by pair.
    pair = np.concatenate([np.repeat(np.arange(len(whole)), length) for length in lengths])
    order = pa.array(np.argsort(pair, kind="stable"))
    number = np.repeat(np.arange(len(columns), dtype=np.int8), lengths.sum(axis=1))
    starts = pa.array(np.concatenate([[0], np.cumsum(lengths.sum(axis=0))]), pa.int32())
    flat = pa.concat_arrays([pc.list_flatten(captions).cast(pa.large_string()) for captions in lists])
    captions, numbers = (
        pa.ListArray.from_arrays(starts, values.take(order)) for values in (flat, pa.array(number))
    )
    table = whole.set_column(whole.column_names.index("captions"), "captions", captions)
    table = table.append_column(COLUMNS, numbers)
    blank = lengths.sum(axis=0) == 0
    if captions_needed and blank.any():
        first.lost.note("no caption", table["id"].filter(pa.array(blank))[0].as_py(), int(blank.sum()))
        table, rows = table.filter(pa.array(~blank)), rows[~blank]
    joined = Opened(table, first.read, first.lost, first.skipped, first.split_from)
    return Joined(kind, joined, rows)


def caption_choice(pairs: Any, row: int, seed: int, epoch: int) -> int:
    """Which caption of `row` an epoch uses, as a position among all captions; -1 if the picture has none.

    Of several columns, one is drawn by seed, epoch and row, with its share among those in which the picture
    has a caption. A picture with n captions (in that column) uses each of them once in n epochs. The first
    one is drawn by seed and row.
    """
    positions = np.arange(pairs.first_caption[row], pairs.first_caption[row + 1])
    shares = pairs.facts.get(SHARES)
    if shares and len(positions) > 1:
        column = np.array(pairs.details(row)[COLUMNS])
        present = np.unique(column)
        ends = np.cumsum(np.array([share for share in shares.values() if share > 0])[present])
        bits = np.random.Philox(key=[seed, (epoch << 40) + row], counter=[0, 0, 0, _STREAM])
        drawn = present[np.searchsorted(ends, np.random.Generator(bits).random() * ends[-1], side="right")]
        positions = positions[column == drawn]
    if len(positions) < 2:
        return int(positions[0]) if len(positions) else -1
    offset = int(np.random.Generator(np.random.Philox(key=[seed, row])).integers(len(positions)))
    return int(positions[(offset + epoch) % len(positions)])
