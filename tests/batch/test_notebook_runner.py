"""Notebooks run for real: parameters, failure, a killed kernel, signals."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpec

from workbench.batch import kernel, notebook_runner
from workbench.batch.notebook_runner import checked, locate, notebooks, parameters_of, run_notebook
from workbench.errors import SettingError

PARAMETERS = """\
# What to do.
count: int = 1  # how many
rate: float = 1e-3  # how fast (per second)
where: str | None = None  # a file, or none
many: list[float] = [
    1.0,
    2.0,
]  # several
flag: bool = False
plain = "text"
size: "Pixels" = 3
"""


def write_notebook(path: Path, *sources: str, parameters: str = PARAMETERS) -> Path:
    """A notebook whose kernelspec no machine has, so that only the runner's own choice of kernel can work."""
    cells = [
        nbformat.v4.new_code_cell(source, id=f"cell-{number}")
        for number, source in enumerate((parameters, *sources))
    ]
    cells[0].metadata["tags"] = ["parameters"]
    metadata = {"kernelspec": {"name": "nonesuch", "display_name": "None", "language": "python"}}
    nbformat.write(
        nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_markdown_cell("# Title", id="title"), *cells], metadata=metadata
        ),
        path,
    )
    return path


def text_of(path: Path) -> str:
    notebook = nbformat.read(path, as_version=4)
    return "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    return write_notebook(tmp_path / "some.ipynb", "print(count)")


def test_parameters_are_read_from_their_cell(notebook: Path) -> None:
    result = parameters_of(notebook)
    assert list(result) == ["count", "rate", "where", "many", "flag", "plain", "size"]
    assert result["rate"][1:4] == ("float", 1e-3, "how fast (per second)")
    assert (result["where"].annotation, result["where"].default, result["where"].comment) == (
        "str | None",
        None,
        "a file, or none",
    )
    assert (result["many"].default, result["many"].comment) == ([1.0, 2.0], "several")
    assert result["plain"].type is str


def test_a_notebook_without_parameters_has_none(tmp_path: Path) -> None:
    nbformat.write(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("count = 1")]), tmp_path / "bare.ipynb"
    )
    assert parameters_of(tmp_path / "bare.ipynb") == {}
    with pytest.raises(SettingError, match="no such parameter"):
        checked(tmp_path / "bare.ipynb", {"count": 2})


def test_text_becomes_what_the_annotation_says(notebook: Path) -> None:
    texts = {
        "count": "3",
        "rate": "1e-4",
        "where": "null",
        "many": "[1, 2e-1]",
        "flag": "true",
        "plain": "7",
        "size": "[1]",
    }
    assert checked(notebook, texts) == {
        "count": 3,
        "rate": 1e-4,
        "where": None,
        "many": [1, 0.2],
        "flag": True,
        "plain": "7",
        "size": [1],
    }
    assert checked(notebook, {"where": Path("/x"), "rate": 2}) == {"where": "/x", "rate": 2}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("cuont", 1, "Did you mean count?"),
        ("count", "1.5", "a whole number. The default is 1."),
        ("count", "ten", "a whole number"),
        ("rate", None, "a number. The default is 0.001."),
        ("flag", "yes", "true or false"),
        ("where", 3, "text, or null"),
        ("many", "[a]", "a list, each item a number"),
    ],
)
def test_bad_parameters_are_refused_before_anything_runs(
    notebook: Path, tmp_path: Path, name: str, value: object, words: str
) -> None:
    with pytest.raises(SettingError) as caught:
        run_notebook(notebook, {name: value}, tmp_path / "out")
    assert caught.value.setting == name
    assert words in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_notebooks_are_found_by_name_or_path(
    tmp_path: Path, notebook: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebook_runner, "NOTEBOOKS", tmp_path)
    monkeypatch.chdir("/")
    assert notebooks() == ["some"]
    assert locate("some") == locate("some.ipynb") == locate(notebook) == notebook
    with pytest.raises(SettingError, match=r"Did you mean some\?"):
        locate("sone")
    with pytest.raises(SettingError, match="no such notebook"):
        locate("/nowhere/some")


def test_a_notebook_is_never_executed_over_itself(notebook: Path) -> None:
    before = notebook.read_bytes()
    with pytest.raises(SettingError, match="overwritten"):
        run_notebook(notebook, {}, notebook.parent)
    assert notebook.read_bytes() == before


def test_a_run_from_another_folder_into_one_with_braces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    source = tmp_path / "a {lr} [b]"
    source.mkdir()
    notebook = write_notebook(
        source / "no {0}.ipynb",
        "import json, os, sys\nprint(json.dumps([count, rate, where, many, flag, plain]))",
        "headless, runs = os.environ['WORKBENCH_HEADLESS'], os.environ['WORKBENCH_RUNS']\n"
        "print(os.getcwd(), sys.executable, headless, runs, sep='|')",
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.delenv("WORKBENCH_RUNS")
    manifest = run_notebook(
        "../a {lr} [b]/no {0}.ipynb",
        {"count": "3", "where": "x {y}", "flag": True},
        "deep/out {1}",
        show_output=True,
    )
    out = tmp_path / "elsewhere" / "deep" / "out {1}"
    assert manifest == json.loads((out / "manifest.json").read_text())
    assert (manifest["state"], manifest["exit_code"], manifest["error"]) == ("finished", 0, None)
    assert manifest["parameters"] == {"count": 3, "where": "x {y}", "flag": True}
    assert manifest["notebook"] == str(notebook)
    assert manifest["started"] <= manifest["ended"]
    assert manifest["versions"]["python"]
    printed = text_of(Path(manifest["output"]))
    assert json.dumps([3, 1e-3, "x {y}", [1.0, 2.0], True, "text"]) in printed
    assert f"{tmp_path / 'elsewhere'}|{sys.executable}|1|{out / 'runs'}" in printed
    shown = capsys.readouterr().out
    assert "[3/4] import json, os, sys" in shown
    assert json.dumps([3, 1e-3, "x {y}", [1.0, 2.0], True, "text"]) in shown
    assert not list((tmp_path / "elsewhere").glob("*.ipynb"))


def test_a_failed_cell_fails_the_run_and_is_kept(tmp_path: Path) -> None:
    notebook = write_notebook(
        tmp_path / "some.ipynb", "print('before')", "raise ValueError('the flux')", "print('after')"
    )
    lines: list[str] = []
    manifest = run_notebook(notebook, {}, tmp_path / "out", say=lines.append)
    assert (manifest["state"], manifest["exit_code"]) == ("failed", 1)
    assert (manifest["error"]["cell"], manifest["error"]["kind"], manifest["error"]["message"]) == (
        3,
        "ValueError",
        "the flux",
    )
    assert "raise ValueError" in manifest["error"]["traceback"]
    assert "\x1b" not in manifest["error"]["traceback"]
    assert text_of(tmp_path / "out" / "some.ipynb") == "before\n"
    executed = nbformat.read(tmp_path / "out" / "some.ipynb", as_version=4)
    assert "failed: the flux" in executed.cells[0].source
    assert [line[:5] for line in lines[1:]] == ["[1/4]", "[2/4]", "[3/4]"]


@pytest.mark.parametrize("failures, state", [(2, "finished"), (3, "failed")])
def test_a_kernel_that_does_not_start_is_started_again(
    failures: int, state: str, notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As one whose port another process took.
    (tmp_path / "late.py").write_text(
        "import os, sys\n"
        f"starts = open({str(tmp_path / 'starts')!r}, 'a')\n"
        "starts.write('.')\n"
        f"if starts.tell() <= {failures}: sys.exit(1)\n"
        "starts.close()\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'ipykernel_launcher', *sys.argv[1:]])\n"
    )
    spec = KernelSpec(
        argv=[sys.executable, str(tmp_path / "late.py"), "-f", "{connection_file}"], language="python"
    )
    monkeypatch.setattr(kernel._ThisInterpreter, "kernel_spec", spec)
    lines: list[str] = []
    manifest = run_notebook(notebook, out=tmp_path / "out", say=lines.append)
    assert manifest["state"] == state
    assert lines.count("the kernel did not start; starting another one") == 2
    if state == "failed":
        assert "died before replying" in manifest["error"]["message"]


def test_a_killed_kernel_is_a_failure_that_says_so(tmp_path: Path) -> None:
    notebook = write_notebook(
        tmp_path / "some.ipynb",
        "print('before', flush=True)",
        "import os\nos.kill(os.getpid(), 9)",
        "print('after')",
    )
    manifest = run_notebook(notebook, {}, tmp_path / "out")
    assert (manifest["state"], manifest["exit_code"], manifest["error"]["cell"]) == ("failed", 1, 3)
    assert "killed" in manifest["error"]["message"]
    executed = nbformat.read(tmp_path / "out" / "some.ipynb", as_version=4)
    assert "the kernel died" in executed.cells[0].source
    assert executed.metadata.papermill["exception"] is True
    assert text_of(tmp_path / "out" / "some.ipynb") == "before\n"


SAVES = """\
import time
open(where, "w").write("began")
try:
    time.sleep(60)
except KeyboardInterrupt:
    open(where, "w").write("saved")
"""
FALLS = SAVES.replace("except KeyboardInterrupt", "finally")
DEAF = """\
import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
open(where, "w").write("began")
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("source", "signals", "code", "left"),
    [
        (SAVES, [signal.SIGTERM], 143, "saved"),
        (FALLS, [signal.SIGINT], 130, "saved"),
        (DEAF, [signal.SIGTERM, signal.SIGTERM], 143, "began"),
    ],
    ids=["terminated", "interrupted", "killed at the second"],
)
def test_signals_let_the_cell_save_and_run_no_further_cell(
    tmp_path: Path, source: str, signals: list[signal.Signals], code: int, left: str
) -> None:
    flag = tmp_path / "flag"
    notebook = write_notebook(tmp_path / "some.ipynb", source, "open(where, 'w').write('went on')")
    command = [
        sys.executable,
        "-m",
        "workbench",
        "notebook",
        str(notebook),
        "-p",
        f"where={flag}",
        "--out",
        str(tmp_path / "out"),
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=with_workbench()
    )
    deadline = time.monotonic() + 120
    while not (flag.exists() and flag.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    for number in signals:
        process.send_signal(number)
        time.sleep(0.5)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == code, printed
    assert flag.read_text() == left
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (manifest["state"], manifest["exit_code"]) == ("interrupted", code)
    assert manifest["error"]["message"] == f"stopped by {signals[0].name}"
    executed = nbformat.read(tmp_path / "out" / "some.ipynb", as_version=4)
    assert "was not completed" in executed.cells[0].source
    assert executed.cells[-1].execution_count is None


def with_workbench() -> dict[str, str]:
    """An environment in which `python -m workbench` finds this checkout."""
    return {**os.environ, "PYTHONPATH": str(Path(notebook_runner.__file__).parents[1])}
