"""The columns of paths and captions in tables of open_clip and of image folders on the Hugging Face hub."""

import csv
import json
import re
from pathlib import Path, PurePosixPath

import pyarrow.parquet as pq

# What other tools call the columns `image` and `caption`: open_clip, then the hub.
OTHER_NAMES = {"image": ("filepath", "file_name"), "caption": ("title", "text")}
_HUB_TABLE = re.compile(r"metadata\.(csv|jsonl|parquet)")
_LONGEST_LINE = 1 << 20


def is_hub_table(name: str) -> bool:
    """Whether a file describes the images of its own folder, as the hub's image folders have it."""
    return _HUB_TABLE.fullmatch(PurePosixPath(name).name) is not None


def column_called(path: Path, column: str) -> str:
    """The name of a column in a table: `column`, or another tool's name if a default is missing."""
    others = OTHER_NAMES.get(column, ())
    names = _columns(path) if others else []
    return next((name for name in (column, *others) if name in names), column)


def _columns(path: Path) -> list[str]:
    """The columns of a table as far as they are quickly read, [] for a damaged table."""
    try:
        if path.suffix.lower() == ".parquet":
            return pq.read_schema(path).names
        with open(path, "rb") as stream:
            line = stream.readline(_LONGEST_LINE).decode("utf-8-sig", errors="replace")
        if path.suffix.lower() == ".jsonl":
            return list(json.loads(line))
        headers = [next(csv.reader([line], delimiter=separator), []) for separator in "\t,;|"]
        return max(headers, key=len)
    except (OSError, ValueError, TypeError, RecursionError, csv.Error):  # Arrow's errors are among these
        return []
