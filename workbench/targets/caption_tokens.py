"""The words of every caption, as the frozen text tower leaves them, computed once."""

from typing import Any, Unpack

import numpy as np

from workbench.data.pairs import Pairs
from workbench.models.devices import device_of
from workbench.models.tokens import caption_tokens, word_mask
from workbench.recipe import Recipe
from workbench.targets.cached import Share, cached
from workbench.targets.image_text import Teacher
from workbench.targets.store import TargetStore
from workbench.targets.store_writer import Column

CAPTIONS = 256  # that go through the tower together
PORTION = 8192  # tokens that are lost when a process is killed


class TokenTargets:
    """Looks tokens up by caption: they lie in one column, one caption's after the other's."""

    def __init__(self, store: TargetStore, first: np.ndarray) -> None:
        self.store = store
        self.first = first  # of each caption's tokens, [T + 1]

    def rows(self, captions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens [batch, length, dim], float16 and 0 in the padding, and which are there."""
        lengths = self.first[captions + 1] - self.first[captions]
        mask = np.arange(int(lengths.max())) < lengths[:, None]
        places = (self.first[captions][:, None] + np.arange(mask.shape[1]))[mask]
        tokens = np.zeros((*mask.shape, self.store.column("token").shape[1]), dtype=np.float16)
        tokens[mask] = self.store.rows("token", places)
        return tokens, mask


def token_targets(
    recipe: Recipe, pairs: Pairs, teacher: Teacher, *, device: Any = None, **share: Unpack[Share]
) -> TokenTargets:
    """Projected last hidden states of all captions of `pairs`, without start and end."""
    device = device or device_of(recipe)
    model, captions = teacher.model.to(device), pairs.all_captions
    name, fingerprint = f"{pairs.name}-{pairs.split}-tokens", {"data": pairs.fingerprint}

    def lengths_of(rows: slice) -> tuple[np.ndarray, dict[int, str]]:
        return word_mask(model, model.tokenize(captions[rows])).sum(1).clamp(min=1).numpy(), {}

    lengths = cached(
        {"token counts of": teacher.fingerprint["tokenizer"], **fingerprint},
        f"{name}-counts",
        {"token": Column((len(captions),), "int32", lengths_of)},
        batch=CAPTIONS,
        label="caption {} counts",
        **share,
    )
    first = np.concatenate([[0], np.cumsum(lengths.column("token"), dtype=np.int64)])

    def tokens_of(rows: slice) -> tuple[np.ndarray, dict[int, str]]:
        begin = int(np.searchsorted(first, rows.start, side="right")) - 1
        end = int(np.searchsorted(first, rows.stop, side="left"))
        parts = []
        for start in range(begin, end, CAPTIONS):
            ids = model.tokenize(captions[start : min(end, start + CAPTIONS)]).to(device)
            with model.autocast():
                states = caption_tokens(model, ids)
            parts.append(states.tokens[states.mask].float().cpu().numpy())
        return np.concatenate(parts)[rows.start - first[begin] : rows.stop - first[begin]], {}

    store = cached(
        {"tokens of": teacher.fingerprint, **fingerprint, "dtype": "float16"},
        name,
        {"token": Column((int(first[-1]), teacher.dim), "float16", tokens_of)},
        batch=PORTION,
        label="caption {} targets",
        **share,
    )
    return TokenTargets(store, first)
