"""The photo teacher's image tower: ImageNet's MobileNetV2 and the names of its classes.

ConSE (Norouzi et al. 2014, arXiv 1312.5650) joins a classifier and a text encoder without training: the
embedding of an image is the mean of the classes' name embeddings, weighted by their probabilities. A ridge
regression from the classifier's rows to the names adds what the probabilities lose. `open_clip.create_model`
can build the tower once this module is imported; tools/make_photo_teacher.py makes its weights.
"""

from typing import Any

from jaxtyping import Float
from timm.models import generate_default_cfgs, register_model
from timm.models.efficientnet import EfficientNet
from torch import Tensor, nn
from torch.nn.functional import normalize

NAME = "mobilenetv2_conse"
FEATURES, CLASSES, WIDTH = 1280, 1000, 384  # of MobileNetV2, ImageNet and MiniLM
REGRESSION_SHARE = 0.75

default_cfgs = generate_default_cfgs({NAME: {"input_size": (3, 224, 224), "pool_size": (7, 7)}})


class ConSE(nn.Module):
    """Maps a classifier's features to the space of its classes' names.

    The temperature of the softmax is part of the weights of `logits`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Linear(FEATURES, CLASSES)
        self.names = nn.Linear(CLASSES, WIDTH, bias=False)
        self.regression = nn.Linear(FEATURES, WIDTH, bias=False)

    def forward(self, features: Float[Tensor, "batch features"]) -> Float[Tensor, "batch width"]:
        """Embeddings of any norm."""
        average = self.names(self.logits(features).softmax(-1))
        return normalize(average, dim=-1) + REGRESSION_SHARE * normalize(self.regression(features), dim=-1)


@register_model
def mobilenetv2_conse(pretrained: bool = False, num_classes: int = 0, **kwargs: Any) -> EfficientNet:
    """MobileNetV2 with ConSE in place of its classifier: features [batch, 384]; `num_classes` is not used."""
    from timm import create_model

    model: Any = create_model("mobilenetv2_100", num_classes=0, **kwargs)
    model.default_cfg = model.pretrained_cfg = default_cfgs[NAME]
    model.classifier = ConSE()
    return model
