"""Forwards signals to a notebook's kernel: the first interrupts the running cell, the second kills it."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


class Stop:
    """Interrupts the kernel on the first signal, as soon as it runs a cell, and kills it on the second."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.signal: int | None = None
        self.kernel: int | None = None  # the id of its process and process group
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
        # The parent process may have blocked them, as Ray does, and the kernel would inherit that.
        mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
        try:
            for number, handler in before.items():
                if handler is not signal.SIG_IGN:  # nohup and `&` ignore signals on purpose
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
            text = f"{name}: interrupting the running cell; a second signal kills the kernel"
            self.signal = number
            self._interrupt()
        with contextlib.suppress(RuntimeError):  # the signal arrived during a print
            self._say(text)

    def cell_begins(self) -> None:
        """Note that the kernel now reacts to interrupts, and send one that is pending."""
        self.cell_runs = True
        self._interrupt()

    def _interrupt(self) -> None:
        # Only once, because a second interrupt makes a training stop without finishing its step.
        if self and self.cell_runs and not self._interrupted:
            self._interrupted = True
            self._send(signal.SIGINT)

    def _send(self, number: int) -> None:
        if self.kernel is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.kernel, number)
