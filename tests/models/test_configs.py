"""Shipped students: CLIP-KD's family as the paper has it; each encodes, exports, masks and learns."""

import json

import open_clip
import pytest
import timm
import torch

from workbench.models.loading import CONFIGS, load_dual_encoder, shipped_models
from workbench.models.masking import encode_masked_image, kept_patches, patch_grid
from workbench.objectives import DistillationLoss
from workbench.recipe import Recipe
from workbench.training.learner import BatchTargets, Inputs, Learner, backward

# Of timm's image towers: the name, and the width of the features that are mapped to 512 dimensions.
STUDENTS = {
    "vit_tiny_16": ("vit_tiny_patch16_224", 192),
    "mobilevit_s": ("mobilevit_s", 640),
    "swin_tiny": ("swin_tiny_patch4_window7_224", 768),
    "mobilenetv3_small": ("mobilenetv3_small_100", 1024),
    "efficientnet_b0": ("efficientnet_b0", 1280),
    "resnet18": ("resnet18", 512),
}
CAPTIONS = ["a red apple", "two dogs left of a tree, seen from above"]


@pytest.fixture(scope="module", params=STUDENTS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def student(name):
    torch.manual_seed(0)
    return load_dual_encoder(name).eval()


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8, generator=torch.manual_seed(1))


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_every_student_of_the_paper_is_shipped():
    assert set(shipped_models()) >= STUDENTS.keys()


def test_the_image_tower_is_timms_with_a_linear_map_to_512_dimensions(name, student):
    of_timm, features = STUDENTS[name]
    reference = count(timm.create_model(of_timm, num_classes=0))
    bias = 512 if name == "mobilenetv3_small" else 0  # its map is timm's own classifier, which has one
    assert count(student.clip.visual) == reference + features * 512 + bias


def test_the_text_tower_is_the_papers(student):
    clip = student.clip
    assert clip.token_embedding.weight.shape == (49408, 384)
    assert clip.positional_embedding.shape == (77, 384)
    assert clip.text_projection.shape == (384, 512)
    assert [block.attn.num_heads for block in clip.transformer.resblocks] == [6] * 12
    assert student.dim == 512
    assert student.transform.size == (224, 224)
    # open_clip's byte pairs, between the two marks of start and end
    assert student.tokenize(["a cat"])[0, :5].tolist() == [49406, 320, 2368, 49407, 0]
    assert student.tokenize(CAPTIONS).shape == (2, 77)


@torch.no_grad()
def test_plain_open_clip_loads_an_exported_student(student, images, tmp_path):
    folder = student.save(tmp_path)
    plain = open_clip.create_model(f"local-dir:{folder}").eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    pixels = (images / 255 - student.mean) / student.std
    # Channels-last convolutions add up in another order; random towers may give features of 1e-7.
    torch.testing.assert_close(student.encode_image(images), plain.encode_image(pixels), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(
        student.encode_text(student.tokenize(CAPTIONS)), plain.encode_text(tokenizer(CAPTIONS))
    )


@torch.no_grad()
def test_a_masked_picture_hides_three_quarters_from_every_student(name, student, images):
    rows, columns = patch_grid(student)
    assert (rows, columns) == (14, 14)
    kept = kept_patches(0, 0, [0, 1], rows * columns, 0.75)
    assert kept.shape == (2, 49)
    seen = torch.zeros(2, 196, dtype=torch.bool).scatter_(1, kept, True).view(2, 1, 14, 14)
    seen = seen.repeat_interleave(16, 2).repeat_interleave(16, 3)
    scribbled = torch.where(seen, images, 255 - images)
    blocks = []
    stem = student.clip.visual.trunk.blocks[0] if name == "vit_tiny_16" else student.clip.visual
    handle = stem.register_forward_pre_hook(lambda _, given: blocks.append(given[0].shape))
    masked = encode_masked_image(student, images, kept)
    handle.remove()
    # The transformer saves the time of what it does not see; the others get whole pictures.
    assert blocks == [(2, 50, 192) if name == "vit_tiny_16" else (2, 3, 224, 224)]
    torch.testing.assert_close(encode_masked_image(student, scribbled, kept), masked)
    assert not torch.allclose(student.encode_image(images), masked, rtol=1e-3, atol=0)


def test_a_step_with_the_papers_mixture_reaches_every_weight(name):
    torch.manual_seed(0)
    student = load_dual_encoder(name)
    learner = Learner(
        student, DistillationLoss(Recipe.load("clip_kd").objectives.weights(), 512, 512)
    ).train()
    optimiser = torch.optim.AdamW(learner.parameters(), lr=1e-3)
    stem, words = next(student.clip.visual.parameters()), student.clip.token_embedding.weight
    before = stem.detach().clone(), words.detach().clone()
    inputs = Inputs(
        torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8), student.tokenize(["a cat", "two dogs"])
    )
    targets = BatchTargets(torch.randn(2, 512), torch.randn(2, 512), 100.0)
    terms, _ = backward(learner, learner.mixture, inputs, targets, None, 0)
    assert set(terms) == {"loss", "task", "crd", "fd", "icl"}
    assert all(term.isfinite() for term in terms.values())
    # Some branches start at zero and get none at first, but the graph reaches them.
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in learner.parameters())
    assert stem.grad.any() and words.grad.any()
    optimiser.step()
    assert not torch.equal(stem, before[0]) and not torch.equal(words, before[1])


def test_the_demo_resnet_reads_with_the_demo_students_tokenizer(tmp_path):
    torch.manual_seed(0)
    model, other = load_dual_encoder("demo_resnet18").eval(), load_dual_encoder("demo_student_plain")
    assert torch.equal(model.tokenize(CAPTIONS), other.tokenize(CAPTIONS))
    assert (model.dim, model.transform.size) == (other.dim, (64, 64))
    assert count(model.clip.text) == count(other.clip.text)
    folder = model.save(tmp_path)
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(CAPTIONS)
    assert torch.equal(tokens, model.tokenize(CAPTIONS))
    assert load_dual_encoder(str(folder)).fingerprint() == model.fingerprint()


def test_no_student_names_weights_of_its_own():
    for config in CONFIGS.glob("*/open_clip_config.json"):
        vision = json.loads(config.read_text())["model_cfg"]["vision_cfg"]
        assert not vision.get("timm_model_pretrained", False)
