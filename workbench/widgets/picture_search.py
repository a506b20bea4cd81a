"""Search pictures by typed words or by an uploaded picture."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any, Protocol, runtime_checkable

from workbench.figures.gallery import Gallery, Picture, gallery
from workbench.widgets.notebook import NotebookWidget, is_live, on_change

Hit = tuple[int, float]  # row of the picture, score
Words = Callable[[str, int], Sequence[Hit]]


@runtime_checkable
class HasPictures(Protocol):
    """`workbench.data.Pairs`, or anything else that knows a row's picture and captions."""

    def image(self, row: int) -> Any: ...
    def captions(self, row: int) -> list[str]: ...


class PictureSearch(NotebookWidget):
    """A box to type in and a button to give a picture; below, the pictures that fit best, with scores and
    captions.

        index = PictureIndex(run.model(), pairs)
        PictureSearch(pairs, index.words, index.picture, query="a red apple above a dog")

    `words(text, best)` and `picture(bytes of an image file, best)` return the best rows with their scores,
    best first; without the latter there is no button. Several searches by name as `words` answer one below
    the other. The first query is answered at once. Under
    `WORKBENCH_HEADLESS=1` there is no widget, only that first answer, as `show` gives it.
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
        """The answer as HTML: to words, or to a picture given as the bytes of its file; raises BadSample for
        no picture."""
        if isinstance(query, str) and isinstance(self.words, Mapping):
            answers = ((name, words(query, self.best)) for name, words in self.words.items())
            return Gallery("".join(self._gallery(hits, f"{name}: “{query}”") for name, hits in answers))
        if isinstance(query, str):
            assert not isinstance(self.words, Mapping)
            hits, title = self.words(query, self.best), f"“{query}”"
        elif self.picture is None:
            raise ValueError(
                "PictureSearch: this search knows words only; give it `picture` to search by pictures"
            )
        else:
            hits, title = self.picture(query, self.best), "Most like your picture"
        return self._gallery(hits, title)

    def _gallery(self, hits: Sequence[Hit], title: str) -> Gallery:
        pictures = [
            Picture(self.pairs.image(row), self.pairs.captions(row)[:1], score) for row, score in hits
        ]
        return gallery(pictures, title)

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

        # Not at every letter: when Enter is pressed or the box is left.
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
        from workbench.data.decode import BadSample  # brings torch, which the rest of this file does without

        try:
            return self.show(query)
        except BadSample as error:
            reason = escape(error.reason)
            return Gallery(f'<div style="color:#cc3311">This cannot be read as a picture: {reason}</div>')
