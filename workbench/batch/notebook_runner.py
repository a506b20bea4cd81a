"""Executes notebooks through papermill: parameters checked, signals passed on, a manifest of the outcome.

Papermill alone only logs an unknown parameter, checks no types, dies of SIGTERM without a word to the kernel,
and calls the cells of a killed kernel completed. The manifest lies as `manifest.json` beside the notebook.
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

TAG = "parameters"  # of the cell that declares them
NOTEBOOKS = carried("notebooks")
_TYPES = {name: getattr(typing, name) for name in ("Any", "Literal", "Optional", "Union")}
_TYPES |= {kind.__name__: kind for kind in (int, float, str, bool, list, dict)}


class Parameter(NamedTuple):
    """One line of a notebook's parameters cell; `type` is what its `annotation` stands for."""

    name: str
    annotation: str
    default: Any  # `...` for anything but a plain value
    comment: str
    type: Any


def notebooks() -> list[str]:
    """Names of the notebooks that come with the workbench."""
    return sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))


def locate(name_or_path: str | Path) -> Path:
    """The absolute path of a notebook, by the name of a shipped one or by path."""
    path = Path(name_or_path).expanduser()
    if path.suffix == ".ipynb" and path.is_file():
        return path.resolve()
    shipped = NOTEBOOKS / f"{path.name.removesuffix('.ipynb')}.ipynb"
    if path.name == str(name_or_path) and shipped.is_file():
        return shipped
    remedy = suggestion(path.name, notebooks()) if notebooks() else "Give the path of an .ipynb file."
    raise SettingError("notebook", str(name_or_path), "there is no such notebook", remedy)


def parameters_of(path: Path) -> dict[str, Parameter]:
    """The parameters that a notebook's cell tagged `parameters` declares, in order; {} without one."""
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
    """What a parameter may hold: its annotation, else its default's type, else anything."""
    if annotation:
        try:
            return eval(annotation, {"__builtins__": {}}, _TYPES)
        except (NameError, SyntaxError, TypeError):
            return Any  # a type of the notebook's own
    return Any if default is None or default is ... else type(default)


def checked(path: Path, parameters: Mapping[str, object]) -> dict[str, Any]:
    """`parameters` as the notebook's parameters cell wants them; text is read as the type asks for."""
    return _checked(parameters_of(path), parameters, path.name)


def check_injected(cells: Sequence[str]) -> None:
    """Check what papermill put among executed cells, the first of which declares the parameters."""
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
    """Execute a notebook in a kernel of this very interpreter and return its manifest.

    `out` (default `executed/NAME`) gets the executed notebook, `manifest.json` and, unless WORKBENCH_RUNS
    says otherwise, the training runs in `runs/`. The kernel works in the caller's folder, where relative
    paths in parameters start, with WORKBENCH_HEADLESS=1. The manifest's `state` is "finished", "failed" or
    "interrupted"; its `error` says in which code cell and why; its `exit_code` is for a command to exit with.
    SIGINT, SIGTERM and SIGHUP interrupt the running cell, so that training saves, and no further cell is run;
    a second one kills the kernel. With `show_output` what cells print is printed here too. Raises
    SettingError before anything runs.
    """
    path = locate(name_or_path)
    chosen = checked(path, parameters or {})
    folder = Path(out if out is not None else Path("executed") / path.stem).expanduser().resolve()
    output = folder / path.name
    if output == path:
        raise SettingError(
            "out",
            str(folder),
            "the notebook itself lies there and would be overwritten",
            "Choose another folder.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    manifest: dict[str, Any] = {
        "notebook": str(path),
        "parameters": chosen,
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
        error = _execute(path, output, chosen, folder, stop, show_output, say)
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
    """Let papermill do it; returns what went wrong, if anything."""
    import papermill
    from papermill.engines import papermill_engines

    from workbench.batch.kernel import WorkbenchEngine

    papermill_engines.register("workbench", WorkbenchEngine)
    runs = Path(os.environ.get("WORKBENCH_RUNS") or folder / "runs").expanduser().resolve()
    # Its remarks on parameters are ours to make, and made already.
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
    except Exception as error:  # whatever it was, the manifest is to say so
        return error
    return None


def _outcome(error: Exception | None, stop: Stop) -> dict[str, Any]:
    """State, error and exit code of a run that ended so."""
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
    """Say at the top of the executed notebook that it did not run to its end."""
    import nbformat

    if not output.is_file():
        return
    notebook = nbformat.read(output, as_version=4)
    notebook.metadata.papermill["exception"] = True
    note = nbformat.v4.new_markdown_cell(f"**This notebook did not run to its end: {text}.**")
    note.metadata["tags"] = [
        "papermill-error-cell-tag"
    ]  # papermill drops such cells when the notebook is executed again
    notebook.cells.insert(0, note)
    nbformat.write(notebook, output)


def _literal(path: Path) -> str:
    """A path that papermill's `str.format` leaves as it is."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("workbench", "papermill", "ipykernel", "torch"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions
