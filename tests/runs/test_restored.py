from pathlib import Path

import torch

import workbench
from workbench.models.loading import load_dual_encoder


def test_a_student_of_low_rank_updates_is_restored_as_a_plain_model(recipe, tmp_path: Path) -> None:
    run = workbench.train(recipe(student__trainable_image="lora", training__steps=3), tmp_path / "run")
    model, start = run.model(), load_dual_encoder(run.recipe.student.model)
    assert model.clip.state_dict().keys() == start.clip.state_dict().keys()
    height, width = model.transform.size
    picture = torch.zeros(1, 3, height, width, dtype=torch.uint8)
    assert model.embed_images(picture).isfinite().all()
