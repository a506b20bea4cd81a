"""Makes the README's tables and figures again: runs the benchmarks behind them, puts in what these wrote."""

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
    """A table of the README (and what is drawn beside it): the command that makes it, and how long that takes
    on two CPU cores. `trains`: from runs of shipped recipes, which are kept, so that it goes on where it was
    stopped."""

    table: str
    commands: tuple[str, ...]
    takes: str
    trains: bool = False


RESULTS = (
    Result("distillation_gain", ("distillation_gain.py",), "half an hour", trains=True),
    Result("ablation_clip_kd", ("ablation.py clip_kd",), "an hour", trains=True),
    Result("dclip", ("dclip.py",), "three hours", trains=True),
    Result("coverage", ("coverage.py",), "five minutes"),
    Result("step", ("step.py --size demo", "step.py --size real"), "ten minutes"),
    Result("models", ("models.py",), "ten minutes"),
    Result("input", ("input.py",), "ten minutes"),
    Result("losses", ("losses.py",), "a quarter of an hour"),
    Result("captions", ("captions.py",), "ten minutes"),
    Result("clustering", ("clustering.py",), "ten minutes"),
    Result("retrieval", ("retrieval.py --threads 2",), "five minutes"),
)


def make_results(
    names: Sequence[str] = (),
    *,
    checkout: Path = CHECKOUT,
    results: Sequence[Result] = RESULTS,
    runs: Path | None = None,
    run: bool = True,
    say: Callable[[str], object] = print,
) -> list[str]:
    """Make the named tables again, or all, and put each into the README as soon as it is there.

    Needs a checkout, where `benchmarks/` lies beside the package. `runs` is where trained runs are kept
    (`runs` in the checkout); `run` False only puts in what `benchmarks/results` holds. Returns the tables
    that could not be made; the README keeps their old ones. Raises SettingError for a name it does not know.
    """
    known = {each.table: each for each in results}
    for name in names:
        if name not in known:
            raise SettingError("NAME", name, "the README has no such table", suggestion(name, known))
    if not (checkout / "benchmarks").is_dir():
        problem = "there is no folder benchmarks beside the package"
        raise SettingError("results", str(checkout), problem, "Run it from a clone of the repository.")
    failed: list[str] = []
    done: set[str] = set()
    for result in [known[name] for name in names] or list(results):
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
                say(f"{result.table}: benchmarks/{command} ended with {code}; the README keeps its table")
                failed.append(result.table)
                break
        if result.table not in failed and not put_in(checkout, result.table):
            say(f"{result.table}: benchmarks/results has no {result.table}.md")
            failed.append(result.table)
    return failed


def put_in(checkout: Path, table: str) -> bool:
    """Put `benchmarks/results/TABLE.md` in its place in the README; False where there is no such file.

    Raises SettingError where the README has no place for it.
    """
    source, readme = checkout / "benchmarks" / "results" / f"{table}.md", checkout / "README.md"
    if not source.is_file():
        return False
    text = readme.read_text(encoding="utf-8")
    place = re.compile(PLACE.format(re.escape(table)), re.DOTALL)
    if len(place.findall(text)) != 1:
        problem = "it has no place for this table, or several"
        raise SettingError("README.md", table, problem, f"One `<!-- table: {table} -->` and `<!-- end -->`.")
    new = source.read_text(encoding="utf-8")
    changed = place.sub(lambda found: found[1] + new + found[3], text)
    if changed != text:
        with atomic_write(readme, "w") as stream:
            stream.write(changed)
    return True


def is_current(checkout: Path, table: str) -> bool:
    """Whether the README's table is that of the committed result file."""
    source = checkout / "benchmarks" / "results" / f"{table}.md"
    if not source.is_file():
        return False
    found = re.findall(
        PLACE.format(re.escape(table)), (checkout / "README.md").read_text(encoding="utf-8"), re.DOTALL
    )
    return [middle for _, middle, _ in found] == [source.read_text(encoding="utf-8")]
