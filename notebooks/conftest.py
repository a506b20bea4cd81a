"""Notebooks under nbval run without widgets; their training runs go with the session."""

import atexit
import os
import shutil
import tempfile

os.environ["WORKBENCH_HEADLESS"] = "1"
if "WORKBENCH_RUNS" not in os.environ:
    os.environ["WORKBENCH_RUNS"] = tempfile.mkdtemp(prefix="workbench-runs-")
    atexit.register(shutil.rmtree, os.environ["WORKBENCH_RUNS"], ignore_errors=True)
