from workbench.files import read_json
from workbench.recipe import Recipe
from workbench.runs.shipped import shipped_students


def test_shipped_students_are_finished_runs_of_demo_recipes_and_name_no_machine() -> None:
    students = shipped_students()
    assert {
        "task_only_demo",
        "clip_kd_demo",
        "knowledge_clip_demo",
        "dclip_demo",
        "dclip_relations_demo",
    } <= students.keys()
    for name, run in students.items():
        assert run.finished and run.recipe.fingerprint == Recipe.load(name).fingerprint
        assert "test" in run.evaluations
        sources = read_json(run.path / "weights.json")
        assert not any("/" in str(source) for source in sources.values())
