"""The registry of objectives: one `Objective` beside each loss. Imports no torch.

To add an objective, write a file with the loss and its `Objective` into this folder. The recipe's setting,
the checks of its requirements, its colour and the dry run follow from the entry.
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
    """The description of a loss for recipes. Arguments are keywords, and literals except the two callables.

    `requires` names the optional fields of `LossInputs` that the loss needs, and `needs` the section of the
    recipe that provides them. `head` lists the sides (image, text) that are compared in the teacher's width.
    `reach` is "pair" for a mean over independent pairs, "ring" for a loss that compares all pairs and takes
    `ring`, and "batch" for one that needs the whole batch in every process. `function` takes the inputs and
    the module with the learned parts, and returns the loss; `modules` builds these parts from the `Widths`.
    `order` is the position in the weighted sum, in tables and in legends. `images_alone` marks losses that
    also learn from pictures without captions. `later` marks losses that were added after recipes had
    fingerprints, which include them only if they are used. `either_side` marks losses that also learn from a
    teacher of images alone or of texts alone.
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

    @property
    def of_each_teacher(self) -> bool:
        """Whether it compares the student with an image-text teacher, of which there may be several."""
        return any(field.startswith("teacher_") for field in self.requires)


class Widths(NamedTuple):
    """Dimensions of the embeddings, and the number of concepts; None without such a teacher."""

    student: int
    teacher: int | None = None
    text_target: int | None = None
    concepts: int | None = None

    def of(self, field: str) -> int | None:
        """The width of a field of `LossInputs`."""
        widths = {"text_target": self.text_target, "soft_labels": self.concepts}
        return widths.get(field, self.teacher)


class LossInputs(NamedTuple):
    """The inputs of an objective for one global batch. Embeddings are [batch, dim] of any norm.

    `projected_*` are the student's embeddings in the teacher's width. `rows` are this process's own rows,
    None for all. `chunk` is the number of rows at a time, None for all at once. With `ring`, the number of
    rows of every process, all inputs are this process's own. `captioned` [batch] is 1 for pictures with a
    caption and 0 for those whose text embeddings are meaningless; None means that all have one. `false_text`
    are the student's embeddings of hard negative captions, used where `hard` [batch] is 1; None for none.
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
    false_text: Any = None
    hard: Any = None
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
    """All entries by name, without their callables, read from the source without importing it."""
    entries = [Objective(**facts) for _, _, facts in _assignments(folder)]
    return {entry.name: entry for entry in sorted(entries, key=lambda entry: entry.order)}


@functools.cache
def load_objectives(folder: Path = FOLDER) -> dict[str, Objective]:
    """All entries by name, complete. Imports their files."""
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
