"""Processes that wait for each other say so."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from workbench import files
from workbench.data.index import cached_index
from workbench.files import cache_lock, file_lock

HOLDER = """
import sys, time
from pathlib import Path
from workbench.files import file_lock
with file_lock(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(120)
"""


@pytest.fixture
def holder(tmp_path: Path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "index.lock")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.communicate()


def test_who_waits_says_for_whom_and_whether_that_process_is_stopped(holder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(files, "QUIET_WAIT", 0.2)
    monkeypatch.setattr(files, "NEXT_LINE", 0.4)
    os.kill(holder.pid, signal.SIGSTOP)
    threading.Timer(1.5, holder.kill).start()
    with file_lock(tmp_path / "index.lock"):
        lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 4  # one after 0.2 s, then one every 0.4 s
    assert lines[0] == (
        f"waiting for process {holder.pid} (stopped; `kill -CONT {holder.pid}` wakes it), which has the lock "
        f"{tmp_path / 'index.lock'}"
    )


def test_who_waits_without_knowing_for_whom_says_so_too(holder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(files, "QUIET_WAIT", 0.1)
    monkeypatch.setattr(files.os, "major", lambda _: 4095)  # as where /proc/locks has other numbers
    threading.Timer(0.5, holder.kill).start()
    with file_lock(tmp_path / "index.lock"):
        pass
    assert capsys.readouterr().err == (
        f"waiting for another process, which has the lock {tmp_path / 'index.lock'}\n"
    )


def test_short_waits_are_silent_and_locks_end_with_errors(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="inside"), cache_lock("a"):
        raise ValueError("inside")
    started = time.monotonic()
    assert cached_index("b", lambda stream: stream.write(b"content")).is_file()
    with cache_lock("a"):
        assert time.monotonic() - started < files.QUIET_WAIT
    assert capsys.readouterr().err == ""
