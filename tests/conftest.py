"""What all tests share: folders of their own, no network, reasons for what cannot run here, and a tiny
experiment."""

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

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


TINY = Path(__file__).with_name("tiny_vit.json")


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


# A real but tiny experiment: drawn scenes, a small vision transformer, a saved teacher of another width.


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory):
    import torch

    from workbench.models.loading import load_dual_encoder

    torch.manual_seed(7)
    return load_dual_encoder("demo_student").save(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="session")
def settings(teacher_folder):
    """Settings of a distillation of nine steps that takes a second or two;
    `workbench.recipe.Recipe.from_settings` takes them."""
    return {
        "name": "tiny",
        "data": {"scenes": 27, "image_size": 32, "max_failed": 0.0},
        "student": {"model": str(TINY)},
        "teacher": {"model": str(teacher_folder)},
        "objectives": {"task": 1.0, "crd": 1.0, "fd": 4.0, "icl": 1.0},
        "training": {
            "steps": 9,
            "batch": 8,
            "warmup_steps": 2,
            "validate_every": 100,
            "validation_pairs": 100,
            "checkpoint_every": 2,
            "threads": 1,
            "device": "cpu",
            "augmentation": {"crop_scale": [0.6, 1.0]},
        },
    }


@pytest.fixture
def recipe(settings):
    """Makes the tiny experiment's recipe, with changes."""
    from workbench.recipe import Recipe

    return lambda **changes: Recipe.from_settings(
        settings, {name.replace("__", "."): value for name, value in changes.items()}
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
