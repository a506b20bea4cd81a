"""The tables of README.md and docs/ made again: by real processes, in a checkout that the test writes."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.make_results import (
    CHECKOUT,
    RESULTS,
    Result,
    is_current,
    main,
    make_results,
    pages_with,
    state,
)
from workbench.cli import app as cli
from workbench.cli import experiments
from workbench.errors import SettingError

README = "before\n<!-- table: one -->\nold\n<!-- end -->\nafter\n"
PAGE = "before\n<!-- table: two -->\nold\n<!-- end -->\nafter\n"
SCRIPT = """
import sys
from pathlib import Path
with open("calls", "a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\\n")
if "fail" in sys.argv:
    sys.exit(3)
(Path(__file__).parent / "results" / "one.md").write_text(r"| \\1 new |" + "\\n")
"""
ONE = Result("one", ("bench.py --size small",), "a moment")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "benchmarks" / "bench.py").write_text(SCRIPT)
    (tmp_path / "README.md").write_text(README)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "results.md").write_text(PAGE)
    return tmp_path


def test_a_table_is_made_and_put_in_its_place(checkout: Path) -> None:
    assert not is_current(checkout, "one")
    assert make_results(["one"], checkout=checkout, results=[ONE]) == []
    assert (checkout / "README.md").read_text() == README.replace("old", r"| \1 new |")
    assert (checkout / "docs" / "results.md").read_text() == PAGE
    assert is_current(checkout, "one")


def test_a_table_is_put_in_the_page_that_has_its_marker(checkout: Path) -> None:
    (checkout / "benchmarks" / "results" / "two.md").write_text("there\n")
    assert state(checkout, "two") == "docs/results.md differs"
    assert make_results(["two"], checkout=checkout, results=[Result("two", (), "nothing")]) == []
    assert (checkout / "docs" / "results.md").read_text() == PAGE.replace("old", "there")
    assert (checkout / "README.md").read_text() == README
    assert state(checkout, "two") == "in docs/results.md"


def test_a_failed_benchmark_keeps_its_table_and_the_others_are_made(checkout: Path) -> None:
    lines: list[str] = []
    results = [Result("two", ("bench.py fail",), "a moment"), ONE]
    assert make_results(checkout=checkout, results=results, say=lines.append) == ["two"]
    assert (checkout / "README.md").read_text() == README.replace("old", r"| \1 new |")
    assert (checkout / "docs" / "results.md").read_text() == PAGE
    assert any("exited with 3" in line for line in lines)


def test_runs_are_kept_where_asked_and_one_command_serves_two_tables(checkout: Path) -> None:
    trained = Result("one", ("bench.py",), "an hour", trains=True)
    twin = Result("two", ("bench.py",), "nothing more", trains=True)
    failed = make_results(checkout=checkout, results=[trained, twin], runs=checkout / "kept")
    assert failed == ["two"]  # the script does not write its file
    assert (checkout / "calls").read_text() == f"--runs {checkout / 'kept'}\n"


def test_without_running_only_the_tables_are_inserted(checkout: Path) -> None:
    (checkout / "benchmarks" / "results" / "one.md").write_text("there\n")
    assert make_results(["one"], checkout=checkout, results=[ONE], run=False) == []
    assert "there" in (checkout / "README.md").read_text() and not (checkout / "calls").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [("on", "one"), ("three", "no place"), ("one", "several places")],
    ids=["unknown", "without a place", "with two places"],
)
def test_a_table_without_exactly_one_place_is_refused_before_anything_runs(
    name: str, words: str, checkout: Path
) -> None:
    (checkout / "docs" / "more.md").write_text(README)
    three = Result("three", ("bench.py",), "a moment")
    with pytest.raises(SettingError, match=words):
        make_results([name], checkout=checkout, results=[ONE, three])
    assert not (checkout / "calls").exists()


def test_a_table_on_no_page_is_skipped_unless_it_is_named(checkout: Path) -> None:
    three = Result("three", ("bench.py fail",), "a moment")
    assert make_results(checkout=checkout, results=[ONE, three]) == []
    assert state(checkout, "three") == "on no page yet"


def test_every_committed_table_has_one_place_and_a_command_that_exists() -> None:
    committed = {path.stem for path in (CHECKOUT / "benchmarks" / "results").glob("*.md")}
    assert committed <= {item.table for item in RESULTS}
    for result in RESULTS:
        assert len(pages_with(CHECKOUT, result.table)) == (result.table in committed), result.table
        for command in result.commands:
            assert (CHECKOUT / "benchmarks" / command.split()[0]).is_file(), command


def test_the_script_lists_the_tables_and_names_a_wrong_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(result.table in listed for result in RESULTS)
    assert main(["distillation_gan"]) == 2
    assert "distillation_gain" in capsys.readouterr().err


def test_the_command_runs_the_script_of_its_checkout(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = checkout / "workbench" / "cli" / "experiments.py"
    monkeypatch.setattr(experiments, "__file__", str(package))
    (checkout / "benchmarks" / "make_results.py").write_text(
        "import sys\nfrom pathlib import Path\n"
        "(Path(__file__).parent / 'called').write_text(' '.join(sys.argv[1:]))\nsys.exit(1)\n"
    )
    done = CliRunner().invoke(cli.app, ["results", "one", "--tables-only", "--runs", "kept"])
    assert done.exit_code == 1
    assert (checkout / "benchmarks" / "called").read_text() == "--runs kept --tables-only one"


def test_the_command_needs_a_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiments, "__file__", str(tmp_path / "workbench" / "cli" / "experiments.py"))
    done = CliRunner().invoke(cli.app, ["results"])
    assert isinstance(done.exception, SettingError) and "clone" in str(done.exception)
