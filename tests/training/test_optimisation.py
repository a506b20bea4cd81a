"""One optimisation step: groups, schedule, several processes, gradient cache."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests.training.gradients_of_rank import main
from workbench.models.masking import kept_patches

TINY = str(Path(__file__).parents[1] / "tiny_vit.json")
SCRIPT = str(Path(__file__).with_name("gradients_of_rank.py"))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("inputs") / "batch.safetensors"
    save_file(
        {
            "images": torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8),
            "tokens": torch.randint(1, 49000, (8, 24)),
            "teacher_image": torch.randn(8, 24, dtype=torch.float64),
            "teacher_text": torch.randn(8, 24, dtype=torch.float64),
            "kept": kept_patches(0, 0, range(8), 4, 0.5),
            "text_target": torch.randn(8, 10, dtype=torch.float64),
            "soft_labels": torch.rand(8, 6, dtype=torch.float64).softmax(1),
        },
        path,
    )
    return path


@pytest.fixture(scope="module")
def alone(inputs, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "r"
    main(TINY, inputs, out, [(8, 0), (8, 3)])
    return {micro_batch: load_file(out.with_name(f"r-8-{micro_batch}-0")) for micro_batch in (0, 3)}


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-8, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_two_processes_give_one_process_gradients(inputs, alone, tmp_path):
    cases = [(4, 0), (3, 0), (4, 2)]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        SCRIPT,
        TINY,
    ]
    command += [str(inputs), str(tmp_path / "r"), *(f"{cut}:{micro_batch}" for cut, micro_batch in cases)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for cut, micro_batch in cases:
        for rank in range(2):
            same(load_file(tmp_path / f"r-{cut}-{micro_batch}-{rank}"), alone[0])


def test_gradient_cache_gives_the_full_batch_gradient(alone):
    same(alone[3], alone[0])


def test_every_parameter_gets_a_gradient(alone):
    assert [
        name for name, value in alone[0].items() if name.startswith("gradient/") and not value.any()
    ] == []


def test_parameter_groups_decay_matrices_only():
    from workbench.training.optimisation import parameter_groups

    module = nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.LayerNorm(3)})
    groups = {
        (group["weight_decay"], group["factor"]): group["params"]
        for group in parameter_groups(module, 0.1, {"b": 0.5})
    }
    assert [tuple(p.shape) for p in groups[0.1, 1.0]] == [(3, 2)]
    assert [tuple(p.shape) for p in groups[0.0, 1.0]] == [(3,)]
    assert [tuple(p.shape) for p in groups[0.0, 0.5]] == [(3,), (3,)]


def test_parameter_groups_refuse_an_unknown_module():
    from workbench.errors import SettingError
    from workbench.training.optimisation import parameter_groups

    with pytest.raises(SettingError, match=r"training.lr_multipliers.*visual"):
        parameter_groups(nn.Linear(2, 3), 0.1, {"visul": 0.5})


def test_schedule_rises_then_falls_to_zero():
    from workbench.training.optimisation import schedule

    values = [schedule(step, 100, 10) for step in range(101)]
    assert (
        values[0] == pytest.approx(0.1)
        and values[10] == pytest.approx(1.0)
        and values[100] == pytest.approx(0, abs=1e-12)
    )
    assert sorted(values[10:], reverse=True) == values[10:]
    assert schedule(0, 100, 0) == 1.0
