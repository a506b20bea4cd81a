"""Makes the shipped teacher's file from a run of teacher_demo.

    workbench train teacher_demo --run-dir RUN
    python tools/make_demo_teacher.py RUN

Float16, without the parts of MiniLM that training left as the package carries them.
"""

import sys

from workbench.models.loading import save_trained
from workbench.models.package_weights import ASSETS
from workbench.runs.run import Run

if __name__ == "__main__":
    target = ASSETS / "demo_teacher.safetensors"
    target.parent.mkdir(exist_ok=True)
    save_trained(Run(sys.argv[1]).model(), target, {"text.transformer": "minilm"})
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")
