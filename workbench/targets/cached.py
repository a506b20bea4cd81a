"""Stores of targets in the cache: filled together, reported in lines, and read in place of pictures."""

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
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
    the lines of progress (default: they are printed, None for none)."""

    rank: int
    world: int
    say: Callable[[str], object] | None


def say_at_once(text: str) -> None:
    """Print a line that reaches a log file when it is printed, not when a buffer is full."""
    print(text, flush=True)


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
    say: Callable[[str], object] | None = say_at_once,
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
        return pairs.read_by(self)


def readable(
    pairs: Pairs,
    rows: Iterable[int],
    workers: int = 0,
    prepare: Callable[[int, torch.Tensor], Any] = lambda row, picture: picture,
) -> tuple[dict[int, Any], dict[int, str]]:
    """`prepare(row, picture)` of the pictures of these rows that can be read, and why the others cannot, by
    row; read by `workers` threads, which decode at the same time."""

    def read(row: int) -> tuple[Any, str | None]:
        try:
            return prepare(row, pairs.image(row)), None
        except BadSample as error:
            return None, error.reason

    rows = list(rows)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        results = dict(zip(rows, pool.map(read, rows), strict=True))
    good = {row: value for row, (value, reason) in results.items() if reason is None}
    return good, {row: reason for row, (_, reason) in results.items() if reason is not None}
