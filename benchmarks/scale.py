"""How time and memory grow with the number of pairs, from indexing to validation.

    python benchmarks/scale.py [--pairs 10000 100000 1000000] [--folder FOLDER] [--out benchmarks/results]

Makes tar shards of 10,000 pairs as img2dataset writes them, with pictures of 1 to 32 pixels a side and
captions as long as CC12M's (20 words). Each row of the table is measured in a process of its own, as each
process of a training would do it: seconds, and the peak of memory beyond what was in use before, which
includes those pages of the index and the targets that were looked at and that all processes share.

- "index": the first start, which reads every shard.
- "start": every later one: open, check, split, fingerprint.
- "order": open, and the order of an epoch; "batch": the same, and 256 pairs at a random step, decoded.
- "fill": open, and a store of targets of 64 dimensions from a teacher that costs nothing.
- "look-up": the targets of 100 batches of 256.
- "validation": the 5,000 pairs of the validation split that a training ranks, drawn, read and ranked.
"""

import argparse
import io
import json
import multiprocessing
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from memory import growth
from PIL import Image

from workbench.data.load import load_pairs
from workbench.data.loader import epoch_order
from workbench.data.pairs import Pairs
from workbench.evaluation.retrieval.metrics import retrieval_metrics
from workbench.files import atomic_write, write_json
from workbench.targets import Column, TargetStore, fill

SHARD = 10_000
WORDS = 20
DIM, BATCH, BATCHES, CHUNK = 64, 256, 100, 8192
VALIDATED = 5000
SIZES = [1, 2, 4, 8, 16, 32]  # pixels a side
VOCABULARY = [f"{first}{second}" for first in "bcdfgklm" for second in ("ado", "ely", "ink", "owar", "un")]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--folder", type=Path, help="where shards and cache go [a temporary folder]")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    chosen = parser.parse_args()
    rows: list[dict[str, float | str]] = []
    for pairs in chosen.pairs:
        rows += measured(pairs, chosen.folder)
        write_json(chosen.out / "scale.json", rows)
        with atomic_write(chosen.out / "scale.md", "w") as stream:
            stream.write(table(rows))
    print(table(rows))


def measured(count: int, folder: Path | None) -> list[dict[str, float | str]]:
    """Seconds and bytes of every stage with so many pairs."""
    place = Path(tempfile.mkdtemp(dir=folder, prefix="scale-"))
    os.environ["WORKBENCH_CACHE"] = str(place / "cache")
    try:
        make_shards(place / "shards", count)
        make_shards(place / "few" / "shards", BATCH)
        rows = []
        for stage in STAGES:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                seconds, size = pool.apply(run_stage, (stage, place))
            rows.append({"pairs": count, "stage": stage, "seconds": seconds, "bytes": size})
            print(json.dumps(rows[-1]), flush=True)
        return rows
    finally:
        shutil.rmtree(place)


def make_shards(folder: Path, count: int) -> None:
    """Tar files of pictures and captions, written header by header: tarfile would take long."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    pictures = []
    for size in SIZES:
        stream = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(stream, "JPEG")
        pictures.append(stream.getvalue())
    for shard in range(-(-count // SHARD)):
        with open(folder / f"{shard:05d}.tar", "wb") as stream:
            for key in range(shard * SHARD, min((shard + 1) * SHARD, count)):
                words = rng.integers(len(VOCABULARY), size=WORDS)
                caption = " ".join(VOCABULARY[word] for word in words)
                picture = pictures[key % len(pictures)]
                # A comment with its number: equal pictures would be merged into one.
                picture = picture[:2] + b"\xff\xfe\x00\x0a" + key.to_bytes(8) + picture[2:]
                for name, data in (("jpg", picture), ("txt", caption.encode())):
                    member = tarfile.TarInfo(f"{key:09d}.{name}")
                    member.size = len(data)
                    stream.write(member.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512))
            stream.write(bytes(1024))


def opened(place: Path) -> Pairs:
    """The training pairs."""
    return load_pairs(place / "shards", "train")


def start(place: Path) -> str:
    """Open the training pairs; gives their fingerprint."""
    return opened(place).fingerprint


def order(place: Path) -> np.ndarray:
    """The order of an epoch."""
    return epoch_order(len(opened(place)), 0, 3)


def batch(place: Path) -> int:
    """Pictures and captions of a random step; gives the number of characters."""
    pairs = opened(place)
    step = len(pairs) // BATCH // 3
    rows = epoch_order(len(pairs), 0, 3)[step * BATCH : (step + 1) * BATCH]
    return sum(len(pairs.captions(int(row))[0]) + pairs.image(int(row)).shape[1] for row in rows)


def fill_store(place: Path) -> TargetStore:
    """Targets of every caption, from its length alone."""
    captions = opened(place).all_captions

    def compute(rows: slice) -> tuple[np.ndarray, dict[int, str]]:
        lengths = np.array([len(caption) for caption in captions[rows]], dtype=np.float32)
        return np.repeat(lengths[:, None], DIM, axis=1), {}

    columns = {"text": Column((len(captions), DIM), "float16", compute)}
    return fill(place / "store", {"benchmark": "scale"}, columns, batch=CHUNK)


def look_up(place: Path) -> None:
    """Targets of many batches at random."""
    store = TargetStore.open(place / "store")
    rows = np.random.default_rng(0).integers(len(store.column("text")), size=(BATCHES, BATCH))
    for some in rows:
        store.rows("text", some)


def validation(place: Path) -> float:
    """The pairs that a training ranks: opened, read, and ranked with embeddings of noise; gives a recall."""
    pairs = load_pairs(place / "shards", "val", limit=VALIDATED)
    for row in range(len(pairs)):
        pairs.image(row)
    captions = list(pairs.all_captions)
    image, text = torch.randn(len(pairs), DIM), torch.randn(len(captions), DIM)
    return retrieval_metrics(image, text, pairs.image_of_caption).text_to_image.recall[1]


STAGES: dict[str, Callable[[Path], object]] = {
    "index": opened,
    "start": start,
    "order": order,
    "batch": batch,
    "fill": fill_store,
    "look-up": look_up,
    "validation": validation,
}


def run_stage(stage: str, place: Path) -> tuple[float, float | None]:
    """Seconds and bytes of a stage in this process, where what is imported was imported for a few pairs."""
    if stage != "look-up":
        validation(place / "few")
    began = time.perf_counter()
    peak = growth(lambda: STAGES[stage](place))
    return time.perf_counter() - began, None if peak is None else peak * 1e6


def table(rows: list[dict[str, float | str]]) -> str:
    """The Markdown table: a row a stage, two columns a size."""
    sizes = list(dict.fromkeys(row["pairs"] for row in rows))
    cells = {(row["stage"], row["pairs"]): row for row in rows}
    head = "".join(f" {size:,} pairs | memory a pair |" for size in sizes)
    lines = [f"| |{head}", "|---" * (1 + 2 * len(sizes)) + "|"]
    for stage in STAGES:
        parts = [stage]
        for size in sizes:
            row = cells[stage, size]
            parts.append(f"{row['seconds']:.3g} s")
            parts.append("" if row["bytes"] is None else f"{row['bytes'] / size:,.0f} B")
        lines.append("| " + " | ".join(parts) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
