"""Exports: a folder for plain open_clip in a process without the workbench, a model card, a model hub."""

import base64
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

import workbench
from workbench.errors import SettingError
from workbench.export.export import push
from workbench.models.dual_encoder import DualEncoder
from workbench.models.loading import load_dual_encoder
from workbench.models.transform import normalised
from workbench.recipe.yaml_io import read_yaml

CAPTIONS = ["a red apple", "two dogs left of a tree, seen from above"]
ALONE = """
import sys
sys.modules["workbench"] = None  # an import of it would fail
import numpy, open_clip, torch
folder, given, out = sys.argv[1:]
model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
model.eval()
given = numpy.load(given)
with torch.no_grad():
    image = model.encode_image(torch.from_numpy(given["pixels"]))
    text = model.encode_text(tokenizer(list(given["captions"])))
numpy.savez(out, image=image, text=text, scale=model.logit_scale.exp().detach())
"""


@pytest.fixture(scope="module")
def run(settings, tmp_path_factory):
    """A finished, evaluated run of a student whose towers are open_clip's own."""
    recipe = workbench.Recipe.from_settings(settings)
    run = workbench.train(recipe, tmp_path_factory.mktemp("run") / "run")
    run.evaluate()
    return run


def without_workbench(folder: Path, model: DualEncoder, scratch: Path) -> dict[str, np.ndarray]:
    """What plain open_clip makes of an exported folder in a process that knows no workbench, as a difference
    to `model`."""
    pictures = torch.randint(0, 256, (2, 3, *model.transform.size), dtype=torch.uint8)
    pixels = normalised(pictures, model.mean, model.std)
    np.savez(scratch / "given.npz", pixels=pixels.numpy(), captions=CAPTIONS)
    # Without `site` an editable installation is not found either.
    environment = {**os.environ, "PYTHONPATH": sysconfig.get_paths()["purelib"]}
    command = [sys.executable, "-S", "-c", ALONE, folder, scratch / "given.npz", scratch / "out.npz"]
    subprocess.run(command, check=True, cwd=scratch, env=environment)
    made = np.load(scratch / "out.npz")
    with torch.no_grad():
        ours = {"image": model.encode_image(pictures), "text": model.encode_text(model.tokenize(CAPTIONS))}
    assert float(made["scale"]) == pytest.approx(float(model.scale.detach()), rel=1e-6)
    return {name: np.abs(made[name] - value.numpy()).max() for name, value in ours.items()}


def test_open_clip_alone_gives_the_same_embeddings(run, tmp_path):
    differences = without_workbench(run.export(tmp_path / "student"), run.model(), tmp_path)
    assert max(differences.values()) <= 1e-6, differences


def test_a_text_tower_of_transformers_takes_its_configuration_along(tmp_path):
    model = load_dual_encoder("demo_teacher", "demo_teacher").eval()
    folder = model.save(tmp_path / "student")
    config = json.loads((folder / "open_clip_config.json").read_text())
    assert config["model_cfg"]["text_cfg"]["hf_model_name"] == str(folder)
    differences = without_workbench(folder, model, tmp_path)
    # Captions are padded to 40 tokens there and to the longest here, so sums go in another order.
    assert differences["image"] <= 1e-6 and differences["text"] <= 1e-5, differences
    moved = shutil.move(folder, tmp_path / "moved")
    assert load_dual_encoder(str(moved)).fingerprint() == model.fingerprint()


def test_an_export_that_fails_leaves_the_one_before(run, tmp_path, monkeypatch):
    folder = run.export(tmp_path / "student")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(stream):
        raise OSError(28, "No space left on device")

    # Everything is written, and the disk does not take it.
    monkeypatch.setattr("workbench.files.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        run.export(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_weights_may_be_read_by_others(run, tmp_path):
    before = os.umask(0o022)
    try:
        folder = run.export(tmp_path / "student")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}


def test_the_card_says_what_the_student_is(run, tmp_path):
    card = (run.export(tmp_path / "student") / "README.md").read_text()
    _, metadata, body = card.split("---\n", 2)
    assert read_yaml(metadata)["library_name"] == "open_clip"
    facts = json.loads((run.path / "data.json").read_text())["train"]
    assert facts["fingerprint"] in body and facts["pairs"] == 27 and f"{facts['captions']} captions" in body
    assert 'create_model_and_transforms("local-dir:student")' in body
    assert "task 1, crd 1, fd 4, icl 1" in body and "9 steps of 8 pairs" in body
    scores = json.loads((run.path / "evaluation" / "test.json").read_text())["scores"]
    (line,) = [
        item for item in body.split("\n") if item.startswith("| test (") and "text-to-image R@10 " in item
    ]
    value, (low, high) = line.split("|")[3], map(float, line.split("|")[4].split(" to "))
    assert float(value.rstrip(" %")) == pytest.approx(100 * scores["text_to_image_r10"], abs=0.06)
    assert low <= 100 * scores["text_to_image_r10"] <= high
    assert "OpenMoji (CC BY-SA 4.0)" in body
    # Where files lie on this machine is nobody's business.
    assert str(run.path.parent) not in card and str(Path(__file__).parents[2]) not in card


def test_the_card_of_a_run_that_was_not_evaluated_says_so(run, tmp_path):
    bare = Path(shutil.copytree(run.path, tmp_path / "bare"))
    shutil.rmtree(bare / "evaluation")
    status = json.loads((bare / "status.json").read_text())
    (bare / "status.json").write_text(json.dumps({**status, "state": "interrupted"}))
    card = (workbench.Run(bare).export(tmp_path / "student") / "README.md").read_text()
    assert "These weights have not been evaluated." in card and "not finished (interrupted)" in card


def test_somebody_else_s_readme_is_not_written_over(run, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(SettingError, match="not from an export"):
        run.export(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


class Hub(BaseHTTPRequestHandler):
    """As much of a model hub's interface as an upload of small files needs."""

    received: dict[str, bytes]
    asked: list[dict[str, object]]

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        answer: dict[str, object] = {}
        if self.path == "/api/repos/create":
            Hub.asked.append(json.loads(body))
            answer = {"url": f"http://{self.headers['Host']}/somebody/student", "id": "somebody/student"}
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            answer = {"files": [
                {"path": item["path"], "uploadMode": "regular", "shouldIgnore": False} for item in files
            ]}  # fmt: skip
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    Hub.received[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            page = f"http://{self.headers['Host']}/somebody/student/commit/{'0' * 40}"
            answer = {"commitUrl": page, "commitOid": "0" * 40, "pullRequestUrl": None}
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    Hub.received, Hub.asked = {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def command(*arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    own = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    return subprocess.run(
        [sys.executable, "-m", "workbench", *map(str, arguments)],
        env={**own, **environment},
        capture_output=True,
        text=True,
    )


def test_somebody_else_s_model_is_not_written_over(run, tmp_path):
    other = load_dual_encoder("demo_student").save(tmp_path / "other")
    (other / "README.md").write_bytes(b"---\nlibrary_name: open_clip\n---\n\xff a card of somebody's")
    before = {path.name: path.read_bytes() for path in other.iterdir()}
    for _ in range(2):
        with pytest.raises(SettingError, match="not from an export"):
            run.export(other)
        assert {path.name: path.read_bytes() for path in other.iterdir()} == before
        (other / "README.md").unlink(missing_ok=True)  # without a card neither
        before.pop("README.md", None)
    (tmp_path / "file").touch()
    with pytest.raises(SettingError, match="it is a file"):
        run.export(tmp_path / "file")


def test_numbers_of_other_weights_are_not_on_the_card(run, tmp_path):
    trained = Path(shutil.copytree(run.path, tmp_path / "trained"))
    report = json.loads((trained / "evaluation" / "test.json").read_text())
    report["model"]["weights"] = "of an earlier checkpoint"
    (trained / "evaluation" / "test.json").write_text(json.dumps(report))
    card = (workbench.Run(trained).export(tmp_path / "student") / "README.md").read_text()
    assert "| test (" not in card and "| test_style (" in card


def test_a_push_uploads_what_open_clip_loads_from_a_hub(run, hub, tmp_path):
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "passwords.txt").write_text("not a part of the export")
    done = command("export", run.path, tmp_path / "student", "--push", "somebody/student", "--private",
                   HF_ENDPOINT=hub, HF_TOKEN="hf_x")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [f"local-dir:{tmp_path / 'student'}", f"{hub}/somebody/student"]
    assert Hub.asked[0]["visibility"] == "private"
    written = {path.name for path in (tmp_path / "student").iterdir()}
    assert set(Hub.received) == written - {"passwords.txt"}
    weights = (tmp_path / "student" / "open_clip_model.safetensors").read_bytes()
    assert Hub.received["open_clip_model.safetensors"] == weights
    assert b"hf-hub:somebody/student" in Hub.received["README.md"]
    assert b"local-dir" not in Hub.received["README.md"]


def test_a_hub_that_is_not_there_loses_nothing(run, tmp_path):
    folder = run.export(tmp_path / "student")
    with pytest.raises(SettingError, match=r"push = 'somebody/student'.*offline"):
        push(folder, "somebody/student")
    assert (folder / "README.md").is_file()
