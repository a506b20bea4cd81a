"""Opens csv, tsv, jsonl and parquet tables with a column of image paths and one of captions."""

import ast
import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from workbench.data.decode import BadSample
from workbench.data.duplicates import merge_rows
from workbench.data.formats.column_names import column_called, is_hub_table
from workbench.data.formats.flickr import caption_lines, official_splits, separator_of
from workbench.data.formats.parquet_pictures import check_text_column, open_pictures, picture_column
from workbench.data.source import (
    Opened,
    PairRows,
    Rejected,
    check_file,
    clean_captions,
    folder_of_pictures,
    is_split_column,
    note_unsplit,
    split_of_record,
    text_cell,
)
from workbench.data.splits import splits_in_names
from workbench.errors import SettingError

TABLE_EXTENSIONS = (".csv", ".tsv", ".jsonl", ".parquet")
SPLIT_COLUMN = "split"
MOST_TEXT, MOST_RATIO = 64 << 20, 1000  # limit of unpacked parquet: these bytes, plus this times its size
Record = dict[str, Any]


def open_tables(
    base: Path,
    names: list[str],
    image_folder: Path | None,
    image_column: str,
    caption_column: str,
    max_pixels: int,
    captions_needed: bool = True,
) -> Opened:
    """Open one or several tables, `names` in `base`. A pair's id is the path of its image as written.

    Rows of the same image become one pair. Captions are a string or a list; in csv and tsv a list may be
    written as JSON or by pandas. A column `split` determines the splits, otherwise the tables' names do.
    Relative paths start from `image_folder`, by default the tables' folder, and must not leave it. Absolute
    paths are used unchanged. Unusable rows are counted. Parquet tables may contain the pictures themselves.
    The default columns may have the names that open_clip and the Hugging Face hub give them. Raises
    `SettingError` for unreadable tables and missing columns.
    """
    paths = [base / name for name in names]
    named = splits_in_names(str(base), names, stems=True) or [None] * len(paths)
    inside = [picture_column(path, image_column) for path in paths]
    if any(inside):
        if not all(inside):
            problem = f"{names[inside.index(None)]} contains no pictures, but other tables do"
            raise SettingError("data.source", str(base), problem, "Open them separately, by a glob for each.")
        return open_pictures(base, names, named, inside, caption_column, max_pixels, captions_needed)
    folders = {path.parent for path in paths if not is_hub_table(path.name)}
    if image_folder is None and len(folders) > 1:
        problem = f"the tables are in {len(folders)} folders, and relative paths could start from any of them"
        raise SettingError("data.image_folder", None, problem, "Name the folder that the paths start from.")
    rows, split_from = PairRows(), "the names of its folders and tables"
    for path, split_of_table in zip(paths, named, strict=True):
        hub = is_hub_table(path.name)
        folder, lists = image_folder or (base if hub else path.parent), dict[str, str]()
        inner = os.path.relpath(path.parent, base) if hub else "."
        usual = (image_column, caption_column) == ("image", "caption")
        if usual and path.suffix != ".parquet" and (separator := separator_of(path)) is not None:
            listed = []
            for name, text in caption_lines(path, separator):
                if text or not captions_needed:
                    listed.append((name, text))
                else:  # the published results.csv has a line without its last separator
                    rows.skipped.note("no caption", name)
            records: Iterator[Record] = ({"image": name, "caption": text} for name, text in listed)
            if image_folder is None:
                folder = folder_of_pictures(list(dict(listed)), path.parent)
            lists = official_splits(path.parent)
            shown, written = image_column, caption_column
        else:
            shown, written = column_called(path, image_column), column_called(path, caption_column)
            columns = (shown, written) if captions_needed else (shown,)
            records = _records(path, columns, written, rows.lost)
        for number, record in enumerate(records, 1):
            with rows.count_rejected(_identity(record[shown], f"row {number} of {path.name}")):
                name, image = _image(record[shown], folder, inner)
                texts = _as_list(record.get(written), path, captions_needed)
                captions = clean_captions(texts, rows.skipped, name, captions_needed)
                own = split_of_record(record) or lists.get(name)
                if own:
                    split_from = "Flickr8k's lists" if lists else f"its column {SPLIT_COLUMN!r}"
                elif lists:
                    rows.skipped.note("no split", name)
                    continue
                rows.add(name, captions, own or split_of_table, image)
    table = rows.table()
    if note_unsplit(table, rows.lost):
        table = table.filter(table["split"].is_valid())
    return rows.opened(max_pixels, _merge(table, paths), split_from)


def _identity(value: Any, otherwise: str) -> str:
    """The name of a rejected row: the path of its image, otherwise its number."""
    text = value.decode(errors="replace") if isinstance(value, bytes) else value
    return text if isinstance(text, str) and text.strip() and text.isprintable() else otherwise


def _records(path: Path, needed: tuple[str, ...], captions: str, lost: Rejected) -> Iterator[Record]:
    """The rows of a table with the columns `needed` and, if it has them, those of `captions` and splits.
    Strings may be bytes."""
    wanted = tuple(dict.fromkeys((*needed, captions)))
    kind = path.suffix.lower()
    try:
        if kind == ".jsonl":
            yield from _json_lines(path, needed, lost)
        elif kind == ".parquet":
            yield from _parquet(path, needed, wanted)
        else:
            yield from _separated(path, needed, wanted, lost)
    except (pa.ArrowException, csv.Error, OSError) as error:
        problem = f"not a readable {kind[1:]} table ({error})"
        raise SettingError("data.source", str(path), problem, "Repair or remove the file.") from error


def _separated(
    path: Path, needed: tuple[str, ...], wanted: tuple[str, ...], lost: Rejected
) -> Iterator[Record]:
    with open(path, "rb") as stream:
        header = stream.readline(1 << 20).decode("utf-8-sig", errors="replace")
    headers = {separator: next(csv.reader([header], delimiter=separator), []) for separator in "\t,;|"}
    separator, columns = max(headers.items(), key=lambda item: (set(needed) <= set(item[1]), len(item[1])))
    _check_columns(path, needed, columns)

    def count(row: pa.csv.InvalidRow) -> str:
        lost.note("damaged record", f"row {row.number} of {path.name}" if row.number else row.text[:60])
        return "skip"

    names = [name for name in dict.fromkeys(columns) if name in wanted or is_split_column(name)]
    batches = pa.csv.open_csv(
        path,
        pa.csv.ReadOptions(block_size=16 << 20, use_threads=False),
        pa.csv.ParseOptions(delimiter=separator, newlines_in_values=True, invalid_row_handler=count),
        # As bytes: then a caption that is not UTF-8 costs one row and not the whole file.
        pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.binary()), include_columns=names),
    )
    checked = False
    for batch in batches:
        if not checked and any(pc.any(pc.match_substring(column, "\n")).as_py() for column in batch.columns):
            _check_quotes(path, separator)
            checked = True
        yield from batch.to_pylist()


def _check_quotes(path: Path, separator: str) -> None:
    """Raise SettingError if an unclosed quote has swallowed the following rows."""
    start = 1
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as stream:
        rows = csv.reader(stream, delimiter=separator, strict=True)
        try:
            for _ in rows:
                start = rows.line_num + 1
        except csv.Error as error:
            problem = f"line {start} of {path.name} has a quote that is not closed, or not doubled ({error})"
            remedy = "Close it, or write it twice inside a quoted cell."
            raise SettingError("data.source", str(path), problem, remedy) from None


def _json_lines(path: Path, needed: tuple[str, ...], lost: Rejected) -> Iterator[Record]:
    columns: set[str] = set()
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line.decode("utf-8-sig"))
                columns |= record.keys()
                if not set(needed) <= record.keys():
                    raise KeyError
            except UnicodeError:
                lost.note("caption not UTF-8", f"line {number} of {path.name}")
            except (ValueError, KeyError, AttributeError, RecursionError):
                lost.note("damaged record", f"line {number} of {path.name}")
            else:
                yield record
    if columns:
        _check_columns(path, needed, sorted(columns))


def _parquet(path: Path, needed: tuple[str, ...], wanted: tuple[str, ...]) -> Iterator[Record]:
    with pq.ParquetFile(path) as file:
        _check_columns(path, needed, file.schema_arrow.names)
        check_text_column(path, "data.image_column", needed[0], file.schema_arrow)
        schema = file.schema_arrow
        names = [name for name in schema.names if name in wanted or is_split_column(name)]
        if wanted[1] in names:
            check_text_column(path, "data.caption_column", wanted[1], file.schema_arrow)
        allowed = MOST_TEXT + MOST_RATIO * path.stat().st_size
        for batch in file.iter_batches(2048, columns=names):
            allowed -= sum(map(_unpacked_bytes, batch.columns))
            if allowed < 0:
                problem = f"its {path.stat().st_size:,} bytes unpack to more than a thousand times as many"
                raise SettingError(
                    "data.source", str(path), problem, "No real captions compress so well: remove it."
                )
            yield from batch.to_pylist()


def _unpacked_bytes(column: pa.Array) -> int:
    """Bytes of a column as Python values. A dictionary stores a value once that may occur in every row."""
    if pa.types.is_dictionary(column.type) and not pa.types.is_primitive(column.type.value_type):
        return pc.sum(pc.binary_length(column.dictionary).take(column.indices)).as_py() or 0
    return column.nbytes


def _check_columns(path: Path, needed: tuple[str, ...], columns: list[str]) -> None:
    for setting, name in zip(("data.image_column", "data.caption_column"), needed, strict=False):
        if name not in columns:
            problem = f"{path.name} has no such column"
            raise SettingError(setting, name, problem, f"It has {', '.join(map(repr, columns)) or 'none'}.")


def _image(value: Any, folder: Path, inner: str) -> tuple[str, str]:
    """The path of an image as written, normalised, below `inner` in `folder`, and its file."""
    path = text_cell(value, not_utf8="unsafe name")
    if not path:
        raise BadSample("no image")
    if "://" in path:
        raise BadSample("a URL, not a file")
    name = os.path.normpath(os.path.join(inner, path))
    if name == ".." or name.startswith("../"):
        raise BadSample("path leaves the image folder")
    image = os.path.join(folder, name)
    check_file(image)
    return name, image


def _as_list(value: Any, path: Path, needed: bool) -> list[Any]:
    if value is None:
        if not needed:
            return []
        raise BadSample("no caption")
    if isinstance(value, bytes) and path.suffix.lower() != ".parquet" and value.lstrip().startswith(b"["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return _python_list(value) or [value]  # or a caption that starts with a bracket
    return value if isinstance(value, list) else [value]


def _python_list(value: bytes) -> list[str] | None:
    """A list in Python's notation, as pandas writes it. None for anything else."""
    try:
        items = ast.literal_eval(value.decode("utf-8-sig").strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return items if isinstance(items, list) and all(isinstance(item, str) for item in items) else None


def _merge(table: pa.Table, paths: list[Path]) -> pa.Table:
    """Merge the rows of an image into its first row, with the captions of all its rows in order."""
    if not len(table):
        return table
    codes = pc.dictionary_encode(table["id"]).unify_dictionaries().combine_chunks().indices
    image = codes.cast(pa.int64()).to_numpy()
    unique, first = np.unique(image, return_index=True)
    if len(unique) == len(table):
        return table
    first_split = table["split"].take(pa.array(first[np.searchsorted(unique, image)]))
    contradictory = pc.not_equal(table["split"], first_split)
    if pc.any(contradictory).as_py():
        names = table["id"].filter(contradictory)
        problem = (
            f"{len(names)} rows put an image into one split that another row has put into another: {names[0]}"
        )
        remedy = f"Give every image one split, in the column {SPLIT_COLUMN!r} or by the table that it is in."
        raise SettingError("data.source", ", ".join(map(str, paths)), problem, remedy)
    return merge_rows(table, image)[0]
