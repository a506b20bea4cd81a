"""Which evaluations a recipe asks for; every split is embedded once for all of them."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workbench.data.load import available_splits, load_pairs
from workbench.data.pairs import Pairs
from workbench.errors import SettingError
from workbench.evaluation.attributes.suite import scene_attribute_scores
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
from workbench.recipe import Recipe

Scores = dict[str, float]
Queries = dict[str, np.ndarray]  # for paired comparisons: a result per query, and the picture it belongs to
Results = tuple[Scores, Queries]

SAME = ("model", "data", "images", "captions", "failed")  # where reports agree in these, their numbers add up
# For the embedded dataset; `{}` is the name with its article.
TEMPLATES = ("a picture of {}", "a drawing of {}", "{}")


def evaluate(
    model: DualEncoder,
    recipe: Recipe,
    folder: Path | None = None,
    *,
    whole: bool = False,
    step: int | None = None,
) -> dict[str, Scores]:
    """The numbers of `measure`, by name of split or set."""
    reports = measure(model, recipe, folder, whole=whole, step=step)
    return {name: report["scores"] for name, report in reports.items()}


def measure(
    model: DualEncoder,
    recipe: Recipe,
    folder: Path | None = None,
    *,
    whole: bool = False,
    step: int | None = None,
) -> dict[str, dict[str, Any]]:
    """Reports by name: of the recipe's evaluation splits for its suites, of its retrieval and its zero-shot
    sets. Numbers are under `scores`, and what they are of under `images` and `captions`.

    With a `folder`, `<name>.json` (the report, with fingerprints of model and data, and counts of pictures
    that could not be read) and `<name>.npz` (one result per query, for paired intervals) are written there
    once all of them are known: an evaluation that was interrupted does not look like one of fewer splits.
    What is there already of the same model on the same data, from other suites, stays. `whole`: see
    `evaluation_splits`. `step`: the training step that the model is of, for the report. The model is moved to
    the recipe's device, and computes in the training's precision.
    """
    model = model.to(device_of(recipe))
    model.precision = recipe.training.precision
    reports: dict[str, tuple[dict[str, Any], Queries]] = {}
    splits = evaluation_splits(recipe, whole=whole)
    retrieval = retrieval_sets(recipe, splits)
    labelled = zero_shot_sets(recipe, [*splits, *retrieval])
    probes = fit_probes(model, recipe)
    for split in splits:
        pairs = load_pairs(recipe.data.source, split, **recipe.data_options(train=False)).captioned()
        embedded = encode_pairs(model, pairs, recipe.evaluation.batch, recipe.data.workers)
        scores, queries = evaluate_embedded(model, pairs, embedded, recipe.evaluation.suites)
        if "attributes" in recipe.evaluation.suites:
            _add(scene_attribute_scores(model, recipe, pairs, embedded), scores, queries)
        if probes is not None:
            _add(probe_scores(probes, pairs, embedded), scores, queries)
        reports[split] = _report(pairs, embedded, scores), queries
    last: dict[str, tuple[Pairs, Embedded]] = {}  # COCO and its folds are embedded once
    for name, entry in retrieval.items():
        key = f"{entry.source}@{entry.image_folder}"
        if key not in last:
            pairs = entry.open(recipe)
            last = {key: (pairs, encode_pairs(model, pairs, recipe.evaluation.batch))}
        pairs, embedded = last[key]
        scores, queries = retrieval_scores(embedded, entry.folds)
        reports[name] = _report(pairs, embedded, scores) | {"folds": entry.folds}, queries
    for name, source in labelled.items():
        reports[name] = evaluate_set(model, recipe, source)
    if folder is not None:
        digest = model.fingerprint()
        for name, (report, queries) in reports.items():
            _write(folder, name, {"split": name, "step": step, **report, "model": digest}, queries)
    return {name: report for name, (report, _) in reports.items()}


def size_of(report: Mapping[str, Any]) -> str:
    """How many pictures, and captions or classes, the numbers of a report are of."""
    folds = f" in {report['folds']} folds" if report.get("folds", 1) > 1 else ""
    other = f", {report['captions']:,} captions" if report["captions"] else ""
    classes = f", {report['classes']:,} classes" if report.get("classes") else ""
    return f"{report['images']:,} pictures{folds}{other}{classes}"


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
    with contextlib.suppress(OSError, ValueError):  # no files, or damaged ones: there is nothing to keep
        before = read_report(folder / f"{name}.json")
        before_queries = read_queries(folder / f"{name}.npz", before.get(QUERIES))
        if before_queries and all(before.get(key) == report[key] for key in SAME):
            report = {**report, "scores": before["scores"] | report["scores"]}
            queries = before_queries | queries
    with atomic_write(folder / f"{name}.npz") as stream:
        np.savez_compressed(stream, **queries)  # type: ignore[arg-type]
    digest = sha256_of_file(folder / f"{name}.npz")
    # Last, because it names the other: a kill between the two is seen.
    write_json(folder / f"{name}.json", signed({**report, QUERIES: digest}, SIGNED))


def evaluation_splits(recipe: Recipe, *, whole: bool = False) -> list[str]:
    """The splits a recipe is judged on: those it names, else all of its source but those for training and
    validation.

    `whole`: nothing was trained on this source, so that without splits of its own all of it is measured,
    unless a suite trains a probe on a part of it.
    """
    data, named = recipe.data, recipe.evaluation.splits
    whole = whole and not PROBED & set(recipe.evaluation.suites)
    options = recipe.data_options(train=False)
    available = available_splits(data.source, by_hash=bool(named) or not whole, **options)
    # A split that choices may be made by (val, val_concepts) gives no result.
    used = (data.train_split, data.validation_split)
    judged = [split for split in available if split not in used and not split.startswith("val_")]
    if not judged:
        judged = available if whole and used[1] not in available else [used[1]]
    splits = named or judged
    for split in splits:
        if not is_file_name(split):
            problem = f"its numbers are written to a file called {split!r}, which is no file name"
            raise SettingError("evaluation.splits", split, problem, "Rename it in the source.")
        if split not in available:
            problem, remedy = f"{data.source} has no such split", f"one of {', '.join(available)}"
            raise SettingError("evaluation.splits", split, problem, remedy)
    return list(splits)


def evaluated_pairs(recipe: Recipe, name: str) -> Pairs:
    """The pairs that the results called `name` are of: a split's, or those of a retrieval set."""
    if (entry := retrieval_sets(recipe).get(name)) is not None:
        return entry.open(recipe)
    return load_pairs(recipe.data.source, name, **recipe.data_options(train=False)).captioned()


def evaluate_embedded(model: DualEncoder, pairs: Pairs, embedded: Embedded, suites: Sequence[str]) -> Results:
    """One split's numbers, and the results of its single queries, from its embeddings.

    Suites that need what the data does not have (captions, names and swapped captions of the embedded
    dataset) give nothing. Those that take more than one split, attributes and the probes, are `evaluate`'s.
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
    """The result of every single query whose mean is the metric `name`, and the image each query belongs to;
    None if not kept."""
    record = metric(name)
    if record.results is None or record.results not in queries:
        return None
    results = record.of_queries(queries[record.results]).astype(float)
    results *= queries.get(f"{record.results}_weight", 1.0)  # of folds that differ in size
    return results, np.arange(len(results)) if record.images is None else queries[record.images]


def _zero_shot(model: DualEncoder, pairs: Pairs, embedded: Embedded, column: str) -> Results:
    """Name the one object of one-object scenes, among the names (or categories) that the split's scenes
    show."""
    labels = pairs.table[column].to_pylist()
    classes = sorted({name for names in labels for name in names})
    chosen = np.flatnonzero([len(labels[row]) == 1 for row in embedded.rows])
    if not len(chosen):
        return {}, {}
    truth = np.array([classes.index(labels[row][0]) for row in embedded.rows[chosen]])
    prompts = [template.format(name) for name in classes for template in TEMPLATES]
    weights = zero_shot_weights(encode_texts(model, prompts).view(len(classes), len(TEMPLATES), -1))
    metrics = zero_shot_metrics(embedded.image[chosen], weights, truth)
    key = "zero_shot_names" if column == "objects" else "zero_shot_categories"
    scores = {f"{key}_{name}": getattr(metrics, name) for name in ("top1", "top5", "mean_per_class")}
    return scores, {f"{key}_correct": metrics.ranks == 1, f"{key}_correct_image": chosen}


def _composition(model: DualEncoder, pairs: Pairs, embedded: Embedded) -> Results:
    """Which of two captions is true: the relation as it is, or with its objects exchanged."""
    swapped = pairs.table["swapped_caption"].to_pylist()
    rows = np.array([row for row in embedded.rows if swapped[row]], dtype=np.int64)
    true, false = [pairs.captions(int(row))[2] for row in rows], [swapped[row] for row in rows]
    return _choices("swap", model, embedded, rows, true, false)


def _choices(
    name: str, model: DualEncoder, embedded: Embedded, rows: np.ndarray, true: list[str], false: list[str]
) -> Results:
    """How often the pictures in `rows`, as far as they could be read, prefer the true caption."""
    readable = np.flatnonzero(np.isin(rows, embedded.rows))
    if not len(readable):
        return {}, {}
    images = np.searchsorted(embedded.rows, rows[readable])
    texts = (encode_texts(model, [side[number] for number in readable]) for side in (true, false))
    choice = swap_accuracy(embedded.image[images], *texts)
    queries = {f"{name}_correct": choice.correct, f"{name}_correct_image": images}
    return {f"{name}_accuracy": choice.accuracy}, queries
