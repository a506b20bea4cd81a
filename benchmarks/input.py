"""How fast pictures come: ours from JPEG shards and from decoded pictures, beside PIL and classic transforms.

    python benchmarks/input.py [--pictures N --rounds N --workers N ... --decoded N --out FOLDER]

Shards of JPEGs are drawn on the spot: 640 x 480 pixels at quality 90, detailed like photographs. The student
sees 224 pixels of a random crop of 0.9 to 1 of the area; every way is given the same crops. The peer is PIL's
decoder with open_clip's own training transform (torchvision's classic ones), its random crop replaced by the
given one. All end in a normalised float32 batch.

`alone` is one thread in a loop; the others go through a DataLoader with so many workers, tokens of captions
included. Every round times all ways one after the other, and ratios are taken within a round. `alone` and 0
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
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as classic

from workbench.data.load import load_pairs
from workbench.data.loader import batches, epoch_order
from workbench.data.pairs import Pairs
from workbench.files import atomic_write, write_json
from workbench.models.transform import ImageTransform, normalised, random_crop
from workbench.recipe import Recipe
from workbench.targets.decoded_cache import decoded_pairs

WIDTH, HEIGHT, QUALITY, PIXELS, BATCH = 640, 480, 90, 224, 32
CROPS = (0.9, 1.0)
ALONE = 256  # pictures of a loop
MEAN, STD = (
    torch.tensor(item).view(1, 3, 1, 1)
    for item in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
)
PEER, OURS, CACHE = "PIL, classic transforms", "ours, from JPEG", "ours, from the cache"
LIMITS = {OURS: 1.7, CACHE: 7.0}

Stream = Callable[[int | None, int], Iterator[Tensor]]  # (workers, None: a loop; epoch) -> batches


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
        pairs = load_pairs(Path(scratch) / "shards", val_share=0.0, test_share=0.0)
        peer = Peer(Path(scratch) / "shards", pairs)
        ours = {OURS: Ours(pairs), CACHE: Ours(decode_once(pairs, chosen.decoded))}
        ways = {PEER: peer, **ours}
        differences = {name: difference(peer, way) for name, way in ours.items()}
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


def decode_once(pairs: Pairs, decoded: int) -> Pairs:
    settings = {
        "name": "input",
        "student": {"model": "ViT-B-16"},
        "data": {"source": pairs.name, "decoded": decoded},
        "training": {"augmentation": {"crop_scale": list(CROPS)}},
    }
    return decoded_pairs(Recipe.from_settings(settings), pairs)


class Ours:
    """Batches as a training run reads them; the model normalises them whole."""

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs
        self.transform = ImageTransform((PIXELS, PIXELS))
        self.tokenize = open_clip.get_tokenizer("ViT-B-16")

    def view(self, image: Tensor, epoch: int, row: int) -> Tensor:
        return self.transform(image, random_crop(0, epoch, row, CROPS))

    def picture(self, row: int) -> Tensor:
        return self.view(self.pairs.image(row), 0, row)

    def __call__(self, workers: int | None, epoch: int) -> Iterator[Tensor]:
        if workers is None:
            for start in range(0, ALONE, BATCH):
                ready = [self.picture(row).permute(1, 2, 0) for row in range(start, start + BATCH)]
                yield normalised(torch.stack(ready).permute(0, 3, 1, 2), MEAN, STD)
            return
        per_epoch = len(self.pairs) // BATCH
        steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
        result = batches(
            self.pairs, self.view, self.tokenize, batch=BATCH, seed=0, steps=steps, workers=workers
        )
        for batch in result:
            yield normalised(batch.images, MEAN, STD)


class Peer(Dataset):
    """Batches of PIL's pictures, each normalised by itself."""

    def __init__(self, folder: Path, pairs: Pairs) -> None:
        self.captions = pairs.all_captions
        self.rest = image_transform(PIXELS, is_train=True, aug_cfg={"scale": CROPS}).transforms[1:]
        self.tokenize = open_clip.get_tokenizer("ViT-B-16")
        self.places = []
        for path in sorted(folder.glob("*.tar")):
            with tarfile.open(path) as tar:
                result = [member for member in tar if member.name.endswith("jpg")]
                self.places += [(path, member.offset_data, member.size) for member in result]

    def picture(self, row: int, epoch: int = 0) -> Image.Image:
        path, offset, size = self.places[row]
        with open(path, "rb", buffering=0) as stream:
            stream.seek(offset)
            image = Image.open(io.BytesIO(stream.read(size))).convert("RGB")
        left, top, across, down = random_crop(0, epoch, row, CROPS)
        box = [round(item) for item in (top * HEIGHT, left * WIDTH, down * HEIGHT, across * WIDTH)]
        return classic.resized_crop(image, *box, [PIXELS, PIXELS], InterpolationMode.BICUBIC)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, str]:
        epoch, row = key
        ready: Any = self.picture(row, epoch)
        for step in self.rest:
            ready = step(ready)
        return ready, self.captions[row]

    def collate(self, samples: list[tuple[Tensor, str]]) -> tuple[Tensor, Tensor]:
        return torch.stack([image for image, _ in samples]), self.tokenize([text for _, text in samples])

    def __call__(self, workers: int | None, epoch: int) -> Iterator[Tensor]:
        if workers is None:
            for start in range(0, ALONE, BATCH):
                yield torch.stack([self[0, row][0] for row in range(start, start + BATCH)])
            return
        rows = epoch_order(len(self.places), 0, epoch)
        keys = [
            [(epoch, int(row)) for row in part]
            for part in rows[: len(rows) // BATCH * BATCH].reshape(-1, BATCH)
        ]
        for images, _ in DataLoader(self, batch_sampler=keys, num_workers=workers, collate_fn=self.collate):
            yield images


def difference(peer: Peer, ours: Ours) -> dict[str, float]:
    """Grey levels between the two ways' pictures, before they are normalised."""
    gaps = [ours.picture(row).int() - classic.pil_to_tensor(peer.picture(row)).int() for row in range(64)]
    together = torch.stack(gaps).abs()
    return {"largest": int(together.max()), "mean": float(together.float().mean())}


def measure(ways: dict[str, Stream], workers: int | None, rounds: int) -> list[dict]:
    """One row a way: pictures per second of every round, in a loop (workers None) or through a DataLoader."""
    speeds: list[dict[str, float]] = []
    for turn in range(rounds + 1):
        # Every round in another order: who comes after whom must not favour anybody.
        order = np.random.default_rng(turn).permutation(list(ways))
        result = {name: speed(ways[name](workers, turn), workers) for name in order}
        if turn:  # the first round warms up
            speeds.append(result)
    return [
        {
            "way": name,
            "through": "alone" if workers is None else f"DataLoader, {workers} workers",
            "pictures_per_second": [item[name] for item in speeds],
            "ratios": [item[name] / item[PEER] for item in speeds],
        }
        for name in ways
    ]


def speed(stream: Iterator[Tensor], workers: int | None) -> float:
    """Pictures per second between the first batch and the last."""
    clock = time.perf_counter if workers else time.process_time
    next(stream)
    began = clock()
    count = sum(len(images) for images in stream)
    return count / (clock() - began)


def markdown(rows: list[dict]) -> str:
    """The table: median pictures a second, and the median ratio to the same round's peer."""
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
