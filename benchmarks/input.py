"""How fast pictures come: ours from JPEG shards and from decoded pictures, beside PIL and classic transforms.

    python benchmarks/input.py [--pictures N --rounds N --workers N ... --decoded N --out FOLDER]

Shards of JPEGs are drawn on the spot: 640 x 480 pixels at quality 90, detailed like photographs. The student
sees 224 pixels of a random crop of 0.9 to 1 of the area; every way is given the same crops. The peer is PIL's
decoder with open_clip's own training transform (torchvision's classic ones), its random crop replaced by the
given one. All end in a normalised float32 batch.

`alone` is one thread in a loop; the others go through the same DataLoader, captions and all, with so many
workers. Every round times all ways one after the other, and ratios are taken within a round. `alone` and 0
workers are CPU seconds of the process; with workers it is the time between the first batch and the last.
"""

import argparse
import io
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.transform import image_transform
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as classic

from workbench.data.loader import batches
from workbench.data.pairs import Pairs
from workbench.data.sources import load_pairs
from workbench.files import atomic_write, write_json
from workbench.models.transform import ImageTransform, random_crop
from workbench.recipe import Recipe
from workbench.training.decoded import decoded_pairs

WIDTH, HEIGHT, QUALITY, PIXELS, BATCH = 640, 480, 90, 224, 32
CROPS = (0.9, 1.0)
MEAN, STD = (
    torch.tensor(each).view(1, 3, 1, 1)
    for each in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
)
PEER, OURS, CACHE = "PIL, classic transforms", "ours, from JPEG", "ours, from the cache"
LIMITS = {OURS: 1.7, CACHE: 7.0}

Way = tuple[
    Pairs, Callable[[Any, int, int], Tensor], bool
]  # pairs, view, whether batches are yet to normalise


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--decoded", type=int, default=256)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    chosen = parser.parse_args()
    torch.set_num_threads(1)

    with tempfile.TemporaryDirectory() as scratch:
        os.environ["WORKBENCH_CACHE"] = str(Path(scratch) / "cache")
        kilobytes = draw_shards(Path(scratch) / "shards", chosen.pictures)
        ways = make_ways(Path(scratch) / "shards", chosen.decoded)
        differences = {name: difference(ways[PEER], ways[name]) for name in (OURS, CACHE)}
        rows = []
        for workers in (None, *chosen.workers):
            rows += measure(ways, workers, chosen.rounds)
    setting = {name: value for name, value in vars(chosen).items() if name != "out"}
    setting |= {"kilobytes": kilobytes, "torch": torch.__version__, "limits": LIMITS}
    print(
        markdown(rows), f"JPEGs of {kilobytes:.0f} KB; grey levels from the peer's: {differences}", sep="\n"
    )
    chosen.out.mkdir(parents=True, exist_ok=True)
    write_json(chosen.out / "input.json", {"setting": setting, "grey_levels": differences, "rows": rows})
    with atomic_write(chosen.out / "input.md", "w") as stream:
        stream.write(markdown(rows))


def draw_shards(folder: Path, pictures: int) -> float:
    """Write shards as img2dataset does; returns the mean size of a JPEG in KB."""
    folder.mkdir()
    total = 0
    for shard in range(0, pictures, 256):
        with tarfile.open(folder / f"{shard // 256:05d}.tar", "w") as tar:
            for number in range(shard, min(shard + 256, pictures)):
                data = draw(number)
                total += len(data)
                for extension, content in (("jpg", data), ("txt", f"picture number {number}".encode())):
                    member = tarfile.TarInfo(f"{number:09d}.{extension}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return total / pictures / 1000


def draw(number: int) -> bytes:
    """A JPEG with structure at every scale, as photographs have, and their grain; some 105 KB."""
    rng = np.random.default_rng(number)
    picture = np.full((HEIGHT, WIDTH, 3), 128, dtype=np.float32)
    for cells in (2, 4, 8, 16, 32, 64, 128, 256):
        coarse = rng.normal(size=(cells * 3 // 4 + 1, cells, 3)) * 80 / cells**0.5
        layers = [
            np.asarray(
                Image.fromarray(layer.astype(np.float32)).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
            )
            for layer in np.moveaxis(coarse, 2, 0)
        ]
        picture += np.stack(layers, axis=2)
    picture += rng.normal(size=(HEIGHT, WIDTH, 1)) * 6
    stream = io.BytesIO()
    Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()


def make_ways(folder: Path, decoded: int) -> dict[str, Way]:
    settings = {
        "name": "input",
        "student": {"model": "ViT-B-16"},
        "data": {"source": str(folder), "decoded": decoded},
        "training": {"augmentation": {"crop_scale": list(CROPS)}},
    }
    pairs = load_pairs(folder, val_share=0.0, test_share=0.0)
    cached = decoded_pairs(Recipe.from_settings(settings), pairs)
    peer = Pairs(pairs.table, PilReader(folder), name="peer", split="train")
    ours = OurView()
    return {PEER: (peer, ClassicView(), False), OURS: (pairs, ours, True), CACHE: (cached, ours, True)}


class PilReader:
    """Reads the pictures of shards with PIL, each from its place."""

    def __init__(self, folder: Path) -> None:
        self.places = []
        for path in sorted(folder.glob("*.tar")):
            with tarfile.open(path) as tar:
                self.places += [
                    (path, each.offset_data, each.size) for each in tar if each.name.endswith("jpg")
                ]

    def __call__(self, row: int) -> Any:
        path, offset, size = self.places[row]
        with open(path, "rb", buffering=0) as stream:
            stream.seek(offset)
            return Image.open(io.BytesIO(stream.read(size))).convert("RGB")


class ClassicView:
    """open_clip's training transform, at a given crop."""

    def __init__(self) -> None:
        self.rest = image_transform(PIXELS, is_train=True, aug_cfg={"scale": CROPS}).transforms[1:]

    def resized(self, image: Image.Image, epoch: int, row: int) -> Image.Image:
        left, top, across, down = random_crop(0, epoch, row, CROPS)
        box = [round(each) for each in (top * HEIGHT, left * WIDTH, down * HEIGHT, across * WIDTH)]
        return classic.resized_crop(image, *box, [PIXELS, PIXELS], InterpolationMode.BICUBIC)

    def __call__(self, image: Image.Image, epoch: int, row: int) -> Tensor:
        ready: Any = self.resized(image, epoch, row)
        for step in self.rest:
            ready = step(ready)
        return ready


class OurView:
    """What a training run does with a picture; the model normalises whole batches."""

    def __init__(self) -> None:
        self.transform = ImageTransform((PIXELS, PIXELS))

    def __call__(self, image: Tensor, epoch: int, row: int) -> Tensor:
        return self.transform(image, random_crop(0, epoch, row, CROPS))


def difference(peer: Way, ours: Way, pictures: int = 64) -> dict[str, float]:
    """Grey levels between the two ways' pictures, before they are normalised."""
    (their_pairs, their_view, _), (our_pairs, our_view, _) = peer, ours
    gaps = []
    for row in range(min(pictures, len(our_pairs))):
        theirs = classic.pil_to_tensor(their_view.resized(their_pairs.image(row), 0, row))
        gaps.append((our_view(our_pairs.image(row), 0, row).int() - theirs.int()).abs())
    together = torch.stack(gaps)
    return {"largest": int(together.max()), "mean": float(together.float().mean())}


def measure(ways: dict[str, Way], workers: int | None, rounds: int) -> list[dict]:
    """One row a way: pictures per second of every round, through a loop (workers None) or the loader."""
    speeds: list[dict[str, float]] = []
    for turn in range(rounds + 1):
        # Every round in another order: who comes after whom must not favour anybody.
        order = np.random.default_rng(turn).permutation(list(ways))
        found = {
            name: speed(alone(ways[name]) if workers is None else loaded(ways[name], workers, turn), workers)
            for name in order
        }
        if turn:  # the first round warms up
            speeds.append(found)
    return [
        {
            "way": name,
            "through": "alone" if workers is None else f"DataLoader, {workers} workers",
            "pictures_per_second": [each[name] for each in speeds],
            "ratios": [each[name] / each[PEER] for each in speeds],
        }
        for name in ways
    ]


def alone(way: Way) -> Iterator[Tensor]:
    pairs, view, normalises = way
    for start in range(0, min(len(pairs), 8 * BATCH), BATCH):
        images = torch.stack([view(pairs.image(row), 0, row) for row in range(start, start + BATCH)])
        yield normalised(images) if normalises else images


def loaded(way: Way, workers: int, epoch: int) -> Iterator[Tensor]:
    pairs, view, normalises = way
    tokenize = open_clip.get_tokenizer("ViT-B-16")
    for batch in batches(pairs, view, tokenize, batch=BATCH, seed=0, epoch=epoch, workers=workers):
        yield normalised(batch.images) if normalises else batch.images


def normalised(images: Tensor) -> Tensor:
    return images.to(torch.float32).div_(255).sub_(MEAN).div_(STD)


def speed(stream: Iterator[Tensor], workers: int | None) -> float:
    """Pictures per second between the first batch and the last."""
    clock = time.perf_counter if workers else time.process_time
    next(stream)
    began = clock()
    count = sum(len(images) for images in stream)
    return count / (clock() - began)


def markdown(rows: list[dict]) -> str:
    """The README's table: median pictures a second, and the median ratio to the same round's peer."""
    lines = ["| through | " + " | ".join((PEER, OURS, CACHE)) + " |", "|---|---|---|---|"]
    for through in dict.fromkeys(row["through"] for row in rows):
        cells = []
        for row in rows:
            if row["through"] == through:
                cell = f"{statistics.median(row['pictures_per_second']):,.0f} a second"
                ratio = f" ({statistics.median(row['ratios']):.2f} x)" if row["way"] != PEER else ""
                cells.append(cell + ratio)
        lines.append(f"| {through} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
