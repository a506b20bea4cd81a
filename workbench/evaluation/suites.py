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
from workbench.evaluation.probes.suite import fit_probes, probe_scores
from workbench.evaluation.results_io import QUERIES, SIGNED, read_queries, read_report
from workbench.evaluation.retrieval.metrics import retrieval_metrics
from workbench.evaluation.retrieval.search import BEST, search_precision
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


def evaluate(model: DualEncoder, recipe: Recipe, folder: Path | None = None) -> dict[str, Scores]:
    """Numbers by split for the recipe's evaluation splits and suites, then by name for its zero-shot sets.

    With a `folder`, `<split>.json` (numbers, fingerprints of model and data, pictures that could not be read)
    and `<split>.npz` (one result per query, for paired intervals) are written there once all of them are
    known: an evaluation that was interrupted does not look like one of fewer splits. What is there already of
    the same model on the same data, from other suites, stays. The model is moved to the recipe's device, and
    computes in the training's precision.
    """
    model = model.to(device_of(recipe))
    model.precision = recipe.training.precision
    reports: dict[str, tuple[dict[str, Any], Queries]] = {}
    splits = evaluation_splits(recipe)
    sets = zero_shot_sets(recipe, splits)
    probes = fit_probes(model, recipe)
    for split in splits:
        pairs = load_pairs(recipe.data.source, split, **recipe.data.options(train=False))
        embedded = encode_pairs(model, pairs, recipe.evaluation.batch)
        scores, queries = evaluate_embedded(model, pairs, embedded, recipe.evaluation.suites)
        if "attributes" in recipe.evaluation.suites:
            _add(scene_attribute_scores(model, recipe, pairs, embedded), scores, queries)
        if probes is not None:
            _add(probe_scores(probes, pairs, embedded), scores, queries)
        report = {
            "data": pairs.fingerprint,
            "scores": scores,
            "images": len(embedded.rows),
            "captions": len(embedded.text),
            "failed": dict(embedded.failed + pairs.rejected),
        }
        reports[split] = report, queries
    for name, source in sets.items():
        reports[name] = evaluate_set(model, recipe, source)
    if folder is not None:
        digest = model.fingerprint()
        for name, (report, queries) in reports.items():
            _write(folder, name, {"split": name, **report, "model": digest}, queries)
    return {name: report["scores"] for name, (report, _) in reports.items()}


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


def evaluation_splits(recipe: Recipe) -> list[str]:
    """The splits a recipe is judged on: those it names, else all of its source but those for training and
    validation."""
    available = available_splits(recipe.data.source, **recipe.data.options(train=False))
    used = (recipe.data.train_split, recipe.data.validation_split)
    # A split that choices may be made by (val, val_concepts) gives no result.
    judged = [split for split in available if split not in used and not split.startswith("val_")]
    splits = recipe.evaluation.splits or judged or [used[1]]
    for split in splits:
        if not is_file_name(split):
            problem = f"its numbers are written to a file called {split!r}, which is no file name"
            raise SettingError("evaluation.splits", split, problem, "Rename it in the source.")
        if split not in available:
            problem, remedy = f"{recipe.data.source} has no such split", f"one of {', '.join(available)}"
            raise SettingError("evaluation.splits", split, problem, remedy)
    return list(splits)


def evaluate_embedded(model: DualEncoder, pairs: Pairs, embedded: Embedded, suites: Sequence[str]) -> Results:
    """One split's numbers, and the results of its single queries, from its embeddings.

    Suites that need what the data does not have (names and swapped captions of the embedded dataset) give
    nothing. Those that take more than one split, attributes and the probes, are `evaluate`'s.
    """
    scores: Scores = {}
    queries: Queries = {"image_of_text": embedded.image_of_text}
    columns = pairs.table.column_names
    if "retrieval" in suites:
        _add(_retrieval(embedded), scores, queries)
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
    return results, np.arange(len(results)) if record.images is None else queries[record.images]


def _retrieval(embedded: Embedded) -> Results:
    scores: Scores = {}
    queries: Queries = {}
    retrieval = retrieval_metrics(embedded.image, embedded.text, embedded.image_of_text)
    for direction, short in (("text_to_image", "t2i"), ("image_to_text", "i2t")):
        side = getattr(retrieval, direction)
        scores |= {f"{direction}_r{k}": value for k, value in side.recall.items()}
        scores |= {f"{direction}_{name}": getattr(side, name) for name in ("mrr", "map", "median_rank")}
        queries[f"{short}_ranks"] = side.ranks
    return scores, queries


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
