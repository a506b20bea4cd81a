"""Checkpoints that survive a crash: written to a temporary folder, verified, then renamed.

    checkpoints/
        LAST                     name of the checkpoint to resume from
        step-00000200/
            model.safetensors    weights and buffers
            optimiser.pt         tensors, numbers, strings, lists and dicts, read with weights_only=True
            state.json           epoch, counters, ...
            manifest.json        the step; bytes and sha256 of the three files

A save writes `step-N.tmp`, syncs it to disk, verifies it against the digests computed while writing, renames
it, updates LAST, and only then deletes checkpoints beyond `keep`. A kill at any time leaves a complete
checkpoint. One process saves while the others wait.
"""

import hashlib
import json
import os
import pickle
import re
import shutil
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import safetensors.torch
import torch
from torch import Tensor

from workbench.errors import SettingError
from workbench.files import atomic_write, disk_errors_name, read_json, sha256_of_file, sync_folder, write_json

MODEL, OPTIMISER, STATE = "model.safetensors", "optimiser.pt", "state.json"
MANIFEST, POINTER = "manifest.json", "LAST"
_NAME = re.compile(r"step-(\d{8,})(\.replaced)?")


class CheckpointError(Exception):
    """A checkpoint could not be written or read, for the given `reason`."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True)
class Checkpoint:
    """A saved training step: weights and buffers by name (on the CPU), optimiser state and JSON state."""

    path: Path
    step: int
    tensors: dict[str, Tensor]
    optimiser: Any
    state: dict[str, Any]


def save(
    folder: str | Path,
    step: int,
    tensors: Mapping[str, Tensor],
    optimiser: Any,
    state: Mapping[str, Any],
    keep: int | Literal["all"] = 2,
) -> Path:
    """Write the checkpoint of `step` and return its folder. The newest `keep` checkpoints are kept.

    `tensors` may share memory (tied weights); each is written in full. `optimiser` nests tensors and plain
    values, and `state` is JSON. A checkpoint of the same step is replaced. Raises CheckpointError if it
    cannot be written (disk full, folder not writable), with earlier checkpoints intact, TypeError for
    contents that could not be loaded again, and SettingError for a `keep` below 2, which would leave no
    fallback.
    """
    if keep != "all" and keep < 2:
        raise SettingError(
            "training.keep", keep, "one damaged checkpoint would lose the run", "Use 2 or more, or all."
        )
    _require_plain(optimiser, "optimiser")
    state_text = json.dumps(state, indent=2)
    folder = Path(folder)
    final = folder / f"step-{step:08d}"
    partial = final.with_suffix(".tmp")
    try:
        with disk_errors_name(folder):
            folder.mkdir(parents=True, exist_ok=True)
            sync_folder(folder.parent)
            _remove_leftovers(folder)
            partial.mkdir()
            weights = safetensors.torch.save(_unshared(tensors))
            files = {
                MODEL: _write(partial / MODEL, lambda stream: stream.write(weights)),
                OPTIMISER: _write(partial / OPTIMISER, lambda stream: torch.save(optimiser, stream)),
                STATE: _write(partial / STATE, lambda stream: stream.write(state_text.encode())),
            }
            write_json(partial / MANIFEST, {"step": step, "files": files})
            _verify(partial, step, files)
            _put_in_place(partial, final)
            with atomic_write(folder / POINTER, "w") as stream:
                stream.write(f"{final.name}\n")
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if not isinstance(error, Exception):
            raise
        reason = f"the checkpoint of step {step} could not be written to {folder}: {_cause(error)}"
        raise CheckpointError(reason) from error
    _remove_beyond(folder, step, keep)
    return final


def load_latest(folder: str | Path, *, optimiser: bool = True) -> Checkpoint | None:
    """Load and verify the checkpoint to resume from; None if none was ever saved.

    If the checkpoint named in LAST is damaged, the previous one is loaded, with a warning. Raises
    CheckpointError if all checkpoints are damaged, because the user has to decide whether to start again.
    `optimiser=False` neither verifies nor loads the optimiser's file.
    """
    folder = Path(folder)
    steps = list_checkpoints(folder)
    problems = []
    try:
        named = (folder / POINTER).read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        if not steps:
            return None
        last = max(steps)  # the first save was killed between its rename and its pointer
    else:
        match = _NAME.fullmatch(named)
        last = int(match[1]) if match else -1
        if last not in steps:
            problems.append(f"{POINTER} names {named!r}, which does not exist")
            last = max(steps, default=-1)
    # Checkpoints after LAST belong to an abandoned session, so they are tried only after those before it.
    for step in sorted(steps, key=lambda step: (step > last, -step)):
        try:
            checkpoint = load(folder, step, optimiser=optimiser)
        except CheckpointError as error:
            problems.append(error.reason)
            continue
        if problems:
            warnings.warn(f"{'; '.join(problems)}: step {step} in {folder} is used instead", stacklevel=2)
        return checkpoint
    raise CheckpointError(
        f"no checkpoint in {folder} can be used: {'; '.join(problems)}. Delete the folder to start again"
    )


def load(folder: str | Path, step: int, *, optimiser: bool = True) -> Checkpoint:
    """Load and verify the checkpoint of `step`; CheckpointError if it is missing, damaged or unsafe."""
    steps = list_checkpoints(folder)
    if step not in steps:
        raise CheckpointError(f"no checkpoint of step {step} in {folder}; there are {list(steps) or 'none'}")
    path = steps[step]
    _verify(path, step, (MODEL, OPTIMISER, STATE) if optimiser else (MODEL, STATE))
    try:
        return Checkpoint(
            path,
            step,
            safetensors.torch.load_file(path / MODEL),
            torch.load(path / OPTIMISER, map_location="cpu", weights_only=True) if optimiser else None,
            read_json(path / STATE),
        )
    except pickle.UnpicklingError as error:
        # Digests detect accidents, not attacks: the manifest may have been rewritten too.
        reason = f"{path.name}/{OPTIMISER} holds more than tensors and plain values and is not read"
        raise CheckpointError(reason) from error
    except Exception as error:
        raise CheckpointError(f"{path.name} cannot be read: {_cause(error)}") from error


def list_checkpoints(folder: str | Path) -> dict[int, Path]:
    """The folders of the saved checkpoints by step, in ascending order, without verifying them."""
    try:
        names = sorted(os.listdir(folder), reverse=True)
    except FileNotFoundError:
        return {}
    # In reverse, so that `step-N` overrides `step-N.replaced`, which a kill between two renames leaves.
    folders = {int(match[1]): Path(folder) / match[0] for match in map(_NAME.fullmatch, names) if match}
    return dict(sorted(folders.items()))


class _Digested:
    """A stream that computes the digest of the data written to it, independent of what the disk stores."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()
        self._bytes = 0

    def write(self, data: bytes | memoryview) -> int:
        self._digest.update(data)
        self._bytes += len(data)
        return self._stream.write(data)

    def flush(self) -> None:
        self._stream.flush()

    def entry(self) -> dict[str, int | str]:
        return {"bytes": self._bytes, "sha256": self._digest.hexdigest()}


def _write(path: Path, fill: Callable[[Any], object]) -> dict[str, int | str]:
    with open(path, "wb") as stream:
        digested = _Digested(stream)
        fill(digested)
        stream.flush()
        os.fsync(stream.fileno())
    return digested.entry()


def _verify(path: Path, step: int, names: Iterable[str]) -> None:
    """Raise CheckpointError unless the named files in `path` match the manifest."""
    try:
        manifest = read_json(path / MANIFEST)
        entries = {name: manifest["files"][name] for name in names}
        sizes = {name: entry["bytes"] for name, entry in entries.items()}
        digests = {name: entry["sha256"] for name, entry in entries.items()}
        same_step = manifest["step"] == step
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path.name}/{MANIFEST} is damaged ({_cause(error)})") from error
    if not same_step:
        raise CheckpointError(f"{path.name}/{MANIFEST} is of another step")
    for name in names:
        try:
            size = (path / name).stat().st_size
            if size != sizes[name]:
                raise CheckpointError(
                    f"{path.name}/{name} is damaged ({size} bytes instead of {sizes[name]})"
                )
            if sha256_of_file(path / name) != digests[name]:
                raise CheckpointError(f"{path.name}/{name} is damaged (its sha256 differs)")
        except OSError as error:
            raise CheckpointError(f"{path.name}/{name} cannot be read ({_cause(error)})") from error


def _put_in_place(partial: Path, final: Path) -> None:
    replaced = final.with_suffix(".replaced")
    if final.exists():
        os.rename(final, replaced)
    os.rename(partial, final)
    sync_folder(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _remove_leftovers(folder: Path) -> None:
    """Remove the remains of killed saves and deletions."""
    for path in folder.glob("step-*.tmp"):
        shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob("step-*.replaced"):
        if path.with_suffix("").exists():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.rename(path.with_suffix(""))
    for path in folder.glob(f".{POINTER}.*.partial"):
        path.unlink(missing_ok=True)


def _remove_beyond(folder: Path, step: int, keep: int | Literal["all"]) -> None:
    if keep == "all":
        return
    for path in [path for at, path in list_checkpoints(folder).items() if at <= step][:-keep]:
        try:
            # Renamed first, so that a kill during the deletion leaves nothing that looks like a checkpoint.
            shutil.rmtree(path.rename(path.with_suffix(".tmp")))
        except OSError as error:
            warnings.warn(f"the old checkpoint {path} could not be deleted: {_cause(error)}", stacklevel=3)


def _unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, contiguous and without shared memory, which safetensors refuses."""
    unshared: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        if tensor.untyped_storage().data_ptr() in storages:
            tensor = tensor.clone()
        storages.add(tensor.untyped_storage().data_ptr())
        unshared[name] = tensor
    return unshared


def _require_plain(value: Any, where: str) -> None:
    """Raise TypeError for values that torch.load(weights_only=True) would refuse."""
    if type(value) in (dict, OrderedDict):
        for key, item in value.items():
            _require_plain(key, f"a key of {where}")
            _require_plain(item, f"{where}[{key!r}]")
    elif type(value) in (list, tuple):
        for position, item in enumerate(value):
            _require_plain(item, f"{where}[{position}]")
    elif type(value) not in (Tensor, torch.nn.Parameter, str, int, float, bool, type(None)):
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise TypeError(f"{where} is a {kind}: only tensors and plain values can be saved")


def _cause(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {str(error).splitlines()[0]}" if str(error) else type(error).__name__
