"""Finds the file with a model's weights, and says why one cannot be used."""

import contextlib
import re
from pathlib import Path

from workbench.errors import SettingError, reason
from workbench.models.dual_encoder import CONFIG_NAME, WEIGHTS_NAME
from workbench.models.package_weights import ASSETS

CHECKPOINTS = ("*.pt", "*.ckpt")  # as trainings write them; open_clip does not look for these
_LFS_POINTER = b"version https://git-lfs"
_PART = re.compile(r".+-\d{5}-of-(\d{5})")


def weights_file(pretrained: str | None, config_file: Path, setting: str) -> Path | None:
    """The named weights, or those beside the configuration. In a folder it is the file that open_clip would
    load. Raises SettingError, naming `setting`, for a missing file and for a folder of other checkpoints."""
    from open_clip.factory import _find_checkpoint_in_dir

    folder = config_file.parent
    if pretrained is None and config_file.name == CONFIG_NAME:
        file = _find_checkpoint_in_dir(folder)
        unread = [path for ending in CHECKPOINTS for path in folder.glob(ending)]
        unread.sort(key=lambda path: (len(path.name), path.name))  # epoch_10 after epoch_9
        if file is None and unread:
            problem = f"none of its files has a name that open_clip reads, but it contains {unread[-1].name}"
            remedy = f"Set {setting}.pretrained to {unread[-1]}."
            raise SettingError(f"{setting}.model", str(folder), problem, remedy)
        return Path(file) if file else None
    if pretrained is None:
        return folder / WEIGHTS_NAME if (folder / WEIGHTS_NAME).is_file() else None
    for candidate in (ASSETS / f"{pretrained}.safetensors", Path(pretrained).expanduser()):
        if candidate.is_file():
            return candidate
    shipped = ", ".join(sorted(path.stem for path in ASSETS.glob("*.safetensors")))
    problem = "this is neither shipped weights nor a file"
    raise SettingError(f"{setting}.pretrained", pretrained, problem, f"a path, or one of: {shipped}")


def why_unusable(path: Path, error: Exception) -> tuple[str, str]:
    """The problem with a file of weights that raised `error`, and its remedy."""
    with contextlib.suppress(OSError), path.open("rb") as stream:
        if stream.read(len(_LFS_POINTER)) == _LFS_POINTER:
            return "this is a pointer of Git LFS, not the weights", "Run git lfs pull in its folder."
    if part := _PART.fullmatch(path.stem):
        problem = f"this is one of {int(part[1])} parts, and a model is loaded from one file"
        return problem, f"Join the parts in a file {WEIGHTS_NAME}."
    problem = f"these weights cannot be read, or do not fit the model ({reason(error)})"
    return problem, "A state dict, safetensors, or a checkpoint of open_clip's training, of this model"
