"""A real JupyterLab in a headless Chromium: open a notebook, run it, look at it, save it, open it again.

    with jupyter_lab(folder) as lab, lab.open("00_quickstart.ipynb") as page:
        page.run_all(timeout=120)
        assert page.errors() == []
        page.save()
        page.reopen()
        page.screenshot(folder / "reopened.png")

Needs the `lab` extra, playwright and a Chromium on the path; `missing()` says which of them is not there.
"""

import contextlib
import importlib.util
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Lab asks about news, looks for updates and pops up notices; a test wants none of that on its pictures.
QUIET = {
    "@jupyterlab/apputils-extension:notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    },
    # All cells in the page at once: with windowing a plot scrolled out of view is not there to be looked at.
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
}


def missing() -> str | None:
    """What a browser test lacks here, in words; None when it can run."""
    for module in ("jupyterlab", "playwright"):
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed"
    return None if chromium() else "no Chromium on the path"


def chromium() -> str | None:
    """The Chromium this machine has, if any."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


START = 180  # seconds that Lab, a page or a kernel may take to be there, on a machine busy with other things
PLOTLY = "application/vnd.plotly.v1+json"


class Page:
    """One notebook open in Lab."""

    def __init__(self, tab: Any, url: str, notebook: Path) -> None:
        self.tab = tab
        tab.set_default_timeout(START * 1000)
        self.notebook = notebook
        self._url = url
        self.console: list[str] = []
        tab.on(
            "console", lambda message: self.console.append(message.text) if message.type == "error" else None
        )
        self._load()

    def _load(self) -> None:
        self.tab.goto(self._url, wait_until="load")
        self.tab.wait_for_selector(".jp-Notebook", timeout=START * 1000)
        self.tab.wait_for_function(
            "() => window.jupyterapp?.shell?.currentWidget?.context?.isReady", timeout=START * 1000
        )
        # The file browser takes a third of the window that the notebook could have.
        self.tab.evaluate("window.jupyterapp.shell.collapseLeft()")

    def start_all(self) -> None:
        """Run every cell, and come back at once."""
        self.tab.wait_for_function(
            "() => window.jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status === 'idle'",
            timeout=START * 1000,
        )
        self.tab.evaluate(
            """() => {
                window.finished = false;
                window.jupyterapp.commands.execute('notebook:run-all-cells').finally(() => window.finished = true);
            }"""
        )

    def wait_idle(self, timeout: float) -> None:
        """Wait until every cell has run; TimeoutError after `timeout` seconds."""
        self.tab.wait_for_function("() => window.finished === true", timeout=timeout * 1000)

    def run_all(self, timeout: float) -> None:
        """Run every cell and wait until the last has run."""
        self.start_all()
        self.wait_idle(timeout)

    def run_cell(self, code: str) -> None:
        """Run code in the notebook's kernel without a cell of its own, and wait for the answer."""
        self.tab.evaluate(
            """code => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel
                .requestExecute({code, silent: true}).done.then(() => null)""",
            code,
        )

    def interrupt(self) -> None:
        """Press the stop button."""
        self.tab.evaluate("() => { window.jupyterapp.commands.execute('notebook:interrupt-kernel') }")

    def outputs(self) -> list[list[dict[str, Any]]]:
        """The outputs each code cell holds in Lab, as nbformat has them."""
        return self.tab.evaluate(
            """() => window.jupyterapp.shell.currentWidget.content.widgets
                .filter(cell => cell.model.type === 'code').map(cell => cell.model.outputs.toJSON())"""
        )

    def errors(self) -> list[str]:
        """What went wrong in any cell: exceptions, and whatever was written to standard error."""
        result = []
        for number, outputs in enumerate(self.outputs()):
            for output in outputs:
                if output["output_type"] == "error":
                    result.append(f"cell {number}: {output['ename']}: {output['evalue']}")
                elif output["output_type"] == "stream" and output["name"] == "stderr":
                    result.append(f"cell {number}: stderr: {''.join(output['text'])}")
        result += [f"page: {text}" for text in self.tab.locator(".jupyter-widgets-error").all_inner_texts()]
        return result

    def figures(self) -> int:
        """How many plotly figures are to be seen; in a notebook just opened they are pictures until the mouse
        is over them."""
        return self.tab.evaluate(
            """() => document.querySelectorAll('.js-plotly-plot .main-svg:first-child').length
                + [...document.querySelectorAll('img.plot-img')].filter(image => image.naturalWidth > 0).length"""
        )

    def reach(self) -> list[float]:
        """For every plotly plot in the page, the largest x that any of its curves has come to."""
        return self.tab.evaluate(
            """() => [...document.querySelectorAll('.js-plotly-plot')].map(
                plot => (plot._fullData ?? []).reduce((most, curve) => Math.max(most, ...(curve.x ?? [])), 0))"""
        )

    def wake(self) -> None:
        """Hold the mouse over every figure that is still a picture, which makes it a plot."""
        # Elements, not locators, and a plain move: the picture is gone as soon as the mouse is over it, which
        # scrolling to it may already have done.
        for image in self.tab.query_selector_all("img.plot-img"):
            if image.is_visible():
                image.scroll_into_view_if_needed()
                box = image.bounding_box()
                if box is not None:
                    self.tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
                image.wait_for_element_state("hidden")

    def wait_for(self, condition: Callable[["Page"], object], timeout: float, what: str) -> None:
        """Look again and again until the condition holds; AssertionError, naming `what`, after `timeout`
        seconds."""
        deadline = time.monotonic() + timeout
        while not condition(self):
            if time.monotonic() > deadline:
                picture = self.notebook.with_suffix(".png")
                self.tab.screenshot(path=picture)
                wrong = self.errors() or "nothing"
                raise AssertionError(
                    f"not seen within {timeout:.0f} s: {what} (see {picture}); wrong in the page: {wrong}"
                )
            self.tab.wait_for_timeout(200)

    def screenshot(self, path: Path) -> None:
        """A picture of the whole notebook, the window grown so that nothing has to be scrolled to."""
        path.parent.mkdir(parents=True, exist_ok=True)
        size = self.tab.viewport_size
        height = self.tab.evaluate(
            """() => {
                const outer = document.querySelector('.jp-NotebookPanel:not(.lm-mod-hidden) .jp-WindowedPanel-outer');
                return outer ? outer.scrollHeight : 0;
            }"""
        )
        self.tab.set_viewport_size(
            {"width": size["width"], "height": min(max(size["height"], height + 160), 12_000)}
        )
        self.tab.wait_for_timeout(700)
        self.tab.screenshot(path=path)
        self.tab.set_viewport_size(size)

    def save(self) -> None:
        """Save the notebook, and wait until it is on disk."""
        self.tab.evaluate("window.jupyterapp.commands.execute('docmanager:save')")

    def reopen(self) -> None:
        """Shut the kernel down and load the page anew, as somebody who opens the saved notebook tomorrow."""
        self.tab.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
        self._load()
        outputs = [output for cell in self.saved()["cells"] for output in cell.get("outputs", [])]
        plots = sum(PLOTLY in output.get("data", {}) for output in outputs)
        self.wait_for(
            lambda page: page.figures() >= plots,
            START,
            f"{plots} figures of the notebook that was opened again",
        )

    def saved(self) -> dict[str, Any]:
        """The notebook as it lies on disk."""
        return json.loads(self.notebook.read_text(encoding="utf-8"))


class Lab:
    """A running JupyterLab server, and one browser for it."""

    def __init__(self, url: str, token: str, folder: Path, browser: Any) -> None:
        self.url, self.token, self.folder, self.browser = url, token, folder, browser

    @contextlib.contextmanager
    def open(self, notebook: str, width: int = 1200, height: int = 900) -> Iterator[Page]:
        """Open a notebook by its path below the server's folder, in a workspace of its own."""
        # One context a page: nothing of another notebook's layout or cookies comes along.
        context = self.browser.new_context(viewport={"width": width, "height": height})
        try:
            workspace = f"w{secrets.token_hex(4)}"
            url = f"{self.url}/lab/workspaces/{workspace}/tree/{notebook}?token={self.token}"
            yield Page(context.new_page(), url, self.folder / notebook)
        finally:
            context.close()


@contextlib.contextmanager
def jupyter_lab(folder: Path, environment: dict[str, str] | None = None) -> Iterator[Lab]:
    """Serve `folder` with a JupyterLab that reads and writes no settings of the user's, on a free port with a
    token."""
    from playwright.sync_api import sync_playwright

    with contextlib.ExitStack() as stack:
        home = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="lab-", ignore_cleanup_errors=True))
        )
        token, port = secrets.token_hex(16), _free_port()
        server = stack.enter_context(_server(folder, home, token, port, environment or {}))
        url = f"http://127.0.0.1:{port}"
        _wait_for(server, f"{url}/api/status?token={token}", home / "server.log")
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"]
        )
        stack.callback(browser.close)
        yield Lab(url, token, Path(folder), browser)


@contextlib.contextmanager
def _server(
    folder: Path, home: Path, token: str, port: int, environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    settings = home / "settings"
    for plugin, values in QUIET.items():
        package, name = plugin.split(":")
        target = settings / package / f"{name}.jupyterlab-settings"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(values), encoding="utf-8")
    variables = os.environ | {
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(settings),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "IPYTHONDIR": str(home / "ipython"),
        # The kernel is named `python`: make that this very interpreter, wherever the tests were started from.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }
    variables.pop("WORKBENCH_HEADLESS", None)  # here somebody is watching
    command = [
        *(sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", "--expose-app-in-browser"),
        *("--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"),
        *(
            f"--ServerApp.root_dir={folder}",
            f"--IdentityProvider.token={token}",
            "--LabApp.collaborative=False",
        ),
    ]
    with open(home / "server.log", "wb") as log:
        process = subprocess.Popen(
            command, env=variables | environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)  # takes its kernels along
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(server: subprocess.Popen[bytes], url: str, log: Path, timeout: float = START) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"JupyterLab did not start:\n{log.read_text(errors='replace')}") from None
            time.sleep(0.2)
