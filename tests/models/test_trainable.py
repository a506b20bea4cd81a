"""What learns under every choice: counted by hand, named one by one, and seen in what a step moves."""

import json
import sys
from pathlib import Path

import open_clip
import pytest
import torch
from torch import nn

from workbench.errors import SettingError
from workbench.models.dual_encoder import DualEncoder
from workbench.models.loading import load_dual_encoder
from workbench.models.low_rank import RANK, merge_lora
from workbench.models.trainable import CHOICES, set_trainable, trainable_parameters

TINY = Path(__file__).parents[1] / "tiny_vit.json"
TEXT = {"context_length": 24, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
VISION = {
    "native": {"image_size": 32, "layers": 8, "width": 32, "head_width": 16, "patch_size": 16},
    "own_attention": {
        "image_size": 32,
        "layers": 2,
        "width": 32,
        "head_width": 16,
        "patch_size": 16,
        "qk_norm": True,
    },
    "sine_positions": {
        "image_size": 32,
        "layers": 1,
        "width": 32,
        "head_width": 16,
        "patch_size": 16,
        "pos_embed_type": "sin_cos_2d",
    },
    "resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8},
    "pooled": {
        "image_size": 32,
        "layers": 4,
        "width": 32,
        "head_width": 16,
        "patch_size": 16,
        "attentional_pool": True,
        "attn_pooler_heads": 2,
    },
    "separate_biases": {
        "image_size": 224,
        "timm_model_name": "eva02_tiny_patch14_224",
        "timm_pool": "avg",
        "timm_proj": "linear",
    },
}


@pytest.fixture
def build(tmp_path):
    """A two-tower model of one of the little configurations above, or of any name."""

    def make(name, **options):
        torch.manual_seed(0)
        if name in VISION:
            path = tmp_path / f"{name}.json"
            path.write_text(json.dumps({"embed_dim": 16, "vision_cfg": VISION[name], "text_cfg": TEXT}))
            name = str(path)
        return load_dual_encoder(name, **options).eval()

    return make


def unbuilt(name):
    """A model of open_clip's without numbers in it."""
    clip = open_clip.create_model(name, device="meta")
    config = {
        "model_cfg": open_clip.get_model_config(name),
        "preprocess_cfg": dict(clip.visual.preprocess_cfg),
    }
    return DualEncoder(clip, config, None)


def pictures(model):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (2, 3, *model.transform.size), dtype=torch.uint8, generator=generator)


def learning(model, inside="visual."):
    return {
        name.removeprefix(inside)
        for name, parameter in model.clip.named_parameters()
        if parameter.requires_grad and name.startswith(inside)
    }


def embedded(model):
    with torch.no_grad():
        return model.encode_image(pictures(model))


def step(model):
    """One step of every parameter that learns, on the image tower."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.encode_image(pictures(model)).square().sum().backward()
    torch.optim.Adam(parameters, lr=1e-2).step()
    return parameters


def test_attention_of_vit_b_16_counts_as_in_the_paper():
    model = unbuilt("ViT-B-16")
    set_trainable(model, "attention", False)
    assert trainable_parameters(model) == {
        "image": 12 * (4 * 768 * 768 + 4 * 768) + 768 * 512,
        "text": 0,
        "scale": 1,
    }
    assert 12 * (4 * 768 * 768 + 4 * 768) == 28_348_416
    set_trainable(model, "all", True)
    counted = trainable_parameters(model)
    assert sum(counted.values()) == sum(parameter.numel() for parameter in model.parameters())
    assert counted["image"] == 86_192_640


def test_attention_by_kind_of_tower(build):
    def chosen(name):
        model = build(name)
        set_trainable(model, "attention", False)
        assert trainable_parameters(model)["text"] == 0
        return learning(model)

    inside = ("attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj.weight", "attn.out_proj.bias")
    for name, layers in (("native", 8), ("own_attention", 2)):
        expected = {f"transformer.resblocks.{layer}.{item}" for layer in range(layers) for item in inside}
        assert chosen(name) == {*expected, "proj"}
    parts = [f"{part}_proj.{item}" for part in "qkvc" for item in ("weight", "bias")]
    assert chosen("resnet") == {f"attnpool.{part}" for part in parts}
    parts = ("qkv.weight", "qkv.bias", "proj.weight", "proj.bias")
    assert chosen("vit_tiny_16") == {
        *(f"trunk.blocks.{block}.attn.{part}" for block in range(12) for part in parts),
        "head.proj.weight",
    }
    depths = (2, 2, 6, 2)
    assert chosen("swin_tiny") == {
        *(
            f"trunk.layers.{stage}.blocks.{block}.attn.{part}"
            for stage, depth in enumerate(depths)
            for block in range(depth)
            for part in parts
        ),
        "head.proj.weight",
    }
    biased = chosen("separate_biases")
    assert "trunk.blocks.0.attn.q_bias" in biased and "trunk.blocks.0.attn.qkv.weight" in biased
    assert not any("norm" in name or "mlp" in name for name in biased)


def test_towers_without_attention_say_what_works(build):
    model = build("demo_teacher")
    before = learning(model)
    with pytest.raises(SettingError, match=r"student\.trainable_image = 'attention'.*last_stage"):
        set_trainable(model, "attention", False)
    with pytest.raises(SettingError, match=r"student\.trainable_image = 'atention'.*last_blocks"):
        set_trainable(model, "atention", False)
    assert learning(model) == before


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("demo_teacher", ("trunk.blocks.6.", "trunk.conv_head", "trunk.bn2", "head.")),
        ("demo_student", ("trunk.blocks.4.", "head.")),
        ("demo_student_plain", ("trunk.blocks.5.", "trunk.conv_head", "trunk.classifier")),
        ("resnet18", ("trunk.layer4.", "head.")),
        ("mobilevit_s", ("trunk.stages.4.", "trunk.final_conv", "head.")),
        ("swin_tiny", ("trunk.layers.3.", "trunk.norm.", "head.")),
        ("vit_tiny_16", ("trunk.blocks.11.", "trunk.norm.", "head.")),
        ("native", ("transformer.resblocks.7.", "ln_post.", "proj")),
        ("pooled", ("transformer.resblocks.3.", "ln_post.", "attn_pool.", "proj")),
        ("resnet", ("layer4.", "attnpool.")),
    ],
)
def test_the_last_stage_and_what_follows_it(build, name, first):
    model = build(name)
    set_trainable(model, "last_stage", False)
    expected = {
        key.removeprefix("visual.")
        for key, _ in model.clip.named_parameters()
        if key.removeprefix("visual.").startswith(first)
    }
    assert learning(model) == expected
    assert all(any(key.startswith(item) for key in expected) for item in first)


def test_the_last_quarter_of_the_blocks(build):
    def blocks(name, prefix):
        model = build(name)
        set_trainable(model, "last_blocks", False)
        result = {key for key in learning(model) if key.startswith(prefix)}
        return {".".join(key.removeprefix(prefix).split(".")[:1]) for key in result}, learning(model)

    numbers, every = blocks("native", "transformer.resblocks.")
    assert numbers == {"6", "7"} and {"proj", "ln_post.weight"} <= every and "conv1.weight" not in every
    assert blocks("pooled", "transformer.resblocks.")[0] == {"3"}
    numbers, every = blocks("vit_tiny_16", "trunk.blocks.")
    assert numbers == {"9", "10", "11"} and {"trunk.norm.weight", "head.proj.weight"} <= every
    stages, every = blocks("swin_tiny", "trunk.layers.")  # three of twelve: two in the last stage, one before
    assert stages == {"2", "3"}
    assert {key.split(".")[4] for key in every if key.startswith("trunk.layers.2.")} == {"5"}
    for name in ("demo_teacher", "resnet"):
        one, other = build(name), build(name)
        set_trainable(one, "last_blocks", False)
        set_trainable(other, "last_stage", False)
        assert learning(one) == learning(other)


@pytest.mark.parametrize("name", [str(TINY), "demo_student", "demo_teacher"])
def test_the_text_tower_learns_or_not_wherever_it_is_kept(build, name):
    model = build(name)
    everything = {key for key, _ in model.clip.named_parameters() if not key.startswith("visual.")}
    set_trainable(model, "none", True)
    assert learning(model, "") == everything
    set_trainable(model, "none", False)
    assert learning(model, "") == {"logit_scale"}
    model.clip.logit_scale.requires_grad_(False)
    set_trainable(model, "all", True)
    assert trainable_parameters(model)["scale"] == 0


def test_what_the_recipe_froze_by_name_stays_frozen(build):
    model = build("demo_student_plain", frozen=["visual.trunk.conv_head", "text.token_embedding"])
    set_trainable(model, "last_stage", True)
    assert not any("conv_head" in key or "token_embedding" in key for key in learning(model, ""))
    assert any("classifier" in key for key in learning(model)) and learning(model, "text.")
    set_trainable(model, "lora", True)
    assert any("classifier" in key for key in learning(model))
    assert not any("conv_head" in key for key in learning(model))


def test_positions_that_the_architecture_holds_fixed_stay_fixed(build):
    model = build("sine_positions")
    set_trainable(model, "none", False)
    set_trainable(model, "all", True)
    assert "class_embedding" in learning(model) and "positional_embedding" not in learning(model)


@pytest.mark.parametrize("image", ["last_stage", "lora", "none"])
def test_batch_statistics_of_what_does_not_learn_stay(build, image):
    model = build("demo_teacher")
    set_trainable(model, image, False)
    model.train()
    assert model.clip.training and not model.clip.text.training  # with its dropout
    before = {key: value.clone() for key, value in model.clip.state_dict().items()}
    with torch.no_grad():
        model.encode_image(pictures(model))
    after = model.clip.state_dict()
    moved = {key for key in before if "running_" in key and not torch.equal(before[key], after[key])}
    assert bool(moved) == model.trains_batch_statistics == (image == "last_stage")
    assert all(key.startswith(("visual.trunk.blocks.6", "visual.trunk.bn2")) for key in moved)
    if image == "lora":
        merge_lora(model)
    set_trainable(model, "all", False)
    assert model.clip.visual.trunk.bn1.training


@pytest.mark.parametrize("image", ["all", "attention", "last_stage", "last_blocks", "lora"])
@pytest.mark.parametrize("name", ["native", "own_attention", "resnet", "separate_biases", "mobilevit_s"])
def test_everything_that_learns_is_reached_and_nothing_else_moves(build, name, image):
    model = build(name)
    set_trainable(model, image, False)
    before = {key: value.clone() for key, value in model.clip.named_parameters()}
    step(model)
    named = dict(model.clip.named_parameters())
    unreached = [key for key in learning(model) if named[f"visual.{key}"].grad is None]
    assert not unreached
    for key, value in named.items():
        if not value.requires_grad:
            assert value.grad is None and torch.equal(value, before[key]), key


@pytest.mark.parametrize(
    "name", ["native", "own_attention", "resnet", "vit_tiny_16", "swin_tiny", "demo_teacher"]
)
def test_low_rank_additions_begin_at_nothing_learn_and_merge(build, name):
    pytest.importorskip("peft")
    model = build(name)
    before = {key: value.clone() for key, value in model.clip.state_dict().items()}
    start = embedded(model)
    set_trainable(model, "lora", False)
    torch.testing.assert_close(embedded(model), start, rtol=0, atol=1e-6)
    assert learning(model) and all(".lora_" in key for key in learning(model))
    assert trainable_parameters(model)["text"] == 0
    step(model)
    moved = embedded(model)
    assert (moved - start).abs().max() > 1e-4
    with pytest.raises(ValueError, match="merge them first"):
        set_trainable(model, "all", False)
    assert merge_lora(model) is model
    after = model.clip.state_dict()
    assert set(after) == set(before)
    assert all(torch.equal(after[key], before[key]) for key in before if not key.startswith("visual."))
    torch.testing.assert_close(embedded(model), moved, rtol=1e-5, atol=1e-5)
    again = build(name)
    again.clip.load_state_dict(model.clip.state_dict())
    assert torch.equal(embedded(again), embedded(model))


def test_low_rank_additions_of_torchs_attention_are_the_sum_and_leave_the_weights_alone(build):
    pytest.importorskip("peft")
    model, plain = build("native"), build("native")
    set_trainable(model, "lora", False)
    layer = model.clip.visual.transformer.resblocks[3].attn
    weights = layer.in_proj_weight, layer.out_proj.weight
    for item in (layer, layer.base_layer.out_proj):
        nn.init.normal_(item.lora_B["default"].weight, std=0.1)
    before = [item.clone() for item in weights]
    got = embedded(model)
    assert all(torch.equal(item, old) for item, old in zip(weights, before, strict=True))
    assert layer.in_proj_weight is weights[0] and layer.out_proj.weight is weights[1]
    inside = plain.clip.visual.transformer.resblocks[3].attn
    with torch.no_grad():
        for parameter, item in (
            (inside.in_proj_weight, layer),
            (inside.out_proj.weight, layer.base_layer.out_proj),
        ):
            parameter += item.lora_B["default"].weight @ item.lora_A["default"].weight
    torch.testing.assert_close(got, embedded(plain), rtol=1e-5, atol=1e-6)
    assert learning(model) and not torch.equal(got, embedded(build("native")))
    # in and out of every block: r (in + out), in the query, key and value together; a bare projection is left
    expected = 8 * (RANK * (32 + 96) + RANK * (32 + 32))
    assert trainable_parameters(model)["image"] == expected


def test_low_rank_additions_of_a_convolutional_tower(build):
    pytest.importorskip("peft")
    model = build("demo_teacher")
    set_trainable(model, "lora", False)
    around = {key.split(".lora_")[0] for key in learning(model)}
    assert around == {
        "trunk.blocks.6.0.conv_pw",
        "trunk.blocks.6.0.conv_pwl",
        "trunk.conv_head",
        "head.mlp.fc1",
        "head.mlp.fc2",
    }


def test_without_peft_it_says_what_to_install(build, monkeypatch):
    model = build(str(TINY))
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(
        SettingError, match=r"student\.trainable_image = 'lora'.*pip install 'workbench\[lora\]'"
    ):
        set_trainable(model, "lora", False)


def test_every_choice_is_explained():
    assert all(f'"{choice}"' in (set_trainable.__doc__ or "") for choice in CHOICES)
