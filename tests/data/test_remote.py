"""Shards behind URLs: found, read in ranges or from copies, and what happens when the network fails."""

import http.server
import io
import os
import re
import threading
import time
from pathlib import Path

import fsspec
import pytest

from tests.data.samples import pair_members, shows, write_shard, write_shards
from workbench.data import remote
from workbench.data.decode import BadSample
from workbench.data.load import load_pairs
from workbench.data.loader import batches
from workbench.data.pairs import Pairs
from workbench.errors import SettingError


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder; keeps the requests, and fails as it is told: a status by the path's end."""

    folder: Path
    ranges = True
    failures: dict[str, list[int]]

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.failures, self.requests = folder, {}, []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.SimpleHTTPRequestHandler):
    server: Server

    def translate_path(self, path: str) -> str:
        return str(self.server.folder / path.partition("?")[0].lstrip("/"))

    def log_message(self, *_: object) -> None:
        pass

    def send_head(self) -> io.BytesIO | None:
        path = Path(self.translate_path(self.path))
        wanted = self.headers.get("Range")
        self.server.requests.append((self.command, path.name, wanted))
        if failures := self.server.failures.get(path.name):
            self.send_error(failures.pop(0))
            return None
        if not path.is_file():
            return super().send_head()
        data, status = path.read_bytes(), 200
        total = len(data)
        if wanted and self.server.ranges:
            first, last = (int(number) for number in re.fullmatch(r"bytes=(\d+)-(\d+)", wanted).groups())
            if first >= total:
                self.send_error(416)
                return None
            data, status = data[first : last + 1], 206
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{path.stat().st_mtime_ns}-{total}"')
        self.end_headers()
        return io.BytesIO(data)


@pytest.fixture
def server(tmp_path):
    pytest.importorskip("aiohttp")
    folder = tmp_path / "served"
    folder.mkdir()
    running = Server(folder)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture
def memory():
    filesystem = fsspec.filesystem("memory")
    yield filesystem
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "WAITS", (0.01, 0.01))


def everything(source: str, **options: object) -> Pairs:
    return load_pairs(source, val_share=0.0, test_share=0.0, **options)


def is_right(pairs: Pairs, count: int = 12) -> bool:
    return len(pairs) == count and all(shows(pairs.image(row), row) for row in range(count))


@pytest.mark.parametrize("pattern", ["", "/", "/*.tar", "/0000?.tar", "/{00000..00002}.tar"])
def test_a_url_stands_for_what_a_path_does(tmp_path, memory, pattern: str) -> None:
    write_shards(tmp_path / "local")
    memory.put(str(tmp_path / "local"), "/bucket/cc3m", recursive=True)
    pairs, local = everything(f"memory://bucket/cc3m{pattern}"), everything(str(tmp_path / "local"))
    assert is_right(pairs) and not pairs.rejected
    assert pairs.ids == local.ids and pairs.all_captions == local.all_captions


def test_one_shard_and_one_at_the_top(tmp_path, memory) -> None:
    write_shard(tmp_path / "a.tar", pair_members(7))
    memory.put(str(tmp_path / "a.tar"), "/a.tar")
    for url in ("memory://a.tar", f"file://{tmp_path}/a.tar"):
        pairs = everything(url)
        assert [identity.partition("/")[0] for identity in pairs.ids] == ["a"] and shows(pairs.image(0), 7)


def test_indexed_once_then_read_in_ranges(server) -> None:
    write_shards(server.folder)
    source = f"{server.url}/{{00000..00002}}.tar?key=secret"
    assert is_right(everything(source))
    server.requests.clear()
    pairs = everything(source)
    assert {method for method, *_ in server.requests} == {"HEAD"} and len(server.requests) == 3
    assert shows(pairs.image(5), 5)
    method, _, wanted = server.requests[-1]
    first, last = map(int, wanted.removeprefix("bytes=").split("-"))
    assert method == "GET" and last - first < 5000 and len(server.requests) == 4


def test_a_changed_shard_is_indexed_anew(server) -> None:
    write_shard(server.folder / "0.tar", pair_members(1))
    assert shows(everything(f"{server.url}/0.tar").image(0), 1)
    write_shard(server.folder / "0.tar", {**pair_members(2), **pair_members(3)})
    assert len(everything(f"{server.url}/0.tar")) == 2


def test_a_listing_stands_for_its_shards(server) -> None:
    write_shards(server.folder)
    assert is_right(everything(f"{server.url}/*.tar"))


@pytest.mark.parametrize("failures", [[503], [500, 429], [503, 503]])
def test_what_passes_is_waited_for(server, failures: list[int]) -> None:
    write_shards(server.folder)
    pairs = everything(f"{server.url}/{{00000..00002}}.tar")
    server.failures["00001.tar"] = list(failures)
    assert is_right(pairs)
    assert is_right(everything(f"{server.url}/{{00000..00002}}.tar"))


def test_what_does_not_pass_stops_and_names_the_shard(server) -> None:
    write_shards(server.folder)
    source = f"{server.url}/{{00000..00002}}.tar"
    pairs = everything(source)
    server.failures["00001.tar"] = [503] * 100
    with pytest.raises(SettingError, match=r"00001\.tar.*HTTP 503"):
        pairs.image(5)
    with pytest.raises(SettingError, match=r"1 of 3 files.*00001\.tar.*HTTP 503"):
        everything(source)
    server.failures["00001.tar"] = [403] * 100
    with pytest.raises(SettingError, match=r"00001\.tar.*HTTP 403"):
        everything(source)


def test_missing_and_damaged_shards_are_named(server) -> None:
    write_shards(server.folder)
    pairs = everything(f"{server.url}/{{00000..00002}}.tar")
    with pytest.raises(SettingError, match=r"2 of 5 files.*00003\.tar: no such file.*00004\.tar"):
        everything(f"{server.url}/{{00000..00004}}.tar")
    whole = (server.folder / "00001.tar").read_bytes()
    (server.folder / "00001.tar").write_bytes(whole[:3000])
    with pytest.raises(BadSample, match="truncated shard"):
        pairs.image(7)
    (server.folder / "00001.tar").unlink()
    with pytest.raises(BadSample, match="missing file"):
        pairs.image(5)
    (server.folder / "00001.tar").write_bytes(b"<html>not here</html>" * 100)
    with pytest.raises(SettingError, match=r"00001\.tar.*not a readable tar"):
        everything(f"{server.url}/{{00000..00002}}.tar")


def test_nothing_listens_there() -> None:
    pytest.importorskip("aiohttp")
    with pytest.raises(SettingError, match=r"http://127\.0\.0\.1:9/0\.tar.*Connect"):
        everything("http://127.0.0.1:9/0.tar")


def test_a_server_without_ranges_is_right_and_warned_of(server) -> None:
    write_shards(server.folder)
    server.ranges = False
    with pytest.warns(UserWarning, match=r"data\.shard_cache"):
        assert is_right(everything(f"{server.url}/{{00000..00002}}.tar"))
    server.requests.clear()
    assert is_right(everything(f"{server.url}/{{00000..00002}}.tar", shard_cache=1.0))
    assert sum(method == "GET" for method, *_ in server.requests) == 3


def test_copies_are_fetched_once_and_bounded(server, tmp_path, monkeypatch) -> None:
    write_shards(server.folder)
    source, size = f"{server.url}/{{00000..00002}}.tar", (server.folder / "00000.tar").stat().st_size
    assert is_right(everything(source, shard_cache=2.5 * size / 1e9))
    copies = tmp_path / "cache" / "shards"
    first = set(copies.iterdir())
    assert len(first) == 2 and sum(copy.stat().st_size for copy in first) <= 2.5 * size
    server.requests.clear()
    pairs = everything(source, shard_cache=2.5 * size / 1e9)
    assert is_right(pairs)
    # One shard is read in ranges: those in use make no room for it.
    fetched = [name for method, name, _ in server.requests if method == "GET"]
    assert len(set(fetched)) == 1 and len(fetched) == 4
    for copy in first:
        os.utime(copy, (time.time() - 1000,) * 2)
    monkeypatch.setattr(remote, "LOOK_AGAIN", 0)
    row = 4 * int(fetched[0].removesuffix(".tar"))
    assert shows(pairs.image(row), row) and len(set(copies.iterdir()) - first) == 1
    assert is_right(pairs) and len(list(copies.iterdir())) == 2


def test_data_loader_workers_read_it_too(server) -> None:
    write_shards(server.folder)
    pairs = everything(f"{server.url}/{{00000..00002}}.tar")
    loaded = batches(
        pairs,
        lambda image, epoch, row: image[:, :16, :16],
        lambda texts: fixed_tokens(len(texts)),
        batch=6,
        seed=0,
        steps=range(2),
        workers=1,
    )
    assert sorted(row for batch in loaded for row in batch.rows) == list(range(12))


def fixed_tokens(count: int):
    import torch

    return torch.zeros(count, 4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("nonsense://bucket/0.tar", {}, "nonsense"),
        ("memory://bucket/none/*.tar", {}, "no tar shards"),
        ("memory://bucket/pairs.csv", {}, "no tar shards"),
        ("memory://bucket/{3..1}.tar", {}, "range is empty"),
        ("memory://bucket/0.tar", {"format": "folder"}, "only shards"),
        ("memory://bucket/0.tar", {}, "no such file"),
    ],
)
def test_what_cannot_be_opened_says_what_can(memory, source: str, options: dict, words: str) -> None:
    with pytest.raises(SettingError, match=words):
        everything(source, **options)


def test_a_missing_package_is_named(monkeypatch) -> None:
    def refuse(_: str):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", refuse)
    with pytest.raises(SettingError, match=r"Install s3fs.*workbench\[remote\]"):
        everything("s3://bucket/0.tar")
