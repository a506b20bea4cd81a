"""The notebooks as they lie in git: nothing that comes of running them, parameters every runner can set."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from workbench.batch.notebook_runner import NOTEBOOKS, parameters_of

PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
LARGEST = 100_000  # bytes
LINES = 25  # of a code cell
SENTENCES = 3  # of a text cell


@pytest.fixture(params=PATHS, ids=[path.stem for path in PATHS])
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def notebook(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_it_is_valid_and_small(path: Path) -> None:
    nbformat.validate(nbformat.read(path, as_version=4))
    assert path.stat().st_size <= LARGEST


def test_nothing_of_a_run_is_left(notebook: Any) -> None:
    for cell in notebook["cells"]:
        assert not cell.get("outputs"), cell["id"]
        assert cell.get("execution_count") is None, cell["id"]
        assert not {"papermill", "execution", "ExecuteTime"} & set(cell["metadata"]), cell["id"]
    assert not {"papermill", "widgets"} & set(notebook["metadata"])


def test_cell_ids_are_chosen_not_random(notebook: Any) -> None:
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(ids) == len(set(ids))
    # Jupyter's own are eight hex digits, other tools' are uuids: each saving would change the file.
    assert not [
        name for name in ids if re.fullmatch(r"(?=.*[a-f])[0-9a-f]{8}|[0-9a-f]{8}-[0-9a-f-]{27}", name)
    ]


def test_no_absolute_path(notebook: Any) -> None:
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        assert not re.search(r"(?<![\w.:/])/(home|root|Users|work|tmp|mnt|data)/|[A-Za-z]:\\\\", source), (
            cell["id"]
        )


def test_the_first_code_cell_holds_annotated_commented_parameters(notebook: Any, path: Path) -> None:
    first = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    assert "parameters" in first["metadata"].get("tags", [])
    parameters = parameters_of(path)
    assert parameters
    for parameter in parameters.values():
        assert parameter.annotation, parameter.name
        assert parameter.comment, parameter.name
        assert parameter.default is not ..., f"{parameter.name}: papermill can only replace plain values"


def sources(notebook: Any, kind: str) -> dict[str, str]:
    """Cell id -> source, of the cells of one kind."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == kind]
    return {cell["id"]: "".join(cell["source"]) for cell in cells}


def sentences(text: str) -> int:
    """How many sentences a text cell has; headings, tables, lists, formulas and code blocks do not count."""
    text = re.sub(r"^```.*?^```|\$\$.*?\$\$", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^\s*(#|\||[-*+] |\d+\. ).*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"`[^`]*`|\$[^$]*\$|\]\([^)]*\)", "X", text)
    paragraphs = re.split(r"\n\s*\n", text)
    return sum(
        bool(re.search(r"\w", sentence))
        for paragraph in paragraphs
        for sentence in re.split(r"(?<=[.!?])[)\"”*]*\s+(?=[\W\d]*[A-Z])", paragraph)
    )


def test_sentences_are_counted() -> None:
    assert sentences("# A heading. Two.\n\nOne sentence, 0.5 of it in `a. B`.\nAnother (et al.) one:\n") == 2
    assert sentences("| a. B | c. D |\n\n- An item. Another.\n\n$$a. B$$\n\n```\na. B\n```") == 0
    assert sentences("First.\n\nSecond one: it goes on; and on. **Third.** Fourth?") == 4


def test_cells_are_short(notebook: Any) -> None:
    lines = {name: len(source.splitlines()) for name, source in sources(notebook, "code").items()}
    assert {name: count for name, count in lines.items() if count > LINES} == {}
    counts = {name: sentences(source) for name, source in sources(notebook, "markdown").items()}
    assert {name: count for name, count in counts.items() if count > SENTENCES} == {}


def test_no_two_notebooks_share_a_helper() -> None:
    places: dict[str, set[str]] = {}
    for path in PATHS:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for source in sources(notebook, "code").values():
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.FunctionDef):
                    body = ast.dump(ast.Module([*node.body], []))
                    places.setdefault(body, set()).add(f"{path.stem}: {node.name}")
            assert "WORKBENCH_RUNS" not in source, f"{path.stem}: workbench.runs.folder knows where runs go"
    assert [names for names in places.values() if len({name.split(":")[0] for name in names}) > 1] == []
