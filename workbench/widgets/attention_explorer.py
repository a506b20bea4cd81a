"""Explores attention interactively: click a word to highlight regions, or a region to highlight words."""

import json
from collections.abc import Callable, Mapping, Sequence
from textwrap import shorten
from typing import Any

import numpy as np

from workbench.figures.attention import attention_heatmap, pooling_bars
from workbench.figures.attention_view import attention_view
from workbench.figures.display import plain
from workbench.figures.heat import word_colour
from workbench.widgets.attention_example import AttentionExample, checked, region_at
from workbench.widgets.attention_picture import attention_picture, word_colours
from workbench.widgets.notebook import NotebookWidget, browser_side, is_live, on_change

MEAN = "mean"
LONGEST_TITLE = 84  # characters that fit above a figure in a narrow window
LOWEST, HIGHEST = -2, 1  # powers of ten, the range of the slider for the pooling temperature
AS_WIDE = {"description_width": "initial"}  # as wide as the text, so that it is not cut off
LOOKS: dict[str, dict[str, Any]] = {
    "example": {"style": AS_WIDE, "layout": {"width": "430px"}},
    "head": {"style": AS_WIDE, "layout": {"width": "150px", "margin": "2px 2px 2px 16px"}},
    "stage": {"style": {"button_width": "auto"}, "layout": {"margin": "2px 2px 2px 16px"}},
    "without_prior": {"indent": False, "layout": {"width": "150px", "margin": "2px 2px 2px 16px"}},
    "temperature": {"style": AS_WIDE, "layout": {"width": "430px"}},
}

Pool = Callable[[int, float], tuple[np.ndarray, np.ndarray]]


class AttentionExplorer(NotebookWidget):
    """Shows the attention between the words of a caption and the regions of its picture, in both directions.

        AttentionExplorer([AttentionExample(...), ...], pool=lambda example, temperature: (tokens, regions))

    Selecting a word highlights regions, and with Shift, Ctrl or Cmd several words are selected. Selecting a
    region, in the picture or by its button, highlights words. Selecting it again clears the selection. Where
    the regions are patches, the picture becomes a heat map, with a colour for each word. Menus choose the
    example, the head and the stage of training, initially the last one. `pool` returns the pooling weights at
    a temperature and adds a slider for it. Colours have the same meaning in every stage. Under
    `WORKBENCH_HEADLESS=1` only the figure is shown. Raises ValueError for shapes that do not fit together and
    for examples with different stages or heads.
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
            raise ValueError("give at least one example; all need the same stages and number of heads")
        self.stages = list(self.examples[0].token_to_region)
        self.heads = _heads(self.examples[0])
        self.pool, self.temperature = pool, temperature
        self.example, self.stage = 0, self.stages[-1]
        self.head: Any = MEAN  # or an index from 0
        self.without_prior = False
        self.words: list[int] = []
        self.region: int | None = None
        self._live = is_live(live)

    @property
    def token_to_region(self) -> np.ndarray:
        """The attention of words to regions [S, R] of the selected example, head and stage."""
        return _of_head(self._token_to_region[self.stage], self.head)

    @property
    def _token_to_region(self) -> Mapping[str, np.ndarray]:
        """The attention of words to regions [H, S, R] of the selected example, by stage."""
        example = self.examples[self.example]
        if not self.without_prior:
            return example.token_to_region
        return {
            stage: values if stage in example.unweighted else without_prior(values, example.region_weights)
            for stage, values in example.token_to_region.items()
        }

    @property
    def region_to_token(self) -> np.ndarray:
        """The attention of regions to words [R, S] of the selected example, head and stage."""
        return _of_head(self.examples[self.example].region_to_token[self.stage], self.head)

    @property
    def figure(self) -> Any:
        """The plotly figure of the current selection: picture, both maps and pooling weights."""
        example = self.examples[self.example]
        names = _numbers(example)
        most = self._most(self._token_to_region)
        tokens, regions = self._pooling()
        return attention_view(
            attention_picture(example, self.token_to_region, self.words, self.region, most),
            attention_heatmap(self.token_to_region, example.words, names, chosen=self.words, most=most),
            attention_heatmap(
                self.region_to_token,
                names,
                example.words,
                chosen=[] if self.region is None else [self.region],
                most=self._most(example.region_to_token),
                turned=True,
            ),
            pooling_bars(tokens, regions, example.words, names),
            title=shorten(example.title or " ".join(example.words), LONGEST_TITLE, placeholder=" …"),
            subtitle=self._subtitle(),
            colours=self._colours(),
        )

    def click(self, message: Mapping[str, Any]) -> None:
        """Select `{"word": number}`, `{"region": number}`, or the region at `{"at": [x, y]}` in the picture.

        Selecting the same again, or a point outside all boxes, clears the selection. With `"more": true` a
        word is added to those that are selected, or taken from them.
        """
        word, region = message.get("word"), message.get("region")
        if "at" in message:
            region = region_at(self.examples[self.example].boxes, *map(float, message["at"]))
            region = self.region if region is None else region
        if word is not None and message.get("more"):
            self.words = [other for other in self.words if other != word] + [word] * (word not in self.words)
        else:
            self.words = [] if word is None or self.words == [word] else [word]
        self.region = None if region == self.region else region

    def choose(
        self,
        *,
        example: int | None = None,
        head: int | str | None = None,
        stage: str | None = None,
        without_prior: bool | None = None,
    ) -> None:
        """Show another example, head (an index from 0, or "mean") or stage, or attention with the weights of
        regions divided out. A new example clears the selection."""
        if example is not None and example != self.example:
            self.example, self.words, self.region = example, [], None
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
        """The largest value of all stages, so that colours are comparable before and after training."""
        return max(float(_of_head(attention, self.head).max()) for attention in stages.values())

    def _colours(self) -> dict[int, str]:
        """The colours of the selected words, or of all words by their attention from the selected region."""
        if self.region is None:
            return word_colours(self.words)
        most = self._most(self.examples[self.example].region_to_token)
        return {
            word: word_colour(share / most) for word, share in enumerate(self.region_to_token[self.region])
        }

    def _subtitle(self) -> str:
        example = self.examples[self.example]
        head = f"mean of {self.heads} heads" if self.head == MEAN else f"head {self.head + 1}"
        maps = example.token_to_region[self.stage]
        parts = [self.stage, "one map" if (maps == maps[0]).all() else head]  # as the grounded teacher has it
        if self.words:
            chosen = ", ".join(f"“{example.words[word]}”" for word in self.words)
            parts.append(f"what {chosen} look{'s' if len(self.words) == 1 else ''} at")
            if example.grid is not None:
                parts.append(f"full colour: {self.token_to_region[self.words].max():.0%} on one patch")
        elif self.region is not None:
            parts.append(f"what region {self.region + 1} looks at")
        elif example.grid is not None:
            parts.append("what all words look at, on average")
        else:
            parts.append("thicker outlines: heavier regions")
        if self._has_prior and self.stage not in example.unweighted:
            parts.append("beyond the prior" if self.without_prior else "with the prior")
        if self.pool is not None:
            parts.append(f"pooling temperature {self.temperature:.2g}")
        return " · ".join(parts)

    @property
    def _has_prior(self) -> bool:
        return any(np.ptp(example.region_weights) > 0 for example in self.examples)

    def _state(self, figure: Any) -> str:
        """The figure and the buttons as JSON for the browser."""
        example = self.examples[self.example]
        word_shares = None if self.region is None else self.region_to_token[self.region]
        region_shares = self.token_to_region[self.words].mean(0) if self.words else None
        most_word, most_region = self._most(example.region_to_token), self._most(self._token_to_region)
        colours = word_colours(self.words)
        words = _buttons(example.words, word_shares, most_word, colours)
        chosen = {} if self.region is None else {self.region: "currentColor"}
        regions = _buttons(_numbers(example), region_shares, most_region, chosen)
        regions = regions if example.grid is None else []  # patches are selected in the picture
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
    names: Sequence[str], shares: np.ndarray | None, most: float, chosen: Mapping[int, str]
) -> list[dict[str, Any]]:
    return [
        {
            "text": name,
            "share": "" if shares is None else f"{shares[number]:.0%}",
            "strength": 0 if shares is None else round(float(shares[number]) / most, 3),
            "chosen": chosen.get(number, ""),
        }
        for number, name in enumerate(names)
    ]
