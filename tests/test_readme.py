"""The README's tables are those that the benchmarks wrote."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TABLES = re.findall(r"<!-- table: (\w+) -->", (ROOT / "README.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_the_committed_results(name):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (table,) = re.findall(rf"<!-- table: {name} -->\n(.*?)<!-- end -->", readme, re.DOTALL)
    assert table == (ROOT / "benchmarks" / "results" / f"{name}.md").read_text(encoding="utf-8")


def test_every_file_it_shows_is_there():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in re.findall(r"!\[.*?\]\((.*?)\)", readme):
        assert (ROOT / path).is_file(), path
