"""Checkpoints: bit-exact, atomic, verified, and a way back when one is damaged."""

import errno
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from workbench.errors import SettingError
from workbench.files import sha256_of_file
from workbench.runs import checkpoint
from workbench.runs.checkpoint import CheckpointError, list_checkpoints, load, load_latest, save

ROOT = Path(__file__).parents[2]


def save_value(folder, step, value=None, **options):
    value = float(step) if value is None else value
    return save(
        folder,
        step,
        {"weight": torch.full((50,), value)},
        {"moment": torch.full((50,), value)},
        {},
        **options,
    )


def steps_in(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != "LAST")


def flip(path, position=-1):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def same_bits(one, other):
    assert one.dtype == other.dtype and one.shape == other.shape
    one, other = one.contiguous(), other.contiguous()
    return torch.equal(one.view(-1).view(torch.uint8), other.view(-1).view(torch.uint8))


# ---- round trip


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(7, 3),
        torch.randn(7, 3, dtype=torch.float64),
        torch.randn(7, 3).to(torch.bfloat16),
        torch.randn(7, 3).to(torch.float16),
        torch.tensor([-(2**62), 2**62 + 1]),
        torch.arange(5, dtype=torch.uint8),
        torch.tensor([True, False]),
        torch.tensor([float("nan"), float("inf"), -0.0, 1e-45]),
        torch.tensor(3.5),
        torch.empty(0, 4),
        torch.randn(3, 2, dtype=torch.complex64),
    ],
    ids=lambda tensor: f"{tensor.dtype}-{list(tensor.shape)}",
)
def test_tensors_come_back_bit_for_bit(tmp_path, tensor):
    save(tmp_path, 1, {"x": tensor}, {"state": {0: {"x": tensor}}}, {})
    saved = load_latest(tmp_path)
    assert same_bits(saved.tensors["x"], tensor)
    assert same_bits(saved.optimiser["state"][0]["x"], tensor)


def test_training_goes_on_exactly(tmp_path):
    def trained(steps, model, optimiser):
        for step in steps:
            torch.manual_seed(step)
            optimiser.zero_grad()
            model(torch.randn(4, 3)).square().sum().backward()
            optimiser.step()
        return model

    def fresh():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))
        return model, torch.optim.AdamW(model.parameters(), lr=0.1, betas=(0.9, 0.98))

    straight = trained(range(6), *fresh())
    model, optimiser = fresh()
    trained(range(3), model, optimiser)
    save(
        tmp_path,
        3,
        model.state_dict(),
        optimiser.state_dict(),
        {"epoch": 1, "skipped": {"NaN": 2}, "rate": 0.1},
    )
    saved = load_latest(tmp_path)
    assert (saved.step, saved.state) == (3, {"epoch": 1, "skipped": {"NaN": 2}, "rate": 0.1})
    model, optimiser = fresh()
    model.load_state_dict(saved.tensors)
    optimiser.load_state_dict(saved.optimiser)
    trained(range(3, 6), model, optimiser)
    for name, tensor in straight.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_tied_weights_and_views(tmp_path):
    model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5, bias=False))
    model[1].weight = model[0].weight
    table = torch.randn(6, 4)
    tensors = {**model.state_dict(), "table": table, "rows": table[1:3], "turned": table.t(), "same": table}
    save(tmp_path, 1, tensors, {}, {})
    loaded = load_latest(tmp_path).tensors
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    model.load_state_dict({name: tensor + 1 for name, tensor in model.state_dict().items()})
    model.load_state_dict({name: loaded[name] for name in model.state_dict()})
    assert torch.equal(model[0].weight, loaded["0.weight"]) and model[1].weight is model[0].weight


def test_saving_does_not_disturb_the_model(tmp_path):
    weight = nn.Parameter(torch.randn(4))
    before, address = weight.detach().clone(), weight.data_ptr()
    save(tmp_path, 1, {"weight": weight}, {}, {})
    load_latest(tmp_path).tensors["weight"].zero_()
    assert torch.equal(weight, before) and weight.data_ptr() == address and weight.requires_grad
    assert torch.equal(load_latest(tmp_path).tensors["weight"], before)  # nor the file


def test_without_the_optimiser(tmp_path):
    save_value(tmp_path, 1)
    flip(tmp_path / "step-00000001" / "optimiser.pt")
    saved = load(tmp_path, 1, optimiser=False)
    assert saved.optimiser is None and (saved.tensors["weight"] == 1).all()
    assert load_latest(tmp_path, optimiser=False).step == 1
    with pytest.raises(CheckpointError, match=r"optimiser\.pt is damaged"):
        load(tmp_path, 1)


@pytest.mark.parametrize(
    ("contents", "where"),
    [
        ({"state": {0: {"lr": np.float64(0.1)}}}, r"optimiser\['state'\]\[0\]\['lr'\] is a numpy.float64"),
        ({"groups": [{"path": Path("x")}]}, r"\['groups'\]\[0\]\['path'\]"),
        ({"noise": np.zeros(2)}, "numpy.ndarray"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(tmp_path, contents, where):
    with pytest.raises(TypeError, match=where):
        save(tmp_path, 1, {}, contents, {})
    with pytest.raises(TypeError, match="JSON"):
        save(tmp_path, 1, {}, {}, {"lr": torch.tensor(1.0)})
    assert load_latest(tmp_path) is None


def test_plain_values_of_all_kinds(tmp_path):
    contents = {"a": [1, 2.5, "x", None, True], "b": (0.9, 0.98), 3: OrderedDict(c=torch.get_rng_state())}
    save(tmp_path, 1, {}, contents, {})
    loaded = load_latest(tmp_path).optimiser
    assert loaded["a"] == contents["a"] and loaded["b"] == (0.9, 0.98)
    assert torch.equal(loaded[3]["c"], contents[3]["c"])


# ---- which are kept


@pytest.mark.parametrize(("keep", "left"), [(2, [4, 5]), (3, [3, 4, 5]), ("all", [1, 2, 3, 4, 5])])
def test_keep(tmp_path, keep, left):
    for step in range(1, 6):
        save_value(tmp_path, step, keep=keep)
    assert list(list_checkpoints(tmp_path)) == left
    assert steps_in(tmp_path) == [f"step-{step:08d}" for step in left]
    assert (tmp_path / "LAST").read_text() == "step-00000005\n"


@pytest.mark.parametrize("keep", [1, 0, -1])
def test_too_few_to_keep(tmp_path, keep):
    with pytest.raises(SettingError, match=r"training\.keep"):
        save_value(tmp_path, 1, keep=keep)


def test_steps_are_ordered_as_numbers(tmp_path):
    for step in (99_999_999, 100_000_000):
        save_value(tmp_path, step)
    assert list(list_checkpoints(tmp_path)) == [99_999_999, 100_000_000]
    assert load_latest(tmp_path).step == 100_000_000


def test_an_old_one_that_cannot_be_deleted_does_not_stop_the_run(tmp_path, monkeypatch):
    for step in (1, 2):
        save_value(tmp_path, step)
    real = shutil.rmtree

    def rmtree(path, ignore_errors=False):
        if not ignore_errors:
            raise PermissionError(errno.EACCES, "not yours")
        real(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    with pytest.warns(UserWarning, match="step-00000001 could not be deleted: not yours"):
        save_value(tmp_path, 3)
    assert load_latest(tmp_path).step == 3


def test_going_back_and_on_from_there(tmp_path):
    for step in (1, 2, 3):
        save_value(tmp_path, step, keep="all")
    assert (load(tmp_path, 1).tensors["weight"] == 1).all()
    save_value(tmp_path, 2, value=20.0)
    saved = load_latest(tmp_path)
    assert saved.step == 2 and (saved.tensors["weight"] == 20).all()
    flip(tmp_path / "step-00000002" / "model.safetensors")
    with pytest.warns(UserWarning, match="step 1 "):  # not step 3, which the run turned back from
        assert load_latest(tmp_path).step == 1


def test_nothing_saved_yet(tmp_path):
    assert load_latest(tmp_path / "checkpoints") is None
    assert load_latest(tmp_path) is None
    assert list_checkpoints(tmp_path / "checkpoints") == {}
    with pytest.raises(CheckpointError, match="no checkpoint of step 7"):
        load(tmp_path, 7)


# ---- crashes


def test_killed_at_every_file_operation(tmp_path):
    command = [sys.executable, "-m", "tests.runs.killed_saves", str(tmp_path)]
    kills = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    assert int(kills) > 50


def test_leftovers_are_ignored_and_removed_by_the_next_save(tmp_path):
    save_value(tmp_path, 1)
    shutil.copytree(tmp_path / "step-00000001", tmp_path / "step-00000002.tmp")
    (tmp_path / ".LAST.123.partial").write_text("step-")
    assert load_latest(tmp_path).step == 1
    save_value(tmp_path, 3)
    assert steps_in(tmp_path) == ["step-00000001", "step-00000003"]


def test_interrupt_leaves_no_half_checkpoint(tmp_path, monkeypatch):
    save_value(tmp_path, 1)

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", interrupt)
        with pytest.raises(KeyboardInterrupt):
            save_value(tmp_path, 2)
    assert steps_in(tmp_path) == ["step-00000001"]
    assert load_latest(tmp_path).step == 1


# ---- damage


@pytest.mark.parametrize("file", ["model.safetensors", "optimiser.pt", "state.json", "manifest.json"])
@pytest.mark.parametrize("position", [0, 20, -2])
def test_flipped_bit_falls_back(tmp_path, file, position):
    tensors = {"weight": torch.ones(3)}
    save(tmp_path, 1, tensors, tensors, {"a long enough name": 1})
    save(tmp_path, 2, tensors, tensors, {"a long enough name": 1})
    flip(tmp_path / "step-00000002" / file, position)
    with pytest.warns(UserWarning, match=rf"step-00000002/{file}.*step 1 ") as caught:
        assert load_latest(tmp_path).step == 1
    assert len(caught) == 1
    with pytest.raises(CheckpointError, match=file):
        load(tmp_path, 2)


@pytest.mark.parametrize("file", ["model.safetensors", "optimiser.pt", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["truncated", "lost"])
def test_truncated_and_lost_files_fall_back(tmp_path, file, damage):
    for step in (1, 2):
        save_value(tmp_path, step)
    path = tmp_path / "step-00000002" / file
    if damage == "lost":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size // 2)
    with pytest.warns(UserWarning, match=file):
        assert load_latest(tmp_path).step == 1


def test_checkpoint_under_another_name_is_not_taken(tmp_path):
    for step in (1, 2):
        save_value(tmp_path, step)
    shutil.rmtree(tmp_path / "step-00000002")
    shutil.copytree(tmp_path / "step-00000001", tmp_path / "step-00000002")
    with pytest.warns(UserWarning, match="another step"):
        assert load_latest(tmp_path).step == 1


@pytest.mark.parametrize("pointer", ["step-00000009", "st\x00p", "", "../../elsewhere"])
def test_damaged_pointer(tmp_path, pointer):
    for step in (1, 2):
        save_value(tmp_path, step)
    (tmp_path / "LAST").write_text(pointer)
    with pytest.warns(UserWarning, match="LAST names"):
        assert load_latest(tmp_path).step == 2


def test_all_damaged_is_an_error_and_no_fresh_start(tmp_path):
    for step in (1, 2):
        flip(save_value(tmp_path, step) / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"step-00000002/model.*step-00000001/model.*start again"):
        load_latest(tmp_path)
    shutil.rmtree(tmp_path / "step-00000001")
    shutil.rmtree(tmp_path / "step-00000002")
    with pytest.raises(CheckpointError, match="LAST names"):
        load_latest(tmp_path)


def test_what_arrives_on_the_disk_is_compared_with_what_was_meant(tmp_path, monkeypatch):
    save_value(tmp_path, 1)
    checkpoint_write = checkpoint._write

    def careless(path, fill):
        entry = checkpoint_write(path, fill)
        if path.name == "model.safetensors":
            flip(path)
        return entry

    monkeypatch.setattr(checkpoint, "_write", careless)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        save_value(tmp_path, 2)
    assert steps_in(tmp_path) == ["step-00000001"] and (tmp_path / "LAST").read_text() == "step-00000001\n"


class Malicious:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_malicious_pickle_is_not_executed(tmp_path, writer):
    folder, trap = tmp_path / "checkpoints", tmp_path / "executed"
    for step in (1, 2):
        save_value(folder, step)
    path = folder / "step-00000002" / "optimiser.pt"
    if writer == "torch":
        torch.save({"state": Malicious(trap)}, path)
    else:
        path.write_bytes(pickle.dumps({"state": Malicious(trap)}, protocol=2))
    manifest = json.loads((path.parent / "manifest.json").read_text())
    manifest["files"]["optimiser.pt"] = {"bytes": path.stat().st_size, "sha256": sha256_of_file(path)}
    (path.parent / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="more than tensors and plain values"):
        load(folder, 2)
    with pytest.warns(UserWarning, match="more than tensors and plain values"):
        assert load_latest(folder).step == 1
    assert not trap.exists()


# ---- a disk that cannot take it


class FullDisk:
    """A file that takes so many bytes and then is full."""

    def __init__(self, stream, room):
        self.stream, self.room = stream, room

    def write(self, data):
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.stream.write(data)

    def __getattr__(self, name):
        return getattr(self.stream, name)


@pytest.mark.parametrize("room", [0, 100, 500, 1500])
def test_full_disk_keeps_the_one_before(tmp_path, monkeypatch, room):
    save_value(tmp_path, 1)
    real = checkpoint._Digested.__init__
    with monkeypatch.context() as patch:
        patch.setattr(
            checkpoint._Digested, "__init__", lambda self, stream: real(self, FullDisk(stream, room))
        )
        with pytest.raises(CheckpointError, match=r"step 2 could not be written.*") as caught:
            save_value(tmp_path, 2)
    assert caught.value.reason == str(caught.value)
    assert steps_in(tmp_path) == ["step-00000001"]
    assert load_latest(tmp_path).step == 1
    save_value(tmp_path, 2)
    assert load_latest(tmp_path).step == 2


def test_a_disk_that_really_fills_up(small_disk):
    def save_zeros(step, kilobytes):
        return save(
            small_disk, step, {"x": torch.zeros(kilobytes * 256)}, {"x": torch.zeros(kilobytes * 256)}, {}
        )

    save_zeros(1, 100)
    for kilobytes in (400, 900):  # the optimiser does not fit, the weights do not fit
        with pytest.raises(CheckpointError, match=r"step 2 could not be written.*No space left on device"):
            save_zeros(2, kilobytes)
        assert steps_in(small_disk) == ["step-00000001"]
    assert load_latest(small_disk).step == 1
    save_zeros(2, 100)
    assert load_latest(small_disk).step == 2


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"step 1 could not be written to .*file"):
        save_value(tmp_path / "file", 1)


def test_replacing_fails_halfway(tmp_path, monkeypatch):
    save_value(tmp_path, 1)
    real, calls = os.rename, []

    def rename(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        with pytest.raises(CheckpointError, match="Input/output error"):
            save_value(tmp_path, 1, value=5.0)
    assert (load_latest(tmp_path).tensors["weight"] == 1).all()
    save_value(tmp_path, 1, value=6.0)
    assert (load_latest(tmp_path).tensors["weight"] == 6).all()
    assert steps_in(tmp_path) == ["step-00000001"]
