"""What holds the parts together: quick imports, floors, dependencies, the files that set things up."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import workbench

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "workbench").rglob("*.py"))
HEAVY = [
    "torch",
    "torchvision",
    "numpy",
    "pandas",
    "pyarrow",
    "pydantic",
    "yaml",
    "plotly",
    "open_clip",
    "transformers",
    "umap",
    "ultralytics",
    "sklearn",
    "typer",
    "papermill",
]
# Named by the project's users, who expect to find them in the environment.
EXPECTED = [
    "jupyterlab",
    "ipywidgets",
    "torch",
    "open_clip_torch",
    "transformers",
    "ultralytics",
    "umap-learn",
    "plotly",
    "nbval",
]
# Modules that are named otherwise than their package, or that come with the package named here.
PACKAGES = {
    "PIL": "pillow",
    "faiss": "faiss-cpu",
    "open_clip": "open-clip-torch",
    "sklearn": "scikit-learn",
    "umap": "umap-learn",
    "yaml": "pyyaml",
    "IPython": "ipykernel",
    "huggingface_hub": "transformers",
    "jupyter_client": "ipykernel",
    "nbclient": "papermill",
    "nbformat": "papermill",
    "scipy": "scikit-learn",
    "tokenizers": "transformers",
    "tqdm": "transformers",
}
FLOORS = (
    {"errors", "files"},
    {"objectives", "metrics"},  # registries: recipes, figures and tables derive settings and labels from them
    {"recipe", "data", "figures"},
    {"models"},
    {"targets"},
    {"evaluation"},
    {"export"},
    {"runs"},
    {"training"},
    {"reports", "widgets"},
    {"batch"},
    {"cli"},
    {"__init__", "__main__"},
)


def imported_by(code: str) -> set[str]:
    """Modules that a fresh interpreter holds after running `code`."""
    program = f"{code}\nimport sys\nprint(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    )
    return set(done.stdout.split())


def test_importing_the_workbench_imports_nothing_heavy() -> None:
    assert not imported_by("import workbench; dir(workbench)") & set(HEAVY)


def test_recipes_and_commands_need_no_torch() -> None:
    loaded = imported_by(
        "from workbench import Recipe; from workbench.batch import notebook_runner; import workbench.cli.app;"
        "Recipe.load('clip_kd_demo')"
    )
    assert not loaded & {"torch", "pandas", "pyarrow", "plotly", "open_clip", "transformers", "papermill"}


def test_every_public_name_is_there() -> None:
    for name in workbench.__all__:
        assert name in dir(workbench)
        assert getattr(workbench, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = workbench.trian


def test_public_names_are_declared_to_type_checkers_and_at_run_time_alike() -> None:
    tree = ast.parse((ROOT / "workbench" / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    declared = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert declared | {"__version__"} == set(workbench.__all__)


def test_every_room_has_a_floor_and_the_root_four_files() -> None:
    rooms = {path.relative_to(ROOT / "workbench").parts[0].removesuffix(".py") for path in SOURCES}
    assert rooms == set().union(*FLOORS)
    assert len(list((ROOT / "workbench").glob("*.py"))) == 4 and len(rooms) <= 22


@pytest.mark.parametrize("path", SOURCES, ids=[str(path.relative_to(ROOT)) for path in SOURCES])
def test_a_file_says_what_it_is_for_and_imports_down_the_floors_only(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = path.relative_to(ROOT / "workbench").parts[0].removesuffix(".py")
    assert ast.get_docstring(tree) or (path.name == "__init__.py" and not tree.body), "no docstring"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300, "two things live in this file"
    heights = {name: height for height, names in enumerate(FLOORS) for name in names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = (
                [f"workbench.{alias.name}" for alias in node.names]
                if node.module == "workbench"
                else [node.module or ""]
            )
        else:
            continue
        for module in modules:
            parts = module.split(".")
            if parts[0] == "workbench" and len(parts) > 1 and parts[1] not in (own, "__version__"):
                assert own in heights, f"which floor is {own} on?"
                assert heights[parts[1]] < heights[own], f"line {node.lineno}: {own} imports {module}"


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def name_of(requirement: str) -> str:
    return re.split(r"[<>=!~\[; ]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pair) == 2 for pair in pairs)
    assert len({name_of(name) for name, _ in pairs}) == len(pairs)
    return {name_of(name): version for name, version in pairs}


def direct_dependencies(project: dict[str, Any]) -> list[str]:
    extras = project["optional-dependencies"]
    return [*project["dependencies"], *extras["lab"], *extras["test"], *extras["track"], *extras["cluster"]]


def test_the_environment_brings_what_users_expect(project: dict[str, Any]) -> None:
    wanted = {name_of(name) for name in EXPECTED}
    brought = [
        *project["dependencies"],
        *project["optional-dependencies"]["lab"],
        *project["optional-dependencies"]["test"],
    ]
    assert wanted <= {name_of(requirement) for requirement in brought}


def test_conda_and_pip_users_get_the_same(project: dict[str, Any]) -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["channels"][0] == "conda-forge"
    *conda, pip = environment["dependencies"]
    assert pip == {"pip": ["-c constraints.txt", "-e .[lab,test]"]}
    python = next(requirement for requirement in conda if requirement.startswith("python"))
    assert python.removeprefix("python").startswith(project["requires-python"])
    assert "-c constraints.txt -e '.[lab,test]'" in (ROOT / "Makefile").read_text()


def test_every_dependency_has_a_tested_version_that_it_allows(project: dict[str, Any]) -> None:
    from packaging.requirements import Requirement

    pinned = constraints()
    for text in direct_dependencies(project):
        requirement = Requirement(text)
        assert name_of(requirement.name) in pinned, text
        assert requirement.specifier.contains(pinned[name_of(requirement.name)]), text
    assert (pinned["torch"], pinned["torchvision"]) == ("2.14.1", "0.29.1")


def test_what_is_imported_is_depended_on(project: dict[str, Any]) -> None:
    known = {name_of(requirement) for requirement in direct_dependencies(project)}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for top in {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"workbench"}:
                assert PACKAGES.get(top, name_of(top)) in known, f"{path.name} imports {top}"


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_make_help_lists_every_target() -> None:
    targets = {"help", "demo", "test", "test-all", "lab", "lint", "clean"}
    # Under `make test` this make is a child of another and would announce the folders it enters and leaves.
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert {line.split()[1] for line in listed.splitlines()} == targets


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_make_without_a_python_says_what_is_needed(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    done = subprocess.run(
        ["make", "test", "PYTHON="], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "Python 3.11 or newer is needed" in done.stderr


def test_licence_and_notice() -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    notice = (ROOT / "NOTICE").read_text()
    for words in ("ultralytics", "AGPL-3.0", "CC BY 4.0", "CC BY-SA 4.0"):
        assert words in notice


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_the_ci_script_is_sound() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert "set -euo pipefail" in script.read_text()
    assert "make test" in script.read_text()


def test_recipes_and_model_configs_are_in_the_package() -> None:
    # Everything in the folder goes into the wheel; git decides what is in the folder.
    assert list((ROOT / "workbench" / "recipe" / "recipes").glob("*/*.yaml"))
    assert list((ROOT / "workbench" / "models" / "configs").glob("*/*.json"))
