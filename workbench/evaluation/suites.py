"""Runs the evaluations of a recipe. Every split is embedded once for all suites."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workbench.data.load import available_splits, load_pairs
from workbench.data.pairs import Pairs
from workbench.errors import SettingError
from workbench.evaluation.attributes.suite import scene_attribute_scores
from workbench.evaluation.composition_sets import composition_sets, evaluate_composition
from workbench.evaluation.encode import Embedded, encode_pairs, encode_texts
from workbench.evaluation.probes.composition import swap_accuracy
from workbench.evaluation.probes.forced_choice import scene_questions
from workbench.evaluation.probes.suite import PROBED, fit_probes, probe_scores
from workbench.evaluation.results_io import QUERIES, SIGNED, read_queries, read_report
from workbench.evaluation.retrieval.search import BEST, search_precision
from workbench.evaluation.retrieval.sets import retrieval_scores, retrieval_sets
from workbench.evaluation.zero_shot.metrics import zero_shot_metrics, zero_shot_weights
from workbench.evaluation.zero_shot.sets import evaluate_set, zero_shot_sets
from workbench.files import atomic_write, is_file_name, sha256_of_file, signed, write_json
from workbench.metrics import metric
from workbench.models.devices import device_of
from workbench.models.dual_encoder import DualEncoder
from workbench.models.tokens import cut_captions
from workbench.recipe import Recipe

Scores = dict[str, float]
Queries = dict[str, np.ndarray]  # results of single queries and their pictures, for paired comparisons
Results = tuple[Scores, Queries]

SAME = ("model", "data", "images", "captions", "failed")  # reports that agree in these can be merged
# For the embedded dataset; `{}` is the name with its article.
TEMPLATES = ("a picture of {}", "a drawing of {}", "{}")


def evaluate(
    model: DualEncoder,
    recipe: Recipe,
    folder: Path | None = None,
    *,
    whole: bool = False,
    step: int | None = None,
    say: Callable[[str], object] | None = None,
) -> dict[str, Scores]:
    """The scores of `measure`, by split or set."""
    reports = measure(model, recipe, folder, whole=whole, step=step, say=say)
    return {name: report["scores"] for name, report in reports.items()}


def measure(
    model: DualEncoder,
    recipe: Recipe,
    folder: Path | None = None,
    *,
    whole: bool = False,
    step: int | None = None,
    say: Callable[[str], object] | None = None,
) -> dict[str, dict[str, Any]]:
    """Evaluate a model on the recipe's evaluation splits, retrieval, composition and zero-shot sets; reports
    by name.

    A report has its numbers under `scores`, the size of the data under `images` and `captions`, and how many
    captions the model truncates under `captions_cut`. With a `folder`, `<name>.json` (the report, with
    fingerprints of model and data and counts of unreadable pictures) and `<name>.npz` (results of single
    queries, for paired intervals) are written once everything is evaluated, so that an interrupted evaluation
    leaves no partial results. Existing results of other suites for the same model and data are kept. For
    `whole` see `evaluation_splits`. `step` is the model's training step, for the report. `say` is told what
    is evaluated next. The model is moved to the recipe's device and uses the precision of training.
    """
    model = model.to(device_of(recipe))
    model.precision = recipe.training.precision
    tell = say or (lambda _: None)
    reports: dict[str, tuple[dict[str, Any], Queries]] = {}
    splits = evaluation_splits(recipe, whole=whole)
    retrieval = retrieval_sets(recipe, splits)
    composition = composition_sets(recipe, [*splits, *retrieval])
    labelled = zero_shot_sets(recipe, [*splits, *retrieval, *composition])
    probes = fit_probes(model, recipe)
    for split in splits:
        pairs = load_pairs(recipe.data.source, split, **recipe.data_options(train=False)).captioned()
        tell(f"{split}: {len(pairs):,} pictures to evaluate")
        cut = _cut(model, pairs, split, tell)
        embedded = encode_pairs(model, pairs, recipe.evaluation.batch, recipe.data.workers, say)
        scores, queries = evaluate_embedded(model, pairs, embedded, recipe.evaluation.suites)
        if "attributes" in recipe.evaluation.suites:
            _add(scene_attribute_scores(model, recipe, pairs, embedded), scores, queries)
        if probes is not None:
            _add(probe_scores(probes, pairs, embedded), scores, queries)
        reports[split] = _report(pairs, embedded, scores) | cut, queries
    last: dict[str, tuple[Pairs, Embedded]] = {}  # one set with several folds is embedded once
    for name, entry in retrieval.items():
        tell(f"{name}: retrieval set")
        key = f"{entry.source}@{entry.image_folder}"
        if key not in last:
            pairs = entry.open(recipe)
            cut = _cut(model, pairs, name, tell)
            last = {key: (pairs, encode_pairs(model, pairs, recipe.evaluation.batch, say=say))}
        pairs, embedded = last[key]
        scores, queries = retrieval_scores(embedded, entry.folds)
        reports[name] = _report(pairs, embedded, scores) | cut | {"folds": entry.folds}, queries
    for name, hard in composition.items():
        tell(f"{name}: set of hard captions")
        reports[name] = evaluate_composition(model, recipe, hard)
    for name, source in labelled.items():
        tell(f"{name}: zero-shot set")
        reports[name] = evaluate_set(model, recipe, source)
    if folder is not None:
        digest = model.fingerprint()
        for name, (report, queries) in reports.items():
            _write(folder, name, {"split": name, "step": step, **report, "model": digest}, queries)
    return {name: report for name, (report, _) in reports.items()}


def size_of(report: Mapping[str, Any]) -> str:
    """The size of a report's data as text: pictures, captions, questions and classes."""
    folds = f" in {report['folds']} folds" if report.get("folds", 1) > 1 else ""
    captions = f", {report['captions']:,} captions" if report["captions"] else ""
    further = (f", {report[key]:,} {key}" for key in ("questions", "classes") if report.get(key))
    return f"{report['images']:,} pictures{folds}{captions}{''.join(further)}"


def _cut(model: DualEncoder, pairs: Pairs, name: str, tell: Callable[[str], object]) -> dict[str, int]:
    """How many captions the model's tokenizer truncates, for a report. Says so where there are any."""
    counted = cut_captions(model, pairs)
    if counted.cut:
        tell(f"{name}: the model cuts {counted}")
    return {"captions_cut": counted.cut}


def _report(pairs: Pairs, embedded: Embedded, scores: Scores) -> dict[str, Any]:
    return {
        "data": pairs.fingerprint,
        "scores": scores,
        "images": len(embedded.rows),
        "captions": len(embedded.text),
        "failed": dict(embedded.failed + pairs.rejected),
    }


def _add(results: Results, scores: Scores, queries: Queries) -> None:
    scores |= results[0]
    queries |= results[1]


def _write(folder: Path, name: str, report: dict[str, Any], queries: Queries) -> None:
    with contextlib.suppress(OSError, ValueError):  # missing or damaged files are replaced
        before = read_report(folder / f"{name}.json")
        before_queries = read_queries(folder / f"{name}.npz", before.get(QUERIES))
        if before_queries and all(before.get(key) == report[key] for key in SAME):
            report = {**report, "scores": before["scores"] | report["scores"]}
            queries = before_queries | queries
    with atomic_write(folder / f"{name}.npz") as stream:
        np.savez_compressed(stream, **queries)  # type: ignore[arg-type]
    digest = sha256_of_file(folder / f"{name}.npz")
    # Written last with the digest of the other file, so that a kill between both is detected.
    write_json(folder / f"{name}.json", signed({**report, QUERIES: digest}, SIGNED))


def evaluation_splits(recipe: Recipe, *, whole: bool = False) -> list[str]:
    """The evaluation splits of a recipe: those it names, otherwise all except for training and validation.

    `whole` means that the model was not trained on this source. A source without splits is then evaluated
    completely, unless a suite trains a probe on a part of it. Raises SettingError for an unknown split.
    """
    data, named = recipe.data, recipe.evaluation.splits
    whole = whole and not PROBED & set(recipe.evaluation.suites)
    options = recipe.data_options(train=False)
    available = available_splits(data.source, by_hash=bool(named) or not whole, **options)
    # Splits for model selection (val, val_concepts) are not evaluated.
    used = (data.train_split, data.validation_split)
    held_out = [split for split in available if split not in used and not split.startswith("val_")]
    if not held_out:
        held_out = available if whole and used[1] not in available else [used[1]]
    splits = named or held_out
    for split in splits:
        if not is_file_name(split):
            problem = "results are written to a file of this name, which is not a valid file name"
            raise SettingError("evaluation.splits", split, problem, "Rename it in the source.")
        if split not in available:
            problem, remedy = f"{data.source} has no such split", f"Use one of {', '.join(available)}."
            raise SettingError("evaluation.splits", split, problem, remedy)
    return list(splits)


def evaluated_pairs(recipe: Recipe, name: str) -> Pairs:
    """The pairs of the split or retrieval set called `name`."""
    if (entry := retrieval_sets(recipe).get(name)) is not None:
        return entry.open(recipe)
    return load_pairs(recipe.data.source, name, **recipe.data_options(train=False)).captioned()


def evaluate_embedded(model: DualEncoder, pairs: Pairs, embedded: Embedded, suites: Sequence[str]) -> Results:
    """The scores of a split and the results of its single queries, computed from its embeddings.

    Suites are skipped if the data lacks what they need, such as captions, or the names and swapped captions
    of the embedded dataset. Suites that need several splits (attributes and probes) are run by `measure`.
    """
    scores: Scores = {}
    queries: Queries = {"image_of_text": embedded.image_of_text}
    columns = pairs.table.column_names
    if "retrieval" in suites and len(embedded.text):
        _add(retrieval_scores(embedded), scores, queries)
    if "zero_shot" in suites and "objects" in columns:
        for column in ("objects", "categories"):
            _add(_zero_shot(model, pairs, embedded, column), scores, queries)
    if "composition" in suites and "swapped_caption" in columns:
        _add(_composition(model, pairs, embedded), scores, queries)
    if "search" in suites and "objects" in columns:
        precision, names = search_precision(model, pairs, embedded.image, embedded.rows)
        if names:
            key = f"search_precision_at_{BEST}"
            scores[key] = float(precision.mean())
            queries |= {f"{key}_result": precision, f"{key}_image": np.arange(len(names))}
    if "questions" in suites:
        for kind, questions in scene_questions(pairs).items():
            name = f"question_{kind}"
            _add(_choices(name, model, embedded, *questions), scores, queries)
    return scores, queries


def results_of_queries(name: str, queries: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray] | None:
    """The results of single queries, whose mean is the metric `name`, and the image of each query.

    Returns None if they were not stored.
    """
    record = metric(name)
    if record.results is None or record.results not in queries:
        return None
    results = record.of_queries(queries[record.results]).astype(float)
    results *= queries.get(f"{record.results}_weight", 1.0)  # for folds that differ in size
    return results, np.arange(len(results)) if record.images is None else queries[record.images]


def _zero_shot(model: DualEncoder, pairs: Pairs, embedded: Embedded, column: str) -> Results:
    """Zero-shot classification of scenes with one object, among the names (or categories) in the split."""
    labels = pairs.table[column].to_pylist()
    classes = sorted({name for names in labels for name in names})
    single = np.flatnonzero([len(labels[row]) == 1 for row in embedded.rows])
    if not len(single):
        return {}, {}
    truth = np.array([classes.index(labels[row][0]) for row in embedded.rows[single]])
    prompts = [template.format(name) for name in classes for template in TEMPLATES]
    weights = zero_shot_weights(encode_texts(model, prompts).view(len(classes), len(TEMPLATES), -1))
    metrics = zero_shot_metrics(embedded.image[single], weights, truth)
    key = "zero_shot_names" if column == "objects" else "zero_shot_categories"
    scores = {f"{key}_{name}": getattr(metrics, name) for name in ("top1", "top5", "mean_per_class")}
    return scores, {f"{key}_correct": metrics.ranks == 1, f"{key}_correct_image": single}


def _composition(model: DualEncoder, pairs: Pairs, embedded: Embedded) -> Results:
    """The choice between the true caption and one with the objects of its relation swapped."""
    swapped = pairs.table["swapped_caption"].to_pylist()
    rows = np.array([row for row in embedded.rows if swapped[row]], dtype=np.int64)
    true, false = [pairs.captions(int(row))[2] for row in rows], [swapped[row] for row in rows]
    return _choices("swap", model, embedded, rows, true, false)


def _choices(
    name: str, model: DualEncoder, embedded: Embedded, rows: np.ndarray, true: list[str], false: list[str]
) -> Results:
    """The share of readable pictures in `rows` that prefer the true caption."""
    readable = np.flatnonzero(np.isin(rows, embedded.rows))
    if not len(readable):
        return {}, {}
    images = np.searchsorted(embedded.rows, rows[readable])
    texts = (encode_texts(model, [side[number] for number in readable]) for side in (true, false))
    choice = swap_accuracy(embedded.image[images], *texts)
    queries = {f"{name}_correct": choice.correct, f"{name}_correct_image": images}
    return {f"{name}_accuracy": choice.accuracy}, queries
