"""Passes signals on to a notebook's kernel: the first interrupts the running cell, the second kills."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


class Stop:
    """Notes the first signal to stop and interrupts the kernel once it is at work; kills it on the second."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.signal: int | None = None
        self.kernel: int | None = None  # process id, which is that of its group too
        self.cell_runs = False
        self._say = say
        self._interrupted = False

    def __bool__(self) -> bool:
        return self.signal is not None

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may set handlers
            return
        numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
        before = {number: signal.getsignal(number) for number in numbers}
        # Whoever started us may have blocked them (Ray does), and the kernel would inherit that.
        mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
        try:
            for number, handler in before.items():
                if handler is not signal.SIG_IGN:  # nohup and `&` mean it
                    signal.signal(number, self._on_signal)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self:
            text = f"{name} again: killing the kernel"
            self._send(signal.SIGKILL)
        else:
            text = f"{name}: interrupting the running cell; once more kills it"
            self.signal = number
            self._interrupt()
        with contextlib.suppress(RuntimeError):  # the signal came in the middle of a print
            self._say(text)

    def cell_begins(self) -> None:
        """From here on the kernel hears an interrupt; one that was asked for a moment earlier is due now."""
        self.cell_runs = True
        self._interrupt()

    def _interrupt(self) -> None:
        # Once only: to training a second interrupt means not to wait for the step's end.
        if self and self.cell_runs and not self._interrupted:
            self._interrupted = True
            self._send(signal.SIGINT)

    def _send(self, number: int) -> None:
        if self.kernel is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.kernel, number)
