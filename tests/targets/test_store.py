"""The target store: the same bytes however it was filled, and refused when it is not what was asked for."""

import errno
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.targets.little_store import (
    BAD,
    BATCH,
    DIM,
    FINGERPRINT,
    IMAGES,
    TEXTS,
    VIEWS,
    columns,
    contents,
    image_values,
    text_values,
)
from workbench.errors import SettingError
from workbench.files import sha256_of_json
from workbench.targets import Column, TargetStore, fill, store_folder, store_writer

ROOT = Path(__file__).parents[2]


def in_process(*arguments) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.targets.little_store", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A store filled by one process without interruption."""
    folder = tmp_path_factory.mktemp("whole") / "store"
    fill(folder, FINGERPRINT, columns(), batch=BATCH)
    return folder


def filled(folder, **changes) -> TargetStore:
    settings = {"fingerprint": FINGERPRINT, "columns": columns(), "batch": BATCH, **changes}
    return fill(folder, settings.pop("fingerprint"), settings.pop("columns"), **settings)


def stop_after(chunks: int, computed: list) -> dict[str, Column]:
    """The little store's columns, whose computation fails after so many chunks."""

    def failing(column: Column):
        def compute(rows: slice):
            if len(computed) == chunks:
                raise KeyboardInterrupt
            computed.append(rows)
            return column.compute(rows)

        return compute

    return {
        name: Column(column.shape, column.dtype, failing(column), column.row_axis)
        for name, column in columns().items()
    }


# ---- reading


def test_holds_what_was_computed(whole):
    store = TargetStore.open(whole, FINGERPRINT)
    image, text = store.column("image"), store.columns["text"]
    assert isinstance(image, np.memmap) and image.shape == (VIEWS, IMAGES, DIM) and image.dtype == np.float16
    good = [row for row in range(IMAGES) if row not in BAD]
    np.testing.assert_array_equal(image[:, good], image_values(slice(0, IMAGES)).astype(np.float16)[:, good])
    np.testing.assert_array_equal(text, text_values(slice(0, TEXTS)).astype(np.float16))
    assert not image.flags.writeable
    assert store.fingerprint == FINGERPRINT
    store.verify()


def test_columns_are_plain_npy_files(whole):
    np.testing.assert_array_equal(
        np.load(whole / "text.npy", allow_pickle=False), TargetStore.open(whole).column("text")
    )


def test_rows_are_gathered_from_the_view_asked_for(whole):
    store = TargetStore.open(whole)
    index = np.array([16, 0, 3, 3])
    np.testing.assert_array_equal(store.rows("image", index), np.array(store.column("image"))[0, index])
    np.testing.assert_array_equal(
        store.rows("image", index, view=1), np.array(store.column("image"))[1, index]
    )
    np.testing.assert_array_equal(store.rows("text", [39, 1]), np.array(store.column("text"))[[39, 1]])
    copy = store.rows("text", [0])
    copy += 1  # a copy of one's own
    with pytest.raises(IndexError):
        store.rows("image", [IMAGES])


def test_bad_rows_are_nan_with_their_reasons(whole):
    store = TargetStore.open(whole)
    assert store.bad_rows == {"image": BAD, "text": {}}
    assert np.isnan(store.column("image")[:, list(BAD)]).all()


def test_values_that_are_not_finite_are_bad_rows(tmp_path):
    values = np.ones((6, 2))
    values[1, 1] = 1e6  # beyond float16
    values[4, 0] = np.nan
    wide = Column(
        (6, 2), "float16", lambda rows: (values[rows], {2: "unreadable"} if rows.start == 0 else {})
    )
    store = fill(tmp_path / "store", {}, {"wide": wide}, batch=3)
    assert store.bad_rows["wide"] == {1: "not finite in float16", 2: "unreadable", 4: "not finite in float16"}
    assert list(store.bad_rows["wide"]) == [1, 2, 4]
    np.testing.assert_array_equal(
        np.isnan(store.column("wide")).all(axis=1), [False, True, True, False, True, False]
    )


@pytest.mark.parametrize(
    ("dtype", "shape"), [("int32", (7, 2)), ("float32", (7,)), ("float64", (7, 2, 3)), ("float16", (0, 4))]
)
def test_other_dtypes_and_shapes(tmp_path, dtype, shape):
    values = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    columns = {"other": Column(shape, dtype, lambda rows: (values[rows], {}))}
    store = fill(tmp_path / "store", {}, columns, batch=3)
    np.testing.assert_array_equal(store.column("other"), values)
    assert store.column("other").dtype == dtype


def test_travels_to_other_processes_by_name(whole):
    store = TargetStore.open(whole)
    payload = pickle.dumps(store)
    assert len(payload) < 1000
    np.testing.assert_array_equal(pickle.loads(payload).column("text"), store.column("text"))


def test_default_folder_is_named_by_the_fingerprint(monkeypatch, tmp_path):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    folder = store_folder(FINGERPRINT, "hub:some/Teacher")
    assert folder == tmp_path / "targets" / f"hub-some-Teacher-{sha256_of_json(FINGERPRINT)[:12]}"
    assert store_folder({**FINGERPRINT, "views": 3}, "hub:some/Teacher") != folder


# ---- the same bytes, however it was filled


def test_interrupted_after_every_chunk(tmp_path, whole):
    chunks = -(-IMAGES // BATCH) + -(-TEXTS // BATCH)
    for stop in range(chunks):
        with pytest.raises(KeyboardInterrupt):
            filled(tmp_path / str(stop), columns=stop_after(stop, []))
        computed: list = []
        filled(tmp_path / str(stop), columns=columns(computed=computed))
        assert len(computed) == chunks - stop  # what was finished is not computed again
        assert contents(tmp_path / str(stop)) == contents(whole)


def test_killed_at_every_file_operation(tmp_path):
    process = in_process("kill", tmp_path)
    kills = process.communicate()[0]
    assert process.returncode == 0 and int(kills) > 40


def test_killed_at_random_times(tmp_path, whole):
    random.seed(0)
    kills = 0
    while kills < 6:
        process = in_process("fill", tmp_path / "store", 0, 1, 0.03)
        deadline = time.monotonic() + 60
        while not (tmp_path / "store").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.15))
        process.kill()
        process.communicate()
        kills += 1
    filled(tmp_path / "store")
    assert contents(tmp_path / "store") == contents(whole)


@pytest.mark.slow
def test_several_processes_at_once(tmp_path, whole):
    processes = [in_process("fill", tmp_path / "store", rank, 3, 0.01) for rank in range(3)]
    shares = [json.loads(process.communicate()[0]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert contents(tmp_path / "store") == contents(whole)
    for rank, share in enumerate(shares):
        assert share and all(start // BATCH % 3 == rank for _, start, _ in share)


def test_the_same_process_started_twice(tmp_path, whole):
    processes = [in_process("fill", tmp_path / "store", 0, 1, 0.01) for _ in range(2)]
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0, 0]
    assert contents(tmp_path / "store") == contents(whole)


def test_share_of_a_dead_process_is_taken_over(tmp_path, whole, monkeypatch):
    monkeypatch.setattr(store_writer, "PATIENCE", 0.0)
    monkeypatch.setattr(store_writer, "POLL", 0.001)
    filled(tmp_path / "store", rank=1, world=2)
    assert contents(tmp_path / "store") == contents(whole)


def test_a_chunk_finished_by_another_process_meanwhile_is_left_alone(tmp_path):
    folder = tmp_path / "store"
    outer: list = []

    def compute(rows: slice):
        if not outer:
            outer.append(rows)
            fill(folder, {}, {"text": Column((5, 1), "float32", compute)}, batch=2)  # the other process
            return np.full((2, 1), -1.0), {0: "came too late"}
        return np.ones((rows.stop - rows.start, 1)), {}

    store = fill(folder, {}, {"text": Column((5, 1), "float32", compute)}, batch=2)
    assert outer == [slice(0, 2)]
    np.testing.assert_array_equal(store.column("text"), np.ones((5, 1)))
    assert store.bad_rows == {"text": {}}


def test_a_row_that_was_bad_before_the_kill_and_no_longer_is(tmp_path):
    folder = tmp_path / "store"
    fill(
        folder,
        {},
        {"text": Column((2, 1), "float32", lambda rows: (np.ones((2, 1)), {1: "disk error"}))},
        batch=2,
    )
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "complete": False}))
    (folder / "progress" / "text.done").write_bytes(b"\0")  # killed just before the mark
    store = fill(folder, {}, {"text": Column((2, 1), "float32", lambda rows: (np.ones((2, 1)), {}))}, batch=2)
    assert store.bad_rows == {"text": {}}
    np.testing.assert_array_equal(store.column("text"), np.ones((2, 1)))


def test_writes_that_take_only_a_part(tmp_path, whole, monkeypatch):
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda handle, data, offset: real(handle, data[:7], offset))
    filled(tmp_path / "store")
    assert contents(tmp_path / "store") == contents(whole)


def test_complete_store_is_not_computed_again(whole):
    before = contents(whole)
    computed: list = []
    filled(whole, columns=columns(computed=computed), batch=BATCH + 1)  # a finished store has no batches
    assert not computed and contents(whole) == before


# ---- progress


def test_rates_count_the_rows_of_this_session_only(tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        filled(tmp_path / "store", columns=stop_after(2, []))
    now = 0.0

    class TwoSecondsEach(list):
        def append(self, chunk):
            nonlocal now
            now += 2.0

    monkeypatch.setattr(store_writer.time, "monotonic", lambda: now)
    reports: list = []
    filled(tmp_path / "store", columns=columns(computed=TwoSecondsEach()), report=reports.append)
    image = [report for report in reports if report.column == "image"]
    assert [report.done for report in image] == [8, 12, 16, 17]  # 8 of 17 rows were there
    assert all(report.total == IMAGES for report in image)
    assert [report.rows_per_second for report in image] == [0, 4 / 2, 8 / 4, 9 / 6]
    assert [report.seconds_left for report in image] == [None, 5 / 2, 1 / 2, 0]
    text = [report for report in reports if report.column == "text"]
    assert (text[0].done, text[-1].done, text[-1].rows_per_second) == (0, TEXTS, 2)


# ---- refused


def test_another_fingerprint_is_refused_with_both_and_what_differs(tmp_path):
    other = {**FINGERPRINT, "teacher": {"config": "c0ffee", "weights": "other"}, "dtype": "float16"}
    filled(tmp_path / "store")
    before = contents(tmp_path / "store")
    for use in (
        lambda: TargetStore.open(tmp_path / "store", other),
        lambda: filled(tmp_path / "store", fingerprint=other),
    ):
        with pytest.raises(SettingError) as caught:
            use()
        message = str(caught.value)
        assert caught.value.setting == "targets.folder" and caught.value.value == str(tmp_path / "store")
        assert sha256_of_json(FINGERPRINT)[:12] in message and sha256_of_json(other)[:12] in message
        assert 'teacher.weights: "beef" there, "other" wanted' in message
        assert 'dtype: absent there, "float16" wanted' in message
        assert "config" not in message
    assert contents(tmp_path / "store") == before


def test_fingerprints_are_compared_as_json(tmp_path):
    fill(tmp_path / "store", {"mean": (0.5, 0.25), "size": 64}, columns(), batch=BATCH)
    TargetStore.open(tmp_path / "store", {"size": 64, "mean": [0.5, 0.25]})


def test_whoever_claims_the_folder_first_has_it(tmp_path, monkeypatch):
    real, drafts = store_writer.write_json, []

    def write_json(path, value):
        drafts.append(path)
        if len(drafts) == 1:  # between looking for a manifest and writing one, another process comes and goes
            filled(tmp_path / "store", fingerprint={"teacher": "the other's"})
        real(path, value)

    monkeypatch.setattr(store_writer, "write_json", write_json)
    with pytest.raises(SettingError, match="the other's"):
        filled(tmp_path / "store")
    TargetStore.open(tmp_path / "store", {"teacher": "the other's"}).verify()


def test_unfinished_store_of_another_fingerprint_is_refused(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        filled(tmp_path / "store", columns=stop_after(1, []))
    with pytest.raises(SettingError, match="fingerprint"):
        filled(tmp_path / "store", fingerprint={"teacher": "another"})


def test_unfinished_store_is_not_read(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        filled(tmp_path / "store", columns=stop_after(3, []))
    with pytest.raises(SettingError, match=r"5 rows of image, 40 rows of text.*goes on where it stopped"):
        TargetStore.open(tmp_path / "store", FINGERPRINT)


def test_unfinished_store_wants_its_batch(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        filled(tmp_path / "store", columns=stop_after(1, []))
    with pytest.raises(SettingError, match=r"targets.batch = 5.*begun with 4"):
        filled(tmp_path / "store", batch=5)


def test_other_columns_are_refused(whole):
    narrow = {**columns(), "text": Column((TEXTS, DIM - 1), "float16", lambda rows: (np.zeros((1, 1)), {}))}
    with pytest.raises(SettingError, match="columns"):
        filled(whole, columns=narrow)


@pytest.mark.parametrize("finished", [True, False])
def test_truncated_column_is_refused(tmp_path, finished):
    with pytest.raises(KeyboardInterrupt):
        filled(tmp_path / "store", columns=stop_after(2, []))
    if finished:
        filled(tmp_path / "store")
    path = tmp_path / "store" / "image.npy"
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(SettingError, match=r"damaged.*image\.npy.*Delete the folder"):
        filled(tmp_path / "store")
    if finished:
        with pytest.raises(SettingError, match=r"damaged.*image\.npy"):
            TargetStore.open(tmp_path / "store")


def test_flipped_bit_is_found_at_opening(tmp_path, whole):
    shutil.copytree(whole, tmp_path / "store")
    path = tmp_path / "store" / "text.npy"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(SettingError, match=r"damaged: text\.npy, rows 36 to 39"):
        TargetStore.open(tmp_path / "store", FINGERPRINT)


@pytest.mark.parametrize("file", ["image.npy", "manifest.json", "text.npy"])
def test_garbage_and_lost_files_are_refused(tmp_path, whole, file):
    shutil.copytree(whole, tmp_path / "store")
    (tmp_path / "store" / file).write_bytes(b"\x93garbage")
    with pytest.raises(SettingError, match="damaged"):
        TargetStore.open(tmp_path / "store")
    (tmp_path / "store" / file).unlink()
    with pytest.raises(SettingError, match=r"damaged|no targets"):
        TargetStore.open(tmp_path / "store")


@pytest.mark.parametrize("key", ["columns", "complete", "fingerprint", "bad_rows"])
def test_a_manifest_that_lacks_something_is_refused(tmp_path, whole, key):
    shutil.copytree(whole, tmp_path / "store")
    manifest = json.loads((tmp_path / "store" / "manifest.json").read_text())
    manifest.pop(key)
    (tmp_path / "store" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(SettingError, match=f"damaged.*{key}"):
        TargetStore.open(tmp_path / "store")


def test_nothing_is_unpickled(tmp_path, whole):
    shutil.copytree(whole, tmp_path / "store")

    class Malicious:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    np.save(
        tmp_path / "store" / "text.npy", np.full((TEXTS, DIM), Malicious(), dtype=object), allow_pickle=True
    )
    with pytest.raises(SettingError, match="damaged"):
        TargetStore.open(tmp_path / "store")
    assert not (tmp_path / "executed").exists()


def test_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "image.npy").write_bytes(b"somebody's own")
    with pytest.raises(SettingError, match=r"targets.folder.*other things \(image\.npy\)"):
        filled(tmp_path)
    assert contents(tmp_path) == {"image.npy": b"somebody's own"}
    with pytest.raises(SettingError, match="no targets"):
        TargetStore.open(tmp_path)


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match="cannot be written"):
        filled(tmp_path / "file" / "store")


def test_empty_folder_is_used(tmp_path, whole):
    filled(tmp_path)
    assert contents(tmp_path) == contents(whole)


def test_mistakes_in_a_computation_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"column text, rows 0 to 2: computed \(2, 3\), not \(2, 4\)"):
        fill(
            tmp_path / "a",
            {},
            {"text": Column((4, 4), "float16", lambda rows: (np.zeros((2, 3)), {}))},
            batch=2,
        )
    with pytest.raises(ValueError, match="reasons for rows"):
        fill(
            tmp_path / "b",
            {},
            {"text": Column((4, 4), "float16", lambda rows: (np.zeros((2, 4)), {3: "?"}))},
            batch=2,
        )
    with pytest.raises(SettingError, match=r"targets\.batch"):
        filled(tmp_path / "c", batch=0)


# ---- a full disk


def test_full_disk_keeps_the_finished_chunks(tmp_path, whole, monkeypatch):
    real, written = os.pwrite, []

    def pwrite(handle, data, offset):
        written.append(len(data))
        if len(written) == 12:
            return real(handle, data[:5], offset)  # the last bytes that find room
        if len(written) > 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(handle, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        with pytest.raises(OSError, match=r"disk is full.*kept.*run the same again") as caught:
            filled(tmp_path / "store")
    assert caught.value.errno == errno.ENOSPC
    computed: list = []
    filled(tmp_path / "store", columns=columns(computed=computed))
    assert 0 < len(computed) < -(-IMAGES // BATCH) + -(-TEXTS // BATCH)
    assert contents(tmp_path / "store") == contents(whole)


def test_too_small_a_disk_is_told_at_once(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=VIEWS * IMAGES * DIM * 2 + TEXTS * DIM * 2 - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    computed: list = []
    with pytest.raises(OSError, match="MB free") as caught:
        filled(tmp_path / "store", columns=columns(computed=computed))
    assert caught.value.errno == errno.ENOSPC and not computed


def test_a_disk_that_really_fills_up(small_disk, monkeypatch):
    rows = 64
    wide = {
        "text": Column((rows, 2048), "float32", lambda rows: (np.ones((rows.stop - rows.start, 2048)), {}))
    }
    (small_disk / "ballast").write_bytes(bytes(600_000))
    with pytest.raises(OSError, match="MB free"):
        fill(small_disk / "store", {}, wide, batch=4)
    plenty = shutil.disk_usage(small_disk)._replace(free=1 << 40)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: plenty)
        with pytest.raises(OSError, match="disk is full") as caught:
            fill(small_disk / "store", {}, wide, batch=4)
    assert caught.value.errno == errno.ENOSPC
    (small_disk / "ballast").unlink()
    store = fill(small_disk / "store", {}, wide, batch=4)
    assert (store.column("text") == 1).all()
    store.verify()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB."""
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
