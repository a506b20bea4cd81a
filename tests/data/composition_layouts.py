"""Writes tiny sets of hard captions in the layouts that their authors publish."""

import json
from pathlib import Path
from typing import Any

from PIL import Image


def write_pictures(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        picture = Image.new("RGB", (40, 30), (number * 53 % 256, 90, number * 31 % 256))
        picture.paste((255, number * 17 % 256, 0), (20, 0, 40, 30))
        picture.save(folder / name)


def write_sugar_crepe(folder: Path, images: Path, categories: dict[str, int]) -> Path:
    """Category -> questions; question n is about picture n modulo 5."""
    write_pictures(images, names := [f"{number:012}.png" for number in range(5)])
    folder.mkdir(parents=True, exist_ok=True)
    for category, count in categories.items():
        items = {
            str(3 * number + 10): {
                "filename": names[number % 5],
                "caption": f"a {category} scene {number} ",
                "negative_caption": f"another {category} thing {number}",
            }
            for number in range(count)
        }
        (folder / f"{category}.json").write_text(json.dumps(items))
    return folder


def visual_genome_record(number: int, **more: Any) -> dict[str, Any]:
    """Questions 2n and 2n + 1 are about two parts of one picture."""
    return {
        "image_id": str(number // 2),
        "image_path": f"{number // 2}.png",
        "bbox_x": number % 2 * 20,
        "bbox_y": 0,
        "bbox_w": 20,
        "bbox_h": 30,
        "true_caption": f"the dog {number} is under the tree",
        "false_caption": f"the tree is under the dog {number}",
        **more,
    }


def write_aro(folder: Path, relations: list[str], attributes: list[tuple[str, str]]) -> Path:
    """A relation, or a pair of attributes, a question."""
    count = max(len(relations), len(attributes))
    write_pictures(folder / "images", [f"{number}.png" for number in range((count + 1) // 2)])
    for name, key, values in (
        ("relation", "relation_name", relations),
        ("attribution", "attributes", attributes),
    ):
        records = [visual_genome_record(number, **{key: value}) for number, value in enumerate(values)]
        (folder / f"visual_genome_{name}.json").write_text(json.dumps(records))
    return folder


def write_winoground(folder: Path, count: int) -> Path:
    names = [f"ex_{number}_img_{side}" for number in range(count) for side in (0, 1)]
    write_pictures(folder / "data" / "images", [f"{name}.png" for name in names])
    lines = [
        json.dumps(
            {
                "id": number,
                "image_0": names[2 * number],
                "image_1": names[2 * number + 1],
                "caption_0": f"some plants {number} surrounding a lightbulb",
                "caption_1": f"a lightbulb {number} surrounding some plants",
                "tag": "Object",
                "num_main_preds": 1,
            }
        )
        for number in range(count)
    ]
    (folder / "data" / "examples.jsonl").write_text("\n".join(lines) + "\n")
    return folder
