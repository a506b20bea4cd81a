"""Stores of targets in the cache: filled together, reported in lines, and read in place of pictures."""

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np
import torch

from workbench.data.decode import BadSample, Reason
from workbench.data.pairs import Pairs
from workbench.targets.store import TargetStore, store_folder
from workbench.targets.store_writer import Column, Progress, fill

LINE_EVERY = 20.0  # seconds between two progress lines


class Share(TypedDict, total=False):
    """This process's part in filling a store: it is `rank` of `world` processes (default 0 of 1); `say` takes
    the lines of progress (default print, None for none)."""

    rank: int
    world: int
    say: Callable[[str], object] | None


def cached(
    fingerprint: Mapping[str, Any],
    name: str,
    columns: Mapping[str, Column],
    *,
    batch: int,
    label: str,
    folder: str | Path | None = None,
    rank: int = 0,
    world: int = 1,
    say: Callable[[str], object] | None = print,
) -> TargetStore:
    """The store with this fingerprint, called `name` in the cache: computed now, continued where a killed
    process stopped, or opened when all is there.

    `label` names a column in lines of progress ("teacher's {} targets"); everything else as for `fill`.
    """
    report = ProgressLines(say, label) if say and rank == 0 else None
    folder = folder or store_folder(dict(fingerprint), name)
    return fill(folder, fingerprint, columns, batch=batch, rank=rank, world=world, report=report)


class ProgressLines:
    """Says now and then how far the filling is."""

    def __init__(self, say: Callable[[str], object], label: str) -> None:
        self.say = say
        self.label = label
        self.last = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        complete = progress.done == progress.total
        if complete and not progress.rows_per_second:
            return  # it was there already
        if complete or time.monotonic() - self.last > LINE_EVERY:
            self.last = time.monotonic()
            seconds = None if complete else progress.seconds_left
            remaining = "" if seconds is None else f", {seconds / 60:.1f} min left"
            self.say(
                f"{self.label.format(progress.column)}: {progress.done} of {progress.total}, "
                f"{progress.rows_per_second:.0f} a second{remaining}"
            )


class StoreReader:
    """Reads what a store's only column keeps of a row's picture, as a tensor; raises BadSample where the
    picture could not be read. Picklable."""

    def __init__(self, store: TargetStore) -> None:
        self.store = store
        (self.column,) = store.columns

    def __call__(self, row: int) -> torch.Tensor:
        reason = self.store.bad_rows[self.column].get(row)
        if reason is not None:
            raise BadSample(cast(Reason, reason))
        return self.restore(self.store.rows(self.column, row))

    def restore(self, record: np.ndarray) -> torch.Tensor:
        """The tensor that a record stands for."""
        return torch.from_numpy(record)

    def in_place_of_pictures(self, pairs: Pairs) -> Pairs:
        """The same pairs, read by this reader."""
        return Pairs(
            pairs.table,
            self,
            name=pairs.name,
            split=pairs.split,
            rejected=pairs.rejected,
            max_failed=pairs.max_failed,
            facts=pairs.facts,
        )


def readable(pairs: Pairs, rows: Iterable[int]) -> tuple[dict[int, torch.Tensor], dict[int, str]]:
    """The pictures of these rows that can be read, and why the others cannot, by row."""
    pictures: dict[int, torch.Tensor] = {}
    bad: dict[int, str] = {}
    for row in rows:
        try:
            pictures[row] = pairs.image(row)
        except BadSample as error:
            bad[row] = error.reason
    return pictures, bad
