"""Searches pictures by text or by an uploaded picture."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any, Protocol, runtime_checkable

from workbench.figures.gallery import Gallery, Picture, gallery
from workbench.figures.style import PALETTE, on_page
from workbench.widgets.notebook import NotebookWidget, is_live, on_change

Hit = tuple[int, float]  # row of the picture, score
Words = Callable[[str, int], Sequence[Hit]]


@runtime_checkable
class HasPictures(Protocol):
    """An object with pictures and captions by row, such as `workbench.data.Pairs`."""

    def image(self, row: int) -> Any: ...
    def captions(self, row: int) -> list[str]: ...


class PictureSearch(NotebookWidget):
    """Shows a search box, an upload button, and the best matching pictures with scores and captions.

        index = PictureIndex(run.model(), pairs)
        PictureSearch(pairs, index.words, index.picture, query="a red apple above a dog")

    `words(text, best)` and `picture(bytes of an image file, best)` return the best rows with their scores,
    best first. Without `picture` there is no upload button. Several searches as `words`, by name, answer one
    below the other. `query` is the first search; headless only its result is shown.
    """

    def __init__(
        self,
        pairs: HasPictures,
        words: Words | Mapping[str, Words],
        picture: Callable[[bytes, int], Sequence[Hit]] | None = None,
        *,
        query: str = "",
        best: int = 12,
        live: bool | None = None,
    ) -> None:
        self.pairs, self.words, self.picture, self.query, self.best = pairs, words, picture, query, best
        self._live = is_live(live)

    def show(self, query: str | bytes) -> Gallery:
        """The results of a search as HTML.

        `query` is text or the bytes of an image file. Raises BadSample if the bytes are not a picture, and
        ValueError for a picture if this search supports only text.
        """
        if isinstance(query, str) and isinstance(self.words, Mapping):
            answers = ((name, words(query, self.best)) for name, words in self.words.items())
            return Gallery("".join(self._gallery(hits, f"{name}: “{query}”") for name, hits in answers))
        if isinstance(query, str):
            assert not isinstance(self.words, Mapping)
            hits, title = self.words(query, self.best), f"“{query}”"
        elif self.picture is None:
            raise ValueError(
                "PictureSearch: this search supports only text; give `picture` to search by pictures"
            )
        else:
            hits, title = self.picture(query, self.best), "Most like your picture"
        return self._gallery(hits, title)

    def _gallery(self, hits: Sequence[Hit], title: str) -> Gallery:
        pictures = [
            Picture(self.pairs.image(row), self.pairs.captions(row)[:1], note=f"score {score:.3f}")
            for row, score in hits
        ]
        return gallery(pictures, title)

    _copies_hidden = False  # the answer stands below the box

    def _outputs(self) -> list[Gallery]:
        return [self.show(self.query) if self.query else Gallery("")]

    def _widget(self, changed: Callable[[Gallery], None]) -> Any:
        import ipywidgets

        def search_words(text: str) -> None:
            if text.strip():
                changed(self._answer(text.strip()))

        def search_picture(files: Sequence[Any]) -> None:
            if files:
                changed(self._answer(bytes(files[0]["content"])))

        # Search on Enter or when the box loses focus, not on every key.
        box = ipywidgets.Text(
            value=self.query, placeholder="words to search for, then Enter", continuous_update=False,
            layout={"width": "420px"},
        )  # fmt: skip
        controls = [on_change(box, search_words)]
        if self.picture is not None:
            button = ipywidgets.FileUpload(accept="image/*", multiple=False, description="or a picture")
            controls.append(on_change(button, search_picture))
        return ipywidgets.HBox(controls)

    def _answer(self, query: str | bytes) -> Gallery:
        from workbench.data.decode import (
            BadSample,
        )  # imports torch, which nothing else here needs

        try:
            return self.show(query)
        except BadSample as error:
            reason = escape(error.reason)
            style = f"color:{on_page(PALETTE[7])}"
            return Gallery(f'<div style="{style}">This file is not a readable picture: {reason}</div>')
