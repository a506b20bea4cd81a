"""Damaged and full: what was written is read back bit by bit or refused in words, and nothing is silently
other."""

import contextlib
import io
import json
import random
import resource
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.fake_runs import write_run
from tests.targets.little_store import BATCH, FINGERPRINT, columns, contents
from workbench.batch import sweeps
from workbench.batch.sweep_plan import load_sweep, plan
from workbench.cli import app
from workbench.data.index import cached_index
from workbench.data.scenes.dataset import scenes
from workbench.errors import SettingError, disk_error_in_words
from workbench.evaluation.results_io import read_evaluations
from workbench.evaluation.suites import _write
from workbench.files import atomic_folder, atomic_write, read_json, signed, unsigned, write_json
from workbench.recipe import Recipe
from workbench.reports.compare import compare
from workbench.reports.effects import runs_of_sweep
from workbench.reports.html import write_report
from workbench.runs.folder import locked, read_status
from workbench.runs.logger import RunLogger
from workbench.runs.records import Records, sealed
from workbench.runs.run import Run
from workbench.targets import TargetStore, fill, store
from workbench.targets.standardise import Standardiser
from workbench.training.session import Session

CASES = 60


def flipped(data: bytearray, draw: random.Random) -> bytearray:
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return data


def zeroed(data: bytearray, draw: random.Random) -> bytearray:
    start, size = draw.randrange(len(data)), max(1, len(data) // 8)
    data[start : start + size] = bytes(len(data[start : start + size]))
    return data


def damages() -> list[Callable[[bytearray, random.Random], bytearray]]:
    return [
        *(flipped, flipped, zeroed),
        lambda data, draw: data[: draw.randrange(len(data))],
        lambda data, draw: bytearray(b'[1, "x", null]\n'),
        lambda data, draw: data[::-1],
    ]


def outcomes(folder: Path, files: list[str], read: Callable[[], object], expected: str) -> Counter[str]:
    """How reading goes, one damage at a time: the same as before, refused in words, or neither."""
    counts: Counter[str] = Counter()
    draw = random.Random(0)
    for case in range(CASES):
        path = folder / files[case % len(files)]
        before = path.read_bytes()
        path.write_bytes(damages()[case % 6](bytearray(before), draw))
        try:
            counts["same" if repr(read()) == expected else f"silent: {path.name}, case {case}"] += 1
        except SettingError as error:
            assert path.stem in str(error) or str(folder) in str(error)
            counts["told"] += 1
        path.write_bytes(before)
    return counts


# ---- targets


@pytest.mark.parametrize("at_once", [store.AT_ONCE, 0])
def test_damaged_targets_are_never_read(tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(store, "AT_ONCE", at_once)
    folder = fill(tmp_path / "store", FINGERPRINT, columns(), batch=BATCH).folder

    def read() -> object:
        opened = TargetStore.open(folder, FINGERPRINT)
        rows = [opened.rows("image", range(17), view).tobytes() for view in (0, 1)]
        return rows, opened.column("text").tobytes(), opened.bad_rows

    files = ["image.npy", "text.npy", "manifest.json", "progress/image.crc32"]
    counts = outcomes(folder, files, read, repr(read()))
    assert set(counts) <= {"same", "told"} and counts["told"] > CASES // 2, counts


def test_a_damaged_chunk_of_an_unfinished_store_is_computed_again(tmp_path):
    folder = fill(tmp_path / "store", FINGERPRINT, columns(), batch=BATCH).folder
    before = contents(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "complete": False}))
    data = bytearray((folder / "text.npy").read_bytes())
    data[-1] ^= 1
    (folder / "text.npy").write_bytes(data)
    computed: list = []
    fill(folder, FINGERPRINT, columns(computed=computed), batch=BATCH)
    assert computed == [("text", 36, 40)] and contents(folder) == before


def test_a_store_of_an_older_version_is_checked_once_as_a_whole(tmp_path):
    folder = fill(tmp_path / "store", FINGERPRINT, columns(), batch=BATCH).folder
    manifest = json.loads((folder / "manifest.json").read_text())
    for entry in manifest["columns"].values():
        del entry["chunks"]
    del manifest["signature"], manifest["digests"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for path in (folder / "progress").glob("*.crc32"):
        path.unlink()
    shutil.copytree(folder, tmp_path / "damaged")
    data = bytearray((folder / "text.npy").read_bytes())
    data[200] ^= 1
    (tmp_path / "damaged" / "text.npy").write_bytes(data)
    with pytest.raises(SettingError, match="damaged"):
        TargetStore.open(tmp_path / "damaged")
    TargetStore.open(folder, FINGERPRINT)
    assert "chunks" in json.loads((folder / "manifest.json").read_text())["columns"]["text"]


# ---- runs


def test_damaged_evaluations_are_never_read(tmp_path):
    ranks = np.arange(1, 41)
    report = {"split": "test", "data": "d", "scores": {"median_rank": 20.5}, "images": 40, "captions": 40}
    _write(tmp_path, "test", {**report, "failed": {}, "model": "m"}, {"t2i_ranks": ranks})

    def read() -> object:
        report, queries = read_evaluations(tmp_path)["test"]
        return report["scores"], report["images"], {name: item.tobytes() for name, item in queries.items()}

    counts = outcomes(tmp_path, ["test.json", "test.npz"], read, repr(read()))
    assert set(counts) <= {"same", "told"} and counts["told"] > CASES // 2, counts


def test_damaged_records_and_recipes_are_never_read(tmp_path, capsys):
    run = Run(write_run(tmp_path / "run", steps=30))

    def read() -> object:
        capsys.readouterr()
        table, recipe = run.metrics, run.recipe
        if "warning" in capsys.readouterr().err:  # the end of the file is lost
            raise SettingError("run", str(run.path / "metrics.jsonl"), "", "")
        return table.to_csv(), run.validations.to_csv(), recipe.to_yaml()

    counts = outcomes(run.path, ["metrics.jsonl", "recipe.yaml"], read, repr(read()))
    assert set(counts) <= {"same", "told"} and counts["told"] > CASES // 2, counts


def test_damaged_facts_of_a_run_are_never_read(tmp_path):
    run = Run(write_run(tmp_path / "run", steps=4))
    write_json(run.path / "weights.json", signed({"student": "openai", "teacher": "laion2b_s34b_b79k"}))

    def read() -> object:
        return run.facts("data"), run.facts("versions"), run.start

    expected = repr(read())
    files = ["data.json", "versions.json", "weights.json", "data.json", "versions.json"]
    counts = outcomes(run.path, files, read, expected)
    assert set(counts) <= {"same", "told"} and counts["told"] > CASES // 2, counts
    for name in set(files):  # as an older workbench wrote them
        write_json(run.path / name, unsigned(read_json(run.path / name)))
    assert repr(read()) == expected


def test_a_resumed_run_keeps_its_weights_and_seals_what_an_older_workbench_wrote(tmp_path):
    known = {"student": "openai", "teacher": "one", "object": "0123"}
    with Session(Recipe.load("clip_kd_demo"), tmp_path) as session:
        session.write_weights("openai", "one", "0123")
        assert unsigned(read_json(tmp_path / "weights.json")) == known and session.teacher_object is None
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints" / "LAST").write_text("step-00000004")
        write_json(tmp_path / "weights.json", known)
        session.write_weights("other", None)
        assert read_json(tmp_path / "weights.json") == signed(known) and session.teacher_object == "0123"
        (tmp_path / "weights.json").write_text(json.dumps(signed(known)).replace("openai", "openaj"))
        with pytest.raises(SettingError, match=r"weights\.json'.*sha256"):
            _ = session.teacher_object


def test_records_and_recipes_without_digests_are_read(tmp_path):
    run = Run(write_run(tmp_path / "run", steps=30))
    before = run.metrics.to_csv(), run.recipe
    path = run.path / "metrics.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    older = [
        json.dumps({key: value for key, value in record.items() if key != "crc32"}) for record in records
    ]
    path.write_text("\n".join(older) + "\n")
    run.recipe.save(run.path / "recipe.yaml")
    assert (run.metrics.to_csv(), run.recipe) == before
    with open(path, "a") as stream:  # resumed by this version, and then damaged
        stream.write(sealed(records[-1]))
        stream.write(older[-1] + "\n")
    with pytest.raises(SettingError, match=r"metrics\.jsonl.*CRC-32"):
        _ = run.metrics


def test_a_resumed_run_says_which_records_it_could_not_keep(tmp_path, capsys):
    path = write_run(tmp_path / "run", steps=8) / "metrics.jsonl"
    path.write_text(path.read_text().replace('"loss": ', '"loss": 1', 1) + '{"kind": "st')
    RunLogger(path.parent, 9).start(6)
    assert "warning: 1 damaged lines were removed from" in capsys.readouterr().out
    assert list(Records(path, strict=True).read().metrics["step"]) == [2, 3, 4, 5, 6]


def test_a_resumed_run_says_which_records_are_missing(tmp_path, capsys):
    path = write_run(tmp_path / "run", steps=8) / "metrics.jsonl"
    text = path.read_bytes()
    path.write_bytes(text[: text.index(b'"step": 4') + 20])
    RunLogger(path.parent, 9).start(6)
    assert "warning: the records of steps 4 to 6 are missing in" in capsys.readouterr().out
    path.unlink()
    RunLogger(path.parent, 9).start(6)
    assert "warning: the records of steps 1 to 6 are missing in" in capsys.readouterr().out
    RunLogger(path.parent, 9).start(0)
    assert "warning" not in capsys.readouterr().out


def test_a_broken_status_is_a_state_and_keeps_nothing_from_being_read(tmp_path):
    run = Run(write_run(tmp_path / "run", steps=4, splits={"test": 0.0}))
    for text in ("", "{", "[1]", '{"step": "3"}', '{"rejected": {"x": []}}', "[" * 100_000):
        (run.path / "status.json").write_text(text)
        assert read_status(run.path)["state"] == run.status["state"] == "damaged"
        assert "status.json" in run.status["message"]
        compare([run])
    for name in ("data", "versions"):
        (run.path / f"{name}.json").write_text('[1, "x", null]')
        with pytest.raises(SettingError, match=f"{name}.json"):
            run.facts(name)


@pytest.mark.parametrize("text", ["", "[]", '{"object": '])
def test_a_run_whose_teacher_object_is_forgotten_is_not_resumed(text, tmp_path):
    with Session(Recipe.load("clip_kd_demo"), tmp_path) as session:
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints" / "LAST").write_text("step-00000004")
        (tmp_path / "weights.json").write_text(text)
        with pytest.raises(SettingError, match=r"weights\.json'.*damaged"):
            _ = session.teacher_object


def test_a_run_that_died_is_gone(tmp_path):
    run = Run(write_run(tmp_path / "run", steps=4, state="running"))
    assert run.status["state"] == "running"
    status = json.loads((run.path / "status.json").read_text())
    (run.path / "status.json").write_text(json.dumps({**status, "updated": status["updated"] - 60}))
    assert run.status["state"] == "gone"


def test_a_removed_file_of_queries_is_named_below_the_comparison(tmp_path):
    runs = [write_run(tmp_path / str(seed), seed=seed, steps=4, splits={"test": 0.0}) for seed in (0, 1)]
    assert "missing" not in compare(runs).note
    (runs[1] / "evaluation/test.npz").unlink()
    assert "missing: 1/evaluation/test.npz" in compare(runs).note


def test_a_damaged_fit_is_told(tmp_path):
    Standardiser.fit(np.random.default_rng(0).normal(size=(50, 4))).save(tmp_path / "s.npz")
    (tmp_path / "s.npz").write_bytes((tmp_path / "s.npz").read_bytes()[:-40])
    with pytest.raises(SettingError, match=r"s\.npz"):
        Standardiser.load(tmp_path / "s.npz")


def test_long_records_are_thinned_and_all_of_them_are_read_where_all_are_asked_for(tmp_path):
    path = write_run(tmp_path / "run", steps=3000, skipped=[1501]) / "metrics.jsonl"
    thin = Records(path, most=200).read()
    assert thin.steps == 3000 and 200 <= len(thin.metrics) <= 800  # every tenth step measures shares
    assert thin.metrics["loss"][thin.metrics["step"] == 1501].isna().all()
    assert 1501 in set(thin.metrics["step"]) and len(thin.validations) == 10
    assert len(Run(path.parent).metrics) == 3000
    with open(path, "a") as stream:
        stream.write("no record\n")
    assert thin.read().steps == 3000
    with pytest.raises(SettingError, match="line 3011 is not a record"):
        _ = Run(path.parent).metrics


def test_a_damaged_sweep_has_no_other_baseline_and_repeats_what_it_cannot_know(tmp_path, monkeypatch):
    monkeypatch.setattr(sweeps, "start_here", lambda *_: None)  # nothing is run
    (tmp_path / "s.yaml").write_text("recipe: task_only_demo\ngrid:\n  training.lr: [0.3, 0.1, 0.2]\n")
    planned = plan(load_sweep(tmp_path / "s.yaml"), tmp_path / "out")
    for item in planned:
        write_run(item.run_dir, item.recipe, splits={"test": 0.0}, overrides=item.overrides, steps=4)
        manifest = {"state": "finished", "parameters": item.parameters(), "error": None}
        (item.folder / "manifest.json").write_text(json.dumps(manifest))
    sweeps.run_sweep(tmp_path / "s.yaml", tmp_path / "out")

    def read() -> object:
        states = [sweeps.outcome_of(item) for item in planned]
        if damaged := [outcome.reason for outcome in states if outcome.state != "finished"]:
            assert damaged == ["manifest.json is damaged"]  # it is repeated, and resumes its run
            raise SettingError("sweep", str(tmp_path / "out"), damaged[0], "")
        return [run.path for run in runs_of_sweep(tmp_path / "out")]

    assert read() == [item.run_dir for item in planned]
    files = ["order.json", f"{planned[1].name}/manifest.json"]
    counts = outcomes(tmp_path / "out", files, read, repr(read()))
    assert set(counts) <= {"same", "told"} and counts["told"] > CASES // 2, counts
    older = json.dumps([item.name for item in planned])
    (tmp_path / "out" / "order.json").write_text(older)
    assert read() == [item.run_dir for item in planned]


# ---- disks


@contextlib.contextmanager
def small_files() -> Iterator[None]:
    """No file of this process may have more than 20,000 bytes, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    with pytest.raises(OSError, match="File too large") as caught, small_files():
        scenes("val", 30, 64)  # drawn through a memory map it would be a SIGBUS
    assert str(tmp_path / "cache") in str(caught.value.filename)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.suffix in (".npy", ".jsonl")]
    for write in (
        lambda: _written(atomic_write(tmp_path / "out" / "file"), lambda stream: stream.write(bytes(30_000))),
        lambda: _written(
            atomic_folder(tmp_path / "out" / "file"),
            lambda folder: [(folder / "a").write_bytes(b"1"), (folder / "b").write_bytes(bytes(30_000))],
        ),
    ):
        with pytest.raises(OSError, match="File too large") as caught, small_files():
            write()
        assert caught.value.filename == str(tmp_path / "out" / "file")
        assert list((tmp_path / "out").iterdir()) == []


def test_a_read_only_disk_is_named_whatever_is_written(small_disk, monkeypatch):
    run = write_run(small_disk / "run", steps=4)
    monkeypatch.setenv("WORKBENCH_CACHE", str(small_disk / "cache"))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    writes = {
        "run": lambda: locked(run).__enter__(),  # a run that is resumed
        "run/evaluation": lambda: _write(run / "evaluation", "test", {"scores": {}}, {}),
        "report.html": lambda: write_report([run], small_disk / "report.html"),
        "export": lambda: _written(atomic_folder(small_disk / "export"), lambda folder: None),
        "store": lambda: fill(small_disk / "store", FINGERPRINT, columns(), batch=BATCH),
        "cache": lambda: cached_index("key", lambda stream: stream.write(b"1")),
    }
    for name, write in writes.items():
        with pytest.raises((OSError, SettingError), match="Read-only file system") as caught:
            write()
        error = caught.value
        words = str(error) if isinstance(error, SettingError) else disk_error_in_words(error)
        assert str(small_disk / name) in words and "hoose a" in words, (name, words)


def test_libraries_that_do_not_say_why_they_cannot_write_are_understood(small_disk):
    values = torch.zeros(1 << 18)
    for write in (
        lambda: _written(atomic_write(small_disk / "out"), lambda stream: np.save(stream, values)),
        lambda: _written(atomic_write(small_disk / "out"), lambda stream: torch.save(values, stream)),
        lambda: _written(atomic_folder(small_disk / "out"), lambda out: save_file({"a": values}, out / "a")),
    ):
        with pytest.raises(OSError, match="No space left on device") as caught:
            write()
        assert caught.value.filename == str(small_disk / "out")
        assert list(small_disk.iterdir()) == []
    with pytest.raises(RuntimeError, match="of another kind"), atomic_write(small_disk / "out"):
        raise RuntimeError("of another kind")


def _written(context, fill_it) -> None:
    with context as target:
        fill_it(target)


def test_commands_tell_disk_errors_in_words(tmp_path, monkeypatch, capsys):
    def full(**_: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "x"))

    monkeypatch.setattr(app, "app", full)
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert error == (
        f"error: {tmp_path / 'x'}: No space left on device. Free some space, or choose a folder on another "
        "disk, and run the same again.\n"
    )


def test_pickles_are_not_read(tmp_path):
    stream = io.BytesIO()
    np.savez(stream, a=np.array([{}], dtype=object))
    (tmp_path / "test.json").write_text('{"scores": {}, "data": "d", "images": 1, "captions": 1}')
    (tmp_path / "test.npz").write_bytes(stream.getvalue())
    with pytest.raises(SettingError, match=r"test\.npz"):
        read_evaluations(tmp_path)
