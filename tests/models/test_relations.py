from pathlib import Path

import open_clip
import pytest
import torch
from torch import Tensor

import workbench
from workbench.errors import SettingError
from workbench.export.programs import needs_workbench, write_programs
from workbench.models.dual_encoder import DualEncoder
from workbench.models.grounded import GroundedTeacher
from workbench.models.loading import load_dual_encoder
from workbench.models.relations import (
    STRENGTH,
    Relations,
    caption_relations,
    joined,
    picture_relations,
    places,
)
from workbench.recipe import Recipe
from workbench.training.teacher import grounded_teacher

TINY = str(Path(__file__).parents[1] / "tiny_vit.json")
DIM = 8


@pytest.fixture
def teacher() -> GroundedTeacher:
    torch.manual_seed(0)
    return GroundedTeacher(DIM, 2).eval()


@pytest.fixture(scope="module")
def model() -> DualEncoder:
    torch.manual_seed(0)
    return load_dual_encoder(TINY, relations=True).eval()


def pictures(model: DualEncoder) -> Tensor:
    height, width = model.transform.size
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, generator=generator)


def test_the_dot_product_is_the_teachers_score_with_cosines_for_attention(teacher: GroundedTeacher) -> None:
    torch.manual_seed(1)
    tokens, mask = torch.randn(1, 3, DIM), torch.tensor([[True, True, False]])
    regions, region_mask = torch.randn(1, 2, DIM), torch.tensor([[True, True]])
    boxes = torch.tensor([[[0.0, 0.2, 0.4, 0.6], [0.5, 0.5, 1.0, 1.0]]])
    queries, salience, directions = teacher.read(tokens, mask)
    seen = teacher.see(regions, region_mask, boxes)
    expected = sum(
        salience[0, word]
        * torch.dot(queries[0, word], seen.keys[0, region])
        * torch.dot(directions[0, word, :2], centre)
        for word in range(2)
        for region, centre in enumerate(torch.tensor([[-0.6, -0.2], [0.5, 0.5]]))
    )
    caption = caption_relations(teacher, tokens, mask)
    picture = picture_relations(teacher, regions, region_mask, boxes)
    torch.testing.assert_close((caption * picture).sum(), expected)

    sides = joined(3 * tokens[:, 0], caption), joined(regions[:, 0], picture)
    cosine = torch.cosine_similarity(tokens[:, 0], regions[:, 0])
    torch.testing.assert_close((sides[0] * sides[1]).sum(-1), cosine + STRENGTH**2 * expected)


def test_exchanged_places_exchange_the_signs(teacher: GroundedTeacher) -> None:
    regions, mask = torch.randn(1, 2, DIM), torch.ones(1, 2, dtype=torch.bool)
    left, right = [0.0, 0.25, 0.5, 0.75], [0.5, 0.25, 1.0, 0.75]
    one, other = (
        picture_relations(teacher, regions, mask, torch.tensor([boxes]))
        for boxes in ([left, right], [right, left])
    )
    torch.testing.assert_close(one[:, 0], -other[:, 0])  # both at half height, which says nothing of down
    assert one[:, 0].abs().max() > 0.1 and not one[:, 1].any()


def test_padding_says_nothing(teacher: GroundedTeacher) -> None:
    regions, boxes = torch.randn(1, 3, DIM), torch.rand(1, 3, 4)
    some = torch.tensor([[True, True, False]])
    torch.testing.assert_close(
        picture_relations(teacher, regions, some, boxes),
        picture_relations(teacher, regions[:, :2], some[:, :2], boxes[:, :2]),
    )


def test_places_are_the_centres_of_a_maps_cells() -> None:
    right, down = places(torch.zeros(1, 1, 2, 4))
    assert right.tolist() == [[-0.75, -0.25, 0.25, 0.75]] * 2
    assert down.tolist() == [[-0.5] * 4, [0.5] * 4]


def test_a_thing_at_one_place_is_multiplied_with_it() -> None:
    relations = Relations(DIM, 3, heads=2)
    with torch.no_grad():
        relations.things.bias.zero_()
    maps = torch.zeros(1, 3, 2, 4)
    maps[0, :, 1, 3] = torch.tensor([1.0, 2.0, 3.0])
    thing = relations.things.weight[:, :, 0, 0] @ maps[0, :, 1, 3]
    embedding = relations.join_image(torch.ones(1, DIM), maps)[0]
    torch.testing.assert_close(embedding[DIM : 2 * DIM], STRENGTH * 0.75 * thing / 8**0.5)
    torch.testing.assert_close(embedding[2 * DIM :], STRENGTH * 0.5 * thing / 8**0.5)


def test_only_the_picture_side_learns_and_the_first_part_is_the_models_own(model: DualEncoder) -> None:
    plain = load_dual_encoder(TINY)
    plain.clip.load_state_dict(
        {name: value for name, value in model.clip.state_dict().items() if not name.startswith("relations.")}
    )
    own, whole = plain.eval().encode_image(pictures(model)), model.encode_image(pictures(model))
    width = own.shape[1]
    assert whole.shape == (2, 3 * width) and model.dim == 3 * width
    torch.testing.assert_close(whole[:, :width], torch.nn.functional.normalize(own, dim=-1))
    tokens = model.tokenize(["a cat left of a dog", "a dog"])
    torch.testing.assert_close(
        model.encode_text(tokens)[:, :width], torch.nn.functional.normalize(plain.encode_text(tokens), dim=-1)
    )
    learned = {name for name, value in model.clip.relations.named_parameters() if value.requires_grad}
    assert learned == {"things.weight", "things.bias"}


def test_saved_it_is_loaded_again_and_plain_open_clip_refuses_it(model: DualEncoder, tmp_path: Path) -> None:
    folder = model.save(tmp_path / "model")
    again = load_dual_encoder(str(folder)).eval()
    torch.testing.assert_close(
        again.encode_image(pictures(model)), model.encode_image(pictures(model)), atol=0, rtol=0
    )
    assert again.text_digest() == model.text_digest()
    with pytest.raises(TypeError, match="relations"):
        open_clip.create_model(f"local-dir:{folder}")
    assert needs_workbench(again)
    write_programs(again, tmp_path)


def test_a_run_learns_restores_and_is_exported(tmp_path: Path) -> None:
    small = {
        "data.scenes": 16,
        "training.steps": 2,
        "training.batch": 8,
        "training.warmup_steps": 1,
        "training.validation_pairs": 8,
        "training.hard_negatives": 0.5,
    }
    recipe = Recipe.load("dclip_relations_demo", small)
    run = workbench.train(recipe, tmp_path / "run")
    student, teacher = run.model(), grounded_teacher(recipe)
    assert student.dim == 768
    words = student.clip.relations.words.state_dict()
    assert all(torch.equal(words[name], value) for name, value in teacher.state_dict().items())
    start = load_dual_encoder("demo_teacher", "demo_teacher").eval()
    caption = start.tokenize(["a cat left of a dog"])
    torch.testing.assert_close(
        student.encode_text(caption)[:, :256],
        torch.nn.functional.normalize(start.encode_text(caption), dim=-1),
    )


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"student.trainable_text": True}, "trainable_text=false"),
        ({"objectives.fd": 1.0}, "objectives.fd=0"),
        ({"objectives.preservation": 1.0}, "objectives.preservation=0"),
        ({"cross_modal.run": None}, "cross_modal.run=grounded_demo"),
        ({"cross_modal.control": "null"}, "shuffled_regions"),
        ({"training.compile": True, "student.cache_frozen": False}, "compile=false"),
    ],
)
def test_what_contradicts_relations_is_refused(changes: dict, words: str) -> None:
    with pytest.raises(SettingError, match=rf"student\.relations.*{words}"):
        Recipe.load("dclip_relations_demo", changes)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"student.relations": "demo", "cross_modal.run": "demo"}, r"'demo'.*grounded_demo"),
        ({"student.pretrained": None}, "student.pretrained=demo_teacher"),
        ({"student.relations": None}, "does not say whose"),
    ],
)
def test_a_teacher_that_cannot_give_relations_is_named(changes: dict, words: str) -> None:
    with pytest.raises(SettingError, match=rf"student\.relations.*{words}"):
        grounded_teacher(Recipe.load("dclip_relations_demo", changes))


@pytest.mark.parametrize("name", ["demo_student", "demo_teacher_spatial", "photo_student"])
def test_towers_whose_last_map_is_not_what_they_embed_are_refused(name: str) -> None:
    with pytest.raises(SettingError, match=r"student\.relations.*does not give its last map"):
        load_dual_encoder(name, relations=True, setting="student")
