"""A little store of known contents; as a program, `fill` fills it and `kill` kills its filling."""

import json
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np

from workbench.targets import Column, TargetStore, fill

FINGERPRINT = {"teacher": {"config": "c0ffee", "weights": "beef"}, "data": "1234", "views": 2}
VIEWS, IMAGES, TEXTS, DIM, BATCH = 2, 17, 40, 6, 4
BAD = {5: "truncated JPEG", 6: "empty file"}


def image_values(rows: slice) -> np.ndarray:
    view, row, dim = np.ogrid[0:VIEWS, rows.start : rows.stop, 0:DIM]
    return np.sin(1.0 + 100 * view + 10 * row + dim)


def text_values(rows: slice) -> np.ndarray:
    row, dim = np.ogrid[rows.start : rows.stop, 0:DIM]
    return np.cos(1.0 + 10 * row + dim)


def columns(seconds: float = 0.0, computed: list | None = None) -> dict[str, Column]:
    """The two columns; `seconds` is what a chunk takes, `computed` gets what was asked for."""

    def column(name, values, bad):
        def compute(rows: slice):
            time.sleep(seconds)
            if computed is not None:
                computed.append((name, rows.start, rows.stop))
            return values(rows), {row: reason for row, reason in bad.items() if rows.start <= row < rows.stop}

        return compute

    return {
        "image": Column((VIEWS, IMAGES, DIM), "float16", column("image", image_values, BAD), row_axis=1),
        "text": Column((TEXTS, DIM), "float16", column("text", text_values, {})),
    }


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every file of a store, without the hidden drafts that a kill leaves."""
    files = [path for path in Path(folder).rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def _fill(folder: str, rank: str, world: str, seconds: str) -> None:
    computed: list = []
    fill(
        folder, FINGERPRINT, columns(float(seconds), computed), batch=BATCH, rank=int(rank), world=int(world)
    ).verify()
    print(json.dumps(computed))


def _kill(folder: str) -> None:
    from tests.kill_points import kill_everywhere

    os.fsync = lambda handle: None  # a killed process loses nothing that was written; syncing is slow
    whole, cut = Path(folder) / "whole", Path(folder) / "cut"
    fill(whole, FINGERPRINT, columns(), batch=2 * BATCH)
    expected = contents(whole)

    def check(attempt: int) -> None:
        fill(cut, FINGERPRINT, columns(), batch=2 * BATCH)
        assert contents(cut) == expected, f"other bytes after the kill at operation {attempt}"
        TargetStore.open(cut, FINGERPRINT).verify()

    def filling() -> None:
        fill(cut, FINGERPRINT, columns(), batch=2 * BATCH)

    print(kill_everywhere(str(cut), lambda: shutil.rmtree(cut, ignore_errors=True), filling, check))


if __name__ == "__main__":
    {"fill": _fill, "kill": _kill}[sys.argv[1]](*sys.argv[2:])
