"""Exports a student for use without the workbench: as a folder for open_clip, or to a model hub."""

import json
from pathlib import Path

from workbench.errors import SettingError
from workbench.export.model_card import TrainingFacts, model_card
from workbench.export.programs import IMAGE_PROGRAM, TEXT_PROGRAM, needs_workbench, write_programs
from workbench.files import atomic_folder
from workbench.models import relations, rotary
from workbench.models.dual_encoder import CONFIG_NAME, WEIGHTS_NAME, DualEncoder
from workbench.models.loading import TOWER_CONFIG_NAME

CARD = "README.md"
CARD_OF_WORKBENCH = "<!-- written by `workbench export` -->"
# The files of an export. Other files in its folder are not uploaded.
FILES = (
    *(CARD, CONFIG_NAME, WEIGHTS_NAME, TOWER_CONFIG_NAME),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *(IMAGE_PROGRAM, TEXT_PROGRAM),
    *("vocab.txt", "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model"),
)


def check_folder(folder: str | Path) -> Path:
    """The absolute path of an export. Raises SettingError if it holds another model or README.md."""
    folder = Path(folder).expanduser().absolute()
    if folder.exists() and not folder.is_dir():
        raise SettingError("folder", str(folder), "it is a file", "Give a new folder.")
    card = folder / CARD
    taken = [name for name in (CARD, CONFIG_NAME, WEIGHTS_NAME) if (folder / name).exists()]
    ours = card.is_file() and CARD_OF_WORKBENCH in card.read_text(encoding="utf-8", errors="replace")
    if taken and not ours:
        problem = f"its {' and '.join(taken)} are not from an export and would be overwritten"
        raise SettingError("folder", str(folder), problem, "Give a new folder.")
    return folder


def export(model: DualEncoder, facts: TrainingFacts, folder: str | Path) -> Path:
    """Write a student without loss heads, and its model card, and return the folder.

    `open_clip.create_model_and_transforms("local-dir:FOLDER")` and `open_clip.get_tokenizer` load it. A model
    that open_clip cannot build alone is also written as two torch.export programs. The folder is written
    completely or not at all. Raises SettingError like `check_folder`, and OSError, naming the folder, if the
    disk is full or read-only.
    """
    folder = check_folder(folder)
    card = model_card(model, facts, f"local-dir:{folder.name}")
    with atomic_folder(folder) as partial:
        model.save(partial, home=folder)
        if needs_workbench(model):
            write_programs(model, partial)
        (partial / CARD).write_text(f"{card}\n{CARD_OF_WORKBENCH}\n", encoding="utf-8")
    return folder


def push(folder: str | Path, repository: str, *, private: bool = False) -> str:
    """Upload an exported folder to a model hub as `repository` (ORG/NAME), in one commit. Returns its page.

    The hub and login are those of huggingface_hub (HF_ENDPOINT, HF_TOKEN, `hf auth login`). open_clip then
    loads `hf-hub:ORG/NAME`. Other files in the folder are not uploaded. Raises SettingError if the upload
    fails.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    folder = Path(folder).expanduser().absolute()
    changed = {
        CONFIG_NAME: _config_of(repository, (folder / CONFIG_NAME).read_text(encoding="utf-8")),
        CARD: (folder / CARD)
        .read_text(encoding="utf-8")
        .replace(f"local-dir:{folder.name}", f"hf-hub:{repository}"),
    }
    files = [folder / name for name in FILES if (folder / name).is_file()]
    operations = [
        CommitOperationAdd(path.name, changed[path.name].encode() if path.name in changed else str(path))
        for path in files
    ]
    api = HfApi()
    try:
        page = api.create_repo(repository, private=private, exist_ok=True)
        api.create_commit(repository, operations, commit_message="Add the student and its model card")
    except Exception as error:  # names, logins, networks; the export itself is complete
        remedy = (
            "Give an ORG/NAME that you may write to, after `hf auth login`. The exported folder is complete."
        )
        problem = f"the upload failed ({' '.join(str(error).split())})"
        raise SettingError("push", repository, problem, remedy) from error
    return str(page)


def _config_of(repository: str, text: str) -> str:
    """open_clip's configuration, changed to load the files of a transformers tower from the repository."""
    config = json.loads(text)
    if relations.CONFIG_KEY in config["model_cfg"] or rotary.CONFIG_KEY in config["model_cfg"]["vision_cfg"]:
        problem = "nothing could load a model with rotary positions or relations from the hub"
        raise SettingError("push", repository, problem, "Share the exported folder.")
    tower = config["model_cfg"]["text_cfg"]
    for key in ("hf_model_name", "hf_tokenizer_name"):
        if key in tower:
            tower[key] = repository
    return json.dumps(config, indent=2) + "\n"
