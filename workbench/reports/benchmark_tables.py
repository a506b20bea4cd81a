"""Tables of measured benchmarks, for notebooks."""

from workbench.files import carried

RESULTS = carried("benchmarks/results")


class Measured(str):
    """Markdown that a notebook shows as a table."""

    __slots__ = ()

    def _repr_markdown_(self) -> str:
        return str(self)


def measured(name: str) -> Measured:
    """The table of benchmarks/results that is called `name`; where it is missing, a text that says so."""
    path = RESULTS / f"{name}.md"
    if not path.is_file():
        return Measured(f"There is no `benchmarks/results/{name}.md` here: it has yet to be measured.")
    return Measured(path.read_text(encoding="utf-8"))
