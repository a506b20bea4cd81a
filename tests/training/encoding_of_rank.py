"""Started by torchrun: every process embeds its part of some splits, and the first saves what all found.

torchrun --nproc_per_node 3 -m tests.training.encoding_of_rank FOLDER
"""

import atexit
import os
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

import workbench
from workbench.data.decode import BadSample
from workbench.data.pairs import Pairs
from workbench.models.dual_encoder import DualEncoder
from workbench.models.loading import load_dual_encoder
from workbench.recipe import Recipe
from workbench.training.session import Session
from workbench.training.shared_encoding import (
    encode_images_together,
    encode_texts_together,
    encode_together,
)

TEXTS = ["a picture of a cat", "a picture of a dog"]  # fewer than processes


def student() -> DualEncoder:
    """The same in every process."""
    torch.manual_seed(0)
    return load_dual_encoder("demo_student").eval()


def splits() -> dict[str, Pairs]:
    """Pairs of which some cannot be read, a whole process's share of them, and fewer than processes."""
    scenes = workbench.load_pairs("scenes", "val").select(np.arange(20))

    def damaged(row: int) -> torch.Tensor:
        if row < 8 or row == 15:
            raise BadSample("truncated or damaged image")
        return scenes.image(row)

    return {"damaged": scenes.read_by(damaged), "whole": scenes, "few": scenes.select([3, 1])}


def write_group() -> None:
    """Whether this process ends as a member of the group, which can abort it."""
    (Path(sys.argv[1]) / f"member-{os.environ['RANK']}").write_text(str(dist.is_initialized()))


def main() -> None:
    atexit.register(write_group)  # the first registered runs last
    recipe = Recipe.load(
        "task_only_demo", {"training.device": "cpu", "evaluation.batch": 8, "training.threads": 1}
    )
    with Session(recipe, sys.argv[1]) as session:
        for name, pairs in splits().items():
            embedded = encode_together(session, student(), pairs)
            assert (embedded is None) == (session.rank > 0)
            if embedded is not None:
                result = {
                    "image": embedded.image,
                    "text": embedded.text,
                    "rows": torch.from_numpy(embedded.rows),
                    "image_of_text": torch.from_numpy(embedded.image_of_text),
                }
                torch.save(result, Path(sys.argv[1]) / f"{name}.pt")
            images = encode_images_together(session, student(), pairs)
            texts = encode_texts_together(session, student(), TEXTS)
            if images is not None:
                result = {"image": images[0], "rows": torch.from_numpy(images[1]), "text": texts}
                torch.save(result, Path(sys.argv[1]) / f"{name}-alone.pt")


if __name__ == "__main__":
    main()
