"""Every shipped demo recipe: two processes train it, stop, resume and evaluate."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.recipe import Recipe

ROOT = Path(__file__).parents[2]
FETCHED = {"teacher_demo"}  # starts from weights that `workbench assets fetch` brings
STUDENTS = [
    name
    for name in Recipe.names()
    if name.endswith("_demo") and name not in FETCHED and Recipe.load(name).trains == "student"
]


@pytest.mark.slow
def test_two_processes_train_every_demo_recipe(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "tests.training.recipes_of_rank", str(tmp_path), *STUDENTS]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    finished = [line.partition(":")[0] for line in done.stdout.splitlines() if line.endswith("evaluated")]
    assert finished == STUDENTS
