"""The runs of demo recipes that come with the package: students that have learned."""

from workbench.models.package_weights import ASSETS
from workbench.runs.run import Run

STUDENTS = ASSETS / "students"


def shipped_students() -> dict[str, Run]:
    """The shipped runs by recipe: seed 0, evaluated, with the weights of the last epoch in float16.

    `tools/make_students.py` makes them.
    """
    return {path.name: Run(path) for path in sorted(STUDENTS.iterdir()) if (path / "recipe.yaml").is_file()}
