"""The demo student's tower: MobileNetV2's own layers and weights, with the last map's places kept apart."""

import timm
import torch

from workbench.export.programs import needs_workbench
from workbench.models.loading import load_dual_encoder
from workbench.models.mobilenet_stem import GRID, NAME, SPATIAL_NAME, STAGES, SpatialAttention
from workbench.models.package_weights import load_into


@torch.no_grad()
def test_features_are_mobilenets_map_at_stride_16_by_quarter():
    torch.manual_seed(0)
    whole = timm.create_model("mobilenetv2_100").eval()
    stem = timm.create_model(NAME).eval()
    stem.load_state_dict({key: whole.state_dict()[key] for key in stem.state_dict()})
    pictures = torch.randn(2, 3, 64, 64)
    maps = whole.bn1(whole.conv_stem(pictures))
    for stage in whole.blocks[:STAGES]:
        maps = stage(maps)
    assert maps.shape == (2, 96, 4, 4)
    quarters = torch.stack(
        [maps[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].mean((2, 3))
         for row in range(GRID) for column in range(GRID)], dim=2
    )  # fmt: skip
    features = stem(pictures)
    assert features.shape == (2, 384)
    torch.testing.assert_close(features.view(2, 96, 4), quarters)


def test_the_tower_is_small_and_starts_from_imagenet():
    student = load_dual_encoder("demo_student", initial_weights={"visual.trunk": "mobilenet_v2_stem"})
    assert sum(p.numel() for p in student.clip.visual.parameters()) <= 0.7e6
    again = timm.create_model(NAME)
    load_into(again, "mobilenet_v2_stem")
    for key, tensor in again.state_dict().items():
        assert torch.equal(student.clip.visual.trunk.state_dict()[key], tensor), key
    statistics = again.state_dict()["blocks.4.2.bn3.running_var"]
    assert not torch.allclose(statistics, torch.ones(()))  # 1 everywhere where nothing was ever seen


def test_words_start_from_minilm_where_a_recipe_asks_for_it():
    place = "text.transformer.embeddings.word_embeddings"
    student = load_dual_encoder("demo_student", initial_weights={place: "minilm_words"})
    table = torch.nn.functional.normalize(student.clip.get_submodule(place).weight.detach(), dim=1)
    ids = [student.tokenizer.tokenizer(word)["input_ids"][1] for word in (" apple", " lemon", " truck")]
    apple, lemon, truck = table[ids]
    assert apple @ lemon > apple @ truck


@torch.no_grad()
def test_the_spatial_tower_starts_as_the_demo_teacher_and_knows_places():
    plain = load_dual_encoder("demo_teacher", "demo_teacher").eval()
    spatial = load_dual_encoder("demo_teacher_spatial", "demo_teacher").eval()
    pictures = torch.randint(0, 256, (2, 3, 128, 128), dtype=torch.uint8, generator=torch.manual_seed(0))
    assert torch.equal(spatial.encode_image(pictures), plain.encode_image(pictures))
    assert spatial.text_digest() == plain.text_digest()
    assert needs_workbench(spatial) and not needs_workbench(plain)
    added = spatial.clip.visual.trunk.blocks[-1]
    assert isinstance(added, SpatialAttention) and timm.create_model(SPATIAL_NAME).num_features == 1280
    # Once it has learned, exchanged places make another picture; to an average they are the same.
    torch.nn.init.normal_(added.widen.weight, std=0.1)
    maps = torch.randn(1, 320, 4, 4)
    exchanged = maps.flip(3)
    assert not torch.allclose(added(maps).mean((2, 3)), added(exchanged).mean((2, 3)), atol=1e-3)
    added.positions.zero_()
    torch.testing.assert_close(added(maps).mean((2, 3)), added(exchanged).mean((2, 3)))
