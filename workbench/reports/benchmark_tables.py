"""Shows the tables of benchmarks/results in notebooks."""

from workbench.files import carried

RESULTS = carried("benchmarks/results")


class Measured(str):
    """Markdown that a notebook renders as a table."""

    __slots__ = ()

    def _repr_markdown_(self) -> str:
        return str(self)


def measured(name: str) -> Measured:
    """The table `name` of benchmarks/results, or a note if the file is missing."""
    path = RESULTS / f"{name}.md"
    if not path.is_file():
        return Measured(f"`benchmarks/results/{name}.md` does not exist: this benchmark has not been run.")
    return Measured(path.read_text(encoding="utf-8"))
