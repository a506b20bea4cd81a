"""The README's tables made again: by real processes, from a checkout that a test wrote."""

import re
from pathlib import Path

import pytest

from workbench.errors import SettingError
from workbench.results import CHECKOUT, RESULTS, Result, is_current, make_results

README = (
    "before\n<!-- table: one -->\nold\n<!-- end -->\nbetween\n<!-- table: two -->\nold\n<!-- end -->\nafter\n"
)
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
    return tmp_path


def test_a_table_is_made_and_put_in_its_place(checkout: Path) -> None:
    assert not is_current(checkout, "one")
    assert make_results(["one"], checkout=checkout, results=[ONE]) == []
    assert (checkout / "README.md").read_text() == README.replace("old", r"| \1 new |", 1)
    assert is_current(checkout, "one")


def test_what_fails_keeps_its_table_and_the_others_are_made(checkout: Path) -> None:
    said: list[str] = []
    results = [Result("two", ("bench.py fail",), "a moment"), ONE]
    assert make_results(checkout=checkout, results=results, say=said.append) == ["two"]
    assert (checkout / "README.md").read_text() == README.replace("old", r"| \1 new |", 1)
    assert any("ended with 3" in line for line in said)


def test_runs_are_kept_where_asked_and_one_command_serves_two_tables(checkout: Path) -> None:
    trained = Result("one", ("bench.py",), "an hour", trains=True)
    twin = Result("two", ("bench.py",), "nothing more", trains=True)
    failed = make_results(checkout=checkout, results=[trained, twin], runs=checkout / "kept")
    assert failed == ["two"]  # whose file the script does not write
    assert (checkout / "calls").read_text() == f"--runs {checkout / 'kept'}\n"


def test_without_running_only_the_tables_are_put_in(checkout: Path) -> None:
    (checkout / "benchmarks" / "results" / "one.md").write_text("there\n")
    assert make_results(["one"], checkout=checkout, results=[ONE], run=False) == []
    assert "there" in (checkout / "README.md").read_text() and not (checkout / "calls").exists()


@pytest.mark.parametrize(
    ("name", "words"), [("on", "one"), ("three", "no place")], ids=["unknown", "without a place"]
)
def test_what_cannot_be_put_anywhere_is_told(name: str, words: str, checkout: Path) -> None:
    (checkout / "benchmarks" / "results" / "three.md").write_text("there\n")
    three = Result("three", (), "nothing")
    with pytest.raises(SettingError, match=words):
        make_results([name], checkout=checkout, results=[ONE, three], run=False)


def test_without_a_clone_it_says_what_it_wants(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="clone"):
        make_results(checkout=tmp_path)


def test_every_table_of_the_readme_has_a_command_that_exists() -> None:
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"<!-- table: (\w+) -->", readme)) == sorted(each.table for each in RESULTS)
    for result in RESULTS:
        for command in result.commands:
            assert (CHECKOUT / "benchmarks" / command.split()[0]).is_file(), command
