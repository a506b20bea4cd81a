"""Image-text models with two towers: any open_clip model, with its own transform, tokenizer and scale."""

import contextlib
import difflib
import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from workbench.errors import SettingError
from workbench.files import sha256_of_json, write_json
from workbench.models import package_weights
from workbench.models.transform import ImageTransform

CONFIGS = Path(__file__).parent / "configs"
ASSETS = Path(__file__).parents[1] / "assets"
CONFIG_NAME = "open_clip_config.json"
MAX_SCALE = 100.0


class DualEncoder(nn.Module):
    """An open_clip model that takes pictures as uint8 and captions as tokens, and gives embeddings of any
    norm.

    `clip` is the plain open_clip module, `config` its open_clip configuration, `transform` and `tokenize`
    make its inputs. `frozen` names modules of `clip` that neither learn nor update batch statistics.
    """

    clip: Any  # open_clip's classes share no base that says what they can
    mean: Tensor
    std: Tensor

    def __init__(self, clip: Any, config: dict[str, Any], tokenizer: Any, frozen: Sequence[str] = ()) -> None:
        super().__init__()
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
                raise SettingError(
                    "student.frozen", name, "the model has no such module", _nearest(name, modules)
                )
            modules[name].requires_grad_(False)
        self.train(self.training)

    @property
    def dim(self) -> int:
        """Width of both embeddings."""
        return int(self.config["model_cfg"]["embed_dim"])

    @property
    def scale(self) -> Float[Tensor, ""]:
        """Multiplier of cosine similarities: the exponential of the learned log, within [1, 100]."""
        log = self.clip.logit_scale
        # A plain clamp passes no gradient at its bounds, and a scale that came to one would stay there.
        return (log - (log - log.clamp(0.0, math.log(MAX_SCALE))).detach()).exp().reshape(())

    def train(self, mode: bool = True) -> "DualEncoder":
        super().train(mode)
        modules = dict(self.clip.named_modules())
        for name in self.frozen:
            modules[name].eval()
        return self

    def encode_image(self, images: UInt8[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """Embeddings, of any norm, of pictures that went through `transform`."""
        pixels = (images.to(self.mean.dtype) / 255 - self.mean) / self.std
        # Convolutions are faster on CPUs and GPUs alike with the channels last.
        return self.clip.encode_image(pixels.contiguous(memory_format=torch.channels_last))

    def encode_text(self, tokens: Int[Tensor, "batch length"]) -> Float[Tensor, "batch dim"]:
        """Embeddings, of any norm, of captions that went through `tokenize`."""
        return self.clip.encode_text(tokens)

    def tokenize(self, captions: Sequence[str]) -> Int[Tensor, "batch length"]:
        """Token ids, padded and cut to the model's context length."""
        tokens = self.tokenizer(list(captions))
        if "hf_model_name" in self.config["model_cfg"]["text_cfg"]:
            # These towers mask padding, so columns that are padding in every row cost time and change
            # nothing.
            used = (tokens != self.clip.text.config.pad_token_id).any(0).nonzero()
            tokens = tokens[:, : int(used.max()) + 1 if len(used) else 1]
        return tokens

    @property
    def trains_batch_statistics(self) -> bool:
        """Whether a training step's result depends on who else is in the batch beyond the loss
        (BatchNorm)."""
        kinds = (nn.modules.batchnorm._BatchNorm,)
        return any(isinstance(module, kinds) and module.training for module in self.clip.modules())

    def fingerprint(self) -> dict[str, str]:
        """What determines its embeddings: hashes of configuration, weights and tokenizer."""
        import hashlib

        weights = hashlib.sha256()
        for name, tensor in sorted(self.clip.state_dict().items()):
            weights.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
            weights.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        probe = self.tokenizer(
            ["two red apples", "a photo of the Eiffel tower, 1889", "naïve façade 🙂 (x_1)"]
        )
        # Where a tower's files lie on this machine does not change what it says.
        shape = {**self.config["model_cfg"], "text_cfg": _without_paths(self.config["model_cfg"]["text_cfg"])}
        return {
            "model": sha256_of_json(shape),
            "transform": sha256_of_json(self.config["preprocess_cfg"]),
            "tokenizer": sha256_of_json(probe.tolist()),
            "weights": weights.hexdigest(),
        }

    def save(self, folder: Path) -> Path:
        """Write a folder that `open_clip.create_model_and_transforms("local-dir:FOLDER")` loads without this
        package."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = json.loads(json.dumps(self.config))
        if hasattr(self.tokenizer, "save_pretrained"):
            self.tokenizer.save_pretrained(str(folder))
            config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "./"
        write_json(folder / CONFIG_NAME, config)
        weights = {
            name: tensor.detach().cpu().contiguous() for name, tensor in self.clip.state_dict().items()
        }
        save_file(weights, folder / "open_clip_model.safetensors")
        return folder


def load_dual_encoder(
    model: str,
    pretrained: str | None = None,
    *,
    initial_weights: Mapping[str, str] | None = None,
    frozen: Sequence[str] = (),
    allow_download: bool = False,
    setting: str = "model",
) -> DualEncoder:
    """Load a two-tower model in float32 on the CPU.

    `model`: a shipped configuration (`shipped_models()`), an open_clip name (`ViT-B-32`), an exported folder
    (`local-dir:PATH` or the path itself), a JSON file in open_clip's format, or `hf-hub:ORG/NAME`.
    `pretrained`: one of open_clip's tags, a weights file, or shipped weights (`demo_teacher`); None leaves
    the weights random, or those in the folder. `initial_weights` copies packaged tower weights into modules
    (`{"visual.trunk": "mobilenet_v2"}`). Raises SettingError, naming `setting`, when something is missing;
    downloads only where `allow_download`.
    """
    import open_clip

    name = model.removeprefix("local-dir:")
    config_file = _config_file(name)
    with tempfile.TemporaryDirectory() as scratch, _network(allow_download):
        if config_file is None:
            clip, config, tokenizer = _load_named(open_clip, model, pretrained, setting, allow_download)
        else:
            raw = json.loads(config_file.read_text(encoding="utf-8"))
            config = raw if "model_cfg" in raw else {"model_cfg": raw}
            text = config["model_cfg"].get("text_cfg", {})
            for key in ("hf_model_name", "hf_tokenizer_name"):
                if str(text.get(key, "")).startswith("package:"):
                    package, _, inside = text[key].removeprefix("package:").partition("/")
                    text[key] = str(package_weights.package_folder(package) / inside)
            write_json(Path(scratch) / CONFIG_NAME, config)
            clip = _create(open_clip, f"local-dir:{scratch}", setting, model, pretrained_text=False)
            tokenizer = _tokenizer(open_clip, config_file.parent, text)
            config = {"model_cfg": config["model_cfg"], "preprocess_cfg": dict(clip.visual.preprocess_cfg)}
            weights = _weights_file(pretrained, config_file.parent, setting)
            if weights is not None:
                _load_weights(clip, weights)
    for module, weights_name in (initial_weights or {}).items():
        package_weights.load_into(_submodule(clip, module, f"{setting}.initial_weights"), weights_name)
    return DualEncoder(clip.float(), config, tokenizer, frozen)


def shipped_models() -> list[str]:
    """Names of the model configurations that come with the workbench."""
    return sorted(path.parent.name for path in CONFIGS.glob(f"*/{CONFIG_NAME}"))


def save_trained(model: DualEncoder, path: Path, from_packages: Mapping[str, str]) -> None:
    """Write the weights as float16 safetensors, leaving out what packages carry unchanged.

    `from_packages` maps a module to the packaged weights it started from; its tensors that still equal them
    are not written, and the mapping goes into the file's metadata so that `load_dual_encoder` can put both
    together.
    """
    reference = {}
    for module, name in from_packages.items():
        fresh = _submodule(model.clip, module, "from_packages")
        trained = {key: value.clone() for key, value in fresh.state_dict().items()}
        package_weights.load_into(fresh, name)
        reference.update({f"{module}.{key}": value.clone() for key, value in fresh.state_dict().items()})
        fresh.load_state_dict(trained)
    kept = {
        key: value.to(torch.float16).contiguous() if value.is_floating_point() else value.contiguous()
        for key, value in model.clip.state_dict().items()
        if key not in reference or not torch.equal(reference[key], value)
    }
    save_file(kept, path, metadata={"initial_weights": json.dumps(dict(from_packages))})


def _config_file(name: str) -> Path | None:
    path = Path(name).expanduser()
    for candidate in (path / CONFIG_NAME, CONFIGS / name / CONFIG_NAME):
        if candidate.is_file():
            return candidate
    return path if path.suffix == ".json" and path.is_file() else None


def _weights_file(pretrained: str | None, folder: Path, setting: str) -> Path | None:
    if pretrained is None:
        beside = folder / "open_clip_model.safetensors"
        return beside if beside.is_file() else None
    for candidate in (ASSETS / f"{pretrained}.safetensors", Path(pretrained).expanduser()):
        if candidate.is_file():
            return candidate
    shipped = ", ".join(sorted(path.stem for path in ASSETS.glob("*.safetensors")))
    raise SettingError(
        f"{setting}.pretrained",
        pretrained,
        "neither shipped weights nor a file",
        f"a path, or one of: {shipped}",
    )


def _load_weights(clip: nn.Module, path: Path) -> None:
    if path.suffix != ".safetensors":
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            problem = f"it is not a file of plain weights ({error})"
            raise SettingError(
                "pretrained", str(path), problem, "Give a state dict or safetensors"
            ) from error
    else:
        with safe_open(path, framework="pt") as file:
            packaged = json.loads((file.metadata() or {}).get("initial_weights", "{}"))
        for module, name in packaged.items():
            package_weights.load_into(_submodule(clip, module, "pretrained"), name)
        state = clip.state_dict() if packaged else {}
        state = {**state, **load_file(path)}
    try:
        clip.load_state_dict(state)
    except RuntimeError as error:
        raise SettingError(
            "pretrained", str(path), f"these weights do not fit the model ({error})", "weights of this model"
        ) from None


def _load_named(
    open_clip: Any, model: str, pretrained: str | None, setting: str, allow_download: bool
) -> tuple[Any, dict[str, Any], Any]:
    if ":" not in model and model.replace("/", "-") not in open_clip.list_models():
        known = [*shipped_models(), *open_clip.list_models()]
        raise SettingError(
            f"{setting}.model", model, "no such model, folder or JSON file", _nearest(model, known)
        )
    if pretrained and not Path(pretrained).is_file():
        tags = open_clip.list_pretrained_tags_by_model(model)
        if pretrained not in tags:
            raise SettingError(
                f"{setting}.pretrained",
                pretrained,
                "no such tag or file",
                f"a file, or one of: {', '.join(tags)}",
            )
    try:
        clip = open_clip.create_model(model, pretrained=pretrained, pretrained_text=False)
        tokenizer = open_clip.get_tokenizer(model)
    except Exception as error:
        remedy = (
            "check the name"
            if allow_download
            else "put the files into the local hub cache, or set allow_download: true"
        )
        raise SettingError(
            f"{setting}.model", f"{model} {pretrained or ''}".strip(), f"cannot be loaded ({error})", remedy
        ) from error
    config = {
        "model_cfg": open_clip.factory.get_model_config(model),
        "preprocess_cfg": dict(clip.visual.preprocess_cfg),
    }
    return clip, config, tokenizer


def _create(open_clip: Any, name: str, setting: str, model: str, **arguments: Any) -> Any:
    import logging

    # open_clip warns that no weights lie in the folder; they come in the next step.
    logging.disable(logging.WARNING)
    try:
        return open_clip.create_model(name, **arguments)
    except Exception as error:
        raise SettingError(
            f"{setting}.model", model, f"open_clip cannot build it ({error})", "mend its JSON"
        ) from error
    finally:
        logging.disable(logging.NOTSET)


def _tokenizer(open_clip: Any, folder: Path, text: dict[str, Any]) -> Any:
    named = text.get("hf_tokenizer_name")
    if not named:
        return open_clip.tokenizer.SimpleTokenizer(context_length=text.get("context_length", 77))
    source = folder if named == "./" else named
    return open_clip.tokenizer.HFTokenizer(str(source), context_length=text.get("context_length", 77))


def _without_paths(text: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in text.items() if key not in ("hf_model_name", "hf_tokenizer_name")}


def _submodule(clip: nn.Module, name: str, setting: str) -> nn.Module:
    modules = dict(clip.named_modules())
    if name not in modules:
        raise SettingError(setting, name, "the model has no such module", _nearest(name, modules))
    return modules[name]


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.3)
    return f"did you mean {' or '.join(close)}?" if close else "see `workbench doctor` for what is there"


@contextlib.contextmanager
def _network(allowed: bool) -> Iterator[None]:
    """Keep the model hub's client off the network unless the recipe allows it."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not allowed
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
