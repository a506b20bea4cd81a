"""Towers as programs: plain torch in a fresh process gives the same embeddings."""

import subprocess
import sys
import sysconfig

import numpy as np
import pytest
import torch

import workbench
from workbench.export.programs import needs_workbench, write_programs
from workbench.models.loading import load_dual_encoder

ALONE = """
import sys
for name in ("workbench", "open_clip", "timm", "transformers"):
    sys.modules[name] = None  # an import of it would fail
import numpy, torch
folder, given, out = sys.argv[1:]
given = numpy.load(given)
image = torch.export.load(f"{folder}/image_tower.pt2").module()(torch.from_numpy(given["pictures"]))
text = torch.export.load(f"{folder}/text_tower.pt2").module()(torch.from_numpy(given["tokens"]))
numpy.savez(out, image=image.detach(), text=text.detach())
"""


@pytest.mark.slow
def test_plain_torch_gives_the_same_embeddings(tmp_path):
    torch.manual_seed(0)
    model = load_dual_encoder("demo_student").eval()
    assert needs_workbench(model)
    write_programs(model, tmp_path)
    pictures = torch.randint(0, 256, (5, 3, *model.transform.size), dtype=torch.uint8)
    tokens = model.tokenizer(["a red apple", "one", "two dogs", "a b c d", "x"])
    np.savez(tmp_path / "given.npz", pictures=pictures, tokens=tokens)
    command = [sys.executable, "-S", "-c", ALONE, tmp_path, tmp_path / "given.npz", tmp_path / "out.npz"]
    environment = {"PYTHONPATH": sysconfig.get_paths()["purelib"], "PATH": ""}
    subprocess.run(command, check=True, cwd=tmp_path, env=environment)
    made = np.load(tmp_path / "out.npz")
    with torch.no_grad():
        for side, ours in (("image", model.encode_image(pictures)), ("text", model.encode_text(tokens))):
            np.testing.assert_allclose(made[side], ours, atol=1e-4)


def test_an_export_of_the_demo_student_has_them_and_says_so(tmp_path):
    settings = {
        **{"data.scenes": 40, "training.steps": 2, "training.batch": 16, "training.warmup_steps": 1},
        "data.validation_split": "val_concepts",
    }
    run = workbench.train(workbench.Recipe.load("task_only_demo", settings), tmp_path / "run")
    folder = run.export(tmp_path / "student")
    card = (folder / "README.md").read_text()
    assert {"image_tower.pt2", "text_tower.pt2"} <= {path.name for path in folder.iterdir()}
    assert "import workbench.models.mobilenet_stem" in card and "uint8 pictures [B, 3, 64, 64]" in card


def test_a_student_that_open_clip_builds_has_none():
    assert not needs_workbench(load_dual_encoder("demo_student_plain"))
