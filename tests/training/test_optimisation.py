"""One optimisation step: groups, schedule, several processes, gradient cache."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests.training.gradients_of_rank import SEED, WEIGHTS, main, make_learner, some, whole
from workbench.errors import SettingError
from workbench.models.depth import layer_factors
from workbench.models.loading import load_dual_encoder
from workbench.models.masking import kept_patches
from workbench.objectives.registry import declared_objectives
from workbench.recipe.schema import Training
from workbench.training.learner import backward
from workbench.training.optimisation import adamw

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
            "cross_modal_target": torch.randn(8, 24, dtype=torch.float64),
            "false": torch.randint(1, 49000, (8, 24)),
            "hard": torch.tensor([1.0, 0, 0, 1, 0, 0, 0, 0]),
        },
        path,
    )
    return path


@pytest.fixture(scope="module")
def alone(inputs, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "r"
    single = [f"8:0:{name}" for name in (*WEIGHTS, "frozen", "batchnorm", "hard", "teachers")]
    main(TINY, inputs, out, ["8:0", "8:3", "8:3:hard", "8:3:dropout", "8:0:dropout", "steps", *single])
    return {path.name.removeprefix("r-")[:-2]: load_file(path) for path in out.parent.iterdir()}


@pytest.fixture(scope="module")
def together(inputs, tmp_path_factory):
    """The same by two processes, which share the batch as a case says; by case and rank."""
    out = tmp_path_factory.mktemp("together") / "r"
    cases = ["4:0", "3:0", "8:0", "4:2", "5:2:dropout", "steps"]
    cases += [f"{cut}:{name}" for name in WEIGHTS for cut in ("3:0", "5:2")]
    cases += ["3:0:frozen", "5:2:frozen", "3:0:batchnorm", "4:0:batchnorm"]
    cases += ["3:0:hard", "8:0:hard", "5:2:hard", "3:0:teachers", "5:2:teachers"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [SCRIPT, TINY, str(inputs), str(out), *cases]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return {path.name.removeprefix("r-"): load_file(path) for path in out.parent.iterdir()}


def same(result, expected, atol=1e-12):
    assert result.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            result[name], value, rtol=1e-8, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_two_processes_give_one_process_gradients(alone, together):
    """Also where one could read fewer pictures than the other, or none."""
    for case in ("4-0", "3-0", "8-0", "4-2"):
        for rank in range(2):
            same(together[f"{case}-{rank}"], alone["8-0"])


def test_every_objective_alone_gives_one_process_gradients(alone, together):
    """With unequal shares, all at once and in micro-batches."""
    assert WEIGHTS.keys() == declared_objectives().keys()
    for name in WEIGHTS:
        for cut in ("3-0", "5-2"):
            for rank in range(2):
                same(together[f"{cut}-{name}-{rank}"], alone[f"8-0-{name}"])


def test_several_teachers_give_one_process_gradients(alone, together):
    """Every objective at once, with heads and parts of both teachers."""
    learned = "gradient/mixture."
    for part in ("image_head.1.weight", "own_parts.1.fuse_text.bias", "own_parts.0.interactive_scale.log"):
        assert alone["8-0-teachers"][learned + part].abs().max() > 0
    for cut in ("3-0", "5-2"):
        for rank in range(2):
            same(together[f"{cut}-teachers-{rank}"], alone["8-0-teachers"])


def test_frozen_parts_take_no_part(alone, together):
    assert not any(name.startswith("gradient/student.clip.visual") for name in alone["8-0-frozen"])
    for cut in ("3-0", "5-2"):
        for rank in range(2):
            same(together[f"{cut}-frozen-{rank}"], alone["8-0-frozen"])


def test_batch_norm_over_all_processes_is_that_of_one(alone, together):
    """Gradients, and the running statistics that evaluation uses."""
    statistics = [name for name in alone["8-0-batchnorm"] if name.startswith("statistics/")]
    assert len(statistics) == 2 * 19
    for cut in ("3-0", "4-0"):
        for rank in range(2):
            same(together[f"{cut}-batchnorm-{rank}"], alone["8-0-batchnorm"])


def test_two_processes_learn_the_same_in_ten_steps(alone, together):
    """Heads and scales of the losses among it: what learns is the same on every rank."""
    ranks = [together[f"steps-{rank}"] for rank in range(2)]
    for name in ("image_head.weight", "fuse_text.bias", "interactive_scale.log", "embedding_head.weight"):
        assert any(key.startswith(f"mixture.{name}") for key in ranks[0]), name
    assert [name for name, value in ranks[0].items() if not torch.equal(value, ranks[1][name])] == []
    # Biases of attention's keys have no gradient but rounding, which AdamW brings to size.
    same(ranks[0], alone["steps"], atol=1e-8)


def test_gradient_cache_gives_the_full_batch_gradient(alone):
    same(alone["8-3"], alone["8-0"])


def test_false_captions_take_part_wherever_they_are(alone, together):
    """By two processes, of which one has few or none, and in micro-batches without any."""
    assert float(alone["8-0-hard"]["term/task"]) > float(alone["8-0"]["term/task"])
    same(alone["8-3-hard"], alone["8-0-hard"])
    for cut in ("3-0", "8-0", "5-2"):
        for rank in range(2):
            same(together[f"{cut}-hard-{rank}"], alone["8-0-hard"])


def test_gradient_cache_repeats_dropout(inputs, alone, together):
    """The reference is one graph over the whole batch, each part of it under the seed of its micro-batch."""
    data = load_file(inputs)
    parts = [(slice(0, 3), SEED), (slice(3, 6), SEED + 1), (slice(6, 8), SEED + 2)]
    same(alone["8-3-dropout"], whole(TINY, data, parts, dropout=True))
    # Five pairs of the first process, three of the second, two at a time.
    parts = [(slice(start, min(start + 2, 5)), SEED + number) for number, start in enumerate((0, 2, 4))]
    parts += [(slice(5, 7), SEED), (slice(7, 8), SEED + 1)]
    expected = whole(TINY, data, parts, dropout=True)
    for rank in range(2):
        same(together[f"5-2-dropout-{rank}"], expected)
    # It is on: other seeds give other gradients.
    head = "gradient/mixture.image_head.weight"
    assert not torch.allclose(alone["8-3-dropout"][head], alone["8-0-dropout"][head])


def test_gradient_cache_takes_a_micro_batch_s_memory(inputs):
    """Bytes that the graph keeps for the way back, at their peak."""
    data = load_file(inputs)

    def peak(batch, micro_batch):
        kept, most = 0, 0

        class Held:
            def __init__(self, tensor):
                nonlocal kept, most
                self.tensor = tensor
                kept += tensor.nbytes
                most = max(most, kept)

            def __del__(self):
                nonlocal kept
                kept -= self.tensor.nbytes

        learner = make_learner(TINY, True)
        some_inputs, targets = some(
            {name: item.repeat_interleave(4, 0) for name, item in data.items()}, slice(batch)
        )
        with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
            backward(learner, learner.mixture, some_inputs, targets, micro_batch, SEED)
        return most

    # Weights and the loss itself, which is small here, are kept whatever the micro-batch.
    half, cached, wider, whole_batch = peak(16, 4), peak(32, 4), peak(32, 8), peak(32, None)
    assert cached < 1.2 * half
    assert 1.3 * cached < wider < 2 * cached
    assert 3 * cached < whole_batch


def test_every_parameter_gets_a_gradient(alone):
    assert [
        name for name, value in alone["8-0"].items() if name.startswith("gradient/") and not value.any()
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


def test_layers_learn_the_slower_the_deeper_they_lie():
    learner = make_learner(TINY)
    factors = layer_factors(learner.student.clip, 0.5)
    for name, factor in (
        ("visual.conv1.weight", 0.25),
        ("visual.transformer.resblocks.0.mlp.c_fc.weight", 0.5),
        ("visual.proj", 1.0),
        ("token_embedding.weight", 0.25),
        ("transformer.resblocks.0.attn.in_proj_bias", 0.5),
        ("text_projection", 1.0),
        ("logit_scale", 1.0),
    ):
        assert factors[name] == factor, name
    groups = adamw(learner, Training(layer_decay=0.5, lr_multipliers={"visual": 0.1})).param_groups
    factor = {id(p): group["factor"] for group in groups for p in group["params"]}
    assert factor[id(learner.student.clip.visual.conv1.weight)] == pytest.approx(0.025)
    assert factor[id(learner.mixture.image_head.weight)] == 1.0
    demo = layer_factors(load_dual_encoder("demo_student").clip, 0.5)
    assert demo["text.proj.weight"] == 1.0 > demo["visual.trunk.blocks.0.0.conv_pw.weight"]
    assert min(demo, key=demo.__getitem__) == "visual.trunk.conv_stem.weight"
    with pytest.raises(SettingError, match=r"training\.layer_decay.*the image tower has no blocks"):
        layer_factors(nn.ModuleDict({"visual": nn.Linear(2, 3), "transformer": nn.Linear(2, 3)}), 0.5)


def test_parameter_groups_refuse_an_unknown_module():
    from workbench.training.optimisation import check_multipliers

    with pytest.raises(SettingError, match=r"training.lr_multipliers.*visual"):
        check_multipliers(nn.Linear(2, 3), {"visul": 0.5})


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
