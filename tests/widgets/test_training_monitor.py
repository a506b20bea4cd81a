"""What the monitor says and shows without a browser: states, the static figure, watching to the end."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.fake_runs import train_for_show, write_run, write_status
from workbench.errors import SettingError
from workbench.widgets import training_monitor
from workbench.widgets.training_monitor import TrainingMonitor, status_line

PLOTLY = "application/vnd.plotly.v1+json"


def test_a_finished_run_is_a_plain_figure(tmp_path: Path, shown: list[dict[str, Any]]) -> None:
    monitor = TrainingMonitor(write_run(tmp_path, steps=50), live=True)
    assert monitor.state == "finished"
    monitor._ipython_display_()
    assert len(shown) == 1
    assert shown[0][PLOTLY]["layout"]["title"]["text"] == "clip_kd_demo, seed 0"
    assert "finished" in shown[0][PLOTLY]["layout"]["title"]["subtitle"]["text"]


@pytest.mark.parametrize("wrap", [str, Path, lambda path: SimpleNamespace(path=path)])
def test_paths_and_runs(tmp_path: Path, wrap: Any) -> None:
    figure = TrainingMonitor(wrap(write_run(tmp_path, steps=5))).figure
    assert len(figure.data) > 5


def test_headless_watch_waits_and_shows_one_figure(tmp_path: Path, shown: list[dict[str, Any]]) -> None:
    trainer = threading.Thread(target=train_for_show, args=(tmp_path, 60, 0.02))
    trainer.start()
    while not (tmp_path / "status.json").is_file():
        time.sleep(0.01)
    TrainingMonitor(tmp_path).watch()
    trainer.join()
    assert len(shown) == 1
    loss = next(trace for trace in shown[0][PLOTLY]["data"] if trace["name"] == "loss")
    assert loss["x"]["dtype"] == "f4"
    assert "finished" in shown[0][PLOTLY]["layout"]["title"]["subtitle"]["text"]


def test_headless_with_shows_one_figure_at_the_end(tmp_path: Path, shown: list[dict[str, Any]]) -> None:
    with TrainingMonitor(tmp_path / "run"):
        train_for_show(tmp_path / "run", 5, 0)
        assert shown == []
    assert len(shown) == 1


def test_a_training_that_fails_still_leaves_its_figure(tmp_path: Path, shown: list[dict[str, Any]]) -> None:
    with pytest.raises(RuntimeError, match="out of luck"), TrainingMonitor(tmp_path / "run"):
        train_for_show(tmp_path / "run", 5, 0)
        raise RuntimeError("out of luck")
    assert len(shown) == 1


def test_watching_ends_after_the_timeout(tmp_path: Path, shown: list[dict[str, Any]]) -> None:
    write_run(tmp_path, steps=5, state="running")
    TrainingMonitor(tmp_path).watch(timeout=0.1)
    line = shown[0][PLOTLY]["layout"]["title"]["subtitle"]["text"]
    # Whoever reads it tomorrow must not take it for today's.
    assert "running" in line and time.strftime("as of %Y-%m-%d") in line and "run this cell again" in line


def test_the_status_line_is_as_far_as_the_curves(tmp_path: Path) -> None:
    write_run(tmp_path, steps=8, state="running")
    write_status(tmp_path, "running", 5, 10)
    assert "step 8 of 10" in TrainingMonitor(tmp_path).figure.layout.title.subtitle.text
    write_status(tmp_path, "finished", 10, 10)
    assert "as of" not in TrainingMonitor(tmp_path).figure.layout.title.subtitle.text


def test_no_run_there(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="this folder holds no run"):
        TrainingMonitor(tmp_path / "nowhere").watch()


def test_a_run_that_died_is_gone(tmp_path: Path) -> None:
    write_run(tmp_path, steps=5, state="running")
    assert TrainingMonitor(tmp_path).state == "running"
    write_status(tmp_path, "running", 5, 10, updated=time.time() - 100)
    assert TrainingMonitor(tmp_path).state == "gone"
    # Of another machine's processes nothing is known here.
    write_status(tmp_path, "running", 5, 10, updated=time.time() - 100, host="elsewhere")
    assert TrainingMonitor(tmp_path).state == "running"


def test_a_job_that_resumes_is_starting_and_not_over(tmp_path: Path) -> None:
    write_run(tmp_path, steps=5)
    write_status(tmp_path, "interrupted", 5, 10, updated=time.time() - 100)
    job = SimpleNamespace(path=tmp_path, running=True)
    assert TrainingMonitor(job).state == "starting"
    write_status(tmp_path, "running", 6, 10)
    assert TrainingMonitor(job).state == "running"
    job.running = False
    assert TrainingMonitor(job).state == "gone"
    write_status(tmp_path, "finished", 10, 10)
    assert TrainingMonitor(job).state == "finished"


@pytest.mark.parametrize("live", [True, False])
def test_an_interrupt_stops_the_job_only_where_nobody_watches(
    tmp_path: Path,
    shown: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    live: bool,
) -> None:
    write_run(tmp_path, steps=5, state="running")
    stopped: list[bool] = []
    job = SimpleNamespace(path=tmp_path, running=True, stop=lambda: stopped.append(True))

    def press_stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainingMonitor, "_follow", press_stop)
    monkeypatch.setattr(training_monitor, "LiveFigure", lambda *_: SimpleNamespace(close=shown.append))
    with pytest.raises(KeyboardInterrupt):
        TrainingMonitor(job, live=live).watch()
    assert len(shown) == 1
    assert stopped == ([] if live else [True])
    assert ("continues" in capsys.readouterr().out) == live


def test_the_status_line() -> None:
    status = {
        "step": 1200,
        "total_steps": 3000,
        "seconds_left": 100.0,
        "skipped_steps": 2,
        "rejected": {"empty caption": 1500},
    }
    line = status_line("running", status)
    for words in ("running", "step 1,200 of 3,000", "2 min left", "2 steps skipped", "1,500 pairs skipped"):
        assert words in line
    assert "40%" in line and line.count("━") == 20
    assert "━" not in status_line("finished", status)
    assert "&lt;b&gt;" in status_line("failed", {"message": "<b>"})
    assert status_line("starting", {}).count("·") == 0
