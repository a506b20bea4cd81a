"""The model card of a student: how to load it, its training data, results, limits and licences."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from workbench.evaluation.results_io import SplitResults
from workbench.evaluation.significance import bootstrap_interval
from workbench.evaluation.suites import results_of_queries, size_of
from workbench.export.markdown import code, escaped, fenced, prose_without_folders, without_folders
from workbench.export.programs import how_to_load, needs_workbench
from workbench.figures.style import is_share, metric_label
from workbench.recipe import Recipe
from workbench.recipe.yaml_io import write_yaml

if TYPE_CHECKING:
    from workbench.models.dual_encoder import DualEncoder

TAGS = ["clip", "knowledge-distillation", "zero-shot-image-classification"]
LOADING = """\
```python
import open_clip, torch
from PIL import Image

model, _, preprocess = open_clip.create_model_and_transforms({place})
tokenizer = open_clip.get_tokenizer({place})
model.eval()
with torch.no_grad():
    image = model.encode_image(preprocess(Image.open("picture.jpg"))[None], normalize=True)
    text = model.encode_text(tokenizer(["a picture of a dog", "a picture of a cat"]), normalize=True)
    print((model.logit_scale.exp() * image @ text.T).softmax(-1))
```
"""
PROGRAMS = """\
{own}
Without it, and without open_clip, `image_tower.pt2` and `text_tower.pt2` run in plain torch:

```python
import torch

image_tower = torch.export.load("image_tower.pt2").module()  # uint8 pictures [B, 3, {height}, {width}]
text_tower = torch.export.load("text_tower.pt2").module()  # token ids [B, {length}] of its tokenizer
```
"""
# The licences of the data and weights that come with the workbench, by the value of the setting.
LICENCES = {
    "scenes": "the pictures are composed of Twemoji (© Twitter, Inc and other contributors, CC BY 4.0) and "
    "OpenMoji (CC BY-SA 4.0)",
    "demo_teacher": "it began as MobileNetV2 of torchvision (BSD-3-Clause) beside all-MiniLM-L6-v2 "
    "(Apache-2.0)",
    "photo_teacher": "it joins MobileNetV2 of torchvision (BSD-3-Clause) and all-MiniLM-L6-v2 (Apache-2.0)",
    "minilm": "all-MiniLM-L6-v2 is under Apache-2.0",
    "smollm2": "SmolLM2 is under Apache-2.0",
    "mobilenet_v2": "MobileNetV2's weights are torchvision's (BSD-3-Clause)",
    "mobilenet_v2_stem": "it began with layers of torchvision's MobileNetV2 (BSD-3-Clause)",
}
DETECTOR = "regions were found by a detector of ultralytics, which is under AGPL-3.0"


class TrainingFacts(NamedTuple):
    """The facts about a student's training, taken from its run folder as plain values."""

    recipe: Recipe
    step: int
    status: Mapping[str, Any]
    data: Mapping[str, Any]
    versions: Mapping[str, str]
    evaluations: Mapping[str, SplitResults]
    start: str | None = None  # the weights from which the student started, None for random ones


def model_card(model: "DualEncoder", facts: TrainingFacts, place: str) -> str:
    """Write a model card in Markdown, with metadata for model hubs. open_clip loads the student from `place`.

    Results are those of evaluations of these weights, with 95 % bootstrap intervals over pictures.
    """
    recipe, fingerprint = facts.recipe, model.fingerprint()
    evaluations = {
        name: results
        for name, results in facts.evaluations.items()
        if results.report.get("model", fingerprint) == fingerprint
    }
    image, text = (sum(p.numel() for p in part) for part in _towers(model.clip))
    description = escaped(recipe.description)
    size = " x ".join(map(str, model.transform.size))
    head = write_yaml({"library_name": "open_clip", "pipeline_tag": TAGS[-1], "tags": TAGS})
    parts = [
        f"---\n{head}---",
        f"# {escaped(recipe.name)}",
        f"{description[:1].upper()}{description[1:]}."
        if (description := escaped(recipe.description))
        else "",
        f"A two-tower model of {(image + text) / 1e6:.1f} M parameters (image {image / 1e6:.1f} M, text "
        f"{text / 1e6:.1f} M): pictures of {size} pixels and captions become embeddings of {model.dim} "
        f"dimensions. Architecture: {code(recipe.student.model)}.",
        "## How to load it",
        LOADING.format(place=json.dumps(place, ensure_ascii=False)),
        _programs(model),
        "## What it learned from",
        "\n".join(f"- {line}" for line in _training(facts)),
        "## Results",
        _results(evaluations),
        "## Limits",
        "\n".join(f"- {line}" for line in _limits(facts, evaluations)),
        "## Licences",
        _licences(recipe),
        "## Recipe",
        fenced(_without_folders(recipe), "yaml"),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _programs(model: "DualEncoder") -> str:
    if not needs_workbench(model):
        return ""
    height, width = model.transform.size
    own = how_to_load(model)
    return PROGRAMS.format(own=own, height=height, width=width, length=model.tokenizer.context_length)


def _towers(clip: Any) -> tuple[list[Any], list[Any]]:
    image = list(clip.visual.parameters())
    own = {id(parameter) for parameter in image}
    return image, [parameter for parameter in clip.parameters() if id(parameter) not in own]


def _training(facts: TrainingFacts) -> list[str]:
    recipe, seen = facts.recipe, facts.data.get("train")
    size = f": {seen['pairs']:,} pictures, {seen['captions']:,} captions" if seen else ""
    lines = [f"Data: {code(recipe.data.source)}, split {code(recipe.data.train_split)}{size}."]
    if seen:
        digest = code(str(seen["fingerprint"]))
        lines.append(f"Fingerprint of ids, captions and pictures (SHA-256): {digest}.")
    if rejected := facts.status.get("rejected"):
        counted = ", ".join(f"{count:,} {escaped(reason)}" for reason, count in rejected.items())
        lines.append(f"Not usable in the source, all splits: {counted}.")
    start = ", ".join(code(part) for part in (facts.start or "").split(", ") if part)
    lines.append(f"Start: {start or 'random weights'}.")
    for teacher in recipe.named_teachers.values():
        weights = f" ({code(teacher.pretrained)})" if teacher.pretrained else ""
        lines.append(f"Teacher: {code(teacher.model)}{weights}.")
    if recipe.text_teacher is not None and (recipe.objectives.embedding or recipe.objectives.concepts):
        lines.append(f"Language model: {code(recipe.text_teacher.model)}.")
    if recipe.objectives.cross_modal:
        regions = f"{recipe.regions.proposer} ({code(recipe.regions.weights)})"
        lines.append(f"Cross-modal teacher of words and regions, the latter by {regions}.")
    terms = ", ".join(f"{name} {weight:g}" for name, weight in recipe.objectives.weights().items())
    lines.append(f"Objectives and their weights: {terms}.")
    settings = recipe.training
    batch = min(settings.batch, seen["pairs"] if seen else settings.batch)
    lines.append(
        f"{facts.step:,} steps of {batch} pairs with AdamW, learning rate {settings.lr:g}, "
        f"seed {recipe.seed}."
    )
    named = ("workbench", "torch", "open_clip_torch", "timm", "transformers")
    made_with = [f"{name} {escaped(str(facts.versions[name]))}" for name in named if name in facts.versions]
    if made_with:
        lines.append(f"Made with {', '.join(made_with)}.")
    return lines


def _results(evaluations: Mapping[str, SplitResults]) -> str:
    if not evaluations:
        return "These weights have not been evaluated."
    lines = ["| data | measure | value | 95 % interval |", "|---|---|---|---|"]
    for report, queries in evaluations.values():
        data = f"{escaped(report['split'])} ({size_of(report)})"
        for metric, value in report["scores"].items():
            share = is_share(metric)
            text = f"{100 * value:.1f} %" if share else f"{value:.3g}"
            results = results_of_queries(metric, queries) if share else None
            interval = ""
            if results is not None:
                interval_of = bootstrap_interval(*results)
                interval = f"{100 * interval_of.low:.1f} to {100 * interval_of.high:.1f}"
            lines.append(f"| {data} | {escaped(metric_label(metric))} | {text} | {interval} |")
    note = "Intervals are bootstrapped over pictures. They do not cover the variation between seeds."
    return "\n".join([*lines, "", note])


def _limits(facts: TrainingFacts, evaluations: Mapping[str, SplitResults]) -> list[str]:
    lines = []
    if (state := facts.status.get("state")) != "finished":
        ended = escaped(str(state))
        lines.append(f"Training is not finished ({ended}). These are the weights of the last checkpoint.")
    elif facts.step != facts.status.get("step", facts.step):
        end = facts.status["step"]
        lines.append(f"These are the weights of step {facts.step}. Training continued to step {end}.")
    if facts.recipe.data.source == "scenes":
        lines.append(
            "It was trained on drawings composed of emoji with template captions, not on photographs."
        )
    else:
        lines.append("It is limited to the subjects and the caption style of its training data.")
    if any(report["scores"].get("swap_accuracy", 1.0) < 0.6 for report, _ in evaluations.values()):
        lines.append(
            "It recognises spatial relations hardly better than chance (see the swapped captions above)."
        )
    lines.append("Models of this kind often treat captions as bags of words, and count poorly.")
    lines.append("It was not examined for bias or misuse. Do not use it to make decisions about people.")
    return lines


def _licences(recipe: Recipe) -> str:
    text_teacher = recipe.text_teacher.model if recipe.text_teacher else None
    teachers = [teacher.pretrained for teacher in recipe.named_teachers.values()]
    parts = recipe.student.initial_weights.values()
    used = [recipe.data.source, recipe.student.pretrained, *parts, *teachers, text_teacher]
    lines = [LICENCES[name] for name in dict.fromkeys(used) if name in LICENCES]
    if recipe.objectives.cross_modal and recipe.regions.proposer == "yolo":
        lines.append(DETECTOR)
    known = f" Known licences: {'; '.join(lines)}." if lines else ""
    return f"Choose a licence that those of the data, the initial weights and the teachers allow.{known}"


def _without_folders(recipe: Recipe) -> str:
    """The recipe as YAML without folders, so that a shared model card does not reveal paths."""

    def bare(value: Any, key: str = "") -> Any:
        if isinstance(value, Mapping):
            return {name: bare(item, name) for name, item in value.items()}
        if isinstance(value, list):
            return [bare(item) for item in value]
        if not isinstance(value, str):
            return value
        return prose_without_folders(value) if key in ("name", "description") else without_folders(value)

    return write_yaml(bare(recipe.model_dump(mode="json")))
