"""The detector adapter: its boxes against the bare network's, and what it keeps ultralytics from doing."""

import os
import pickle
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import save_file

from tools.make_scene_detector import intersection_over_union
from workbench.data.scenes.dataset import scenes
from workbench.errors import SettingError
from workbench.models.package_weights import ASSETS
from workbench.models.regions import detector, ultralytics_adapter
from workbench.models.regions.detector import Detector, load_proposer, random_detector, save_detector

ASSET = ASSETS / "scene_detector.safetensors"


def network(seed: int = 0, names: tuple[str, ...] = ("thing", "other")) -> torch.nn.Module:
    """A YOLOv8n of random weights that sees: its activations are normalised, its class scores spread out."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = ultralytics_adapter.build("yolov8n", names)
        for branch in model.model[-1].cv3:
            torch.nn.init.normal_(branch[-1].weight, std=0.25)
            torch.nn.init.constant_(branch[-1].bias, -1)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.stack([noise(96, 96, seed=n) for n in range(16)]) / 255)
    return model.eval()


def noise(*size: int, seed: int = 0) -> torch.Tensor:
    """A picture of coloured blocks."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randint(0, 256, (1, 3, 6, 6), generator=generator, dtype=torch.uint8)
    return torch.nn.functional.interpolate(blocks, size)[0]


def propose(proposer, *pictures: torch.Tensor):
    return proposer(pictures, [None] * len(pictures), range(len(pictures)))


def test_boxes_equal_the_bare_networks() -> None:
    model = network()
    picture = noise(96, 96)
    picture[0] //= 4  # so that red and blue differ
    with torch.no_grad():
        raw = model(picture[None].float() / 255)[0][0]  # [4 + classes, places]: centres, sides, class scores
    confidence, of_class = raw[4:].max(0)
    boxes = torch.cat([raw[:2] - raw[2:4] / 2, raw[:2] + raw[2:4] / 2]).T
    sure = confidence > 0.3
    kept = torchvision.ops.batched_nms(boxes[sure], confidence[sure], of_class[sure], 0.5)
    expected = boxes[sure][kept].clamp(0, 96).numpy(), confidence[sure][kept].numpy()
    assert 10 < len(kept) < 150 and len(set(of_class[sure][kept].tolist())) == 2

    (result,) = propose(Detector(model, {}, 96, confidence=0.3, overlap=0.5), picture)
    np.testing.assert_allclose(result.boxes, expected[0], atol=0.01)
    np.testing.assert_allclose(result.confidences, expected[1], atol=1e-4)
    np.testing.assert_array_equal(result.classes, of_class[sure][kept].numpy())
    assert [part.dtype for part in result] == [np.float32, np.int64, np.float32]
    (swapped,) = propose(Detector(model, {}, 96, confidence=0.3, overlap=0.5), picture.flip(0))
    assert (
        len(swapped.boxes) != len(result.boxes) or abs(swapped.confidences - result.confidences).max() > 0.01
    )


def test_a_pictures_boxes_do_not_depend_on_its_neighbours() -> None:
    pictures = [
        noise(*size, seed=n) for n, size in enumerate([(64, 64), (40, 100), (130, 50), (1, 1), (64, 64)])
    ]
    proposer = Detector(network(), {}, 96, confidence=0.3, overlap=0.5)
    together = propose(proposer, *pictures * 8)  # more than one batch
    assert len(together) == 40
    for picture, result, again in zip(pictures, together, together[35:], strict=False):
        (alone,) = propose(proposer, picture)
        for regions in (result, again):
            np.testing.assert_allclose(alone.boxes, regions.boxes, atol=0.02)
            np.testing.assert_allclose(alone.confidences, regions.confidences, atol=1e-4)
        height, width = picture.shape[1:]
        assert (alone.boxes >= 0).all() and (alone.boxes <= [width, height, width, height]).all()
        assert (np.diff(alone.confidences) <= 0).all()
    np.testing.assert_array_equal(
        propose(proposer, *pictures)[1].boxes, propose(proposer, *pictures)[1].boxes
    )
    assert propose(proposer) == []


def test_a_slow_machine_loses_no_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    proposer = Detector(network(), {}, 96, confidence=0.3, overlap=0.5)
    pictures = [noise(64, 64, seed=n) for n in range(4)]
    expected = [len(regions.boxes) for regions in propose(proposer, *pictures)]
    from ultralytics.utils import nms

    clock = iter(range(0, 10**6, 100))
    monkeypatch.setattr(nms, "time", types.SimpleNamespace(time=lambda: float(next(clock))))
    assert [len(regions.boxes) for regions in propose(proposer, *pictures)] == expected
    assert min(expected) > 0 and next(clock) > 0


def test_architectures_have_their_published_size() -> None:
    small = random_detector("yolov8n", image_size=64)
    assert small.parameters == 3_157_200 and small.fingerprint["weights"] == "random yolov8n"
    assert len(small.names) == 80
    propose(small, noise(30, 40))
    before = torch.random.get_rng_state()
    again = random_detector("yolov8n", image_size=64, confidence=0.0)
    assert torch.equal(before, torch.random.get_rng_state())
    picture = noise(64, 64)
    same, other = (
        propose(random_detector("yolov8n", image_size=64, confidence=0.0, seed=seed), picture)[0]
        for seed in (0, 1)
    )
    np.testing.assert_array_equal(propose(again, picture)[0].boxes, same.boxes)
    assert not np.array_equal(same.boxes, other.boxes)
    ultralytics_adapter.build("yolov9s", ["thing"])  # of one size
    for name in ("yolov8", "yolov8-cls", "yolov8n-cls", "yolov8q", "../yolov8n", ""):
        with pytest.raises(SettingError, match=r"regions\.weights.*no such detector"):
            ultralytics_adapter.build(name, ["thing"])


def test_yolov8x_can_be_built() -> None:
    assert sum(p.numel() for p in ultralytics_adapter.build("yolov8x", ["x"] * 80).parameters()) == 68_229_648


def test_packed_weights_come_back(tmp_path: Path) -> None:
    model = network(names=("cat", "dog"))
    save_detector(tmp_path / "two.safetensors", model, "yolov8n", 96, {"test": {"mAP50": 0.9}})
    proposer = load_proposer(weights=str(tmp_path / "two.safetensors"), confidence=0.3, overlap=0.5)
    assert proposer.names == ["cat", "dog"] and proposer.fingerprint["image_size"] == 96
    rounded = network()
    rounded.load_state_dict({key: value.half() for key, value in model.state_dict().items()})
    picture = noise(64, 64)
    (expected,) = propose(Detector(rounded, {}, 96, 0.3, 0.5), picture)
    (result,) = propose(proposer, picture)
    assert len(result.boxes) > 5
    np.testing.assert_array_equal(result.boxes, expected.boxes)
    with safe_open(tmp_path / "two.safetensors", framework="pt") as file:
        assert '"mAP50": 0.9' in file.metadata()["detector"]
    save_detector(tmp_path / "other.safetensors", network(1), "yolov8n", 96, {})
    other = load_proposer(weights=str(tmp_path / "other.safetensors"), confidence=0.3, overlap=0.5)
    assert other.fingerprint["weights"] != proposer.fingerprint["weights"]


def save_pt(path: Path, model: torch.nn.Module, **more: object) -> None:
    """As ultralytics' trainer saves a model."""
    torch.save({"epoch": -1, "model": model.half(), "ema": None, "train_args": {"imgsz": 96, **more}}, path)


def test_pt_files_are_found_by_path_and_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    picture = noise(64, 64)
    (expected,) = propose(Detector(network().half().float(), {}, 96, 0.3, 0.5), picture)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "detectors").mkdir(parents=True)
    before = set(torch.serialization.get_safe_globals())
    for place, weights in (
        (tmp_path / "deep" / "my.pt", str(tmp_path / "deep" / "my.pt")),
        (tmp_path / "mine.pt", "mine"),
        (tmp_path / "mine2.pt", "mine2.pt"),
        (tmp_path / "cache" / "detectors" / "yolov8x.pt", "yolov8x"),
        (tmp_path / "cache" / "detectors" / "yolov8l.pt", "yolov8l.pt"),
    ):
        place.parent.mkdir(exist_ok=True)
        save_pt(place, model)
        proposer = load_proposer(weights=weights, confidence=0.3, overlap=0.5)
        assert proposer.fingerprint["image_size"] == 96  # that it was trained with
        np.testing.assert_allclose(propose(proposer, picture)[0].boxes, expected.boxes, atol=0.01)
    assert load_proposer(weights="mine", image_size=64).fingerprint["image_size"] == 64
    assert set(torch.serialization.get_safe_globals()) == before


def test_what_is_no_file_never_reaches_ultralytics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ultralytics_adapter, "load", lambda path: pytest.fail(f"{path} was to be loaded"))
    (tmp_path / "folder.pt").mkdir()
    for weights, hint in {
        "yolov8x": rf"Put yolov8x\.pt.*{tmp_path}/cache/detectors.*scene_detector",
        "yolo26n.pt": r"Put yolo26n\.pt",
        "/nowhere/yolov8x.pt": r"Give the path.*scene_detector",
        "https://example.org/yolov8x.pt": "nothing is downloaded",
        "ul://someone/model": "nothing is downloaded",
        "folder.pt": "no such detector",
        "": "no such detector",
    }.items():
        with pytest.raises(SettingError, match=rf"regions\.weights(.|\n)*{hint}"):
            load_proposer(weights=weights)
    (tmp_path / "detector.onnx").touch()
    with pytest.raises(SettingError, match=r"neither a \.pt nor"):
        load_proposer(weights="detector.onnx")


def test_other_weights_are_refused(tmp_path: Path) -> None:
    ultralytics_adapter.ultralytics()
    from ultralytics.nn.tasks import ClassificationModel, SegmentationModel

    save_pt(tmp_path / "cls.pt", ClassificationModel("yolov8n-cls.yaml", verbose=False), task="classify")
    save_pt(tmp_path / "seg.pt", SegmentationModel("yolov8n-seg.yaml", verbose=False), task="segment")
    for name, task in (("cls", "classify"), ("seg", "segment")):
        with pytest.raises(SettingError, match=f"a model for the task {task}"):
            load_proposer(weights=str(tmp_path / f"{name}.pt"))
    torch.save({"model": {"weight": torch.zeros(2)}}, tmp_path / "state.pt")
    (tmp_path / "empty.pt").touch()
    (tmp_path / "text.pt").write_text("version https://git-lfs")
    save_pt(tmp_path / "whole.pt", network())
    (tmp_path / "half.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:300_000])
    for name in ("state", "empty", "text", "half"):
        with pytest.raises(SettingError, match=r"regions\.weights.*damaged"):
            load_proposer(weights=str(tmp_path / f"{name}.pt"))
    save_file({"weight": torch.zeros(2)}, tmp_path / "bare.safetensors")
    save_detector(tmp_path / "wrong.safetensors", network(), "yolov8s", 96, {})
    save_detector(tmp_path / "unknown.safetensors", network(), "yolov8q", 96, {})
    (tmp_path / "text.safetensors").write_text("version https://git-lfs")
    for name in ("bare", "wrong", "unknown", "text"):
        with pytest.raises(SettingError, match=r"regions\.weights"):
            load_proposer(weights=str(tmp_path / f"{name}.safetensors"))
    with pytest.raises(SettingError, match=r"regions\.weights.*not the weights of a detector"):
        load_proposer(weights="demo_teacher")


class Command:
    """Unpickled carelessly, it makes a file."""

    def __init__(self, made: Path, how: str) -> None:
        self.made, self.how = made, how

    def __reduce__(self):
        code = f"open({str(self.made)!r}, 'w').close()"
        return {
            "shell": (os.system, (f"touch {self.made}",)),
            "exec": (exec, (code,)),
            "eval": (eval, (code,)),
            "process": (subprocess.Popen, (["touch", str(self.made)],)),
        }[self.how]


@pytest.mark.parametrize("how", ["shell", "exec", "eval", "process"])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_malicious_file_is_refused(tmp_path: Path, how: str, legacy: bool) -> None:
    made = tmp_path / "made"
    for number, content in enumerate(
        [Command(made, how), {"model": Command(made, how)}, {"model": network(), "more": Command(made, how)}]
    ):
        path = tmp_path / f"detector{number}.pt"
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        with pytest.raises(SettingError, match=r"regions\.weights.*detector\d\.pt.*its pickle names"):
            load_proposer(weights=str(path))
        assert not made.exists()
    plain = tmp_path / "plain.pt"
    plain.write_bytes(pickle.dumps({"model": Command(made, how)}))
    with pytest.raises(SettingError, match=r"regions\.weights"):
        load_proposer(weights=str(plain))
    assert not made.exists()
    opened = torch.load(path, weights_only=False)["more"]  # the file does what it is said to
    if how == "process":
        assert opened.wait() == 0
    assert made.exists()


def test_settings_out_of_range() -> None:
    for setting, value in (
        ("confidence", 1.5),
        ("confidence", float("nan")),
        ("overlap", -1.0),
        ("image_size", 100),
    ):
        with pytest.raises(SettingError, match=rf"regions\.{setting}"):
            random_detector("yolov8n", **{setting: value})
    with pytest.raises(SettingError, match=r"Take 96\."):
        random_detector("yolov8n", image_size=100)


def test_ultralytics_disturbs_nothing(tmp_path: Path) -> None:
    """In a process of its own: no import before it is needed, no network, no print, no file, no setting."""
    script = textwrap.dedent("""
        import os, socket, sys, threading
        tried = []
        def refuse(*arguments, **_):
            tried.append(arguments)
            raise OSError("no network in this test")
        socket.getaddrinfo = socket.socket.connect = socket.create_connection = refuse

        import numpy as np, torch, PIL.Image
        import workbench.models, workbench.models.regions.detector as detector
        assert not [name for name in sys.modules if name.startswith(("ultralytics", "cv2"))]
        picture = torch.zeros(3, 50, 60, dtype=torch.uint8)
        detector.load_proposer("grid")([picture], [None], [0])
        assert "ultralytics" not in sys.modules

        torch.set_num_threads(3)
        torch.set_printoptions(precision=2)
        np.set_printoptions(precision=2)
        def state():
            return (torch.get_num_threads(), repr(torch.tensor(1 / 3)), repr(np.float64(1) / np.array([3.0])),
                    PIL.Image.open, torch.are_deterministic_algorithms_enabled())
        before, environment = state(), dict(os.environ)
        proposer = detector.random_detector("yolov8n", image_size=64, confidence=0.0)
        proposer([picture], [None], [0])
        assert state() == before, (state(), before)
        new = {name for name, value in os.environ.items() if environment.get(name) != value}
        assert all(name.startswith(("YOLO_", "ULTRALYTICS_")) for name in new), new
        assert not tried and threading.active_count() == 1, (tried, threading.enumerate())
        from ultralytics.utils import SETTINGS, events
        assert not events.events.enabled and SETTINGS["sync"] is False
    """)
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    theirs = ("YOLO", "ULTRA", "XDG", "OMP_", "NUMEXPR_", "TF_", "TORCH_", "KINETO_", "CUBLAS_")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(theirs)}
    environment |= {
        "HOME": str(home),
        "WORKBENCH_CACHE": str(tmp_path / "cache"),
        "PYTHONPATH": str(Path(detector.__file__).parents[3]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    del environment["PYTEST_CURRENT_TEST"]  # by which ultralytics knows a test
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=work, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and done.stderr == ""
    assert not list(home.rglob("*")) and not list(work.rglob("*"))
    written = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert [path.name for path in written] == ["settings.json"]


def test_the_shipped_detector_finds_what_is_there() -> None:
    assert ASSET.stat().st_size <= 8e6
    proposer = load_proposer()
    assert proposer.names == ["thing"]
    for split, image_size, width in (
        ("test", 64, 64),
        ("test", 160, 160),
        ("test", 160, 110),
        ("test_style", 64, 64),
    ):
        pairs = scenes(split, 20, image_size)
        # A picture that is cut is no square; its boxes are where they were.
        pictures = [pairs.image(row)[:, :, :width] for row in range(20)]
        hits = []
        for regions, boxes in zip(
            propose(proposer, *pictures), pairs.table["boxes"].to_pylist(), strict=True
        ):
            things = np.array([box for box in boxes if box[2] <= width], dtype=np.float32).reshape(-1, 4)
            hits.append((intersection_over_union(regions.boxes, things) >= 0.5).any(0))
            assert len(regions.boxes) <= len(boxes) + 2
        assert np.concatenate(hits).mean() >= 0.8, (split, width)
