"""Captions that are nearly true, as the frozen text tower reads them, computed once."""

import functools
from typing import Any, Unpack

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from workbench.data.false_captions import FalseCaptions
from workbench.data.pairs import Pairs
from workbench.models.devices import device_of
from workbench.recipe import Recipe
from workbench.targets.cached import Share, cached
from workbench.targets.caption_tokens import TokenTargets, token_targets
from workbench.targets.image_text import Teacher
from workbench.targets.store_writer import Column


class FalseTargets(FalseCaptions):
    """The false captions of pairs, with their embeddings `text` [F, D] and their `tokens`, by number."""

    text: np.ndarray

    def __init__(
        self, recipe: Recipe, pairs: Pairs, teacher: Teacher, *, device: Any = None, **share: Unpack[Share]
    ) -> None:
        super().__init__(pairs, recipe.seed)
        if not self.captions:
            return
        device = device or device_of(recipe)
        texts = [one.text for one in self.captions]
        table = pa.table(
            {"id": [str(number) for number in self.caption], "captions": [[text] for text in texts]}
        )
        stand_in = Pairs(table, pairs.image, name=f"{pairs.name}-false", split=pairs.split)
        self._tokens = functools.partial(token_targets, recipe, stand_in, teacher, device=device, **share)
        model = teacher.model.to(device)

        @torch.no_grad()
        def embed(rows: slice) -> tuple[np.ndarray, dict[int, str]]:
            embedded: Tensor = model.encode_text(model.tokenize(texts[rows]).to(device))
            return torch.nn.functional.normalize(embedded.float(), dim=-1).cpu().numpy(), {}

        store = cached(
            {"texts of": teacher.fingerprint, "data": stand_in.fingerprint, "dtype": "float16"},
            f"{stand_in.name}-{pairs.split}-texts",
            {"text": Column((len(texts), teacher.dim), "float16", embed)},
            batch=recipe.targets.batch,
            label="false captions' {} targets",
            **share,
        )
        self.text = store.column("text")

    @functools.cached_property
    def tokens(self) -> TokenTargets:
        """The words of the false captions; students need none."""
        return self._tokens()
