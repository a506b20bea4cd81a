"""Builds a training set from several local sources, without the pictures of Karpathy's test splits.

Nothing is downloaded, and pictures in files stay in place. Whoever distributes a mixture distributes its
parts under their licences: COCO's captions are CC BY 4.0 and its pictures, from Flickr, are under their
owners' Creative Commons licences (Lin et al. 2014, arXiv 1405.0312). Flickr30k's captions are for research
and education, and its pictures are under Flickr's terms (Young et al. 2014, TACL 2). The list of Conceptual
Captions is free to use (Google), and its pictures belong to their owners (Sharma et al. 2018, ACL). The
splits are those of Karpathy & Fei-Fei (2015, arXiv 1412.2306).
"""

import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from workbench.data.discovery import Source, detect, find_files
from workbench.data.formats.karpathy import karpathy_records
from workbench.data.load import draw_rows, load_pairs
from workbench.data.pairs import Pairs
from workbench.errors import SettingError, damaged_file
from workbench.files import atomic_write, read_json, sha256_of_file, write_json

# DCLIP's 50,000 + 15,000 + 10,000 less the tenth that it validates on.
COUNTS = {"coco": 45_000, "flickr": 13_500, "extra": 9_000}
RECORD = "mixture.json"
PICTURES = "pictures"
_COCO_FILE = re.compile(r"(?:COCO_(?:train|val|test)\d{4}_)?(\d{12})")
_EXTENSIONS = re.compile(r"jpe?g|png|webp", re.IGNORECASE)
Row = dict[str, Any]  # a line of the table: image, caption (a list), id, split


def build_mixture(
    folder: Path,
    *,
    coco: Source | None = None,
    flickr: Source | None = None,
    extra: Source | None = None,
    coco_images: Source | None = None,
    flickr_images: Source | None = None,
    counts: Mapping[str, int] = COUNTS,
    seed: int = 0,
) -> dict[str, Any]:
    """Write the tables `train.jsonl` and `val.jsonl` for `load_pairs` into `folder`, and `mixture.json`,
    which records the origin of every part. Returns that record.

    `coco` and `flickr` are Karpathy's dataset_coco.json and dataset_flickr30k.json; training pictures are
    drawn from their `train` and `restval` by `seed`, and validation is Karpathy's own. `extra` is any source
    that `load_pairs` opens; if it has no splits, pictures are drawn from all of it. All captions of a picture
    are kept. Pictures in tar shards are written as files, one at a time and atomically, so that a second call
    continues where the first stopped.

    Raises SettingError if a source has fewer pictures than requested, if `folder` holds another mixture, or
    if a chosen picture of any source is, by its id or its COCO id, one of Karpathy's test or validation
    pictures. The last error names these ids.
    """
    jsons = {name: Path(path) for name, path in (("coco", coco), ("flickr", flickr)) if path is not None}
    if not jsons:
        raise SettingError("--coco, --flickr", None, "there is nothing to mix", "Name a Karpathy JSON.")
    images = {"coco": coco_images, "flickr": flickr_images}
    sources = {**jsons, **({"extra": extra} if extra is not None else {})}
    settings = {
        "kind": "clean",
        "seed": seed,
        "sources": {name: os.path.abspath(path) for name, path in sources.items()},
        "images": {name: os.path.abspath(path) for name, path in images.items() if path is not None},
        "counts": {name: counts[name] for name in sources},
    }
    if (record := finished_record(folder, settings)) is not None:
        return record
    known = {name: KarpathySplits.read(path) for name, path in jsons.items()}
    held_out = frozenset().union(*(splits.of("test", "val") for splits in known.values()))
    selected, parts, seen = dict[str, Pairs](), dict[str, Any](), set[str]()
    for name, source in sources.items():
        pairs = _open(name, source, "train", images)
        ids = pairs.ids
        names = [known[name].names[key] if name in known else picture_names(key) for key in ids]
        fresh = [row for row, own_names in enumerate(names) if not own_names & seen]
        chosen = draw(fresh, counts[name], seed, name)
        check_held_out(name, {ids[row]: names[row] for row in chosen}, held_out)
        seen = seen.union(*(names[row] for row in chosen))
        selected[name] = pairs.select(chosen)
        repeated = len(pairs) - len(fresh)
        parts[name] = {"available": len(pairs), "already taken": repeated, **described(selected[name])}
    write_json(folder / RECORD, {"finished": False, "settings": settings})
    rows, validation = list[Row](), list[Row]()
    for name, source in sources.items():
        rows += table_rows(selected[name], source, "train", folder)
        if name in known:
            validation += table_rows(_open(name, source, "val", images), source, "val", folder)
    return finish(folder, settings, rows, validation, {"sources": parts, "held out names": len(held_out)})


def _open(name: str, source: Source, split: str, images: Mapping[str, Source | None]) -> Pairs:
    if name in images:
        return load_pairs(source, split, format="karpathy", image_folder=images[name])
    return load_pairs(source, split, val_share=0.0, test_share=0.0)


@dataclass(frozen=True)
class KarpathySplits:
    """The records of a Karpathy JSON, with or without its pictures: the file name and split of every record,
    and all names that other sources may give a picture."""

    records: Sequence[tuple[str, str]]
    names: Mapping[str, set[str]]

    @classmethod
    def read(cls, path: Path) -> "KarpathySplits":
        """Read the splits in such a JSON. Raises SettingError for other files."""
        names: dict[str, set[str]] = {}
        with karpathy_records(path) as images:
            for image in images:
                own_names = names.setdefault(image["filename"], picture_names(image["filename"]))
                own_names |= {f"COCO {int(image['cocoid'])}"} if "cocoid" in image else set()
            return cls([(image["filename"], image["split"]) for image in images], names)

    def of(self, *splits: str) -> frozenset[str]:
        """The names of all pictures in any of these splits."""
        return frozenset().union(*(self.names[name] for name, split in self.records if split in splits))


def picture_names(identity: str) -> set[str]:
    """The names that another source may give a picture: the stem of its file name, and its COCO id if the
    file name contains one."""
    stem = PurePosixPath(identity).name.split(".")[0]
    coco = _COCO_FILE.fullmatch(stem)
    return {stem, f"COCO {int(coco[1])}"} if coco else {stem}


def check_held_out(source: str, chosen: Mapping[str, set[str]], held_out: frozenset[str]) -> None:
    """Raise SettingError, naming the ids, if a chosen picture has a name of a held-out one."""
    offending = sorted(identity for identity, names in chosen.items() if names & held_out)
    if offending:
        listing = ", ".join(offending[:10]) + (", ..." if len(offending) > 10 else "")
        problem = f"{len(offending)} chosen pictures are in Karpathy's test or validation split: {listing}"
        raise SettingError(f"--{source}", listing, problem, "Take them out, or use the true JSON.")


def draw(rows: Sequence[int], count: int, seed: int, source: str) -> list[int]:
    """Draw `count` of the rows by `seed`, in order. A larger draw contains the smaller."""
    if count > len(rows):
        problem = f"{source} has {len(rows)} pictures to choose from"
        raise SettingError("--count", f"{source}={count}", problem, f"At most {len(rows)}.")
    return [rows[place] for place in draw_rows(len(rows), count, seed)]


def table_rows(pairs: Pairs, source: Source, split: str, folder: Path) -> list[Row]:
    """The lines of a table. Pictures of shards are written into `folder`; others are named by their paths."""
    base, names = find_files(source)
    if detect(source, base, names) == "shards":
        files: Iterable[str] = _unpacked(pairs.ids, base, names, folder)
    elif not pairs.in_files:
        problem = "its pictures are stored in tables, and a mixture names files"
        raise SettingError("--extra", os.fspath(source), problem, "Unpack them, or give shards.")
    else:
        files = map(os.path.abspath, pairs.files)
    return [
        {"image": file, "caption": pairs.captions(row), "id": identity, "split": split}
        for row, (file, identity) in enumerate(zip(files, pairs.ids, strict=True))
    ]


def _unpacked(ids: Sequence[str], base: Path, names: Sequence[str], folder: Path) -> list[str]:
    """Write the pictures of these ids (shard/key) unless they exist. Returns their paths in `folder`."""
    missing = set(ids)
    paths: dict[str, str] = {}
    for name in names:
        shard = os.path.splitext(name)[0]
        if not name.endswith(".tar") or not any(identity.startswith(f"{shard}/") for identity in missing):
            continue
        with tarfile.open(base / name, "r:") as tar:
            for member in _members(tar):
                above, _, last = member.name.removeprefix("./").rpartition("/")
                key, _, extension = last.partition(".")
                identity = "/".join(part for part in (shard, above, key) if part)
                if identity in missing and _EXTENSIONS.fullmatch(extension):
                    path = f"{PICTURES}/{identity}.{extension.lower()}"
                    paths[identity] = path
                    missing.discard(identity)
                    if not (folder / path).is_file():
                        stream = tar.extractfile(member)
                        assert stream is not None  # the index lists regular files only
                        with atomic_write(folder / path) as file:
                            file.write(stream.read())
    return [paths[identity] for identity in ids]


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The files of a shard. A truncated shard ends early, as it does in the index."""
    try:
        yield from (member for member in tar if member.isreg())
    except tarfile.ReadError:
        return


def described(pairs: Pairs) -> dict[str, Any]:
    """Counts and fingerprint of the pairs selected from a source."""
    return {
        "pictures": len(pairs),
        "captions": len(pairs.image_of_caption),
        "fingerprint": pairs.fingerprint,
        "left out": dict(pairs.rejected),
    }


def finished_record(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of a finished mixture in `folder`. Raises SettingError if its settings differ."""
    if not (folder / RECORD).is_file():
        return None
    try:
        record: dict[str, Any] = read_json(folder / RECORD)
        made_with, finished = record["settings"], record["finished"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = "Delete it, and the mixture is built again."
        raise damaged_file("OUT", folder / RECORD, error, remedy) from None
    if made_with != json.loads(json.dumps(settings)):
        problem = "it holds a mixture with other settings"
        raise SettingError("OUT", str(folder), problem, "Choose another folder, or empty this one.")
    return record if finished else None


def finish(
    folder: Path,
    settings: Mapping[str, Any],
    rows: Sequence[Row],
    validation: Sequence[Row],
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the tables, then the record that marks them as complete. Returns the record."""
    files = {}
    for name, lines in (("train.jsonl", rows), ("val.jsonl", validation)):
        with atomic_write(folder / name, "w") as stream:
            for line in lines:
                stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        captions = sum(len(line["caption"]) for line in lines)
        checksum = sha256_of_file(folder / name)
        files[name] = {"pictures": len(lines), "captions": captions, "sha256": checksum}
    write_json(folder / RECORD, {"finished": True, "settings": settings, "files": files, **about})
    record: dict[str, Any] = read_json(folder / RECORD)
    return record
