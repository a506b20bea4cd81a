"""Captions that are nearly true, as the frozen text tower reads them, computed once."""

from typing import Any, Unpack

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from workbench.data.false_captions import FalseCaption, false_captions
from workbench.data.pairs import Pairs
from workbench.models.devices import device_of
from workbench.recipe import Recipe
from workbench.targets.cached import Share, cached
from workbench.targets.caption_tokens import token_targets
from workbench.targets.image_text import Teacher
from workbench.targets.store_writer import Column


class FalseTargets:
    """The false captions of pairs: `captions` by position among them, `of_caption` the position of each true
    caption's, -1 where it has none, `caption` the true caption of each."""

    def __init__(
        self, recipe: Recipe, pairs: Pairs, teacher: Teacher, *, device: Any = None, **share: Unpack[Share]
    ) -> None:
        made = false_captions(pairs, recipe.seed)
        self.caption = np.array([at for at, one in enumerate(made) if one is not None], dtype=np.int64)
        self.captions: list[FalseCaption] = [one for one in made if one is not None]
        self.kinds = np.array([one.kind for one in self.captions], dtype=object)
        self.of_caption = np.full(len(made), -1, dtype=np.int64)
        self.of_caption[self.caption] = np.arange(len(self.caption))
        if not self.captions:
            return
        device = device or device_of(recipe)
        texts = [one.text for one in self.captions]
        table = pa.table(
            {"id": [str(number) for number in self.caption], "captions": [[text] for text in texts]}
        )
        stand_in = Pairs(table, pairs.image, name=f"{pairs.name}-false", split=pairs.split)
        self.tokens = token_targets(recipe, stand_in, teacher, device=device, **share)
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
