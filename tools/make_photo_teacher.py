"""Makes the photo teacher's weights; nothing is trained.

    workbench assets fetch mobilenet_v2
    python tools/make_photo_teacher.py

Temperature, prompts, ridge and share were chosen on ImageNet alone: each image's own class was taken out of
the probabilities and of the regression, and its name had to find the image all the same. Float16, 9 MB. The
image weights are torchvision's (BSD-3-Clause); MiniLM's are Apache-2.0 and stay in their package.
"""

import timm
import torch
from open_clip import IMAGENET_CLASSNAMES
from torch import Tensor
from torch.nn.functional import normalize

from workbench.models.dual_encoder import WEIGHTS_NAME, DualEncoder
from workbench.models.loading import CONFIGS, load_dual_encoder, save_trained
from workbench.models.package_weights import load_into

TEMPERATURE = 2.0
RIDGE = 10.0
PROMPTS = (
    "a photo of {}",
    "{}",
    "a picture with a {} in it",
    "there is a {} in the scene",
    "a {} outdoors",
    "a close-up of a {}",
)


def name_embeddings(model: DualEncoder) -> Tensor:
    """The classes' names [1000, 384] as the text tower embeds them, without what all names share."""
    prompts = [[prompt.format(name) for name in IMAGENET_CLASSNAMES] for prompt in PROMPTS]
    by_prompt = [normalize(model.encode_text(model.tokenize(names)), dim=1) for names in prompts]
    embeddings = normalize(torch.stack(by_prompt).mean(0), dim=1)
    # Orthogonal to the mean, a caption's own part of it does not count either, as if captions were centred.
    direction = normalize(embeddings.mean(0), dim=0)
    centred = embeddings - embeddings.mean(0)
    return centred - (centred @ direction)[:, None] * direction


@torch.no_grad()
def photo_teacher() -> DualEncoder:
    """The open_clip model with MobileNetV2's layers, MiniLM, and both joined by ConSE."""
    model = load_dual_encoder("photo_teacher", without_weights=True).eval()
    load_into(model.clip.text.transformer, "minilm")
    classifier = timm.create_model("mobilenetv2_100")
    load_into(classifier, "mobilenet_v2")
    trunk, weights = model.clip.visual.trunk, classifier.state_dict()
    trunk.load_state_dict({key: weights.get(key, value) for key, value in trunk.state_dict().items()})
    rows, bias = weights["classifier.weight"], weights["classifier.bias"]
    names = name_embeddings(model)
    trunk.classifier.logits.weight.copy_(rows / TEMPERATURE)
    trunk.classifier.logits.bias.copy_(bias / TEMPERATURE)
    trunk.classifier.names.weight.copy_(names.T)
    centred = rows - rows.mean(0)
    penalty = RIDGE * torch.eye(centred.shape[1])
    trunk.classifier.regression.weight.copy_(
        torch.linalg.solve(centred.T @ centred + penalty, centred.T @ names).T
    )
    return model


if __name__ == "__main__":
    target = CONFIGS / "photo_teacher" / WEIGHTS_NAME
    save_trained(photo_teacher(), target, {"text.transformer": "minilm"})
    target.chmod(0o644)
    print(f"{target.name}: {target.stat().st_size / 1e6:.1f} MB")
