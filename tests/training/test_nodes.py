"""The printed command trains on several machines; here they are two of torchrun's agents on this one."""

import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import workbench
from workbench.training.launch import node_command


@pytest.mark.slow
def test_two_nodes_train_as_one_machine(recipe, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    folder = tmp_path / "shared run"
    command = node_command(recipe(training__steps=2, training__warmup_steps=1), 2, run_dir=folder)
    words = shlex.split(command.replace("HOST:29500", f"localhost:{port}"))
    assert words[0] == "python" and (folder / "recipe.yaml").is_file()
    agents = [
        subprocess.Popen(
            [sys.executable, *words[1:]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(2)
    ]
    said = [agent.communicate(timeout=300)[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], said
    run = workbench.Run(folder)
    assert run.finished and run.metrics["step"].tolist() == [1, 2]


def test_what_would_divide_the_student_is_refused(recipe, tmp_path, monkeypatch) -> None:
    from workbench.errors import SettingError
    from workbench.training import session

    class Divided:
        def __init__(self, **_: object) -> None:
            from accelerate.utils import DistributedType

            self.distributed_type = DistributedType.FSDP

    monkeypatch.setattr("accelerate.Accelerator", Divided)
    with pytest.raises(SettingError, match=r"accelerate = .*FSDP.*every process trains the whole student"):
        session.accelerate_on(recipe())
