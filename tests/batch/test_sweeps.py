"""Sweeps: planned from a file, run as notebooks, killed and run again without repeating anything."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from workbench.batch.sweep_plan import Sweep, load_sweep, plan
from workbench.batch.sweeps import outcome_of, run_sweep, write_table
from workbench.errors import SettingError
from workbench.reports.effects import load_results

ROOT = Path(__file__).parents[2]
PARAMETERS = 'recipe: str = "task_only_demo"\noverrides: dict = {}\nseed: int = 0\nrun_dir: str = ""\n'


@pytest.fixture
def notebook(tmp_path):
    """A notebook with notebook 05's parameters that notes each start in a file; the first setting says how it
    ends."""

    def write(body: str) -> Path:
        cells = [nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})]
        cells.append(nbformat.v4.new_code_cell(body))
        path = tmp_path / "little.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
        return path

    return write


def note(starts: Path) -> str:
    return f"open({str(starts)!r}, 'a').write(f\"{{overrides.get('training.lr')}} {{seed}}\\n\")\n"


# What a finished run leaves: a run folder, evaluated.
TRAINED = f"""
import sys, pathlib
sys.path.insert(0, {str(ROOT)!r})
from tests.fake_runs import write_run
splits = {{'test': 100 * overrides['training.lr'] + overrides.get('training.weight_decay', 0)}}
write_run(pathlib.Path(run_dir), recipe, seed, splits=splits, overrides=overrides, steps=20)
"""


def write_sweep(folder: Path, **settings: object) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")
    return path


def test_a_grid_times_seeds(tmp_path):
    sweep = Sweep(
        recipe="task_only_demo",
        overrides={"training.steps": 60},
        grid={"training.lr": [1e-3, 1e-4], "training.batch": [16, 32]},
        runs=[{"recipe": "clip_kd_demo"}],
        seeds=[0, 1],
    )
    planned = plan(sweep, tmp_path)
    assert [item.name for item in planned[:2]] == [
        "task_only_demo-training.lr=0.001-training.batch=16-seed0",
        "task_only_demo-training.lr=0.001-training.batch=32-seed0",
    ]
    assert len(planned) == 2 * (4 + 1) and [item.seed for item in planned] == [0] * 5 + [1] * 5
    assert planned[4].recipe == "clip_kd_demo" and planned[4].overrides == {"training.steps": 60}
    assert planned[0].parameters()["overrides"] == {
        "training.steps": 60, "training.lr": 1e-3, "training.batch": 16,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"recip": "task_only_demo"}, "recipe"),
        ({"seeds": [0]}, "names no recipe"),
        ({"recipe": "task_only_demo", "grid": {"training.lrr": [1]}}, "training.lr"),
        ({"recipe": "task_only_demo", "grid": {"training.lr": []}}, "grid"),
        ({"recipe": "task_only_demo", "runs": [{}, {}]}, "same run"),
        ({"recipe": "task_only_demo", "seeds": [-1]}, "seeds"),
        ({"recipe": "task_only_demo", "grid": {"seed": [1, 2]}}, "seed = 1: this setting does not belong"),
        ({"recipe": "task_only_demo", "overrides": {"seed": 5}}, "List seeds in `seeds`"),
        # The recipe's own value, and one value in two spellings.
        ({"recipe": "task_only_demo", "grid": {"training.lr": [0.002, 0.01]}, "runs": [{}]}, "same run"),
        ({"recipe": "task_only_demo", "grid": {"training.lr": ["1e-3", 0.001]}}, "same run"),
    ],
)
def test_what_cannot_be_run_is_told_before_anything_runs(settings, words, tmp_path):
    with pytest.raises(SettingError, match=words):
        plan(load_sweep(write_sweep(tmp_path, **settings)), tmp_path)


def test_names_of_runs_are_told_apart_and_fit_a_file_system(tmp_path):
    long = {f"training.lr_multipliers.{'a' * 20}{n}": [2.0] for n in range(11)}
    sources = {"data.source": ["a/b", "a_b", "a b", "😀", "🙂"]}
    for grid, count in ((long | {"training.lr": [0.1, 0.2]}, 2), (sources, 5)):
        planned = plan(Sweep(recipe="task_only_demo", grid=grid, seeds=[0, 1]), tmp_path)
        assert len({item.name for item in planned}) == 2 * count
        assert max(len(item.name.encode()) for item in planned) < 220
        assert len({item.name for item in plan(Sweep(recipe="task_only_demo", grid=grid), tmp_path)}) == count


def test_values_reach_the_notebook_as_they_are_and_paths_start_where_the_user_is(
    notebook, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("extends: task_only_demo\nname: mine\n")
    said = tmp_path / "said"
    body = "import os, pathlib\n"
    body += f"pathlib.Path({str(said)!r}).write_bytes((overrides['data.source'] + os.getcwd()).encode())\n"
    path = write_sweep(
        tmp_path, recipe="mine.yaml", overrides={"data.source": "bilder/ä😀"}, notebook=str(notebook(body))
    )
    outcome = run_sweep(path, say=lambda line: None)[0]
    assert outcome.state == "finished", outcome.reason
    assert said.read_text(encoding="utf-8") == f"bilder/ä😀{tmp_path}"


def test_a_notebook_that_cannot_take_a_run_is_refused_before_anything_runs(tmp_path):
    for name, words in (("05_full", "no such notebook"), ("06_evaluation", "no such parameter")):
        path = write_sweep(tmp_path, recipe="task_only_demo", notebook=name)
        with pytest.raises(SettingError, match=words):
            run_sweep(path, tmp_path / "out")
    path = write_sweep(tmp_path, recipe="task_only_demo")
    with pytest.raises(SettingError, match=r"out = .*it is a file"):
        run_sweep(path, path)


def test_how_a_run_ended_is_one_line(tmp_path):
    planned = plan(Sweep(recipe="task_only_demo"), tmp_path)[0]
    planned.folder.mkdir()
    assert outcome_of(planned).state == "missing"
    (planned.folder / "notebook.log").write_text("a line\nerror: recipe = 'x': there is no such recipe\n")
    assert outcome_of(planned).reason == "error: recipe = 'x': there is no such recipe"
    manifest = {"state": "failed", "parameters": planned.parameters()}
    reason = "the run in /a/b failed; the end of its log:\nstep 3\nerror: data.source = 'x': gone. Mend it\n"
    for damage in ("", "[]", "{}", '{"state": "failed", "parameters": 3, "error": null}'):
        (planned.folder / "manifest.json").write_text(damage)
        assert outcome_of(planned).state == "interrupted" and "damaged" in outcome_of(planned).reason
    (planned.folder / "manifest.json").write_text(json.dumps({**manifest, "error": {"message": reason}}))
    assert outcome_of(planned).reason == "error: data.source = 'x': gone. Mend it"
    (planned.folder / "manifest.json").write_text(json.dumps({**manifest, "state": "running", "error": None}))
    assert outcome_of(planned).reason == "killed"
    with open(planned.folder / "lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert outcome_of(planned).reason == "another process is running it"


def test_the_table_is_in_the_order_of_the_sweep_and_says_what_is_missing(notebook, tmp_path):
    grid = {"training.lr": [0.3, 0.1, 0.2]}
    path = write_sweep(tmp_path, recipe="task_only_demo", grid=grid, notebook=str(notebook(TRAINED)))
    out = tmp_path / "out"
    outcomes = run_sweep(path, out, at_once=3, say=lambda line: None)
    table = write_table(outcomes, out)
    assert table is not None and "0.3" in table.read_text().split("minus")[0]
    assert load_results(str(out))["out"].table.columns[0][0].endswith("lr 0.3)")

    shutil.rmtree(outcomes[0].planned.run_dir)
    text = write_table(outcomes, out).read_text()
    assert f"{outcomes[0].planned.name}: its run folder does not exist" in text
    assert f"the baseline is {outcomes[1].planned.name}" in text


def test_finished_runs_are_not_repeated_and_failed_ones_on_demand(notebook, tmp_path):
    starts, mended = tmp_path / "starts", tmp_path / "mended"
    body = note(starts) + (
        "import pathlib\n"
        f"if overrides['training.lr'] == 0.5 and not pathlib.Path({str(mended)!r}).exists():\n"
        "    raise ValueError('the reason')"
    )
    path = write_sweep(
        tmp_path,
        recipe="task_only_demo",
        grid={"training.lr": [0.1, 0.5]},
        notebook=str(notebook(body)),
    )
    said: list[str] = []
    first = run_sweep(path, tmp_path / "out", at_once=2, say=said.append)
    assert [item.state for item in first] == ["finished", "failed"] and "the reason" in first[1].reason
    second = run_sweep(path, tmp_path / "out", say=said.append)
    assert [item.state for item in second] == ["finished", "failed"]
    assert any("failed before (the reason)" in line for line in said)
    assert sorted(starts.read_text().split("\n")[:-1]) == ["0.1 0", "0.5 0"]
    mended.touch()
    third = run_sweep(path, tmp_path / "out", again=True, say=said.append)
    assert [item.state for item in third] == ["finished", "finished"]
    assert sorted(starts.read_text().split("\n")[:-1]) == ["0.1 0", "0.5 0", "0.5 0"]


def test_another_sweep_s_folder_is_refused(notebook, tmp_path):
    settings = {"recipe": "task_only_demo", "notebook": str(notebook("pass"))}
    run_sweep(write_sweep(tmp_path, **settings), tmp_path / "out", say=lambda line: None)
    changed = write_sweep(tmp_path, **settings, overrides={"training.lr": 0.3})
    with pytest.raises(SettingError, match="other settings"):
        run_sweep(changed, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_sweep_goes_on_where_it_was(number, notebook, tmp_path):
    starts = tmp_path / "starts"
    body = note(starts) + "import time\ntime.sleep(2 if overrides['training.lr'] > 0.15 else 0)"
    path = write_sweep(
        tmp_path,
        recipe="task_only_demo",
        grid={"training.lr": [0.1, 0.2, 0.3]},
        notebook=str(notebook(body)),
    )
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "workbench", "sweep", str(path), "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    deadline = time.monotonic() + 120
    while not starts.exists() or "0.2 0" not in starts.read_text():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    process.wait(timeout=60)
    planned = plan(load_sweep(path), out)
    assert outcome_of(planned[0]).state == "finished"
    # A notebook that outlived its sweep is not started a second time beside itself.
    while any(item.state != "finished" for item in run_sweep(path, out, say=lambda line: None)):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert starts.read_text().count("0.1 0") == 1
    assert starts.read_text().count("0.2 0") == (1 if number == signal.SIGKILL else 2)


def on_ray(path: Path, out: Path, *options: str) -> "subprocess.Popen[str]":
    """`workbench sweep --ray` with a local Ray of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "workbench", "sweep", str(path), "--out", str(out), "--ray", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
        | {"PYTHONPATH": str(ROOT)},
    )


@pytest.mark.slow
def test_on_ray_finished_runs_are_not_repeated_and_failures_are_told(notebook, tmp_path):
    starts, out = tmp_path / "starts", tmp_path / "out"
    body = note(starts) + "if overrides['training.lr'] == 0.5:\n    raise ValueError('the reason')" + TRAINED
    grid = {"training.lr": [0.1, 0.2, 0.5]}
    path = write_sweep(tmp_path, recipe="task_only_demo", grid=grid, notebook=str(notebook(body)))
    first = on_ray(path, out, "--at-once", "3")
    said = first.communicate(timeout=240)[0]
    assert first.returncode == 1 and "the reason" in said, said
    assert sorted(starts.read_text().split()) == ["0", "0", "0", "0.1", "0.2", "0.5"]
    assert [outcome_of(item).state for item in plan(load_sweep(path), out)] == ["finished"] * 2 + ["failed"]
    assert on_ray(path, out).communicate(timeout=240)[0].count("failed before (the reason)") == 1
    assert len(starts.read_text().splitlines()) == 3


@pytest.mark.slow
def test_on_ray_an_interrupt_lets_notebooks_save(notebook, tmp_path):
    starts, saved, out = tmp_path / "starts", tmp_path / "saved", tmp_path / "out"
    body = f"""
import pathlib, time
{note(starts)}
try:
    time.sleep(120)
except KeyboardInterrupt:
    pathlib.Path({str(saved)!r}).touch()
    raise
"""
    path = write_sweep(tmp_path, recipe="task_only_demo", notebook=str(notebook(body)))
    process = on_ray(path, out)
    deadline = time.monotonic() + 240
    while not starts.exists():
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 130 and "stopping 1 running" in said, said
    assert saved.exists()
    assert outcome_of(plan(load_sweep(path), out)[0]).state == "interrupted"


@pytest.mark.slow
def test_twelve_runs_killed_halfway_end_in_the_table_of_twelve_undisturbed_ones(notebook, tmp_path):
    starts = tmp_path / "starts"
    path = write_sweep(
        tmp_path,
        recipe="task_only_demo",
        grid={"training.lr": [1e-3, 2e-3, 4e-3], "training.weight_decay": [0.0, 0.1]},
        seeds=[0, 1],
        notebook=str(notebook(note(starts) + TRAINED)),
    )

    def sweep(out: Path) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "workbench", "sweep", str(path), "--out", str(out), "--at-once", "2"]
        return subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    broken, whole = tmp_path / "broken", tmp_path / "whole"
    planned = plan(load_sweep(path), broken)
    assert len(planned) == 12
    first = sweep(broken)
    deadline = time.monotonic() + 240
    while sum(outcome_of(item).state == "finished" for item in planned) < 6:
        assert time.monotonic() < deadline and first.poll() is None
        time.sleep(0.1)
    first.kill()
    first.wait()
    done = [item for item in planned if outcome_of(item).state == "finished"]
    before = {item.name: (item.folder / "manifest.json").read_bytes() for item in done}
    assert 6 <= len(done) < 12
    while (again := sweep(broken)).wait():  # a notebook that outlived the first has to end before
        assert time.monotonic() < deadline
    assert again.returncode == 0
    assert {item.name: (item.folder / "manifest.json").read_bytes() for item in done} == before
    assert len(starts.read_text().splitlines()) == 12  # those that outlived the sweep went on to their end
    assert sweep(whole).wait() == 0
    assert (broken / "comparison.txt").read_bytes() == (whole / "comparison.txt").read_bytes()
