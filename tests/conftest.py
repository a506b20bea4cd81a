"""What all tests share: folders of their own, no network, and reasons for what cannot run here."""

import atexit
import os
import shutil
import signal
import tempfile

import pytest

# Before any test imports the workbench, and for the processes and kernels that tests start.
# pytest-xdist's workers inherit the cache of the process that started them: targets are computed once.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _SCRATCH = tempfile.mkdtemp(prefix="workbench-tests-")
    os.environ["WORKBENCH_CACHE"] = os.path.join(_SCRATCH, "cache")
    os.environ["WORKBENCH_RUNS"] = os.path.join(_SCRATCH, "runs")
    atexit.register(shutil.rmtree, _SCRATCH, ignore_errors=True)
os.environ["WORKBENCH_HEADLESS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side, and their tensors are small
os.environ["TOKENIZERS_PARALLELISM"] = "false"  # else the tokenizer warns whenever a test starts a process
# Started in the background by a shell, this process ignores Ctrl-C, and so would all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reasons = {"gpu": _no_gpu, "browser": _no_browser}
    for marker, reason in reasons.items():
        marked = [item for item in items if item.get_closest_marker(marker)]
        if marked and (why := reason()):
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=why))


def _no_gpu() -> str | None:
    import torch

    return None if torch.cuda.is_available() else "no usable CUDA device"


def _no_browser() -> str | None:
    from tests.browser import missing

    return missing()
