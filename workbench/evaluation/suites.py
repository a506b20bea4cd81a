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
from workbench.evaluation.results_io import read_queries, read_report
from workbench.evaluation.retrieval.metrics import retrieval_metrics
from workbench.evaluation.retrieval.search import BEST, search_precision
from workbench.evaluation.zero_shot.metrics import zero_shot_metrics, zero_shot_weights
from workbench.evaluation.zero_shot.sets import evaluate_set, zero_shot_sets
from workbench.files import atomic_write, write_json
from workbench.metrics import metric
from workbench.models.devices import device_of
from workbench.models.dual_encoder import DualEncoder
from workbench.recipe import Recipe

Scores = dict[str, float]
Queries = dict[
    str, np.ndarray
]  # what paired comparisons need: a result per query, and the picture it belongs to

SAME = ("model", "data", "images", "captions", "failed")  # where reports agree in these, their numbers add up
TEMPLATES = (
    "a picture of {}",
    "a drawing of {}",
    "{}",
)  # for the embedded dataset; `{}` is the name with its article


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
    results = {}
    written: dict[str, tuple[dict[str, Any], Queries]] = {}
    splits = evaluation_splits(recipe)
    sets = zero_shot_sets(recipe, splits)
    probes = fit_probes(model, recipe)
    for split in splits:
        pairs = load_pairs(recipe.data.source, split, **recipe.data.options(train=False))
        embedded = encode_pairs(model, pairs, recipe.evaluation.batch)
        scores, queries = evaluate_embedded(model, pairs, embedded, recipe.evaluation.suites)
        if "attributes" in recipe.evaluation.suites:
            more_scores, more_queries = scene_attribute_scores(model, recipe, pairs, embedded)
            scores, queries = scores | more_scores, queries | more_queries
        if probes is not None:
            more_scores, more_queries = probe_scores(probes, pairs, embedded)
            scores, queries = scores | more_scores, queries | more_queries
        results[split] = scores
        report: dict[str, Any] = {"split": split, "data": pairs.fingerprint, "scores": scores}
        report |= {
            "images": len(embedded.rows),
            "captions": len(embedded.text),
            "failed": dict(embedded.failed + pairs.rejected),
        }
        written[split] = report, queries
    for name, source in sets.items():
        report, queries = evaluate_set(model, recipe, source)
        results[name] = report["scores"]
        written[name] = {"split": name, **report}, queries
    if folder is not None:
        of_model = {"model": model.fingerprint()}
        for name, (report, queries) in written.items():
            _write(folder, name, report | of_model, queries)
    return results


def _write(folder: Path, name: str, report: dict[str, Any], queries: Queries) -> None:
    with contextlib.suppress(
        OSError, ValueError
    ):  # nothing there, or nothing whole: there is nothing to keep
        before, kept = read_report(folder / f"{name}.json"), read_queries(folder / f"{name}.npz")
        if kept and all(before.get(key) == report[key] for key in SAME):
            report = {**report, "scores": before["scores"] | report["scores"]}
            queries = kept | queries
    write_json(folder / f"{name}.json", report)
    with atomic_write(folder / f"{name}.npz") as stream:
        np.savez_compressed(stream, **queries)  # type: ignore[arg-type]


def evaluation_splits(recipe: Recipe) -> list[str]:
    """The splits a recipe is judged on: those it names, else all of its source but those for training and
    validation."""
    there = available_splits(recipe.data.source, **recipe.data.options(train=False))
    used = (recipe.data.train_split, recipe.data.validation_split)
    # What a choice may be made by (val, val_concepts) is no result.
    judged = [split for split in there if split not in used and not split.startswith("val_")]
    wanted = recipe.evaluation.splits or judged or [used[1]]
    for split in wanted:
        if split not in there:
            raise SettingError(
                "evaluation.splits",
                split,
                f"{recipe.data.source} has no such split",
                f"one of {', '.join(there)}",
            )
    return list(wanted)


def evaluate_embedded(
    model: DualEncoder, pairs: Pairs, embedded: Embedded, suites: Sequence[str]
) -> tuple[Scores, Queries]:
    """One split's numbers, and the results of its single queries, from its embeddings.

    Suites that need what the data does not have (names and swapped captions of the embedded dataset) give
    nothing. Those that take more than one split, attributes and the probes, are `evaluate`'s.
    """
    scores: Scores = {}
    queries: Queries = {"image_of_text": embedded.image_of_text}
    if "retrieval" in suites:
        found = retrieval_metrics(embedded.image, embedded.text, embedded.image_of_text)
        for direction, short in (("text_to_image", "t2i"), ("image_to_text", "i2t")):
            side = getattr(found, direction)
            scores |= {f"{direction}_r{k}": value for k, value in side.recall.items()}
            scores |= {f"{direction}_{name}": getattr(side, name) for name in ("mrr", "map", "median_rank")}
            queries[f"{short}_ranks"] = side.ranks
    if "zero_shot" in suites and "objects" in pairs.table.column_names:
        for column in ("objects", "categories"):
            _zero_shot(model, pairs, embedded, column, scores, queries)
    if "composition" in suites and "swapped_caption" in pairs.table.column_names:
        _composition(model, pairs, embedded, scores, queries)
    if "search" in suites and "objects" in pairs.table.column_names:
        precision, names = search_precision(model, pairs, embedded.image, embedded.rows)
        if names:
            scores[f"search_precision_at_{BEST}"] = float(precision.mean())
            key = f"search_precision_at_{BEST}"
            queries |= {f"{key}_result": precision, f"{key}_image": np.arange(len(names))}
    if "questions" in suites:
        _questions(model, pairs, embedded, scores, queries)
    return scores, queries


def results_of_queries(name: str, queries: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray] | None:
    """The result of every single query whose mean is the metric `name`, and the image each query belongs to;
    None if not kept."""
    record = metric(name)
    if record.results not in queries:
        return None
    results = record.of_queries(queries[record.results]).astype(float)
    return results, np.arange(len(results)) if record.images is None else queries[record.images]


def _zero_shot(
    model: DualEncoder, pairs: Pairs, embedded: Embedded, column: str, scores: Scores, queries: Queries
) -> None:
    """Name the one object of one-object scenes, among the names (or categories) that the split's scenes
    show."""
    labels = pairs.table[column].to_pylist()
    classes = sorted({name for names in labels for name in names})
    chosen = np.array([at for at, row in enumerate(embedded.rows) if len(labels[row]) == 1], dtype=np.int64)
    if not len(chosen):
        return
    truth = np.array([classes.index(labels[embedded.rows[at]][0]) for at in chosen])
    prompts = [template.format(name) for name in classes for template in TEMPLATES]
    weights = zero_shot_weights(encode_texts(model, prompts).view(len(classes), len(TEMPLATES), -1))
    found = zero_shot_metrics(embedded.image[chosen], weights, truth)
    key = "names" if column == "objects" else "categories"
    scores |= {f"zero_shot_{key}_{name}": getattr(found, name) for name in ("top1", "top5", "mean_per_class")}
    queries[f"zero_shot_{key}_correct"] = found.ranks == 1
    queries[f"zero_shot_{key}_correct_image"] = chosen


def _composition(
    model: DualEncoder, pairs: Pairs, embedded: Embedded, scores: Scores, queries: Queries
) -> None:
    """Which of two captions is true: the relation as it is, or with its objects exchanged."""
    swapped = pairs.table["swapped_caption"].to_pylist()
    chosen = [at for at, row in enumerate(embedded.rows) if swapped[row]]
    if not chosen:
        return
    rows = [int(embedded.rows[at]) for at in chosen]
    true = encode_texts(model, [pairs.captions(row)[2] for row in rows])
    false = encode_texts(model, [swapped[row] for row in rows])
    found = swap_accuracy(embedded.image[chosen], true, false)
    scores["swap_accuracy"] = found.accuracy
    queries |= {"swap_correct": found.correct, "swap_correct_image": np.array(chosen)}


def _questions(
    model: DualEncoder, pairs: Pairs, embedded: Embedded, scores: Scores, queries: Queries
) -> None:
    """Yes/no questions about objects, sizes, backgrounds and relations, each a choice between two
    captions."""
    position = {int(row): at for at, row in enumerate(embedded.rows)}
    for kind, asked in scene_questions(pairs).items():
        kept = [number for number, row in enumerate(asked.rows) if int(row) in position]
        if not kept:
            continue
        images = np.array([position[int(asked.rows[number])] for number in kept])
        true, false = (
            encode_texts(model, [side[number] for number in kept]) for side in (asked.true, asked.false)
        )
        found = swap_accuracy(embedded.image[images], true, false)
        scores[f"question_{kind}_accuracy"] = found.accuracy
        queries |= {f"question_{kind}_correct": found.correct, f"question_{kind}_correct_image": images}
