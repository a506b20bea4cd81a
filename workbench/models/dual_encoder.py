"""Image-text models with two towers: any open_clip model, with its own transform, tokenizer and scale."""

import difflib
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, UInt8
from safetensors.torch import save
from torch import Tensor, nn

from workbench.errors import SettingError
from workbench.files import atomic_write, sha256_of_json, write_json
from workbench.models.frozen_layers import without_frozen_layers
from workbench.models.relations import PARTS, Relations, last_map
from workbench.models.transform import ImageTransform, normalised

CONFIG_NAME = "open_clip_config.json"
WEIGHTS_NAME = "open_clip_model.safetensors"
# What a recipe sets for its own student, which another does not fit.
OWN_STUDENT = (
    "With another student than the recipe's, remove what belongs to that: --set student.initial_weights={} "
    "--set student.frozen=[] --set training.lr_multipliers={}."
)
MAX_SCALE = 100.0
CPU_PORTION = 32  # pictures that a CPU embeds together; the feature maps of more exceed its caches


class DualEncoder(nn.Module):
    """An open_clip model that embeds uint8 pictures and tokenized captions. Embeddings have any norm.

    `clip` is the plain open_clip module, `config` its open_clip configuration, and `transform` and `tokenize`
    prepare its inputs. Modules of `clip` that `frozen` names, and modules without trainable parameters,
    neither learn nor update batch statistics. With `freeze_batch_norm` no BatchNorm updates its statistics.
    `precision`, "float32" or "bfloat16", is that of `embed_images` and evaluation. `weights_from` is the
    source of the weights, None if they are random. `fixed` names the frozen parameters, and those that the
    architecture excludes from learning (sinusoidal positions).
    """

    clip: Any  # open_clip's classes share no base class with these methods
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        clip: Any,
        config: dict[str, Any],
        tokenizer: Any,
        frozen: Sequence[str] = (),
        freeze_batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.freeze_batch_norm = freeze_batch_norm
        self.precision = "float32"
        self.weights_from: str | None = None
        self.clip = clip
        self.config = config
        self.tokenizer = tokenizer
        self.transform = ImageTransform.from_preprocess(config["preprocess_cfg"])
        for name in ("mean", "std"):
            values = torch.tensor(config["preprocess_cfg"][name]).view(1, 3, 1, 1)
            self.register_buffer(name, values, persistent=False)
        self.frozen = tuple(frozen)
        modules = dict(clip.named_modules())
        for name in self.frozen:
            if name not in modules:
                problem = "the model has no such module"
                remedy = f"{nearest(name, modules)} {OWN_STUDENT}"
                raise SettingError("student.frozen", name, problem, remedy)
            modules[name].requires_grad_(False)
        self.fixed = tuple(name for name, parameter in clip.named_parameters() if not parameter.requires_grad)
        self.train(self.training)

    @property
    def dim(self) -> int:
        """The width of both embeddings."""
        return int(self.config["model_cfg"]["embed_dim"]) * (1 if self.relations is None else PARTS)

    @property
    def relations(self) -> Relations | None:
        """What adds to both embeddings where things lie, None for most models."""
        return getattr(self.clip, "relations", None)

    @property
    def scale(self) -> Float[Tensor, ""]:
        """The multiplier of cosine similarities: the exponential of the learned log, within [1, 100] while it
        is trained."""
        log = self.clip.logit_scale
        if not (log.requires_grad and self.training):
            return log.exp().reshape(())  # a frozen model keeps its own, which is above 100 for SigLIP
        # A plain clamp passes no gradient at its bounds, so a scale at a bound would stay there.
        return (log - (log - log.clamp(0.0, math.log(MAX_SCALE))).detach()).exp().reshape(())

    @property
    def bias(self) -> float | None:
        """The bias that SigLIP's models add to the scaled cosines, None for models without one."""
        bias = getattr(self.clip, "logit_bias", None)
        return None if bias is None else float(bias.detach())

    def train(self, mode: bool = True) -> "DualEncoder":
        super().train(mode)
        modules = dict(self.clip.named_modules())
        for name in self.frozen:
            modules[name].eval()
        # A frozen layer must not change with its inputs (BatchNorm), and must not use dropout.
        for module in self.clip.modules():
            if self.freeze_batch_norm and isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()
        return self

    def encode_image(
        self,
        images: UInt8[Tensor, "batch 3 height width"],
        seen: Bool[Tensor, "batch 1 height width"] | None = None,
    ) -> Float[Tensor, "batch dim"]:
        """Embeddings, of any norm, of pictures that went through `transform`; the mean colour where not
        `seen`."""
        pixels = normalised(images, self.mean, self.std)
        if seen is not None:
            pixels = pixels * seen
        # Convolutions are faster on CPUs and GPUs alike with the channels last.
        return self.encode_pixels(pixels.contiguous(memory_format=torch.channels_last))

    def encode_maps(self, maps: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch dim"]:
        """Embeddings, of any norm, from the output of the tower's frozen first layers."""
        with without_frozen_layers(self):
            return self.encode_pixels(maps.contiguous(memory_format=torch.channels_last))

    def encode_pixels(
        self, pixels: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch dim"]:
        """Embeddings, of any norm, of normalised pictures (or of maps, `without_frozen_layers`)."""
        if self.relations is None:
            return self.clip.encode_image(pixels)
        return self.relations.join_image(*last_map(self.clip.visual, pixels))

    @torch.no_grad()
    def embed_images(self, images: UInt8[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """`encode_image` without a gradient, in portions that suit the device. Float32 on the CPU."""
        portion = CPU_PORTION if self.mean.device.type == "cpu" else len(images)
        with self.autocast():
            parts = [self.encode_image(part.to(self.mean.device)) for part in images.split(portion)]
        return torch.cat(parts).float().cpu()

    def autocast(self) -> torch.autocast:
        """The context of `precision`, "float32" or "bfloat16", for embedding without a gradient."""
        half = self.precision == "bfloat16"
        return torch.autocast(self.mean.device.type, dtype=torch.bfloat16, enabled=half)

    def encode_text(self, tokens: Int[Tensor, "batch length"]) -> Float[Tensor, "batch dim"]:
        """Embeddings, of any norm, of captions that went through `tokenize`."""
        if self.relations is None:
            return self.clip.encode_text(tokens)
        from workbench.models.tokens import caption_tokens

        words = caption_tokens(self, tokens)
        return self.relations.join_text(words.pooled, words.tokens, words.mask)

    def tokenize(self, captions: Sequence[str]) -> Int[Tensor, "batch length"]:
        """Token ids, padded and truncated to the model's context length."""
        tokens = self.tokenizer(list(captions))
        if "hf_model_name" in self.config["model_cfg"]["text_cfg"]:
            # These towers mask padding, so columns with only padding cost time and change nothing.
            used = (tokens != self.clip.text.config.pad_token_id).any(0).nonzero()
            tokens = tokens[:, : int(used.max()) + 1 if len(used) else 1]
        return tokens

    @property
    def trains_batch_statistics(self) -> bool:
        """Whether the rest of the batch changes an embedding in training (BatchNorm)."""
        norms = (
            module for module in self.clip.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
        )
        return any(module.training for module in norms)

    def fingerprint(self) -> dict[str, str]:
        """Everything that determines its embeddings: hashes of configuration, weights and tokenizer."""
        captions = ["two red apples", "a photo of the Eiffel tower, 1889", "naïve façade 🙂 (x_1)"]
        # The location of a tower's files on this machine does not change its embeddings.
        paths = ("hf_model_name", "hf_tokenizer_name")
        model = self.config["model_cfg"]
        text = {key: value for key, value in model["text_cfg"].items() if key not in paths}
        return {
            "model": sha256_of_json({**model, "text_cfg": text}),
            "transform": sha256_of_json(self.config["preprocess_cfg"]),
            "tokenizer": sha256_of_json(self.tokenizer(captions).tolist()),
            "weights": weights_digest(self.clip.state_dict()),
        }

    def text_digest(self) -> str:
        """A hash of everything that determines its embeddings of captions."""
        weights = self.clip.state_dict()
        others = ("visual.", "logit_", "relations.things.")
        text = {name: value for name, value in weights.items() if not name.startswith(others)}
        return sha256_of_json([self.config["model_cfg"]["text_cfg"], weights_digest(text)])

    def save(self, folder: Path, home: Path | None = None) -> Path:
        """Write a folder that `open_clip.create_model_and_transforms("local-dir:FOLDER")` loads without this
        package.

        A text tower of transformers leaves its own configuration in it. open_clip needs the absolute path of
        that: in a folder that was moved, correct `hf_model_name` (`load_dual_encoder` does not need it);
        `home` is where the folder will be moved to.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = json.loads(json.dumps(self.config))
        text = config["model_cfg"]["text_cfg"]
        if hasattr(self.tokenizer, "save_pretrained"):
            self.tokenizer.save_pretrained(str(folder))
            text["hf_tokenizer_name"] = "./"
        if "hf_model_name" in text:
            self.clip.text.config.save_pretrained(str(folder))
            text["hf_model_name"] = str((home or folder).absolute())
        weights = {name: value.detach().cpu().contiguous() for name, value in self.clip.state_dict().items()}
        # Weights first: a folder with a configuration can be loaded.
        with atomic_write(folder / WEIGHTS_NAME) as stream:
            stream.write(save(weights))
        write_json(folder / CONFIG_NAME, config)
        return folder


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """The hash of named tensors, independent of their order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def nearest(name: str, known: Iterable[str]) -> str:
    """A suggestion to replace an unknown name."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.3)
    return f"did you mean {' or '.join(close)}?" if close else "see `workbench doctor` for what is there"
