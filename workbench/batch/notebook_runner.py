"""Executes notebooks through papermill, with checked parameters, forwarded signals and a manifest.

Papermill alone only logs unknown parameters, does not check types, dies on SIGTERM without telling the
kernel, and marks the cells of a killed kernel as completed. The outcome is in `manifest.json` next to the
notebook.
"""

import ast
import contextlib
import io
import logging
import os
import platform
import re
import signal
import sys
import tokenize
import traceback
import typing
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from workbench.batch.signals import Stop
from workbench.errors import SettingError, damaged_file
from workbench.files import carried, read_json, write_json
from workbench.recipe.overrides import suggestion, typed

TAG = "parameters"  # the tag of the cell that declares the parameters
NOTEBOOKS = carried("notebooks")
_TYPES = {name: getattr(typing, name) for name in ("Any", "Literal", "Optional", "Union")}
_TYPES |= {kind.__name__: kind for kind in (int, float, str, bool, list, dict)}


class Parameter(NamedTuple):
    """A parameter of a notebook, declared in one line of its parameters cell. `type` is its evaluated
    annotation."""

    name: str
    annotation: str
    default: Any  # `...` for anything but a literal
    comment: str
    type: Any


def notebooks() -> list[str]:
    """The names of the shipped notebooks."""
    return sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))


def locate(name_or_path: str | Path) -> Path:
    """The absolute path of a notebook, given by path or, for a shipped one, by name."""
    path = Path(name_or_path).expanduser()
    if path.suffix == ".ipynb" and path.is_file():
        return path.resolve()
    shipped = NOTEBOOKS / f"{path.name.removesuffix('.ipynb')}.ipynb"
    if path.name == str(name_or_path) and shipped.is_file():
        return shipped
    remedy = suggestion(path.name, notebooks()) if notebooks() else "Give the path of an .ipynb file."
    raise SettingError("notebook", str(name_or_path), "there is no such notebook", remedy)


def parameters_of(path: Path) -> dict[str, Parameter]:
    """The parameters declared in a notebook's cell tagged `parameters`, in order; {} without such a cell."""
    try:
        cells = [
            cell for cell in read_json(path)["cells"] if "parameters" in cell["metadata"].get("tags", [])
        ]
        return _parameters_in("".join(cells[0]["source"])) if cells else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SyntaxError, RecursionError) as error:
        raise damaged_file("notebook", path, error, "Give a notebook that Jupyter opens.") from None


def _parameters_in(source: str) -> dict[str, Parameter]:
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    parameters = {}
    for statement in ast.parse(source).body:
        target = (
            statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
        )
        value = getattr(statement, "value", None)
        if isinstance(target, ast.Name) and value is not None:
            annotation = (
                ast.unparse(statement.annotation).strip("'\"") if isinstance(statement, ast.AnnAssign) else ""
            )
            default = _plain_value(value)
            comment = comments.get(statement.end_lineno or 0, "")
            parameters[target.id] = Parameter(
                target.id, annotation, default, comment, _type_of(annotation, default)
            )
    return parameters


def _plain_value(expression: ast.expr) -> Any:
    try:
        return ast.literal_eval(expression)
    except ValueError:
        return ...


def _type_of(annotation: str, default: Any) -> Any:
    """The type of a parameter: its annotation, otherwise the type of its default, otherwise Any."""
    if annotation:
        try:
            return eval(annotation, {"__builtins__": {}}, _TYPES)
        except (NameError, SyntaxError, TypeError):
            return Any  # a type that the notebook defines itself
    return Any if default is None or default is ... else type(default)


def checked(path: Path, parameters: Mapping[str, object]) -> dict[str, Any]:
    """Check `parameters` against the notebook's declarations, and convert text to the declared types."""
    return _checked(parameters_of(path), parameters, path.name)


def check_injected(cells: Sequence[str]) -> None:
    """Check the parameters that papermill injected. The first of the executed `cells` declares them."""
    injected = next((cell for cell in reversed(cells) if cell.startswith("# Parameters\n")), "")
    if injected:
        values = {name: parameter.default for name, parameter in _parameters_in(injected).items()}
        _checked(_parameters_in(next(filter(str.strip, cells))), values, "this notebook")


def _checked(
    declared: Mapping[str, Parameter], parameters: Mapping[str, object], notebook: str
) -> dict[str, Any]:
    for name, value in parameters.items():
        if name not in declared:
            raise SettingError(name, value, f"{notebook} has no such parameter", suggestion(name, declared))
    return {
        name: typed(declared[name].type, value, name, declared[name].default)
        for name, value in parameters.items()
    }


def run_notebook(
    name_or_path: str | Path,
    parameters: Mapping[str, object] | None = None,
    out: str | Path | None = None,
    *,
    show_output: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Execute a notebook in a kernel of this interpreter and return its manifest.

    The folder `out` (default `executed/NAME`) receives the executed notebook, `manifest.json` and, unless
    WORKBENCH_RUNS is set, the training runs in `runs/`. The kernel runs with WORKBENCH_HEADLESS=1 in the
    current folder, to which relative paths in parameters refer. The manifest's `state` is "finished",
    "failed" or "interrupted", its `error` names the code cell and the reason, and its `exit_code` is meant
    for commands. SIGINT, SIGTERM and SIGHUP interrupt the running cell, so that a training saves, and stop
    the execution; a second signal kills the kernel. `show_output` prints the output of cells here too. Raises
    SettingError for bad parameters before anything runs.
    """
    path = locate(name_or_path)
    values = checked(path, parameters or {})
    folder = Path(out if out is not None else Path("executed") / path.stem).expanduser().resolve()
    output = folder / path.name
    if output == path:
        raise SettingError(
            "out",
            str(folder),
            "it contains the notebook itself, which would be overwritten",
            "Choose another folder.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    manifest: dict[str, Any] = {
        "notebook": str(path),
        "parameters": values,
        "output": str(output),
        "state": "running",
        "started": _now(),
        "ended": None,
        "error": None,
        "exit_code": None,
        "versions": _versions(),
    }
    write_json(folder / "manifest.json", manifest)
    say(f"{path.stem} -> {output}")
    stop = Stop(say)
    with stop.on_signals():
        error = _execute(path, output, values, folder, stop, show_output, say)
    manifest |= _outcome(error, stop)
    manifest["ended"] = _now()
    if manifest["error"] is not None:
        _mark(output, f"{manifest['state']}: {manifest['error']['message']}")
    write_json(folder / "manifest.json", manifest)
    return manifest


def _execute(
    path: Path,
    output: Path,
    parameters: dict[str, Any],
    folder: Path,
    stop: Stop,
    show_output: bool,
    say: Callable[[str], None],
) -> Exception | None:
    """Execute the notebook with papermill and return the error, if there was one."""
    import papermill
    from papermill.engines import papermill_engines

    from workbench.batch.kernel import WorkbenchEngine

    papermill_engines.register("workbench", WorkbenchEngine)
    runs = Path(os.environ.get("WORKBENCH_RUNS") or folder / "runs").expanduser().resolve()
    # Parameters are checked already, so papermill's warnings about them are not needed.
    logging.getLogger("papermill").setLevel(logging.ERROR)
    try:
        papermill.execute_notebook(
            _literal(path),
            _literal(output),
            parameters,
            engine_name="workbench",
            kernel_name="python3",
            language="python",
            progress_bar=False,
            cwd=os.getcwd(),
            stop=stop,
            say=say,
            environment={**os.environ, "WORKBENCH_HEADLESS": "1", "WORKBENCH_RUNS": str(runs)},
            stdout_file=sys.stdout if show_output else None,
            stderr_file=sys.stderr if show_output else None,
        )
    except Exception as error:  # any error is recorded in the manifest
        return error
    return None


def _outcome(error: Exception | None, stop: Stop) -> dict[str, Any]:
    """The state, error and exit code of the manifest."""
    if error is None and not stop:
        return {"state": "finished", "error": None, "exit_code": 0}
    cell, kind = getattr(error, "exec_count", None), getattr(error, "ename", type(error).__name__)
    message = str(getattr(error, "evalue", error)) or kind
    interrupted = bool(stop) or kind == "KeyboardInterrupt"
    number = stop.signal or signal.SIGINT
    if stop:
        message = f"stopped by {signal.Signals(number).name}"
    lines = getattr(error, "traceback", None) or traceback.format_exception(error)
    trace = "\n".join(re.sub(r"\x1b\[[0-9;]*m", "", line.rstrip()) for line in lines)
    return {
        "state": "interrupted" if interrupted else "failed",
        "error": {"cell": cell, "kind": kind, "message": message, "traceback": trace},
        "exit_code": 128 + number if interrupted else 1,
    }


def _mark(output: Path, text: str) -> None:
    """Add a note at the top of the executed notebook that it was not completed."""
    import nbformat

    if not output.is_file():
        return
    notebook = nbformat.read(output, as_version=4)
    notebook.metadata.papermill["exception"] = True
    note = nbformat.v4.new_markdown_cell(f"**This notebook was not completed: {text}.**")
    note.metadata["tags"] = [
        "papermill-error-cell-tag"
    ]  # papermill drops such cells when the notebook is executed again
    notebook.cells.insert(0, note)
    nbformat.write(notebook, output)


def _literal(path: Path) -> str:
    """A path with its braces escaped, because papermill formats paths with `str.format`."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("workbench", "papermill", "ipykernel", "torch"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions
