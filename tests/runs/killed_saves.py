"""Kills a save at each of its file operations and looks whether there is a whole checkpoint to go on from.

Run as `python -m tests.runs.killed_saves FOLDER`; prints how often it killed.
"""

import os
import shutil
import sys
import warnings
from pathlib import Path

import torch

from tests.kill_points import Fuse, kill_everywhere
from workbench.runs import checkpoint


def save(folder: Path, step: int, value: float) -> None:
    tensors = {"weight": torch.full((200,), value)}
    optimiser = {
        "state": {0: {"exp_avg": torch.full((200,), value)}},
        "param_groups": [{"lr": value, "params": [0]}],
    }
    checkpoint.save(folder, step, tensors, optimiser, {"value": value})


def value_of(saved: checkpoint.Checkpoint) -> float:
    """The one value that the whole checkpoint must hold."""
    value = saved.state["value"]
    assert (saved.tensors["weight"] == value).all() and (
        saved.optimiser["state"][0]["exp_avg"] == value
    ).all()
    assert saved.optimiser["param_groups"] == [{"lr": value, "params": [0]}]
    return value


def die_within_writes(fuse: Fuse) -> None:
    write = checkpoint._Digested.write

    def write_half_and_die(stream: checkpoint._Digested, data: bytes) -> int:
        if len(data) > 100:  # torch.save makes dozens of tiny writes as well
            fuse.burn(lambda: (stream._stream.write(data[: len(data) // 2]), stream._stream.flush()))
        return write(stream, data)

    checkpoint._Digested.write = write_half_and_die


def survives(folder: Path, before: dict[int, float], step: int, value: float) -> int:
    """Kill the save of `step` on top of the checkpoints `before`; returns how often."""

    def prepare() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        for earlier, its in before.items():
            save(folder, earlier, its)

    def check(attempt: int) -> None:
        saved = checkpoint.load_latest(folder)
        result = None if saved is None else (saved.step, value_of(saved))
        old = max(before.items(), default=None)
        assert result in (old, (step, value)), f"{result} after the kill at operation {attempt}"
        save(folder, 99, 9.0)
        assert value_of(checkpoint.load_latest(folder)) == 9.0
        names = {path.name for path in folder.iterdir()}
        assert names <= {"LAST", "step-00000099", *(f"step-{n:08d}" for n in (*before, step))}, names
        assert len(names) <= 3, names

    return kill_everywhere(str(folder), prepare, lambda: save(folder, step, value), check, die_within_writes)


if __name__ == "__main__":
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    os.fsync = lambda handle: None  # a killed process loses nothing that was written; syncing is slow
    target = Path(sys.argv[1]) / "checkpoints"
    print(
        survives(target, {}, 1, 1.0)
        + survives(target, {1: 1.0, 2: 2.0}, 3, 3.0)  # with an old one to delete
        + survives(target, {1: 1.0}, 1, 5.0)  # in the place of the only one
    )
