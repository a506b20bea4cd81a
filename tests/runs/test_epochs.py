"""Every kept epoch of a run evaluated, once."""

import pytest
from typer.testing import CliRunner

import workbench
from workbench.cli.app import app
from workbench.errors import SettingError
from workbench.evaluation import suites
from workbench.runs.run import Run


@pytest.fixture(scope="module")
def run(settings, teacher_folder, tmp_path_factory):
    changes = {
        "student.model": str(teacher_folder),
        "training.keep": "all",
        "evaluation.splits": ["val_concepts"],
        "evaluation.suites": ["retrieval", "zero_shot"],
    }
    folder = tmp_path_factory.mktemp("epochs")
    return workbench.train(workbench.Recipe.from_settings(settings, changes), folder)


def test_every_kept_epoch_is_evaluated_once(run, monkeypatch, capsys):
    measure, measured = suites.measure, []

    def interrupted(model, recipe, folder, **options):
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(options["step"])
        return measure(model, recipe, folder, **options)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(suites, "measure", interrupted)
        run.evaluate_epochs()
    assert measured == [0, 3] and run.epochs == {1: 3, 2: 6, 3: 9}
    results = run.evaluate_epochs()
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("evaluated")] == [
        f"evaluated epoch {epoch} of 3 on val_concepts: 200 pictures, 1,000 captions"
        for epoch in (0, 1, 2, 3)
    ]
    assert list(results) == [0, 1, 2, 3] and results[3] == run.evaluate()
    assert results[0]["val_concepts"]["text_to_image_r1"] != results[3]["val_concepts"]["text_to_image_r1"]
    (damaged,) = run.path.glob("evaluation/epochs/*/epoch-0002-*/val_concepts.json")
    damaged.write_text(damaged.read_text().replace("text_to_image_r1", "text_to_image_r2"))
    monkeypatch.setattr(suites, "measure", lambda *a, **o: measured.append(o["step"]) or measure(*a, **o))
    assert run.evaluate_epochs() == results and measured == [0, 3, 6]
    assert "val_concepts.json" in capsys.readouterr().err
    assert list(run.evaluate_epochs("zero_shot")[1]["val_concepts"]) == [
        name for name in results[1]["val_concepts"] if name.startswith("zero_shot")
    ]
    assert measured == [0, 3, 6, 0, 3, 6, 9]  # of other settings, beside the first


def test_the_command_prints_a_column_an_epoch(run):
    printed = CliRunner().invoke(app, ["evaluate", str(run.path), "--epochs", "all"])
    assert printed.exit_code == 0, printed.output
    table = [line.split() for line in printed.output.splitlines() if not line.startswith("evaluated")]
    assert table[0] == ["start", "epoch", "1", "epoch", "2", "epoch", "3"]
    assert all(row[0] == "val_concepts" and len(row) == 6 for row in table[1:] if row)
    last = CliRunner().invoke(app, ["evaluate", str(run.path), "--epochs", "last"])
    assert isinstance(last.exception, SettingError) and "Use all" in str(last.exception)


def test_a_run_without_epochs_is_told(settings, tmp_path):
    workbench.Recipe.from_settings(settings).save(tmp_path / "recipe.yaml")
    with pytest.raises(SettingError, match=r"no checkpoint at the end of an epoch.*training\.keep=all"):
        Run(tmp_path).evaluate_epochs()
