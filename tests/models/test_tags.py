"""Weights by one of open_clip's tags: the activation and the preprocessing that they were trained with."""

import open_clip
import pytest
from open_clip.transformer import QuickGELU
from torch import nn

from workbench.errors import SettingError
from workbench.models.loading import load_dual_encoder


@pytest.fixture
def asked(monkeypatch):
    """What open_clip is asked for; it gives random weights, as there is no hub here."""
    calls, create = [], open_clip.create_model

    def noted(model, pretrained=None, **options):
        calls.append(pretrained)
        tag = open_clip.get_pretrained_cfg(model, pretrained) if pretrained else {}
        assert bool(tag.get("quick_gelu")) <= options["force_quick_gelu"]
        return create(model, **options)

    monkeypatch.setattr(open_clip, "create_model", noted)
    return calls


@pytest.mark.parametrize(("tag", "kind"), [("openai", QuickGELU), ("laion2b_s34b_b79k", nn.GELU)])
def test_openai_s_weights_get_openai_s_activation(asked, tag, kind):
    model = load_dual_encoder("ViT-B-32", tag)
    assert asked == [tag]
    for blocks in (model.clip.visual.transformer.resblocks, model.clip.transformer.resblocks):
        assert isinstance(blocks[0].mlp.gelu, kind)
    assert model.config["model_cfg"].get("quick_gelu", False) == (tag == "openai")


def test_a_run_s_student_sees_pictures_as_its_tag_has_them(asked):
    tag = open_clip.get_pretrained_cfg("MobileCLIP-S1", "datacompdr")
    model = load_dual_encoder("MobileCLIP-S1", "datacompdr", without_weights=True)
    assert asked == [None]
    result = model.config["preprocess_cfg"]
    assert {name: result[name] for name in ("mean", "std", "interpolation")} == {
        name: tag[name] for name in ("mean", "std", "interpolation")
    }
    assert float(model.mean.abs().max()) == 0 and model.transform.interpolation == "bilinear"


def test_the_file_that_a_student_started_from_may_be_gone(asked):
    with pytest.raises(SettingError, match="no such tag or file"):
        load_dual_encoder("ViT-B-32", "/gone/weights.pt")
    model = load_dual_encoder("ViT-B-32", "/gone/weights.pt", without_weights=True)
    assert asked == [None] and "quick_gelu" not in model.config["model_cfg"]
