"""The notebooks on a folder of 60 captioned pictures, every parameter at a second value, or a refusal.

Each notebook runs once, so that every parameter is tried at the price of one run.
"""

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from workbench.batch import notebook_inputs
from workbench.batch.notebook_runner import NOTEBOOKS, parameters_of, run_notebook
from workbench.errors import SettingError
from workbench.recipe import Recipe

SIZES = {"train": 40, "val": 10, "test": 10}
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (40, 60, 220), "white": (240, 240, 240)}
SHAPES = ("square", "stripe", "corner")


def picture(number: int) -> tuple[Image.Image, list[str]]:
    """A shape on noise, and two captions of it."""
    colour, shape = list(COLOURS)[number % 4], SHAPES[number // 4 % 3]
    pixels = np.random.default_rng(number).integers(60, 140, (48, 48, 3), dtype=np.uint8)
    rows, columns = {"square": (12, 36), "stripe": (20, 28), "corner": (0, 20)}[shape], slice(0, 48)
    columns = columns if shape == "stripe" else slice(*rows)
    pixels[slice(*rows), columns] = COLOURS[colour]
    side = ("grey", "dull", "noisy", "plain", "rough")[number // 12 % 5]
    return Image.fromarray(pixels), [
        f"a {colour} {shape}, view {number}",
        f"{colour} {shape} on {side} ground {number}",
    ]


def write_pictures(folder: Path, captions: int) -> Path:
    """60 pictures in three splits, each with a `.txt` of so many lines."""
    number = 0
    for split, size in SIZES.items():
        (folder / split).mkdir(parents=True)
        for _ in range(size):
            image, lines = picture(number)
            image.save(folder / split / f"{number:03d}.png")
            (folder / split / f"{number:03d}.txt").write_text("\n".join(lines[:captions]), encoding="utf-8")
            number += 1
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("data") / "pictures", 2)


SHORT = {"steps": 3, "batch": 16, "seed": 1}
TRAINING = {"training.steps": 3, "training.batch": 16, "training.warmup_steps": 1}
SECOND: dict[str, dict[str, Any]] = {
    "00_quickstart": {
        "steps": 12,
        "batch": 32,
        "seed": 1,
        "scenes": 128,
        "splits": ["test_style"],
        "shipped": False,
        "out": "runs",
    },
    "01_embedding_distillation": SHORT
    | {"source": "FOLDER", "teachers": ["minilm"], "teacher": "minilm", "scenes": 30, "scored_on": 8}
    | {"probe_captions": 40, "probe_steps": 2, "judged_on": 6, "held_out_pictures": 9, "out": "runs"}
    | {"decoder": "DECODER"},
    "02_concept_clusters": {"source": "FOLDER", "split": "train", "held_out": "val", "limit": 30, "seed": 1}
    | {
        "teacher": "minilm",
        "clusters": 6,
        "method": "agglomerative",
        "perplexity": 2.0,
        "sweep": [4, 128],
        "others": ["hdbscan"],
        "own": ["a red square"],
    },
    "03_clip_kd_objectives": SHORT
    | {"source": "FOLDER", "scenes": 32, "weights": {"task": 1, "crd": 2, "gd": 0.1}, "ratios": [0.0, 0.5]}
    | {"looked_at": 16, "out": "runs"},
    "04_cross_modal_teacher": {
        "run": "demo",
        "grounded_run": None,
        "source": "FOLDER",
        "split": "val",
        "pictures": 8,
        "shown": [1, 99],
        "picture": "FOLDER/train/003.png",
        "sentence": "a white square on the left",
        "students": ["knowledge_clip_demo"],
    }
    | {"image_size": 48, "pooling_temperature": 0.5, "temperatures": [1.0, 0.1], "seed": 1},
    "05_full_training_run": {"recipe": "task_only_demo", "seed": 1, "processes": 2, "run_dir": "run"}
    | {"with_teacher": False}
    | {"export_to": "exported", "overrides": {"data.source": "FOLDER", **TRAINING}},
    "06_evaluation": {"runs": [], "source": "FOLDER", "split": "test", "zero_shot": "zero_shot_names_top1"}
    | {"alpha": 0.25, "looked_at": 8, "bins": 3, "shown": 2, "steps": 2, "out": "runs"},
    "07_ablations": {"sweep": "", "split": "test_style", "metrics": ["text_to_image_r1", "text_to_image_r10"]}
    | {"elsewhere": ["test_concepts", "test_style"]},
    "08_photographs": {
        "pictures": "FOLDER",
        "steps": 3,
        "batch": 8,
        "seed": 1,
        "words": ["red"],
        "out": "runs",
    },
}
ALIKE = {"teacher", "teachers", "run", "sweep", "runs"}  # a second value is another model, or another's runs


def filled(value: Any, folder: Path, decoder: Path) -> Any:
    """`value` with the paths of this session in place of their names."""
    text = json.dumps(value).replace('"FOLDER', json.dumps(str(folder))[:-1])
    return json.loads(text.replace('"DECODER"', json.dumps(str(decoder))))


@pytest.mark.parametrize("name", SECOND)
def test_every_parameter_has_a_second_value(name: str) -> None:
    parameters = parameters_of(NOTEBOOKS / f"{name}.ipynb")
    assert set(SECOND[name]) | {"retrain"} >= set(parameters)
    same = {key for key, value in SECOND[name].items() if parameters[key].default == value}
    assert same <= ALIKE | {"split"}


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    from workbench.evaluation.probes.exact_match import train_caption_decoder

    path = tmp_path_factory.mktemp("decoders") / "decoder"
    recipe = Recipe.load("task_only_demo", {"data.source": str(folder)})
    train_caption_decoder(recipe, path, steps=5, batch=8)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", SECOND)
def test_it_runs_with_them(name: str, folder: Path, decoder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    manifest = run_notebook(name, filled(SECOND[name], folder, decoder), tmp_path / "out")
    assert manifest["state"] == "finished", manifest["error"]["traceback"]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "01_embedding_distillation": ({"source": "SINGLE"}, "no picture has more than 1"),
    "02_concept_clusters": ({"source": "FOLDER", "clusters": 500}, "clusters = 500"),
    "03_clip_kd_objectives": ({"source": "FOLDER", "batch": 64}, "batch = 64"),
    "06_evaluation": ({"source": "NOWHERE"}, "NOWHERE"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_run_is_refused_in_the_first_cells(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebook_inputs, "follow_theme", lambda: None)
    settings, message = REFUSED[name]
    single = write_pictures(tmp_path / "single", 1)
    places = {"FOLDER": str(folder), "SINGLE": str(single)}
    chosen = {key: places.get(value, value) for key, value in settings.items()}
    parameters, *first = code_cells(name)[:5]
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(parameters, namespace)
    namespace.update(chosen)
    with pytest.raises(SettingError, match=message):
        for cell in first:
            exec(cell, namespace)


def code_cells(name: str) -> list[str]:
    """The sources of a notebook's code cells."""
    notebook = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("name", SECOND)
def test_parameters_are_checked_before_anything_happens(name: str) -> None:
    """Between the parameters and the check stand imports alone."""
    statements = [line for cell in code_cells(name)[1:] for line in ast.parse(cell).body]
    first = next(line for line in statements if not isinstance(line, ast.Import | ast.ImportFrom))
    assert ast.unparse(first) == "check_parameters()"


def test_plain_papermill_cannot_set_what_is_not_there(tmp_path: Path) -> None:
    """papermill itself only warns of an unknown parameter."""
    import papermill

    notebook = json.loads((NOTEBOOKS / "07_ablations.ipynb").read_text(encoding="utf-8"))
    checks = ["check_parameters()" in "".join(cell["source"]) for cell in notebook["cells"]]
    notebook["cells"] = notebook["cells"][: checks.index(True) + 1]
    (tmp_path / "cut.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    with pytest.raises(papermill.PapermillExecutionError, match=r"unheard_of.*no such parameter"):
        papermill.execute_notebook(
            str(tmp_path / "cut.ipynb"), str(tmp_path / "out.ipynb"), {"unheard_of": 1}, progress_bar=False
        )
