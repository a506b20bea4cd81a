"""What does each objective add? Every recipe of an ablation, several seeds, against the same student alone.

    python benchmarks/ablation.py NAME [--seeds 0 1 2] [--set NAME=VALUE ...] [--runs runs]
                                  [--out benchmarks/results] [--workers CORES]

NAME is one of the ablations below. Trains what is not trained yet, evaluates it, and writes
ablation_NAME.json, .md (its table) and the runs' .html report; of all_three also
on_top.md, what each system adds to the others. Hours on two CPU cores; stop and start it as you like.
"""

import argparse
import itertools
import json
from pathlib import Path

from trained import arguments, place_of, shared, trained

import workbench
from workbench.files import atomic_write, write_json
from workbench.reports.html import write_report

CONCEPTS = "knowledge_clip_concepts_demo"
WORDS = "student.initial_weights.text.transformer.embeddings.word_embeddings"
# Students with a small vision transformer, from nothing, and trained further from the first one's weights.
VIT = ("clip_kd_scratch_demo", {"student.model": str(Path(__file__).with_name("student_vit.json"))})
STARTED = "the first one's"
ROTARY = {"student.rotary_positions": True}
KNOWLEDGE, ALL = "knowledge_clip_demo", "all_three_demo"
# What takes each system out of all_three_demo.
WITHOUT: dict[str, dict[str, object]] = {
    "CLIP-KD": {"objectives.crd": 0, "objectives.fd": 0, "objectives.icl": 0},
    "Knowledge-CLIP": {"objectives.embedding": 0, "objectives.concepts": 0},
    "DCLIP": {"objectives.cross_modal": 0},
}


def _only(*systems: str) -> tuple[str, dict[str, object]]:
    """all_three_demo with these systems alone."""
    return ALL, {name: 0 for system in WITHOUT if system not in systems for name in WITHOUT[system]}


# What a row is called: (recipe, settings). The others are compared with the first.
ABLATIONS: dict[str, dict[str, tuple[str, dict[str, object]]]] = {
    "knowledge_clip": {
        "contrastive": ("task_only_demo", {}),
        "+ embedding": ("knowledge_clip_embedding_demo", {}),
        "+ concepts": (CONCEPTS, {}),
        "+ both": ("knowledge_clip_demo", {}),
        "+ both, placebo concepts": ("knowledge_clip_placebo_demo", {}),
    },
    "concepts": {
        "no concepts": ("task_only_demo", {}),
        "K = 32": (CONCEPTS, {"concepts.clusters": 32}),
        "K = 256": (CONCEPTS, {}),
        "K = 1024": (CONCEPTS, {"concepts.clusters": 1024}),
        "K = 256, hard labels": (CONCEPTS, {"concepts.labels": "hard"}),
        "Gaussian mixture, 256": (CONCEPTS, {"concepts.method": "gaussian_mixture"}),
        "agglomerative, 256": (CONCEPTS, {"concepts.method": "agglomerative"}),
        "HDBSCAN": (CONCEPTS, {"concepts.method": "hdbscan"}),
    },
    "knowledge_weights": {
        "contrastive": ("task_only_demo", {}),
        "alpha 1, beta 0.1, gamma 1": (KNOWLEDGE, {}),
        "alpha 0.1": (KNOWLEDGE, {"objectives.embedding": 0.1}),
        "alpha 10": (KNOWLEDGE, {"objectives.embedding": 10.0}),
        "beta 0.01": (KNOWLEDGE, {"objectives.concepts": 0.01}),
        "beta 1": (KNOWLEDGE, {"objectives.concepts": 1.0}),
        "beta 1, placebo concepts": ("knowledge_clip_placebo_demo", {"objectives.concepts": 1.0}),
        "gamma 0.1": (KNOWLEDGE, {"objectives.task": 0.1}),
        "gamma 10": (KNOWLEDGE, {"objectives.task": 10.0}),
    },
    "clip_kd": {
        "alone": ("task_only_demo", {}),
        "+ CRD": ("crd_demo", {}),
        "+ CRD, temperature 3": (
            "crd_demo",
            {"training.distillation_temperature": 3.0, "objectives.crd": 0.5},
        ),
        "+ FD": ("fd_demo", {}),
        "+ MFD": ("mfd_demo", {}),
        "+ GD": ("gd_demo", {}),
        "+ ICL": ("icl_demo", {}),
        "+ AFD": ("afd_demo", {}),
        "CLIP-KD": ("clip_kd_demo", {}),
    },
    "masking": {
        "FD": ("fd_demo", {}),
        **{
            f"MFD, {ratio:.0%} masked": ("mfd_demo", {"training.masking.ratio": ratio})
            for ratio in (0.25, 0.5, 0.75, 0.9)
        },
    },
    "unseen_names": {
        "alone": ("task_only_demo", {}),
        "CLIP-KD": ("clip_kd_demo", {}),
        "FD of a quarter": ("clip_kd_demo", {"objectives.fd": 1.0}),
        "no FD": ("clip_kd_demo", {"objectives.fd": 0.0}),
        "+ Knowledge-CLIP's embedding": (
            "clip_kd_demo",
            {"text_teacher.model": "minilm", "objectives.embedding": 1.0},
        ),
        "alone, MiniLM's words": ("task_only_demo", {WORDS: "minilm_words"}),
        "CLIP-KD, MiniLM's words": ("clip_kd_demo", {WORDS: "minilm_words"}),
        "CLIP-KD, MiniLM's words kept": (
            "clip_kd_demo",
            {WORDS: "minilm_words", "training.lr_multipliers.text.transformer.embeddings": 0.0},
        ),
    },
    "capacity_gap": {
        "FD": ("fd_demo", {}),
        "DCLIP's teacher, patches": ("condensed_demo", {"cross_modal.interaction": "attention"}),
        "condensed patches": ("condensed_demo", {}),
        "condensed patches of other pictures": (
            "condensed_demo",
            {"cross_modal.control": "shuffled_regions"},
        ),
    },
    "positions": {
        "learned positions": VIT,
        "rotary positions": (VIT[0], {**VIT[1], **ROTARY}),
        "learned positions, trained further": (VIT[0], {"student.model": STARTED}),
        "rotary positions, trained further": (VIT[0], {"student.model": STARTED, **ROTARY}),
    },
    "all_three": {
        "alone": ("task_only_demo", {}),
        "CLIP-KD": ("clip_kd_demo", {}),
        "Knowledge-CLIP": ("knowledge_clip_demo", {}),
        "DCLIP": _only("DCLIP"),
        **{" + ".join(pair): _only(*pair) for pair in itertools.combinations(WITHOUT, 2)},
        "all three": (ALL, {}),
        "all three, caption as teacher": (ALL, {"cross_modal.control": "null"}),
        "all three, placebo concepts": (ALL, {"concepts.labels": "shuffled"}),
    },
}
USUAL = ["retrieval", "zero_shot", "composition", "search"]
SUITES = dict.fromkeys(ABLATIONS, USUAL) | {"knowledge_clip": [*USUAL, "exact_match"]}
# What is added: (to which row, which row that makes).
ON_TOP = {
    **{
        f"{system}, to {words}": (base, more)
        for system in WITHOUT
        for words, base, more in (
            ("the student alone", "alone", system),
            ("the other two", " + ".join(other for other in WITHOUT if other != system), "all three"),
        )
    },
    "the teacher of words and regions, in place of the caption as teacher": (
        "all three, caption as teacher",
        "all three",
    ),
    "right concepts, in place of permuted ones": ("all three, placebo concepts", "all three"),
}
COLUMNS = {  # (split, metric) -> the table's words
    ("test", "text_to_image_r1"): "text to image R@1",
    ("test", "image_to_text_r1"): "image to text R@1",
    ("test", "text_to_image_r10"): "text to image R@10",
    ("test", "zero_shot_names_top1"): "name, top-1",
    ("test", "zero_shot_categories_top1"): "category, top-1",
    ("album", "search_precision_at_6"): "search, precision at 6",
    ("test", "exact_match"): "exact match",
    ("test", "token_f1"): "token F1",
    ("test_style", "text_to_image_r10"): "new artwork, text to image R@10",
    ("test_concepts", "text_to_image_r10"): "unseen names, text to image R@10",
    ("test_concepts", "zero_shot_names_top1"): "unseen names, name, top-1",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ablation", choices=ABLATIONS)
    parser.add_argument("--set", dest="settings", nargs="*", default=[], metavar="NAME=VALUE")
    chosen = arguments(parser).parse_args()

    overrides = dict(setting.split("=", 1) for setting in chosen.settings)
    wanted = []
    started: dict[str, object] = {}
    if chosen.ablation == "positions":
        first = {**VIT[1], **overrides, "seed": 0, "evaluation.suites": USUAL}
        started["student.model"] = str(_exported(workbench.Recipe.load(VIT[0], first), chosen))
    # Seed by seed, so that a stop on the way leaves whole rows.
    for seed in chosen.seeds:
        for row, (name, settings) in ABLATIONS[chosen.ablation].items():
            more = {"seed": seed, "evaluation.suites": SUITES[chosen.ablation]}
            if settings.get("student.model") == STARTED:
                more |= started
            wanted.append((row, workbench.Recipe.load(name, {**settings, **overrides, **more})))
    named = shared(wanted, chosen)
    order = list(named)
    runs = [run for members in named.values() for run in members]
    comparison = workbench.compare(runs, names=[row for row, members in named.items() for _ in members])
    chosen.out.mkdir(parents=True, exist_ok=True)
    written = json.loads(comparison.to_json())
    result = {"seeds": chosen.seeds, "settings": overrides, "rows": written["rows"], "note": written["note"]}
    write_json(chosen.out / f"ablation_{chosen.ablation}.json", result)
    with atomic_write(chosen.out / f"ablation_{chosen.ablation}.md", "w") as stream:
        stream.write(markdown(comparison.table, order))
    if chosen.ablation == "all_three":
        with atomic_write(chosen.out / "on_top.md", "w") as stream:
            stream.write(on_top(named))
    print(comparison)
    print(write_report(runs, chosen.runs / f"ablation_{chosen.ablation}.html"))


def _exported(recipe: workbench.Recipe, chosen: argparse.Namespace) -> Path:
    """The folder of a recipe's student, trained and exported once. With `--finished` it may be missing."""
    place = place_of(recipe, chosen.runs)
    folder = place.with_name(f"{place.name}-exported")
    if not folder.is_dir() and not chosen.finished:
        trained(recipe, chosen.runs).export(folder)
    return folder


def on_top(named: dict[str, list[workbench.Run]]) -> str:
    """The table of what each system adds: differences in percent with 95 % intervals, over seeds."""
    columns = {key: words for key, words in COLUMNS.items() if key[1] not in ("exact_match", "token_f1")}
    lines = [f"| what is added | {' | '.join(columns.values())} |", f"|---|{'---|' * len(columns)}"]
    for words, (base, more) in ON_TOP.items():
        pair = [(name, run) for name in (base, more) for run in named[name]]
        table = workbench.compare([run for _, run in pair], names=[name for name, _ in pair]).table
        cells = []
        for key in columns:
            low, difference, high = (
                100 * table.loc[key][more, part] for part in ("low", "difference", "high")
            )
            cells.append(f"{difference:+z.1f} ({low:+z.1f} to {high:+z.1f})")
        lines.append(f"| {words} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def markdown(table, names: list[str], wanted: dict[tuple[str, str], str] = COLUMNS) -> str:
    """The table in percent: the baseline's values, then differences to it with 95 % intervals."""
    columns = {key: words for key, words in wanted.items() if key in table.index}
    lines = [
        f"| recipe | {' | '.join(columns.values())} |",
        f"|---|{'---|' * len(columns)}",
    ]
    for name in names:
        cells = []
        for key in columns:
            row = table.loc[key]
            cell = f"{100 * row[name, 'value']:.1f}"
            if name != names[0]:
                low, difference, high = (100 * row[name, part] for part in ("low", "difference", "high"))
                cell += f", {difference:+z.1f} ({low:+z.1f} to {high:+z.1f})"
            cells.append(cell)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
