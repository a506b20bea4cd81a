"""A page that answers words with pictures, without a kernel or a network: several models side by side."""

import base64
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from workbench.data.pairs import Pairs
from workbench.errors import SettingError
from workbench.evaluation.efficiency import model_efficiency, model_milliseconds
from workbench.evaluation.retrieval.search import PictureIndex
from workbench.files import atomic_write
from workbench.models.dual_encoder import DualEncoder
from workbench.reports.html import STYLE

BEST = 6  # pictures of an answer
THUMBNAIL = 120  # pixels, the longer side
_STYLE = """
input { font: inherit; padding: .4em .6em; width: 20em; }
.answers { display: flex; flex-wrap: wrap; gap: 2em; }
.answers > div { flex: 1 1 400px; }
.answers img { width: 120px; height: 120px; object-fit: contain; margin: 2px; }
"""
_SCRIPT = """
const data = JSON.parse(document.getElementById("data").textContent);
const box = document.querySelector("input"), shown = document.getElementById("shown");
function answer() {
  const typed = box.value.trim().toLowerCase();
  const names = data.words.map(word => word.toLowerCase());
  let at = names.indexOf(typed);
  if (at < 0) at = names.findIndex(name => typed && name.includes(typed));
  shown.textContent = at < 0 ? "The page does not know these words; the notebook takes any." : data.words[at];
  for (const [model, rows] of Object.entries(data.answers)) {
    const pictures = at < 0 ? [] : rows[at].map((row, place) =>
      Object.assign(new Image(), {
        src: data.pictures[row], alt: `${data.words[at]}, answer ${place + 1} of ${model}`,
      }));
    document.getElementById(model).replaceChildren(...pictures);
  }
}
box.addEventListener("input", answer);
answer();
"""


def model_facts(model: DualEncoder) -> str:
    """What a model takes: parameters and megabytes of its image tower, and milliseconds on this machine."""
    parameters = model_efficiency(model).image_parameters
    image, text = model_milliseconds(model)
    return (
        f"image tower of {parameters / 1e6:.1f} million parameters ({4 * parameters / 1e6:.1f} MB), "
        f"{image:.1f} ms a picture, {text:.1f} ms a query"
    )


def write_search_page(
    indexes: Mapping[str, PictureIndex], words: Iterable[str], path: str | Path, facts: Mapping[str, str]
) -> Path:
    """Write a page with every model's `BEST` pictures for each of the `words`, and return its path.

    `indexes` maps names of models to indexes of the same pictures, and `facts` to a description
    (`model_facts`). The page answers only these words, typed in full or in part, and first shows the first of
    them. Raises SettingError without words, and ValueError for indexes of different pictures.
    """
    queries = list(dict.fromkeys(word.strip() for word in words if word.strip()))
    if not queries:
        raise SettingError("words", [], "there is nothing to search for", 'Give some, e.g. ["a dog"].')
    pairs = next(iter(indexes.values())).pairs
    if any(index.pairs.fingerprint != pairs.fingerprint for index in indexes.values()):
        raise ValueError("write_search_page: the models were asked about different pictures")
    answers = {name: index.answers(queries, BEST).tolist() for name, index in indexes.items()}
    rows = sorted({row for ranked in answers.values() for best in ranked for row in best})
    ids = {name: f"model{number}" for number, name in enumerate(answers)}
    content = {
        "words": queries,
        "pictures": {row: _thumbnail(pairs, row) for row in rows},
        "answers": {ids[name]: ranked for name, ranked in answers.items()},
    }
    title = f"{len(pairs):,} pictures, searched by words"
    page = [
        "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n"
        "<meta name=viewport content='width=device-width'>\n"
        f"<title>{title}</title>\n<style>{STYLE}{_STYLE}</style>\n<h1>{title}</h1>\n",
        f"<p><input list=words value='{escape(queries[0])}' aria-label='words to search for'>",
        f"<datalist id=words>{_options(queries)}</datalist> <b id=shown></b></p>\n<div class=answers>",
        *(
            f"<div><h2>{escape(name)}</h2><p>{escape(facts.get(name, ''))}</p><div id={place}></div></div>"
            for name, place in ids.items()
        ),
        "</div>\n<script type=application/json id=data>",
        json.dumps(content).replace("<", "\\u003c"),
        f"</script>\n<script>{_SCRIPT}</script>\n</html>\n",
    ]
    path = Path(path).absolute()
    with atomic_write(path, "w") as stream:
        stream.write("".join(page))
    return path


def _options(words: Sequence[str]) -> str:
    return "".join(f"<option value='{escape(word)}'>" for word in words)


def _thumbnail(pairs: Pairs, row: int) -> str:
    """A picture as a small JPEG in a `data:` address: a tenth of a PNG of a photograph."""
    picture = Image.fromarray(pairs.image(row).permute(1, 2, 0).contiguous().numpy())
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=75)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
