"""Little pictures, sound and damaged, and sources in their true layouts."""

import io
import json
import struct
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def pixels(number: int, size: tuple[int, int] = (24, 16)) -> np.ndarray:
    """A smooth picture [H, W, 3] of its own for every number, so that JPEG keeps it recognisable."""
    width, height = size
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    tone = (number * 37) % 200
    return np.stack([x * 200, y * 200, np.full_like(x, tone)], axis=-1).astype(np.uint8)


def encoded(number: int, kind: str = "JPEG", **options: object) -> bytes:
    """The picture of a number as a file's bytes, which are of no other number and no other `comment`."""
    if kind == "JPEG":
        options.setdefault("comment", str(number))
    stream = io.BytesIO()
    Image.fromarray(pixels(number)).save(stream, kind, **options)
    return stream.getvalue()


def shows(image: object, number: int) -> bool:
    """Whether a decoded image [3, H, W] is the picture of `number`, allowing for JPEG."""
    wanted = pixels(number).transpose(2, 0, 1).astype(int)
    result = np.asarray(image).astype(int)
    return result.shape == wanted.shape and np.abs(result - wanted).mean() < 4


def bomb(side: int = 10_000) -> bytes:
    """A grey PNG of side x side pixels: 100 megapixels in some 12 KB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compressobj(9)
    body = b"".join(rows.compress(bytes(side // 8 + 1)) for _ in range(side)) + rows.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


HTML = b"<!DOCTYPE html>\n<html><body>404 not found</body></html>"


def write_shard(path: Path, members: Mapping[str, bytes]) -> None:
    """A plain tar of regular files, in the order given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            add_member(tar, name, data)


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def pair_members(number: int, extension: str = "jpg") -> dict[str, bytes]:
    """Image, json and txt of one pair, as img2dataset writes them."""
    key, caption = f"{number:09d}", f"picture number {number}"
    about = {"caption": caption, "url": "http://example.org", "key": key, "status": "success", "width": 24}
    kind = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[extension]
    own = {"comment": f"shard {number}"} if kind == "JPEG" else {}
    return {
        f"{key}.{extension}": encoded(number, kind, **own),
        f"{key}.json": json.dumps(about).encode(),
        f"{key}.txt": caption.encode(),
    }


def write_shards(folder: Path, shards: int = 3, pairs: int = 4) -> None:
    """Shards 00000.tar, 00001.tar ... with consecutive pictures, beside img2dataset's own statistics."""
    for shard in range(shards):
        members: dict[str, bytes] = {}
        for number in range(shard * pairs, (shard + 1) * pairs):
            members |= pair_members(number)
        write_shard(folder / f"{shard:05d}.tar", members)
        (folder / f"{shard:05d}_stats.json").write_text('{"count": 4}')


def write_folder(folder: Path, count: int) -> None:
    """Images with captions in text files beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number:03d}.jpg").write_bytes(encoded(number, comment=f"{folder.name}/{number}"))
        (folder / f"{number:03d}.txt").write_text(f"picture number {number}\n")
