"""Interactive attention: a clicked word lights up regions, a clicked region lights up words."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from workbench.figures.attention import attention_heatmap, pooling_bars
from workbench.figures.attention_view import attention_view
from workbench.figures.boxes import picture_with_boxes
from workbench.figures.display import plain
from workbench.widgets.attention_example import AttentionExample, checked, region_at
from workbench.widgets.notebook import NotebookWidget, browser_side, is_live, on_change

MEAN = "mean"
LOWEST, HIGHEST = -2, 1  # powers of ten: the pooling temperatures of the slider
AS_WIDE = {"description_width": "initial"}  # as the words take, none cut off
LOOKS: dict[str, dict[str, Any]] = {
    "example": {"style": AS_WIDE, "layout": {"width": "430px"}},
    "head": {"style": AS_WIDE, "layout": {"width": "150px", "margin": "2px 2px 2px 16px"}},
    "stage": {"style": {"button_width": "auto"}, "layout": {"margin": "2px 2px 2px 16px"}},
    "without_prior": {"indent": False, "layout": {"width": "150px", "margin": "2px 2px 2px 16px"}},
    "temperature": {"style": AS_WIDE, "layout": {"width": "430px"}},
}
WRITTEN = 0.05  # a region's share from which on it is written into the picture

Pool = Callable[[int, float], tuple[np.ndarray, np.ndarray]]


class AttentionExplorer(NotebookWidget):
    """Pictures with boxes and captions with words, and what each looks at in the other.

        AttentionExplorer([AttentionExample(...), ...], pool=lambda example, temperature: (tokens, regions))

    A word chosen lights up regions, a region chosen, in the picture or by its button, lights up words; chosen
    again it is released. Choosers for example, head and stage of training; the last stage comes first. With
    `pool` there is a slider for the temperature of pooling, whose weights it returns. Colours mean the same
    in every stage. Under `WORKBENCH_HEADLESS=1` there is no widget, only the figure. Raises ValueError for
    shapes that do not fit, and for examples of different stages or heads.
    """

    def __init__(
        self,
        examples: Sequence[AttentionExample],
        *,
        pool: Pool | None = None,
        temperature: float = 2.0,
        live: bool | None = None,
    ) -> None:
        self.examples = [checked(example) for example in examples]
        kinds = {(*example.token_to_region, _heads(example)) for example in self.examples}
        if len(kinds) != 1:
            raise ValueError("give one example or more, all of the same stages and number of heads")
        self.stages = list(self.examples[0].token_to_region)
        self.heads = _heads(self.examples[0])
        self.pool, self.temperature = pool, temperature
        self.example, self.stage = 0, self.stages[-1]
        self.head: Any = MEAN  # or a number from 0 on
        self.without_prior = False
        self.word: int | None = None
        self.region: int | None = None
        self._live = is_live(live)

    @property
    def token_to_region(self) -> np.ndarray:
        """What the words look at now, [S, R]; every row sums to 1."""
        return _of_head(self._token_to_region[self.stage], self.head)

    @property
    def _token_to_region(self) -> Mapping[str, np.ndarray]:
        """What the words of this example look at by stage, [H, S, R]."""
        example = self.examples[self.example]
        if not self.without_prior:
            return example.token_to_region
        weights = example.region_weights
        return {stage: without_prior(values, weights) for stage, values in example.token_to_region.items()}

    @property
    def region_to_token(self) -> np.ndarray:
        """What the regions look at now, [R, S]."""
        return _of_head(self.examples[self.example].region_to_token[self.stage], self.head)

    @property
    def figure(self) -> Any:
        """The picture, both maps and the pooling weights as they are now, a plotly figure."""
        example = self.examples[self.example]
        names = _numbers(example)
        most = self._most(self._token_to_region)
        weights, highlighted, labels = example.region_weights, None, names
        if self.word is not None:
            weights = highlighted = self.token_to_region[self.word]
            shares = zip(names, highlighted, strict=True)
            labels = [f"{name} · {share:.0%}" if share >= WRITTEN else name for name, share in shares]
        elif self.region is not None:
            weights = highlighted = np.eye(len(names))[self.region]
        tokens, regions = self._pooling()
        return attention_view(
            picture_with_boxes(
                example.image,
                example.boxes,
                weights,
                highlighted=highlighted,
                most=most if self.word is not None else None,
                labels=labels,
            ),
            attention_heatmap(self.token_to_region, example.words, names, chosen=self.word, most=most),
            attention_heatmap(
                self.region_to_token,
                names,
                example.words,
                chosen=self.region,
                most=self._most(example.region_to_token),
                turned=True,
            ),
            pooling_bars(tokens, regions, example.words, names),
            title=example.title or " ".join(example.words),
            subtitle=self._subtitle(),
        )

    def click(self, message: Mapping[str, Any]) -> None:
        """Choose `{"word": number}`, `{"region": number}`, or the region `{"at": [x, y]}` in the picture.

        A second choice of the same, or of a place without a box, releases it.
        """
        word, region = message.get("word"), message.get("region")
        if "at" in message:
            region = region_at(self.examples[self.example].boxes, *map(float, message["at"]))
            region = self.region if region is None else region
        self.word = None if word == self.word else word
        self.region = None if region == self.region else region

    def choose(
        self,
        *,
        example: int | None = None,
        head: int | str | None = None,
        stage: str | None = None,
        without_prior: bool | None = None,
    ) -> None:
        """Show another example, head (a number from 0 on, or "mean") or stage, or attention with the weights
        of regions divided out; with another example word and region are released."""
        if example is not None and example != self.example:
            self.example, self.word, self.region = example, None, None
        self.head = self.head if head is None else head
        self.stage = self.stage if stage is None else stage
        self.without_prior = self.without_prior if without_prior is None else without_prior

    def _pooling(self) -> tuple[np.ndarray, np.ndarray]:
        example = self.examples[self.example]
        if self.pool is None:
            return example.token_pooling, example.region_pooling
        tokens, regions = self.pool(self.example, self.temperature)
        return np.asarray(tokens), np.asarray(regions)

    def _most(self, stages: Mapping[str, np.ndarray]) -> float:
        """The largest value of any stage: before and after training one colour is one value."""
        return max(float(_of_head(attention, self.head).max()) for attention in stages.values())

    def _subtitle(self) -> str:
        words = self.examples[self.example].words
        parts = [self.stage, f"mean of {self.heads} heads" if self.head == MEAN else f"head {self.head + 1}"]
        if self.word is not None:
            parts.append(f"what “{words[self.word]}” looks at")
        elif self.region is not None:
            parts.append(f"what region {self.region + 1} looks at")
        else:
            parts.append("the heavier a region, the thicker its outline")
        if self._has_prior:
            parts.append("beyond the prior" if self.without_prior else "with the prior of region weights")
        if self.pool is not None:
            parts.append(f"pooling temperature {self.temperature:.2g}")
        return " · ".join(parts)

    @property
    def _has_prior(self) -> bool:
        return any(np.ptp(example.region_weights) > 0 for example in self.examples)

    def _state(self, figure: Any) -> str:
        """The figure and the buttons as JSON for the browser's side."""
        example = self.examples[self.example]
        of_words = None if self.region is None else self.region_to_token[self.region]
        of_regions = None if self.word is None else self.token_to_region[self.word]
        most_word, most_region = self._most(example.region_to_token), self._most(self._token_to_region)
        words = _buttons(example.words, of_words, most_word, self.word)
        regions = _buttons(_numbers(example), of_regions, most_region, self.region)
        return json.dumps({"figure": plain(figure), "words": words, "regions": regions})

    def _outputs(self) -> list[Any]:
        return [self.figure]

    def _widget(self, changed: Callable[..., None]) -> Any:
        import ipywidgets

        view = browser_side("attention_explorer", "shown")

        def redraw() -> None:
            figure = self.figure
            view.shown = self._state(figure)
            changed(figure)

        def chooser(kind: Any, name: str, options: list[tuple[str, Any]] | None, description: str) -> Any:
            def choose(value: Any) -> None:
                self.choose(**{name: value})
                redraw()

            settings = LOOKS[name] | ({} if options is None else {"options": options})
            value = getattr(self, name)
            return on_change(kind(value=value, description=description, **settings), choose)

        def pool_at(temperature: float) -> None:
            self.temperature = temperature
            redraw()

        def click(_: Any, message: dict[str, Any], __: Any) -> None:
            self.click(message)
            redraw()

        titles = [
            (f"{number + 1}: {example.title or ' '.join(example.words)}", number)
            for number, example in enumerate(self.examples)
        ]
        heads = [(f"mean of {self.heads}", MEAN), *((f"{head + 1}", head) for head in range(self.heads))]
        controls = [
            chooser(ipywidgets.Dropdown, "example", titles, "example"),
            chooser(ipywidgets.Dropdown, "head", heads, "head"),
            chooser(ipywidgets.ToggleButtons, "stage", [(stage, stage) for stage in self.stages], ""),
        ]
        if self._has_prior:
            controls.append(chooser(ipywidgets.Checkbox, "without_prior", None, "beyond the prior"))
        if self.pool is not None:
            slider = ipywidgets.FloatLogSlider(
                value=self.temperature, min=LOWEST, max=HIGHEST, step=0.05, readout_format=".2g",
                description="pooling temperature", **LOOKS["temperature"],
            )  # fmt: skip
            controls.append(on_change(slider, pool_at))
        view.on_msg(click)
        view.shown = self._state(self.figure)
        return ipywidgets.VBox([ipywidgets.HBox(controls, layout={"flex_flow": "row wrap"}), view])


def _heads(example: AttentionExample) -> int:
    return int(next(iter(example.token_to_region.values())).shape[0])


def _of_head(attention: np.ndarray, head: int | str) -> np.ndarray:
    return np.asarray(attention.mean(0) if head == MEAN else attention[head])


def without_prior(attention: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Attention [..., R] as it would be if all regions weighed the same; every row sums to 1.

    The logarithm of a region's weight [R] is added to the logits, so its weight is a factor of the
    attention. A region of weight 0 stays at 0.
    """
    odds = np.divide(attention, weights, out=np.zeros_like(attention), where=weights > 0)
    return odds / np.maximum(odds.sum(-1, keepdims=True), np.finfo(odds.dtype).tiny)


def _numbers(example: AttentionExample) -> list[str]:
    return [str(number + 1) for number in range(len(example.boxes))]


def _buttons(
    names: Sequence[str], shares: np.ndarray | None, most: float, chosen: int | None
) -> list[dict[str, Any]]:
    return [
        {
            "text": name,
            "share": "" if shares is None else f"{shares[number]:.0%}",
            "strength": 0 if shares is None else round(float(shares[number]) / most, 3),
            "chosen": number == chosen,
        }
        for number, name in enumerate(names)
    ]
