"""Notebook 07 with few and with all of the shipped results, and with a comparison of one's own."""

import ast
import json
import sys
from html import unescape
from pathlib import Path
from typing import Any

import IPython.display
import pytest

from tests.fake_runs import write_run
from workbench.batch.notebook_runner import NOTEBOOKS
from workbench.reports.compare import compare
from workbench.reports.effects import SHIPPED

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from ablation import ABLATIONS

DCLIP = ("start", "DCLIP", "preservation 0.3", "teacher of 1 epoch", "teacher of 6 epochs")


@pytest.fixture
def comparison(tmp_path: Path) -> Any:
    """Makes the JSON of a comparison with rows of these names."""
    shifts = {"task_only_demo": 0.0, "clip_kd_demo": 1.5}
    splits = ("test", "test_style", "test_concepts")
    pair = [write_run(tmp_path / name, name, splits=dict.fromkeys(splits, shifts[name])) for name in shifts]

    def make(*names: str) -> str:
        runs = [pair[0], *[pair[1]] * (len(names) - 1)]
        return compare(runs, names=list(names)).to_json()

    return make


def run(monkeypatch: pytest.MonkeyPatch, results: Path, **parameters: Any) -> list[Any]:
    """What notebook 07 displays over the `results` of a folder."""
    shown: list[Any] = []
    monkeypatch.setattr("workbench.reports.effects.RESULTS", results)
    monkeypatch.setattr("workbench.reports.benchmark_tables.RESULTS", results)
    monkeypatch.setattr(IPython.display, "display", lambda *values: shown.extend(values))
    namespace: dict[str, Any] = {}
    for cell in json.loads((NOTEBOOKS / "07_ablations.ipynb").read_text())["cells"]:
        if cell["cell_type"] != "code":
            continue
        body = ast.parse("".join(cell["source"])).body
        value = body.pop() if isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), cell["id"], "exec"), namespace)
        if isinstance(value, ast.Expr):
            shown.append(eval(compile(ast.Expression(value.value), cell["id"], "eval"), namespace))
        if "parameters" in cell["metadata"].get("tags", []):
            namespace |= parameters
    return [value for value in shown if value is not None]


def words(shown: list[Any]) -> str:
    return unescape(" ".join(str(getattr(value, "data", value)) for value in shown))


def figures(shown: list[Any]) -> list[str]:
    return [value.layout.title.text for value in shown if hasattr(value, "layout")]


def test_few_results_are_shown_and_the_others_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, comparison: Any
) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / "ablation_masking.json").write_text(comparison(*ABLATIONS["masking"]))
    shown = run(monkeypatch, results)
    for name in ("knowledge_clip", "clip_kd", "all_three", "concepts", "knowledge_weights", "unseen_names"):
        assert f"`python benchmarks/ablation.py {name}` writes the table" in words(shown)
    assert "ablation.py masking" not in words(shown) and "MFD, 50% masked" in words(shown)
    assert len(figures(shown)) == 1


def test_all_results_are_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, comparison: Any) -> None:
    results = tmp_path / "results"
    results.mkdir()
    for file in SHIPPED:
        name = file.removesuffix(".json").removeprefix("ablation_")
        (results / file).write_text(comparison(*(DCLIP if name == "dclip" else ABLATIONS[name])))
    (results / "on_top.md").write_text(
        "| what is added | R@1 |\n|---|---|\n| one more | +1.0 (+0.5 to +1.5) |\n"
    )
    shown = run(monkeypatch, results)
    assert "not measured yet" not in words(shown) and "▲ +1.0<br>[+0.5, +1.5]" in words(shown)
    assert "MiniLM's words kept" in words(shown)
    assert len(figures(shown)) == 4


def test_a_comparison_takes_their_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, comparison: Any
) -> None:
    path = tmp_path / "mine.json"
    path.write_text(comparison("alone", "distilled"))
    shown = run(monkeypatch, tmp_path, sweep=str(path))
    assert "### mine" in words(shown) and "this section shows shipped results only" in words(shown)
    assert len(figures(shown)) == 1
