"""Retrieval once more, one query at a time, in float64, by sorting."""

import numpy as np


def cosines(image: np.ndarray, text: np.ndarray) -> np.ndarray:
    image, text = image.astype(np.float64), text.astype(np.float64)
    image /= np.linalg.norm(image, axis=1, keepdims=True)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    return np.array([[float(np.sum(i * t)) for t in text] for i in image])


def ranking(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Whether each place of the ranking holds a right answer; among equal scores the wrong come first."""
    order = sorted(range(len(scores)), key=lambda at: (-round(scores[at], 12), right[at]))
    return right[order]


def first_rank(result: np.ndarray) -> int:
    return int(np.argmax(result)) + 1


def average_precision(result: np.ndarray) -> float:
    places = np.flatnonzero(result) + 1
    return float(np.mean([(nth + 1) / place for nth, place in enumerate(places)]))


def retrieval(image: np.ndarray, text: np.ndarray, owner: np.ndarray) -> dict[str, np.ndarray]:
    scores = cosines(image, text)
    captions = [ranking(scores[:, t], np.arange(len(image)) == owner[t]) for t in range(len(text))]
    images = [ranking(scores[i], owner == i) for i in range(len(image)) if (owner == i).any()]
    return {
        "text_ranks": np.array([first_rank(result) for result in captions]),
        "image_ranks": np.array([first_rank(result) for result in images]),
        "text_precision": np.array([average_precision(result) for result in captions]),
        "image_precision": np.array([average_precision(result) for result in images]),
    }
