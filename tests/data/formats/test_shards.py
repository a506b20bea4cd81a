import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from tests.data.samples import (
    HTML,
    add_member,
    encoded,
    pair_members,
    shows,
    write_shard,
    write_shards,
)
from workbench.data.decode import BadSample
from workbench.data.formats import shard_reader, shards
from workbench.data.load import available_splits, load_pairs
from workbench.data.pairs import Pairs
from workbench.errors import SettingError


def everything(source: Path | str, **options: object) -> Pairs:
    return load_pairs(source, val_share=0.0, test_share=0.0, **options)


class Malice:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {os.environ['MALICE']}",)


@pytest.fixture
def malice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that appears if anything unpickles what it should not."""
    where = tmp_path / "executed"
    monkeypatch.setenv("MALICE", str(where))
    return where


@pytest.mark.parametrize("pattern", ["", "/*.tar", "/{00000..00002}.tar", "/{00000,00001,00002}.tar"])
def test_shards_open_as_folder_glob_and_braces(tmp_path: Path, pattern: str) -> None:
    write_shards(tmp_path)
    pairs = everything(f"{tmp_path}{pattern}")
    assert pairs.ids[:2] == ["00000/000000000", "00000/000000001"] and len(pairs) == 12
    assert pairs.all_captions == [f"picture number {number}" for number in range(12)]
    assert all(shows(pairs.image(row), row) for row in range(12)) and not pairs.rejected


def test_ranges_count_as_bash_does(tmp_path: Path) -> None:
    write_shard(tmp_path / "9.tar", pair_members(9))
    write_shard(tmp_path / "10.tar", pair_members(10))
    assert len(everything(f"{tmp_path}/{{9..10}}.tar")) == 2
    with pytest.raises(SettingError, match=r"nothing matches.*8\.tar"):
        everything(f"{tmp_path}/{{8..10}}.tar")
    with pytest.raises(SettingError, match="range is empty"):
        everything(f"{tmp_path}/{{10..9}}.tar")


def test_random_order_equals_sequential_reading(tmp_path: Path) -> None:
    write_shards(tmp_path, shards=4, pairs=10)
    pairs = everything(tmp_path)
    sequential = {}
    for path in sorted(tmp_path.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".jpg"):
                    reader = tar.extractfile(member)
                    assert reader is not None
                    sequential[f"{path.stem}/{member.name[:-4]}"] = reader.read()
    for row in np.random.default_rng(0).permutation(len(pairs)):
        expected = shard_reader.decode_image(sequential[pairs.ids[row]])
        assert (pairs.image(int(row)) == expected).all()
    assert pairs.ids == list(sequential)


def test_captions_come_from_json_where_txt_is_missing(tmp_path: Path) -> None:
    members = {
        "a.webp": encoded(1, "WEBP"),
        "a.json": json.dumps({"caption": ["one", "two"]}).encode(),
        "b.PNG": encoded(2, "PNG"),
        "b.json": b'{"caption": "from json"}',
        "b.txt": b"from txt\na line each",
    }
    write_shard(tmp_path / "0.tar", members)
    pairs = everything(tmp_path)
    assert pairs.ids == ["0/a", "0/b"] and pairs.captions(0) == ["one", "two"]
    assert pairs.captions(1) == ["from txt", "a line each"]
    assert shows(pairs.image(0), 1) and shows(pairs.image(1), 2)


def test_names_are_parted_at_the_first_dot_of_the_last_component(tmp_path: Path) -> None:
    members = {"./a.b/c.jpg": encoded(1), "./a.b/c.seg.png": b"mask", "a.b/c.txt": b"yes", "a.b/c.cls": b"1"}
    write_shard(tmp_path / "0.tar", members)
    pairs = everything(tmp_path)
    assert pairs.ids == ["0/a.b/c"] and pairs.rejected == {"another type of file": 2}


def test_split_folders_and_equal_keys(tmp_path: Path) -> None:
    for split, number in (("train", 1), ("test", 2)):
        write_shard(tmp_path / split / "0.tar", {"k.jpg": encoded(number), "k.txt": split.encode()})
    assert available_splits(tmp_path) == ["train", "test"]
    assert load_pairs(tmp_path, "test").ids == ["test/0/k"]
    assert shows(load_pairs(tmp_path, "test").image(0), 2)
    write_shard(tmp_path / "other" / "0.tar", {"k.jpg": encoded(3), "k.txt": b"other"})
    train = load_pairs(tmp_path, "train", max_failed=0.4)
    assert train.ids == ["train/0/k"] and train.rejected == {"no split": 1} and shows(train.image(0), 1)


def hostile_shard(path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        for number in range(4):
            for name, data in pair_members(number).items():
                add_member(tar, name, data)
        for name in ("../x", "/abs", "a/../../x"):
            add_member(tar, f"{name}.jpg", encoded(1))
            add_member(tar, f"{name}.txt", b"out of bounds")
        for name, kind in (("sym", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE), ("pipe", tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(f"{name}.jpg")
            member.type, member.linkname = kind, "000000000.jpg" if name == "hard" else "/etc/passwd"
            tar.addfile(member)
            add_member(tar, f"{name}.txt", b"not a file")
        folder = tarfile.TarInfo("folder.jpg")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name in ("000000001.pkl", "000000002.pyd", "evil.pickle", "000000003.pth", "run.sh"):
            add_member(tar, name, pickle.dumps(Malice()))
        add_member(tar, "code.jpg", pickle.dumps(Malice()))
        add_member(tar, "code.txt", pickle.dumps(Malice()))
        add_member(tar, "html.jpg", HTML)
        add_member(tar, "html.txt", b"a page")
        add_member(tar, "pages.jpg", encoded(1))
        add_member(tar, "pages.json", b"[" * 100_000)
        add_member(tar, "lonely.jpg", encoded(1))
        add_member(tar, "captionless.json", b"{}")
        add_member(tar, "captionless.jpg", encoded(1))
        add_member(tar, "blind.txt", b"no picture")
        add_member(tar, "blank.jpg", encoded(1))
        add_member(tar, "blank.txt", b"  ")
        add_member(tar, "latin.jpg", encoded(1))
        add_member(tar, "latin.txt", b"caf\xe9")
        add_member(tar, "000000003.jpg", encoded(2))


def test_hostile_members_are_counted_and_nothing_runs(tmp_path: Path, malice: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    hostile_shard(folder / "0.tar")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    pairs = everything(folder, max_failed=0.9)
    assert pairs.ids == ["0/000000000", "0/000000001", "0/000000002", "0/html"]
    assert pairs.rejected == {
        "unsafe name": 3,
        "not a regular file": 3,
        "another type of file": 5,
        "caption not UTF-8": 2,
        "damaged record": 1,
        "no caption": 2,
        "no image": 1,
        "empty caption": 1,
        "duplicate id": 1,
    }
    with pytest.raises(BadSample, match="HTML"):
        pairs.image(3)
    assert not malice.exists() and sorted(path.name for path in tmp_path.rglob("*")) == before
    with pytest.raises(SettingError, match=r"14 of 18 pairs.*another type of file: 5"):
        everything(folder)


def test_foreign_members_beside_sound_pairs_cost_nothing(tmp_path: Path, malice: Path) -> None:
    members = {f"{number}.{kind}": data for number in range(5) for kind, data in triple(number).items()}
    write_shard(tmp_path / "0.tar", members)
    pairs = everything(tmp_path)
    assert len(pairs) == 5 and pairs.rejected == {"another type of file": 5} and not malice.exists()


def triple(number: int) -> dict[str, bytes]:
    return {"jpg": encoded(number), "txt": b"fine", "pkl": pickle.dumps(Malice())}


def test_large_members_are_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "LARGEST_IMAGE", 2000)
    monkeypatch.setattr(shards, "LARGEST_TEXT", 100)
    members = {"a.jpg": encoded(1) + bytes(2000), "a.txt": b"x", "b.jpg": encoded(1), "b.txt": b"y" * 101}
    write_shard(tmp_path / "0.tar", {**members, "c.jpg": encoded(1), "c.txt": b"good"})
    pairs = everything(tmp_path, max_failed=0.7)
    assert pairs.ids == ["0/c"] and pairs.rejected == {"file too large": 2}


def test_every_truncation_keeps_what_is_readable(tmp_path: Path) -> None:
    write_shards(tmp_path / "whole", shards=1, pairs=4)
    data = (tmp_path / "whole" / "00000.tar").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = tar.getmembers()
        end = members[-1].offset_data + members[-1].size
    for number, length in enumerate(range(600, end, 331)):
        (tmp_path / "cut.tar").write_bytes(data[:length])
        complete = {member.name for member in members if member.offset_data + member.size <= length}
        cut = {member.name for member in members if member.offset_data <= length} - complete
        whole = [
            key
            for key in range(4)
            if {f"{key:09d}.jpg", f"{key:09d}.json"} <= complete and f"{key:09d}.txt" not in cut
        ]
        if not whole:
            with pytest.raises(SettingError):
                everything(tmp_path / "cut.tar", max_failed=0.99)
            continue
        pairs = everything(tmp_path / "cut.tar", max_failed=0.99)
        assert pairs.ids == [f"cut/{key:09d}" for key in whole], number
        assert all(shows(pairs.image(row), row) for row in range(len(pairs)))
        # Cut exactly between two members of one pair the tar is sound, but the pair is not.
        at_a_seam = any(length == member.offset for member in members)
        assert pairs.rejected["truncated shard"] == 1 or at_a_seam, length


@pytest.mark.parametrize("key", ["nul\0x", "\udcff", "/a", "../a", "a/../b", "..\\a", "", "a\nb"])
def test_keys_are_plain_relative_paths(key: str) -> None:
    assert not shards._is_safe(key) and shards._is_safe("a b/c..d/é")


def test_garbage_after_a_member_counts_as_truncation(tmp_path: Path) -> None:
    write_shards(tmp_path, shards=1, pairs=2)
    path = tmp_path / "00000.tar"
    data = path.read_bytes()
    with tarfile.open(path) as tar:
        third = tar.getmembers()[3].offset
    path.write_bytes(data[:third] + b"\x5a" * 512 + data[third + 512 :])
    pairs = everything(tmp_path, max_failed=0.5)
    assert pairs.ids == ["00000/000000000"] and pairs.rejected == {"truncated shard": 1}


@pytest.mark.parametrize("data", [b"", HTML, b"\x1f\x8b\x08" + bytes(700)])
def test_what_is_no_tar_is_named(tmp_path: Path, data: bytes) -> None:
    write_shards(tmp_path)
    (tmp_path / "00001.tar").write_bytes(data)
    with pytest.raises(SettingError, match=r"00001\.tar.*not a readable tar"):
        everything(tmp_path)


def test_the_index_is_made_once_and_follows_the_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    write_shards(tmp_path / "data", shards=2, pairs=2)
    assert len(everything(tmp_path / "data")) == 4
    (index,) = (tmp_path / "cache" / "index").iterdir()
    made = index.stat().st_mtime_ns

    def explode(_: Path) -> None:
        raise AssertionError("indexed again")

    with monkeypatch.context() as patched:
        patched.setattr(shards, "_ShardContents", explode)
        assert len(everything(tmp_path / "data")) == 4
    assert index.stat().st_mtime_ns == made
    write_shard(tmp_path / "data" / "00001.tar", pair_members(7))
    pairs = everything(tmp_path / "data")
    assert pairs.ids[2:] == ["00001/000000007"] and shows(pairs.image(2), 7)


def test_an_interrupted_index_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    write_shards(tmp_path / "data")
    whole, seen = shards._ShardContents, []

    def interrupted(path: Path) -> object:
        seen.append(path)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return whole(path)

    with monkeypatch.context() as patched:
        patched.setattr(shards, "_ShardContents", interrupted)
        with pytest.raises(KeyboardInterrupt):
            everything(tmp_path / "data")
    assert list((tmp_path / "cache" / "index").iterdir()) == []
    assert len(everything(tmp_path / "data")) == 12


def test_shards_that_go_away_are_reasons(tmp_path: Path) -> None:
    write_shards(tmp_path, shards=2, pairs=2)
    pairs = everything(tmp_path)
    (tmp_path / "00000.tar").unlink()
    os.truncate(tmp_path / "00001.tar", 600)
    with pytest.raises(BadSample, match="missing file"):
        pairs.image(0)
    with pytest.raises(BadSample, match="truncated shard"):
        pairs.image(3)


def test_pairs_name_the_shards_that_hold_them(tmp_path: Path) -> None:
    write_shards(tmp_path, shards=3, pairs=4)
    pairs = everything(tmp_path)
    assert list(pairs.files) == [str(tmp_path / f"0000{shard}.tar") for shard in range(3)]
    assert list(pairs.select([9, 1]).files) == [str(tmp_path / f"0000{shard}.tar") for shard in (0, 2)]


def test_every_flipped_bit_of_the_index_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    write_shards(tmp_path / "data", shards=2, pairs=3)
    expected = everything(tmp_path / "data")
    (index,) = (tmp_path / "cache" / "index").iterdir()
    sound = index.read_bytes()
    for place in np.random.default_rng(0).choice(8 * len(sound), 60, replace=False):
        damaged = bytearray(sound)
        damaged[place // 8] ^= 1 << place % 8
        index.write_bytes(damaged)
        assert everything(tmp_path / "data").fingerprint == expected.fingerprint
        assert index.read_bytes() == sound, f"bit {place} went unnoticed"
    for damaged in (b"", sound[:64], sound[:-1], sound + b"x"):
        index.write_bytes(damaged)
        assert everything(tmp_path / "data").all_captions == expected.all_captions


def oversized(name: str, size: str, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A member whose extended header says that it holds so many bytes; it holds ten."""
    member = tarfile.TarInfo(name)
    member.size, member.pax_headers, member.type = 10, {"size": size}, kind
    return member.tobuf(tarfile.PAX_FORMAT) + bytes(512)


def headers_that_lie() -> dict[str, bytes]:
    name = tarfile.TarInfo("././@LongLink")
    name.type, name.size = tarfile.GNUTYPE_LONGNAME, 2**62
    extended = tarfile.TarInfo("PaxHeaders/x")
    extended.type, extended.size = tarfile.XHDTYPE, 2**40
    chained = tarfile.TarInfo("PaxHeaders/x")
    chained.type, chained.size = tarfile.XHDTYPE, 0
    return {
        "size": oversized("bad.jpg", str(2**62)),
        "size beyond 64 bits": oversized("bad.jpg", str(2**80)),
        "size below 0": oversized("bad.jpg", "-100000"),
        "size of a text": oversized("bad.txt", str(2**62)),
        "size of another file": oversized("bad.cls", str(2**62)),
        "size of the member behind": oversized("bad.jpg", "100000000"),
        "long name": name.tobuf(tarfile.GNU_FORMAT) + bytes(512),
        "extended header": extended.tobuf(tarfile.GNU_FORMAT) + bytes(512),
        "a thousand extended headers": chained.tobuf(tarfile.USTAR_FORMAT) * 2000,
    }


@pytest.mark.parametrize("at", ["first", "between", "last"])
@pytest.mark.parametrize("lie", headers_that_lie())
def test_one_member_that_lies_is_one_member(tmp_path: Path, lie: str, at: str) -> None:
    write_shards(tmp_path, shards=1, pairs=4)
    path = tmp_path / "00000.tar"
    data = path.read_bytes()
    with tarfile.open(path) as tar:
        members = tar.getmembers()
    end = members[-1].offset_data + (members[-1].size + 511) // 512 * 512
    place = {"first": 0, "between": members[6].offset, "last": end}[at]
    path.write_bytes(data[:place] + headers_that_lie()[lie] + data[place:])
    pairs = everything(tmp_path, max_failed=0.99)
    assert pairs.ids == [f"00000/{key:09d}" for key in range(4)]
    assert all(shows(pairs.image(row), row) for row in range(4))
    assert 1 <= pairs.rejected.total() <= 8, pairs.rejected  # the chain is cut a few times


def test_ids_of_paths_and_keys_that_run_together_are_refused(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", {"b/c.jpg": encoded(1), "b/c.txt": b"one"})
    write_shard(tmp_path / "a" / "b.tar", {"c.jpg": encoded(2), "c.txt": b"two"})
    with pytest.raises(SettingError, match=r"unique.*a/b/c"):
        everything(tmp_path)


def test_one_process_makes_the_index_and_the_others_wait(tmp_path: Path) -> None:
    write_shards(tmp_path / "data", shards=3, pairs=4)
    script = (
        "import sys, time\nfrom workbench.data.formats import shards\n"
        "from workbench.data.load import load_pairs\n"
        "whole = shards._ShardContents\n"
        "def slow(path):\n    time.sleep(0.2); print('indexed', flush=True); return whole(path)\n"
        "shards._ShardContents = slow\n"
        "print(load_pairs(sys.argv[1], val_share=0.0, test_share=0.0).fingerprint)\n"
    )
    environment = {**os.environ, "WORKBENCH_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", script, str(tmp_path / "data")]
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    lines = [process.communicate()[0].split() for process in processes]
    assert sorted(map(len, lines)) == [1, 1, 4] and len({words[-1] for words in lines}) == 1


def test_workers_open_the_index_themselves(tmp_path: Path) -> None:
    write_shards(tmp_path, shards=3, pairs=40)
    pairs = everything(tmp_path).select(np.arange(1, 110, 2))
    payload = pickle.dumps(pairs)
    copy = pickle.loads(payload)
    assert len(payload) < 6000 and copy.fingerprint == pairs.fingerprint
    assert copy.captions(3) == pairs.captions(3) and (copy.image(3) == pairs.image(3)).all()


def test_captions_in_another_field_are_named(tmp_path: Path) -> None:
    members = {"a.jpg": encoded(0), "a.json": b'{"url": "u", "text": "a dog"}'}
    write_shard(tmp_path / "0.tar", members)
    with pytest.raises(SettingError, match=r"data\.caption_column = 'caption'.*It has 'url', 'text'\."):
        load_pairs(tmp_path)
    assert everything(tmp_path, caption_column="text").captions(0) == ["a dog"]
