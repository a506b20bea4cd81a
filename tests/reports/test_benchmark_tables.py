"""Tables of benchmarks in notebooks: effects coloured, charts where they are long, a note where they miss."""

import json

from tests.fake_runs import write_run
from workbench.figures.gallery import Gallery
from workbench.reports.benchmark_tables import Measured, measured
from workbench.reports.compare import compare


def test_every_kind_of_file(tmp_path, monkeypatch):
    monkeypatch.setattr("workbench.reports.benchmark_tables.RESULTS", tmp_path)
    (tmp_path / "losses.md").write_text("| loss | time |\n|---|---|\n| crd | 0.1 s |\n")
    (tmp_path / "losses.json").write_text("[]")
    assert isinstance(measured("losses"), Measured)
    (tmp_path / "added.md").write_text("| row | R@1 |\n|---|---|\n| a <b> | 7.0, -1.0 (-1.5 to -0.5) |\n")
    added = measured("added")
    assert isinstance(added, Gallery)
    assert "a &lt;b&gt;" in added and "7.0<br>▼ -1.0<br>[-1.5, -0.5]" in added
    shifts = {"task_only_demo": 0.0, "clip_kd_demo": 1.5}
    runs = [write_run(tmp_path / name, name, splits={"test": shift}) for name, shift in shifts.items()]
    (tmp_path / "gain.md").write_text("| row |\n|---|\n")
    (tmp_path / "gain.json").write_text(json.dumps({"seeds": [0]} | json.loads(compare(runs).to_json())))
    assert "▲" in measured("gain") and "swapped captions" in measured("gain")
    assert "has not been run" in measured("missing")
