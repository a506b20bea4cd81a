"""The objectives that a recipe can weigh: one `Objective` beside each loss. Imports no torch.

To add an objective, write a file with the loss and its `Objective` into this folder. The recipe's setting,
the checks of what it needs, its colour and the dry run follow from the entry.
"""

import ast
import functools
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor, nn

FOLDER = Path(__file__).parent


class Objective(NamedTuple):
    """A loss as a recipe knows it. Arguments are keywords, and literals except for the two callables.

    `requires` names the optional fields of `LossInputs` that it cannot do without; `needs` is the section of
    the recipe that provides them. `head` lists the sides (image, text) that are compared in the teacher's
    width. `reach`: "pair" is a mean over pairs that know nothing of each other, "ring" compares all pairs and
    takes `ring`, "batch" needs the whole batch in every process. `function` takes the inputs and the module
    that holds learned parts, and returns the loss; `modules` makes these parts from the `Widths`. `order` is
    the place in the weighted sum, in tables and in legends. `images_alone`: it teaches something of pictures
    without captions too. `later`: it came after recipes had fingerprints, which know of it where it is used.
    `either_side`: with a teacher of images alone, or of texts alone, it teaches that side.
    """

    name: str
    order: int
    colour: str
    function: "Callable[[LossInputs, Any], Tensor] | None" = None
    needs: Literal["teacher", "text_teacher"] | None = None
    requires: tuple[str, ...] = ()
    head: tuple[str, ...] = ()
    reach: Literal["pair", "ring", "batch"] = "batch"
    modules: "Callable[[Widths], Mapping[str, nn.Module]] | None" = None
    images_alone: bool = False
    later: bool = False
    either_side: bool = False


class Widths(NamedTuple):
    """Dimensions of the embeddings, and the number of concepts; None where there is no such teacher."""

    student: int
    teacher: int | None = None
    text_target: int | None = None
    concepts: int | None = None

    def of(self, field: str) -> int | None:
        """The width of a field of `LossInputs`."""
        widths = {"text_target": self.text_target, "soft_labels": self.concepts}
        return widths.get(field, self.teacher)


class LossInputs(NamedTuple):
    """What an objective reads of one global batch. Embeddings are [batch, dim] of any norm.

    `projected_*` are the student's embeddings in the teacher's width. `rows` are this process's own rows,
    None for all; `chunk` is the number of rows at a time, None for all at once. With `ring`, the number of
    rows of every process, everything is this process's own. `captioned` [batch] is 1 where a picture has a
    caption and 0 where its text embeddings mean nothing, None: all have one.
    """

    student_image: "Tensor"
    student_text: "Tensor"
    projected_image: "Tensor"
    projected_text: "Tensor"
    student_scale: Any
    teacher_image: Any = None
    teacher_text: Any = None
    teacher_scale: Any = None
    masked_image: Any = None
    text_target: Any = None
    soft_labels: Any = None
    cross_modal_target: Any = None
    captioned: Any = None
    rows: slice | None = None
    chunk: int | None = None
    ring: tuple[int, ...] | None = None
    direction_weights: tuple[float, float] = (0.5, 0.5)
    temperature: float = 1.0

    @property
    def student(self) -> tuple[Any, Any]:
        """The student's own embeddings, image and text."""
        return self.student_image, self.student_text

    @property
    def projected(self) -> tuple[Any, Any]:
        """The student's embeddings in the teacher's width, image and text."""
        return self.projected_image, self.projected_text

    @property
    def teacher(self) -> tuple[Any, Any]:
        """The teacher's embeddings, image and text."""
        return self.teacher_image, self.teacher_text


@functools.cache
def declared_objectives(folder: Path = FOLDER) -> dict[str, Objective]:
    """All entries by name, without their callables, read from the source so that nothing is imported."""
    entries = [Objective(**facts) for _, _, facts in _assignments(folder)]
    return {entry.name: entry for entry in sorted(entries, key=lambda entry: entry.order)}


@functools.cache
def load_objectives(folder: Path = FOLDER) -> dict[str, Objective]:
    """All entries by name, complete; imports the files that they are in."""
    entries = [
        getattr(importlib.import_module(f"workbench.objectives.{module}"), variable)
        for module, variable, _ in _assignments(folder)
    ]
    return {entry.name: entry for entry in sorted(entries, key=lambda entry: entry.order)}


def _assignments(folder: Path) -> list[tuple[str, str, dict[str, Any]]]:
    """(file, variable, literal arguments) of every `VARIABLE = Objective(...)`."""
    assignments = []
    for path in sorted(folder.glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            match node:
                case ast.Assign(
                    targets=[ast.Name(id=variable)], value=ast.Call(func=ast.Name(id="Objective")) as call
                ):
                    facts = {
                        str(keyword.arg): ast.literal_eval(keyword.value)
                        for keyword in call.keywords
                        if keyword.arg not in ("function", "modules")
                    }
                    assignments.append((path.stem, variable, facts))
    return assignments
