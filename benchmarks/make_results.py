"""Makes the tables of README.md and docs/ again: runs the benchmark behind each and puts its table in place.

    python benchmarks/make_results.py [NAME ...] [--runs runs] [--tables-only] [--list]

Without a NAME it makes every table that a page shows, which takes hours on two CPU cores. Trained runs are
kept, so the same command resumes. A page shows a table between `<!-- table: NAME -->` and `<!-- end -->`.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from workbench.errors import SettingError
from workbench.files import atomic_write
from workbench.recipe.overrides import suggestion

CHECKOUT = Path(__file__).parents[1]
PLACE = r"(<!-- table: {} -->\n)(.*?)(<!-- end -->)"


@dataclass(frozen=True)
class Result:
    """A table, the commands that make it, and how long they take on two CPU cores.

    `trains`: the table comes from runs of shipped recipes. These are kept, so that the command resumes.
    """

    table: str
    commands: tuple[str, ...]
    takes: str
    trains: bool = False


RESULTS = (
    Result("distillation_gain", ("distillation_gain.py",), "half an hour", trains=True),
    Result("ablation_clip_kd", ("ablation.py clip_kd",), "an hour", trains=True),
    Result("dclip", ("dclip.py",), "three hours", trains=True),
    Result("overfitting", ("dclip.py overfitting",), "three quarters of an hour", trains=True),
    Result("pointing", ("pointing.py",), "a quarter of an hour", trains=True),
    Result("grounded", ("grounded.py",), "half an hour"),
    Result("grounded_students", ("grounded_students.py",), "two hours", trains=True),
    Result("relations", ("grounded_students.py",), "nothing after grounded_students", trains=True),
    Result("photographs", (), "an hour for a thousand photographs, by benchmarks/photographs.py"),
    Result("student_search", ("student_search.py",), "an hour", trains=True),
    Result("ablation_masking", ("ablation.py masking",), "hours", trains=True),
    Result("ablation_knowledge_clip", ("ablation.py knowledge_clip",), "hours", trains=True),
    Result("ablation_knowledge_weights", ("ablation.py knowledge_weights",), "hours", trains=True),
    Result("ablation_concepts", ("ablation.py concepts",), "hours", trains=True),
    Result("ablation_unseen_names", ("ablation.py unseen_names",), "hours", trains=True),
    Result("ablation_capacity_gap", ("ablation.py capacity_gap",), "an hour", trains=True),
    Result("ablation_positions", ("ablation.py positions",), "half an hour", trains=True),
    Result("ablation_all_three", ("ablation.py all_three",), "hours", trains=True),
    Result("on_top", ("ablation.py all_three",), "nothing after ablation_all_three", trains=True),
    Result("coverage", ("coverage.py",), "five minutes"),
    Result("step", ("step.py --size demo", "step.py --size real"), "ten minutes"),
    Result("models", ("models.py",), "ten minutes"),
    Result("input", ("input.py",), "ten minutes"),
    Result("losses", ("losses.py",), "a quarter of an hour"),
    Result("scale", ("scale.py",), "half an hour"),
    Result("captions", ("captions.py",), "ten minutes"),
    Result("clustering", ("clustering.py",), "ten minutes"),
    Result("retrieval", ("retrieval.py --threads 2",), "five minutes"),
    Result("shared_cores", ("shared_cores.py",), "five minutes"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="tables; all that a page shows by default")
    parser.add_argument("--runs", type=Path, help="folder of trained runs (default: runs in the checkout)")
    parser.add_argument(
        "--tables-only", action="store_true", help="run nothing, only insert what benchmarks/results holds"
    )
    parser.add_argument("--list", action="store_true", help="list the tables, their commands and their state")
    chosen = parser.parse_args(arguments)
    if chosen.list:
        for result in RESULTS:
            commands = " and ".join(result.commands)
            print(f"{result.table:28}{commands:44}{result.takes:36}{state(CHECKOUT, result.table)}")
        return 0
    try:
        failed = make_results(chosen.names, runs=chosen.runs, run=not chosen.tables_only)
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if failed:
        print(f"not made: {', '.join(failed)}")
    return 1 if failed else 0


def make_results(
    names: Sequence[str] = (),
    *,
    checkout: Path = CHECKOUT,
    results: Sequence[Result] = RESULTS,
    runs: Path | None = None,
    run: bool = True,
    say: Callable[[str], object] = print,
) -> list[str]:
    """Make the named tables, or every table that a page shows, and put each in its page when it is ready.

    `runs` is the folder of trained runs (`runs` in the checkout); `run=False` only inserts what
    `benchmarks/results` holds. Returns the tables that could not be made; their pages keep the old ones.
    Raises SettingError for an unknown name, and for a table without a place or with several.
    """
    known = {result.table: result for result in results}
    for name in names:
        if name not in known:
            raise SettingError("NAME", name, "there is no such table", suggestion(name, known))
    chosen = [known[name] for name in names] or [
        result for result in results if pages_with(checkout, result.table)
    ]
    for result in chosen:
        page_of(checkout, result.table)
    failed: list[str] = []
    done: set[str] = set()
    for result in chosen:
        for command in result.commands if run else ():
            if command in done:
                continue
            done.add(command)
            script, *arguments = command.split()
            if result.trains and runs is not None:
                arguments += ["--runs", str(runs.absolute())]
            say(f"{result.table}: benchmarks/{command} (about {result.takes} on two CPU cores)")
            path = checkout / "benchmarks" / script
            code = subprocess.run([sys.executable, str(path), *arguments], cwd=checkout).returncode
            if code:
                say(f"{result.table}: benchmarks/{command} exited with {code}; the page keeps its table")
                failed.append(result.table)
                break
        if result.table not in failed and not put_in(checkout, result.table):
            say(f"{result.table}: benchmarks/results has no {result.table}.md")
            failed.append(result.table)
    return failed


def put_in(checkout: Path, table: str) -> bool:
    """Put `benchmarks/results/TABLE.md` in the page that shows it; False where there is no such file.

    Raises SettingError where no page has a place for it, or where there are several places.
    """
    source, page = _source(checkout, table), page_of(checkout, table)
    if not source.is_file():
        return False
    text, new = page.read_text(encoding="utf-8"), source.read_text(encoding="utf-8")
    changed = _place(table).sub(lambda match: match[1] + new + match[3], text)
    if changed != text:
        with atomic_write(page, "w") as stream:
            stream.write(changed)
    return True


def is_current(checkout: Path, table: str) -> bool:
    """Whether a page shows the table as the committed result file has it."""
    source, shown = _source(checkout, table), pages_with(checkout, table)
    if len(shown) != 1 or not source.is_file():
        return False
    match = _place(table).search(shown[0].read_text(encoding="utf-8"))
    return match is not None and match[2] == source.read_text(encoding="utf-8")


def state(checkout: Path, table: str) -> str:
    """What `--list` says of a table."""
    shown = pages_with(checkout, table)
    if not shown:
        return "on no page yet"
    page = shown[0].relative_to(checkout).as_posix()
    return f"in {page}" if is_current(checkout, table) else f"{page} differs"


def pages(checkout: Path) -> list[Path]:
    """The pages that may show tables: README.md and docs/*.md."""
    return [checkout / "README.md", *sorted((checkout / "docs").glob("*.md"))]


def pages_with(checkout: Path, table: str) -> list[Path]:
    """The pages that show a table, one entry for each place."""
    places = []
    for page in pages(checkout):
        if page.is_file():
            places += [page] * len(_place(table).findall(page.read_text(encoding="utf-8")))
    return places


def page_of(checkout: Path, table: str) -> Path:
    """The one page that shows a table. Raises SettingError where it has no place, or several."""
    places = pages_with(checkout, table)
    if len(places) != 1:
        problem = "the table has several places" if places else "the table has no place"
        remedy = f"README.md or a page of docs/ needs one `<!-- table: {table} -->` and `<!-- end -->`."
        raise SettingError("NAME", table, problem, remedy)
    return places[0]


def _place(table: str) -> re.Pattern[str]:
    return re.compile(PLACE.format(re.escape(table)), re.DOTALL)


def _source(checkout: Path, table: str) -> Path:
    return checkout / "benchmarks" / "results" / f"{table}.md"


if __name__ == "__main__":
    sys.exit(main())
