"""What k-means costs in time, memory and quality, against scikit-learn.

    python benchmarks/clustering.py [--points 100000 --dim 576 --clusters 1024 --iterations 10]
                                    [--rounds 3] [--threads 1] [--out benchmarks/results]

Both sides start from random points and do the same number of iterations, and neither brings centroids to
unit length. (scikit-learn then assigns all points once more; its user gets the labels too.) The points are
unit vectors whose groups overlap, as those of captions do that share a word: with clean groups scikit-learn
would stop early. Every round has a seed of its own and another order, and its ratios are to scikit-learn in
that round. The floor is the products of points and centroids alone, once an iteration, in chunks that
overwrite each other.

Time is CPU seconds of the process (all threads) and wall seconds. Memory is the peak beyond what was in use
before the call, in a fresh process, from Linux' own high-water mark (left out elsewhere). Inertia, the mean
squared distance to the nearest centroid, is computed by one function for both.
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import sklearn
import torch
from memory import growth
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from workbench.files import atomic_write, write_json
from workbench.targets.concepts import kmeans

CHUNK = 1024
FEW = 2  # points a cluster to warm up on
BOOKS = {256: 1.0, 128: 0.7, 64: 0.5}  # how many words there are of each kind, and how much one counts
NOISE = 1.0
PEER = "scikit-learn"
LIMITS = {"time": 0.8, "memory": 0.1, "inertia": 0.01}  # the workbench's, relative to scikit-learn's

# (points, clusters, iterations, seed) -> centroids
Program = Callable[[np.ndarray, int, int, int], np.ndarray | None]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=576)
    parser.add_argument("--clusters", type=int, default=1024)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    chosen = parser.parse_args()

    setting = {name: value for name, value in vars(chosen).items() if name != "out"}
    setting |= {"faiss": faiss.__version__, "scikit-learn": sklearn.__version__, "limits": LIMITS}
    with threadpool_limits(chosen.threads):
        rows = measure(setting)
    show(rows)
    chosen.out.mkdir(parents=True, exist_ok=True)
    write_json(chosen.out / "clustering.json", {"setting": setting, "rows": rows})
    with atomic_write(chosen.out / "clustering.md", "w") as stream:
        stream.write(markdown(rows))


def measure(setting: dict) -> list[dict]:
    use_threads(setting["threads"])
    points = make_points(setting["points"], setting["dim"])
    result: dict[str, list[tuple[float, float, float | None]]] = {name: [] for name in PROGRAMS}
    for turn in range(setting["rounds"] + 1):
        # Who comes after whom must not favour anybody; the first round warms up, on a few points.
        given = points if turn else points[: FEW * setting["clusters"]]
        for name in np.random.default_rng(turn).permutation(list(PROGRAMS)):
            cpu, wall = time.process_time(), time.perf_counter()
            centroids = PROGRAMS[name](given, setting["clusters"], setting["iterations"], turn)
            spent = time.process_time() - cpu, time.perf_counter() - wall
            if turn:
                result[name].append((*spent, None if centroids is None else inertia(given, centroids)))
    rows = []
    for name in PROGRAMS:
        with multiprocessing.get_context("spawn").Pool(1) as fresh:
            memory = fresh.apply(extra_memory, (name, setting))
        cpu, wall, quality = zip(*result[name], strict=True)
        their_cpu, their_wall, theirs = zip(*result[PEER], strict=True)
        rows.append(
            {
                "program": name,
                "cpu_seconds": cpu,
                "cpu_ratios": ratios(cpu, their_cpu),
                "wall_ratios": ratios(wall, their_wall),
                "inertia": quality,
                "inertia_ratios": None if None in quality else ratios(quality, theirs),
                "extra_megabytes": memory,
            }
        )
    return rows


def use_threads(count: int) -> None:
    torch.set_num_threads(count)
    faiss.omp_set_num_threads(count)


def make_points(count: int, dim: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    books = [strength * rng.standard_normal((words, dim), np.float32) for words, strength in BOOKS.items()]
    points = rng.standard_normal((count, dim), dtype=np.float32)
    points *= NOISE
    # In portions: what is freed here and kept by the process would hide as much of a program's memory.
    for rows in np.array_split(points, max(1, count // CHUNK)):
        for book in books:
            rows += book[rng.integers(len(book), size=len(rows))]
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return points


def workbench(points: np.ndarray, clusters: int, iterations: int, seed: int) -> np.ndarray:
    return kmeans(points, clusters, iterations=iterations, spherical=False, random_start=True, seed=seed)


def scikit_learn(points: np.ndarray, clusters: int, iterations: int, seed: int) -> np.ndarray:
    peer = KMeans(
        clusters, init="random", n_init=1, algorithm="lloyd", max_iter=iterations, tol=0, random_state=seed
    )
    peer.fit(points)
    if len(points) > FEW * clusters and peer.n_iter_ < iterations:
        raise RuntimeError(f"scikit-learn was done after {peer.n_iter_} iterations: nothing can be compared")
    return peer.cluster_centers_


def products(points: np.ndarray, clusters: int, iterations: int, seed: int) -> None:
    block = np.empty((CHUNK, clusters), dtype=np.float32)
    for _ in range(iterations):
        for start in range(0, len(points), CHUNK):
            rows = points[start : start + CHUNK]
            np.matmul(rows, points[:clusters].T, out=block[: len(rows)])


PROGRAMS: dict[str, Program] = {PEER: scikit_learn, "workbench": workbench, "matrix products alone": products}


def inertia(points: np.ndarray, centroids: np.ndarray) -> float:
    mu = torch.from_numpy(np.asarray(centroids, dtype=np.float32))
    total = 0.0
    for rows in torch.from_numpy(points).split(CHUNK):
        squared = rows.square().sum(1, keepdim=True) - 2 * rows @ mu.T + mu.square().sum(1)
        total += float(squared.min(1).values.double().sum())
    return total / len(points)


def ratios(values: tuple, base: tuple) -> list[float]:
    return [value / other for value, other in zip(values, base, strict=True)]


def extra_memory(name: str, setting: dict) -> float | None:
    """Megabytes (10^6 bytes) that this process grows by at most while a program runs."""
    with threadpool_limits(setting["threads"]):
        use_threads(setting["threads"])
        small = make_points(16 * FEW, setting["dim"])
        PROGRAMS[name](small, 16, 2, 0)  # what libraries need for themselves, once
        points = make_points(setting["points"], setting["dim"])
        return growth(lambda: PROGRAMS[name](points, setting["clusters"], setting["iterations"], 0))


def show(rows: list[dict]) -> None:
    print(f"{'program':24}{'cpu s':>8}{'cpu x':>8}{'wall x':>8}{'inertia x':>11}{'extra MB':>10}")
    for row in rows:
        cpu, ratio, wall = (
            statistics.median(row[key]) for key in ("cpu_seconds", "cpu_ratios", "wall_ratios")
        )
        quality = "" if row["inertia_ratios"] is None else f"{statistics.median(row['inertia_ratios']):.4f}"
        memory = "?" if row["extra_megabytes"] is None else f"{row['extra_megabytes']:.0f}"
        print(f"{row['program']:24}{cpu:8.1f}{ratio:8.3f}{wall:8.3f}{quality:>11}{memory:>10}")
    print(f"medians of {len(rows[0]['cpu_seconds'])} rounds; limits relative to {PEER}: {LIMITS}")


def markdown(rows: list[dict]) -> str:
    """The table: medians, times and inertia as multiples of scikit-learn's."""
    lines = ["| program | CPU time | wall time | inertia | extra memory |", "|---|---|---|---|---|"]
    for row in rows:
        cpu, wall = (f"{statistics.median(row[key]):.2f} x" for key in ("cpu_ratios", "wall_ratios"))
        quality = "" if row["inertia_ratios"] is None else f"{statistics.median(row['inertia_ratios']):.4f} x"
        memory = "not measured" if row["extra_megabytes"] is None else f"{row['extra_megabytes']:.0f} MB"
        lines.append(f"| {row['program']} | {cpu} | {wall} | {quality} | {memory} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
