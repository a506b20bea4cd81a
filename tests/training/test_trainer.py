"""The training loop: resume, interrupts, bad steps, full disks, memory, other recipes, several processes."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch

import workbench
from workbench.cli.output import exit_code
from workbench.errors import SettingError
from workbench.files import sha256_of_file
from workbench.runs import checkpoint
from workbench.runs.folder import locked
from workbench.runs.logger import RunLogger
from workbench.targets.build import TrainingTargets
from workbench.training import trainer
from workbench.training.failures import MemoryShortage


def weights(run):
    return checkpoint.load_latest(run.path / "checkpoints").tensors


def assert_identical(run, other):
    mine, theirs = weights(run), weights(other)
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []


@pytest.fixture(scope="module")
def straight(settings, tmp_path_factory):
    """The run that nothing disturbed."""
    return workbench.train(workbench.Recipe.from_settings(settings), tmp_path_factory.mktemp("straight"))


def test_a_run_records_everything(straight):
    metrics = straight.metrics
    assert straight.status["state"] == "finished" and list(metrics["step"]) == list(range(1, 10))
    for column in (
        "loss",
        "task",
        "crd",
        "fd",
        "icl",
        "weighted/fd",
        "gradient_norm",
        "scale",
        "lr",
        "samples_per_second",
        "waiting",
        "cosine_to_teacher_image",
        "cosine_to_teacher_text",
    ):
        assert metrics[column].notna().all(), column
    assert metrics["weighted/fd"].to_numpy() == pytest.approx(4 * metrics["fd"].to_numpy())
    total = metrics[[f"weighted/{name}" for name in ("task", "crd", "fd", "icl")]].sum(axis=1)
    assert total.to_numpy() == pytest.approx(metrics["loss"].to_numpy(), rel=1e-5)
    assert 0 <= straight.validations["text_to_image_r1"].iloc[-1] <= 1
    assert ((metrics["waiting"] > 0) & (metrics["waiting"] < 1)).all()
    assert metrics["samples_per_second"].to_numpy() == pytest.approx(8 / metrics["seconds"].to_numpy())
    shares = metrics[[f"gradient_share/{name}" for name in ("task", "crd", "fd", "icl")]].sum(axis=1)
    assert shares.iloc[0] == pytest.approx(1)


def test_heads_are_saved_with_the_student_and_dropped_at_export(straight, tmp_path):
    assert {"mixture.image_head.weight", "mixture.interactive_scale.log"} <= weights(straight).keys()
    import open_clip

    exported = straight.export(tmp_path / "student")
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{exported}")
    student = straight.model().clip.state_dict()
    assert model.state_dict().keys() == student.keys()
    assert all(torch.equal(value, student[name]) for name, value in model.state_dict().items())


def test_the_model_of_an_epoch(straight, recipe, tmp_path):
    run = workbench.train(recipe(training__keep="all"), tmp_path)
    states = {epoch: run.model(epoch).clip.state_dict()["logit_scale"] for epoch in (None, 1, 2, 3)}
    assert states[None] == states[3] and len({float(value) for value in states.values()}) == 3
    with pytest.raises(SettingError, match=r"epoch = 4.*1, 2, 3"):
        run.model(4)


def test_the_same_recipe_gives_the_same_weights_also_with_workers(straight, recipe, tmp_path):
    assert_identical(workbench.train(recipe(data__workers=2), tmp_path), straight)


def test_another_seed_gives_other_weights(straight, recipe, tmp_path):
    other = weights(workbench.train(recipe(seed=1), tmp_path))
    assert not torch.equal(other["student.clip.logit_scale"], weights(straight)["student.clip.logit_scale"])


def test_finished_runs_are_not_trained_again(straight):
    before = sha256_of_file(straight.path / "metrics.jsonl")
    assert workbench.train(straight.recipe, straight.path).status["state"] == "finished"
    assert sha256_of_file(straight.path / "metrics.jsonl") == before


@pytest.mark.parametrize("damage", ["model.safetensors", "state.json", "manifest.json", "all of it"])
def test_a_finished_run_whose_end_is_damaged_is_trained_to_its_end_again(straight, tmp_path, damage, capsys):
    run = workbench.Run(shutil.copytree(straight.path, tmp_path / "run"))
    end = run.path / "checkpoints" / "step-00000009"
    assert run.finished
    if damage == "all of it":
        shutil.rmtree(end)
    else:
        (end / damage).write_bytes((end / damage).read_bytes()[:-3] + b"...")
    assert run.status["state"] == "finished" and not run.finished
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        assert run.restored()[1] == 8
    assert "finished at step 9" in capsys.readouterr().err
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        run.evaluate("retrieval")
        again = workbench.train(run.recipe, run.path)
    assert {split.report["step"] for split in run.evaluations.values()} == {8}
    assert again.finished and again.metrics["step"].tolist() == list(range(1, 10))
    assert_identical(again, straight)


def test_the_moving_average_is_what_is_evaluated(straight, recipe, tmp_path):
    """It follows the students of all steps, and a resumed run goes on with it."""
    settings = recipe(training__ema=0.5, training__keep="all", training__checkpoint_every=1)
    run = workbench.train(settings, tmp_path)
    steps = sorted(checkpoint.list_checkpoints(tmp_path / "checkpoints"))
    name, folder = "clip.visual.proj", tmp_path / "checkpoints"
    average = None
    for step in steps:
        value = checkpoint.load(folder, step).tensors[f"student.{name}"]
        average = value if average is None else average + 0.5 * (value - average)
    torch.testing.assert_close(run.model().clip.visual.proj, average)
    plain, averaged = weights(straight), weights(run)
    assert [key for key in plain if not torch.equal(plain[key], averaged[key])] == []  # it learns as without
    shutil.rmtree(folder / "step-00000009")
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        again = workbench.train(settings, tmp_path)
    torch.testing.assert_close(again.model().clip.visual.proj, average)
    assert run.recipe.fingerprint != straight.recipe.fingerprint


def test_another_recipe_in_the_same_folder_is_refused(straight, recipe):
    with pytest.raises(SettingError, match=r"training\.lr.*0\.001.*0\.01"):
        workbench.train(recipe(training__lr=0.01), straight.path)


@pytest.mark.parametrize("stop_at", [1, 3, 5])
def test_an_interrupted_run_goes_on_to_the_same_weights(straight, recipe, tmp_path, monkeypatch, stop_at):
    original, calls = trainer.backward, []

    def interrupting(*arguments, **keywords):
        calls.append(1)
        if len(calls) == stop_at:
            signal.raise_signal(signal.SIGTERM)
        return original(*arguments, **keywords)

    monkeypatch.setattr(trainer, "backward", interrupting)
    stopped = workbench.train(recipe(), tmp_path)
    assert stopped.status["state"] == "interrupted" and "SIGTERM" in stopped.status["message"]
    assert stopped.status["step"] == stop_at
    resumed = workbench.train(recipe(), tmp_path)
    assert resumed.status["state"] == "finished" and list(resumed.metrics["step"]) == list(range(1, 10))
    assert_identical(resumed, straight)


def test_killed_at_any_moment_it_resumes_to_the_same_weights(straight, recipe, tmp_path):
    recipe().save(tmp_path / "recipe.yaml")
    folder = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "workbench",
        "train",
        str(tmp_path / "recipe.yaml"),
        "--run-dir",
        str(folder),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    metrics = folder / "metrics.jsonl"
    deadline = time.monotonic() + 240
    while not (metrics.is_file() and metrics.read_text().count("\n") >= 4):
        assert process.poll() is None and time.monotonic() < deadline, process.stdout.read()
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    assert_identical(workbench.train(recipe(), folder), straight)


def test_a_step_that_is_not_finite_is_skipped_counted_and_survived(recipe, tmp_path, monkeypatch):
    original, calls = trainer.backward, []

    def poisoned(learner, *arguments, **keywords):
        calls.append(1)
        result = original(learner, *arguments, **keywords)
        if len(calls) in (3, 4):
            next(learner.parameters()).grad.fill_(float("nan"))
        return result

    monkeypatch.setattr(trainer, "backward", poisoned)
    run = workbench.train(recipe(), tmp_path)
    assert run.status["state"] == "finished" and run.status["skipped_steps"] == 2
    assert all(torch.isfinite(value).all() for value in weights(run).values())
    assert run.metrics["gradient_norm"].isna().sum() == 2


def test_three_bad_steps_in_a_row_stop_with_what_replays_them(recipe, tmp_path, monkeypatch):
    from safetensors.torch import load_file

    original = trainer.backward

    def poisoned(learner, *arguments, **keywords):
        terms, outputs = original(learner, *arguments, **keywords)
        return {**terms, "loss": terms["loss"] * float("nan")}, outputs

    monkeypatch.setattr(trainer, "backward", poisoned)
    with pytest.raises(FloatingPointError, match="3 steps in a row"):
        workbench.train(recipe(), tmp_path)
    assert workbench.Run(tmp_path).status["state"] == "failed"
    (folder,) = tmp_path.glob("non-finite-step-*")
    batch = load_file(folder / "batch.safetensors")
    assert batch["images"].shape == (8, 3, 32, 32) and batch["teacher_text"].shape == (8, 128)
    assert "student.clip.logit_scale" in load_file(folder / "weights.safetensors")


def test_a_disk_that_is_full_for_a_while_costs_nothing(straight, recipe, tmp_path, monkeypatch, capsys):
    original, calls = checkpoint.save, []

    def failing(*arguments, **keywords):
        calls.append(1)
        if len(calls) in (2, 3):
            raise checkpoint.CheckpointError("no space left on device")
        return original(*arguments, **keywords)

    monkeypatch.setattr(checkpoint, "save", failing)
    run = workbench.train(recipe(), tmp_path)
    assert "no space left on device; the last good checkpoint stays" in capsys.readouterr().out
    assert_identical(run, straight)


def test_a_disk_that_stays_full_stops_the_run_and_keeps_the_last_checkpoint(recipe, tmp_path, monkeypatch):
    original, calls = checkpoint.save, []

    def failing(*arguments, **keywords):
        calls.append(1)
        if len(calls) > 1:
            raise checkpoint.CheckpointError("no space left on device")
        return original(*arguments, **keywords)

    monkeypatch.setattr(checkpoint, "save", failing)
    with pytest.raises(checkpoint.CheckpointError):
        workbench.train(recipe(), tmp_path)
    assert checkpoint.load_latest(tmp_path / "checkpoints").step == 2
    assert "no space left" in workbench.Run(tmp_path).status["message"]


def test_out_of_memory_names_a_micro_batch_that_fits(recipe, tmp_path, monkeypatch):
    original = trainer.Learner.forward

    def small_memory(self, images, *others):
        if len(images) > 3:
            raise torch.OutOfMemoryError("allocator says no")
        return original(self, images, *others)

    monkeypatch.setattr(trainer.Learner, "forward", small_memory)
    with pytest.raises(MemoryShortage, match=r"training\.batch = 8.*training\.micro_batch=2 fits"):
        workbench.train(recipe(), tmp_path / "a")
    assert workbench.train(recipe(training__micro_batch=2), tmp_path / "b").status["state"] == "finished"


def test_micro_batches_give_the_same_run(straight, recipe, tmp_path):
    run = workbench.train(recipe(training__micro_batch=3), tmp_path)
    for name, value in weights(run).items():
        torch.testing.assert_close(value, weights(straight)[name], rtol=2e-3, atol=2e-4, msg=name)


def test_batch_statistics_and_micro_batches_are_refused_together(recipe, tmp_path):
    with pytest.raises(SettingError, match=r"training\.micro_batch.*BatchNorm"):
        workbench.train(recipe(training__micro_batch=2, student__model="demo_student"), tmp_path)


def test_two_processes_train_as_one(straight, recipe, tmp_path):
    run = workbench.launch(recipe(), processes=2, run_dir=tmp_path).wait()
    assert list(run.metrics["step"]) == list(range(1, 10))
    for term in ("loss", "crd", "icl"):
        assert run.metrics[term].to_numpy() == pytest.approx(straight.metrics[term].to_numpy(), rel=1e-3)


def test_batch_statistics_of_each_process_are_told(recipe):
    student = trainer.load_student(recipe(student__model="demo_student_plain")).train()
    length = trainer.Length.of(recipe(), 27, 2)
    held_out = workbench.load_pairs("scenes", "val")

    def notes(recipe, processes):
        return list(trainer.notes(recipe, student.train(), length, processes, TrainingTargets(), held_out))

    (note,) = notes(recipe(), 2)
    assert "each of 2 processes has BatchNorm statistics of its own 4 pairs" in note
    assert "training.sync_batch_norm=true" in note
    assert not notes(recipe(), 1)
    assert not notes(recipe(training__sync_batch_norm=True), 2)
    student.freeze_batch_norm = True
    assert not notes(recipe(), 2)


@pytest.mark.slow
def test_a_job_outlives_its_handle_and_can_be_stopped_and_resumed(straight, recipe, tmp_path):
    job = workbench.launch(recipe(), run_dir=tmp_path)
    while job.run.status.get("step", 0) < 1 and job.running:
        time.sleep(0.02)
    again = workbench.launch(recipe(), run_dir=tmp_path)
    assert again.path == job.path
    again.stop()
    job.wait()
    assert_identical(workbench.launch(recipe(), run_dir=tmp_path).wait(), straight)


def test_a_failed_job_tells_its_log(recipe, tmp_path):
    job = workbench.launch(recipe(student__pretrained="no-such-weights"), run_dir=tmp_path)
    with pytest.raises(RuntimeError, match=r"(?s)student\.pretrained.*no-such-weights"):
        job.wait()


def test_a_folder_in_use_is_refused(recipe, tmp_path):
    from workbench.runs.folder import locked

    with locked(tmp_path), pytest.raises(SettingError, match="another process trains in it"):
        workbench.train(recipe(), tmp_path)


def test_data_smaller_than_a_batch_are_one_batch_and_said_to_be(recipe, tmp_path, capsys):
    run = workbench.train(recipe(training__batch=64, training__steps=2), tmp_path)
    assert run.status["state"] == "finished" and run.metrics["epoch"].tolist() == [1, 2]
    assert "fewer pairs than training.batch = 64" in capsys.readouterr().out


def test_frozen_modules_stay_as_they_were(recipe, tmp_path):
    frozen = weights(workbench.train(recipe(student__frozen=["visual"], training__steps=2), tmp_path / "a"))
    learned = weights(workbench.train(recipe(training__steps=2), tmp_path / "b"))
    torch.manual_seed(0)
    from workbench.models.loading import load_dual_encoder

    start = load_dual_encoder(recipe().student.model).clip.state_dict()
    assert torch.equal(frozen["student.clip.visual.conv1.weight"], start["visual.conv1.weight"])
    assert not torch.equal(learned["student.clip.visual.conv1.weight"], start["visual.conv1.weight"])
    assert not torch.equal(frozen["student.clip.token_embedding.weight"], start["token_embedding.weight"])


def test_numbers_on_other_data_do_not_replace_a_runs_own(straight):
    before = {path: path.read_bytes() for path in straight.path.rglob("evaluation/*")}
    assert straight.evaluate("composition", scenes=30)["test"]["swap_accuracy"] > 0
    assert {path: path.read_bytes() for path in straight.path.rglob("evaluation/*")} == before


def test_a_batch_of_one_is_refused(recipe):
    with pytest.raises(SettingError, match=r"training\.batch = 1"):
        recipe(training__batch=1)


def test_a_disk_that_is_full_for_a_moment_costs_no_more_than_a_record(tmp_path, monkeypatch):
    logger = RunLogger(tmp_path, 9)
    logger.start(0)
    logger.record("step", 1, loss=1.0, scale=1.0)
    real = open

    def half(path, mode="r", **options):
        stream = real(path, mode, **options)
        if Path(path).name != "metrics.jsonl" or mode != "a":
            return stream
        write = stream.write

        def full(text):
            write(text[: len(text) // 2])
            stream.flush()
            raise OSError(errno.ENOSPC, "No space left on device")

        stream.write = full
        return stream

    with monkeypatch.context() as patched:
        patched.setattr("builtins.open", half)
        logger.record("step", 2, loss=1.0, scale=1.0)
    logger.record("step", 3, loss=1.0, scale=1.0)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 3] and logger.unwritten == 1
    with open(tmp_path / "metrics.jsonl", "a") as stream:
        stream.write('{"kind": "st\n')
    RunLogger(tmp_path, 9).start(3)  # what is damaged goes
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_damaged_record_is_named(straight, tmp_path):
    run = workbench.Run(shutil.copytree(straight.path, tmp_path / "run"))
    with open(run.path / "metrics.jsonl", "a") as stream:
        stream.write("[3]\n")
    with pytest.raises(SettingError, match=r"metrics.jsonl'?: line \d+ is not a record"):
        run.metrics  # noqa: B018


@pytest.mark.slow
def test_a_launch_that_fails_before_its_first_step_is_told(recipe, tmp_path):
    with pytest.raises(RuntimeError, match="no such file or folder"):
        workbench.launch(recipe(data__source="/nowhere"), run_dir=tmp_path).wait()
    (tmp_path / "status.json").write_text('{"state": "interrupted", "step": 4, "total_steps": 9}')
    job = workbench.launch(recipe(data__source="/nowhere"), run_dir=tmp_path)
    with pytest.raises(RuntimeError, match="no such file or folder"):
        job.wait()
    assert job.failed and exit_code(job.run) == 130


def test_another_recipe_does_not_take_a_folder_that_is_in_use(recipe, tmp_path):
    with locked(tmp_path / "new"):
        with pytest.raises(SettingError, match="another process trains in it"):
            workbench.train(recipe(), tmp_path / "new")
        assert not (tmp_path / "new" / "recipe.yaml").exists()


def test_a_folder_where_nothing_can_be_written_is_named(recipe, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SettingError, match=r"run_dir = .*this folder is not writable"):
        workbench.train(recipe(), tmp_path / "file")


def test_a_student_learns(recipe, tmp_path):
    loss = workbench.train(recipe(training__steps=40), tmp_path).metrics["loss"]
    assert loss.tail(5).mean() < 0.9 * loss.head(5).mean()
    still = workbench.train(recipe(training__steps=40, training__lr=1e-9), tmp_path / "still").metrics["loss"]
    assert still.tail(5).mean() > 0.9 * still.head(5).mean()  # it is the training that does it
