"""Teachers that are not open_clip models: of timm, torchvision and transformers, and Python objects.

timm/NAME         an image tower of timm, with a weights file in timm's format
torchvision/NAME  a classifier of torchvision without its last layer, with a weights file
FOLDER            a vision model, or one with two towers (CLIP, SigLIP), as transformers saves it
FOLDER, minilm    a sentence encoder in sentence-transformers' format
python            the object that is given to `workbench.train`
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from workbench.errors import SettingError, reason
from workbench.files import sha256_of_json
from workbench.models.dual_encoder import CONFIG_NAME, CPU_PORTION, nearest, weights_digest
from workbench.models.loading import hub_access, quiet_loading
from workbench.models.text_teacher import load_text_teacher
from workbench.models.transform import Crop, ImageTransform, normalised

PYTHON = "python"
SCALE = 100.0  # of a model without one: the teacher's temperature of 0.01 in Seed (arXiv 2101.04731)
PROBE = ["two red apples", "a photo of the Eiffel tower, 1889", "naïve façade 🙂 (x_1)"]
Side = Literal["image", "text"]


class CentreView:
    """Resizes the shorter side to `resize` pixels and cuts a square of `size` pixels out of the centre.

    Called as ImageTransform is; a `crop` is squashed to the square.
    """

    def __init__(self, resize: int, size: int, interpolation: str = "bicubic") -> None:
        self.size = (size, size)
        self.facts = (resize, size, interpolation)
        self._whole = ImageTransform((resize, resize), interpolation)
        self._square = ImageTransform(self.size, interpolation)

    def __call__(self, image: Tensor, crop: Crop | None = None) -> Tensor:
        if crop is not None:
            return self._square(image, crop)
        image = self._whole(image)
        top, left = ((have - want) // 2 for have, want in zip(image.shape[1:], self.size, strict=True))
        return image[:, top : top + self.size[0], left : left + self.size[1]]


class FrozenEncoder(nn.Module):
    """Gives embeddings of pictures, of texts or of both, in evaluation mode and without a gradient.

    `image` maps normalised pixels [n, 3, height, width] to [n, dim], `text` maps n captions to [n, dim];
    None: the model lacks that side. `view` prepares pictures, with `mean` and `std` of their channels.
    `module` holds the weights. `identity` is what determines the embeddings besides weights and view.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        weights_from: str,
        identity: Any,
        module: nn.Module | None = None,
        image: Callable[[Tensor], Tensor] | None = None,
        text: Callable[[Sequence[str]], Tensor] | None = None,
        view: Any = None,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        scale: float = SCALE,
        bias: float | None = None,
    ) -> None:
        super().__init__()
        self.module = (module or nn.Module()).eval()
        self.weights_from, self.identity = weights_from, identity
        self.image, self.text, self.transform = image, text, view
        self.scale, self.bias, self.precision = torch.tensor(scale), bias, "float32"
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        picture = None if view is None else view(torch.zeros(3, 64, 64, dtype=torch.uint8))[None]
        one = self.embed_texts(PROBE[:1]) if picture is None else self.embed_images(picture)
        self.dim = int(one.shape[1])

    @property
    def sides(self) -> tuple[Side, ...]:
        """What it gives embeddings of."""
        sides: dict[Side, Any] = {"image": self.image, "text": self.text}
        return tuple(side for side, function in sides.items() if function is not None)

    @torch.no_grad()
    def embed_images(self, images: UInt8[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """Embeddings, of any norm, of pictures that went through `transform`; on the CPU in float32."""
        assert self.image is not None  # `load_teacher` checks what the objectives ask for
        portion = CPU_PORTION if self.mean.device.type == "cpu" else len(images)
        half = self.precision == "bfloat16"
        with torch.autocast(self.mean.device.type, dtype=torch.bfloat16, enabled=half):
            pixels = (
                normalised(part.to(self.mean.device), self.mean, self.std) for part in images.split(portion)
            )
            parts = [self.image(part.contiguous()) for part in pixels]
        return torch.cat(parts).float().cpu()

    @torch.no_grad()
    def embed_texts(self, captions: Sequence[str]) -> Float[Tensor, "batch dim"]:
        """Embeddings, of any norm, of captions; on the CPU in float32."""
        assert self.text is not None
        half = self.precision == "bfloat16"
        with torch.autocast(self.mean.device.type, dtype=torch.bfloat16, enabled=half):
            return self.text(list(captions)).float().cpu()

    def fingerprint(self) -> dict[str, str]:
        """What determines its embeddings: hashes of kind and configuration, transform and weights."""
        view = getattr(self.transform, "facts", repr(self.transform))
        return {
            "model": sha256_of_json(self.identity),
            "transform": sha256_of_json([view, self.mean.flatten().tolist(), self.std.flatten().tolist()]),
            "weights": weights_digest(self.module.state_dict()),
        }


def is_open_clip(model: str) -> bool:
    """Whether `load_dual_encoder` is to load a model of this name."""
    folder = Path(model).expanduser()
    transformers = not (folder / CONFIG_NAME).is_file() and (
        (folder / "config.json").is_file() or (folder / "modules.json").is_file()
    )
    return not (transformers or model in (PYTHON, "minilm") or model.startswith(("timm/", "torchvision/")))


def load_frozen_encoder(model: str, pretrained: str | None = None) -> FrozenEncoder:
    """Load a teacher by a name that `is_open_clip` declines, in float32 on the CPU, without any download.

    Raises SettingError for an unknown name, for weights that are missing or do not fit, and for a folder that
    does not say how pictures are prepared. Weights are never random.
    """
    library, _, name = model.partition("/")
    if library in ("timm", "torchvision") and name:
        return (_timm if library == "timm" else _torchvision)(model, name, pretrained)
    if pretrained is not None:
        problem = f"{model} comes with its weights"
        raise SettingError("teacher.pretrained", pretrained, problem, "Use null.")
    if model == "minilm" or (Path(model).expanduser() / "modules.json").is_file():
        return _sentence_encoder(model)
    return _transformers(model)


def wrapped_object(teacher: Any) -> FrozenEncoder:
    """An object with `encode_image`, `encode_text` or both as a teacher.

    `encode_image` takes uint8 pictures [n, 3, 224, 224], or as its `image_size` says, and `encode_text` a
    list of n captions; each returns [n, dim], a tensor or an array. Its cosines are multiplied by an
    attribute `scale` (default 100). `fingerprint`, any text, names its version; without one, its answers to
    a few fixed questions do. Raises SettingError for an object with neither function.
    """
    image, text = (getattr(teacher, f"encode_{side}", None) for side in ("image", "text"))
    if not (callable(image) or callable(text)):
        problem = "it has neither encode_image nor encode_text"
        raise SettingError(
            "teacher", type(teacher).__name__, problem, "Give an object with one of them or both."
        )
    size = int(getattr(teacher, "image_size", 224))
    kind = type(teacher).__name__

    def pictures(pixels: Tensor) -> Tensor:
        return torch.as_tensor(image((pixels * 255).round().to(torch.uint8)))  # type: ignore[misc]

    encoder = FrozenEncoder(
        weights_from=f"a Python object ({kind})",
        identity=kind,
        module=teacher if isinstance(teacher, nn.Module) else None,
        image=pictures if callable(image) else None,
        text=(lambda captions: torch.as_tensor(text(captions))) if callable(text) else None,
        view=CentreView(size, size) if callable(image) else None,
        scale=float(getattr(teacher, "scale", SCALE)),
    )
    version = getattr(teacher, "fingerprint", None)
    encoder.identity = [kind, str(version) if isinstance(version, str) else _answers(encoder)]
    return encoder


def _answers(encoder: FrozenEncoder) -> str:
    """A hash of embeddings of fixed noise and captions, for an object whose weights nobody can read."""
    digest = hashlib.sha256()
    if encoder.image is not None:
        noise = torch.randint(
            0, 256, (2, 3, 96, 128), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
        )
        digest.update(
            encoder.embed_images(torch.stack([*map(encoder.transform, noise)])).half().numpy().tobytes()
        )
    if encoder.text is not None:
        digest.update(encoder.embed_texts(PROBE).half().numpy().tobytes())
    return digest.hexdigest()


def _timm(model: str, name: str, pretrained: str | None) -> FrozenEncoder:
    import timm
    from timm.data import resolve_model_data_config

    if name not in timm.list_models():
        raise SettingError(
            "teacher.model", model, "timm has no such model", nearest(name, timm.list_models())
        )
    tower: Any = timm.create_model(name, pretrained=False, num_classes=0)
    # As timm: what classified is dropped, everything else has to be there.
    head = tower.pretrained_cfg.get("classifier") or ()
    _load_tower(tower, model, pretrained, (head,) if isinstance(head, str) else tuple(head))
    config = resolve_model_data_config(tower)
    size = config["input_size"][-1]
    view = CentreView(int(size / config["crop_pct"]), size, config["interpolation"])
    return FrozenEncoder(
        weights_from=str(pretrained),
        identity=model,
        module=tower,
        image=tower,
        view=view,
        mean=config["mean"],
        std=config["std"],
    )


def _torchvision(model: str, name: str, pretrained: str | None) -> FrozenEncoder:
    from torchvision import models
    from torchvision.transforms._presets import ImageClassification

    names = models.list_models(module=models)
    if name not in names:
        raise SettingError("teacher.model", model, "torchvision has no such model", nearest(name, names))
    tower = models.get_model(name, weights=None, **({"init_weights": True} if "inception" in name else {}))
    _load_tower(tower, model, pretrained)
    # A classifier's last linear layer is the last of its modules that has weights.
    last = [path for path, module in tower.named_modules() if isinstance(module, nn.Linear)][-1]
    tower.set_submodule(last, nn.Identity())
    transform = next(iter(models.get_model_weights(name))).transforms()
    assert isinstance(transform, ImageClassification)
    (resize,), (size,) = transform.resize_size, transform.crop_size
    return FrozenEncoder(
        weights_from=str(pretrained),
        identity=model,
        module=tower,
        image=tower,
        view=CentreView(resize, size, transform.interpolation.value),
        mean=transform.mean,
        std=transform.std,
    )


def _load_tower(tower: nn.Module, model: str, pretrained: str | None, head: tuple[str, ...] = ()) -> None:
    """Load a weights file whole, without the layers `head`; SettingError where anything is missing."""
    from timm.models import load_state_dict

    file = Path(pretrained).expanduser() if pretrained else None
    if file is None or not file.is_file():
        problem = f"{model} needs a weights file" if file is None else "there is no such file"
        raise SettingError(
            "teacher.pretrained", pretrained, problem, "Give the path of a .safetensors or .pth file."
        )
    try:
        weights = load_state_dict(str(file), device="cpu", weights_only=True)
        dropped = tuple(f"{name}." for name in head)
        tower.load_state_dict(
            {key: value for key, value in weights.items() if not key.startswith(dropped or "\0")}
        )
    except Exception as error:
        problem = f"these weights cannot be read, or do not fit {model} ({reason(error)})"
        remedy = "Give a state dict of this model, all of its layers, in its library's own format."
        raise SettingError("teacher.pretrained", pretrained, problem, remedy) from None


def _sentence_encoder(model: str) -> FrozenEncoder:
    try:
        teacher = load_text_teacher(model, precision="float32", device="cpu")
    except SettingError as error:
        raise SettingError("teacher.model", model, error.problem, error.remedy) from error
    return FrozenEncoder(
        weights_from=model,
        identity=teacher.fingerprint,
        module=teacher.model,
        text=lambda captions: torch.from_numpy(teacher.embed(captions)),
    )


def _transformers(model: str) -> FrozenEncoder:
    from workbench.models.transformers_encoder import parts

    try:
        with hub_access(False), quiet_loading():
            return FrozenEncoder(weights_from=model, **parts(Path(model).expanduser()))
    except Exception as error:
        remedy = "Give a folder of a vision model, CLIP or SigLIP, with weights and preprocessor."
        raise SettingError(
            "teacher.model", model, f"it cannot be loaded ({reason(error)})", remedy
        ) from error
