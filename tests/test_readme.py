"""README.md and docs/: short enough to read, links that resolve, tables that the benchmarks wrote."""

import re
from pathlib import Path

import pytest

from workbench.recipe import Recipe

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]
LINES, WIDTH = 150, 120
TABLE = re.compile(r"<!-- table: (\w+) -->\n(.*?)<!-- end -->", re.DOTALL)
TABLES = [(path, *result) for path in PAGES for result in TABLE.findall(path.read_text(encoding="utf-8"))]
LINK = re.compile(r"""(?:\]\(|\b(?:src|href)=["'])([^)"'\s]+)""")
FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    text = FENCED.sub("", path.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= LINES


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_no_line_is_long(path: Path) -> None:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        without_urls = re.sub(r"(?<=\]\()[^)]*(?=\))", "", line)
        assert line.startswith("|") or len(without_urls) <= WIDTH, f"line {number}: {line}"


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_every_relative_link_resolves(path: Path) -> None:
    text = FENCED.sub("", path.read_text(encoding="utf-8"))
    for link in LINK.findall(text):
        if not re.match(r"https?:", link):
            file, _, anchor = link.partition("#")
            target = path.parent / file if file else path
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize(("path", "name", "shown"), TABLES, ids=[name for _, name, _ in TABLES])
def test_tables_are_the_committed_results(path: Path, name: str, shown: str) -> None:
    assert shown == (ROOT / "benchmarks" / "results" / f"{name}.md").read_text(encoding="utf-8")


def test_every_committed_table_is_shown_once() -> None:
    committed = sorted(path.stem for path in (ROOT / "benchmarks" / "results").glob("*.md"))
    assert sorted(name for _, name, _ in TABLES) == committed


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_every_effect_stands_in_a_committed_table(path: Path) -> None:
    committed = "".join(
        table.read_text(encoding="utf-8") for table in (ROOT / "benchmarks" / "results").glob("*.md")
    )
    effects = re.findall(r"[+-][\d.]+ \([+-][\d.]+ to [+-][\d.]+\)", path.read_text(encoding="utf-8"))
    assert all(effect in committed for effect in effects)


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_every_script_and_recipe_that_a_page_names_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for script in re.findall(r"python ((?:benchmarks|tools)/\w+\.py)", text):
        assert (ROOT / script).is_file(), script
    for recipe in re.findall(r"workbench (?:train|show|embed) ([a-z]\w+)", text):
        assert recipe in Recipe.names()
