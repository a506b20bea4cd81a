"""The papermill engine of `notebook_runner`: runs a kernel of this interpreter that can be stopped."""

import sys
import time
from typing import Any

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine

# A kernel's ports are free when they are chosen, and another process may take one before the kernel does.
STARTS = 3


class Stopped(Exception):
    """A signal asked to stop, so the next cell was not started."""


class KernelDied(Exception):
    """The kernel's process ended while it ran the code cell number `exec_count`."""

    def __init__(self, exec_count: int, exit_code: int | None) -> None:
        meaning = {
            -9: ": killed, most often because memory ran out",
            -11: ": a crash in native code",
            -6: ": aborted in native code",
        }
        super().__init__(f"the kernel died (exit code {exit_code}{meaning.get(exit_code or 0, '')})")
        self.exec_count = exec_count


class _ThisInterpreter(AsyncKernelManager):
    """Starts kernels of the running interpreter, independent of the kernel specs on this machine."""

    @property
    def kernel_spec(self) -> KernelSpec:
        # Hides warnings about unencrypted messages on the loopback at every start, and about interrupts.
        command = [
            sys.executable,
            "-m",
            "ipykernel_launcher",
            "-f",
            "{connection_file}",
            "--log-level=CRITICAL",
        ]
        return KernelSpec(argv=command, language="python", display_name="Python 3")


class _Client(PapermillNotebookClient):
    """Reports the running cell, honours requests to stop, and recognises a dead kernel."""

    def __init__(self, *arguments: Any, stop: Any, say: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._stop, self._say = stop, say
        self._cells = [
            index
            for index, cell in enumerate(self.nb.cells)
            if cell.cell_type == "code" and cell.source.strip()
        ]

    def execute_cell(self, cell: Any, cell_index: int, **settings: Any) -> Any:
        if cell_index not in self._cells:
            return cell
        if self._stop:
            raise Stopped
        self._stop.kernel = self.km.provisioner.process.pid
        number = self._cells.index(cell_index) + 1
        counter = f"[{number}/{len(self._cells)}]"
        self._say(f"{counter} {_title(cell.source)}")
        began = time.monotonic()
        try:
            return super().execute_cell(cell, cell_index, **settings)
        except DeadKernelError:
            raise KernelDied(number, self.km.provisioner.process.poll()) from None
        finally:
            self._stop.cell_runs = False
            if (seconds := time.monotonic() - began) >= 1:
                self._say(f"{' ' * len(counter)} {seconds:.0f} s")

    def process_message(self, message: dict[str, Any], *arguments: Any, **settings: Any) -> Any:
        # A kernel ignores interrupts until it has announced its cell.
        if message["msg_type"] == "execute_input":
            self._stop.cell_begins()
        return super().process_message(message, *arguments, **settings)


def _title(source: str) -> str:
    lines = [line.strip() for line in source.splitlines()]
    line = next((line for line in lines if line and not line.startswith(("#", "%"))), lines[0])
    return line if len(line) <= 90 else line[:87] + "..."


class WorkbenchEngine(Engine):
    """The engine of `papermill.execute_notebook(engine_name="workbench")`."""

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: Any,
        kernel_name: str,
        *,
        stop: Any,
        say: Any,
        environment: dict[str, str],
        **settings: Any,
    ) -> None:
        for start in range(1, STARTS + 1):
            client = _Client(
                nb_man,
                stop=stop,
                say=say,
                kernel_name=kernel_name,
                kernel_manager_class=_ThisInterpreter,
                timeout=None,
                startup_timeout=120,  # starting an interpreter takes long on a loaded machine
                stdout_file=settings.get("stdout_file"),
                stderr_file=settings.get("stderr_file"),
            )
            try:
                client.execute(env=environment)
                return
            except RuntimeError as error:
                if start == STARTS or "died before replying" not in str(error):
                    raise
                say("the kernel did not start; starting another one")
