"""Merges pictures with equal bytes into one picture with all their captions, in one split."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

COLUMNS = "caption_columns"  # for every caption, the number of its column in the source
_ORDER = {"train": 0, "val": 1}  # a picture of several splits stays in the one that is furthest from training


class Merged(NamedTuple):
    """Pairs without copies: the `table` of the pairs that stay, with all their captions, and their `rows`;
    how many copies were `merged` with a picture of the same split; and the rows `left_out` because another
    split has the same picture."""

    table: pa.Table
    rows: npt.NDArray[np.int64]
    merged: int
    left_out: npt.NDArray[np.int64]


def merge_copies(table: pa.Table) -> Merged:
    """Merge the rows of a split that have the same value in the column `digest`. Null equals nothing.

    A picture in several splits leaves `train` for any other split, and `val` for the test splits. The test
    splits keep all their pictures, so that no held-out picture is trained on.
    """
    picture = _codes(pc.fill_null(table["digest"].cast(pa.binary()), b""))
    unknown = table["digest"].is_null().to_numpy()
    picture[unknown] = len(picture) + np.flatnonzero(unknown)
    split = _codes(pc.fill_null(table["split"], ""))
    stays = _held_out(picture, table["split"])
    rows = np.flatnonzero(stays)
    codes = picture[rows] * (int(split.max(initial=0)) + 1) + split[rows]
    merged, first = merge_rows(table.take(pa.array(rows)), codes)
    return Merged(merged, rows[first], len(rows) - len(first), np.flatnonzero(~stays))


def merge_rows(table: pa.Table, picture: npt.NDArray[np.int64]) -> tuple[pa.Table, npt.NDArray[np.int64]]:
    """Merge rows into one per picture, given each row's picture number, with the captions (and their columns)
    of all rows in order. Pictures keep the order of their first rows, which are returned too."""
    _, first, of_row = np.unique(picture, return_index=True, return_inverse=True)
    if len(first) == len(table):
        return table, np.arange(len(table))
    order = np.argsort(first, kind="stable")  # pictures in the order of their first rows
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    of_row, first = place[of_row], first[order]
    by_picture = pa.array(np.argsort(of_row, kind="stable"))
    lengths = pc.list_value_length(table["captions"]).to_numpy()
    ends = np.cumsum(np.bincount(of_row, weights=lengths)).astype(np.int32)
    starts = np.concatenate([np.zeros(1, np.int32), ends])
    pairs = table.take(pa.array(first))
    for name in {"captions", COLUMNS} & set(table.column_names):
        values = pc.list_flatten(table[name].take(by_picture)).combine_chunks()
        joined = pa.ListArray.from_arrays(starts, values)
        pairs = pairs.set_column(pairs.column_names.index(name), name, joined)
    return pairs, first


def _codes(values: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """A number for every value, equal for equal values."""
    return np.array(values.combine_chunks().dictionary_encode().indices.to_numpy(), dtype=np.int64)


def _held_out(picture: npt.NDArray[np.int64], split: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Whether each row is in the split that its picture stays in. True for all rows without a split."""
    known = split.is_valid().to_numpy()
    if not known.any():
        return np.ones(len(picture), dtype=bool)
    names = split.combine_chunks().dictionary_encode()
    ranks = np.array([_ORDER.get(name, 2) for name in names.dictionary.to_pylist()], dtype=np.int64)
    rank = np.where(known, ranks[pc.fill_null(names.indices, 0).to_numpy()], -1)
    _, number = np.unique(picture, return_inverse=True)
    furthest = np.full(number.max() + 1, -1, dtype=np.int64)
    np.maximum.at(furthest, number, rank)
    return (rank == furthest[number]) | ~known
