"""The notebooks as they lie in git: nothing that comes of running them, parameters every runner can set."""

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from workbench.batch.notebook_runner import NOTEBOOKS, parameters_of

PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
LARGEST = 100_000  # bytes


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
