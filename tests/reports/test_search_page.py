"""The page that answers words without a kernel."""

import json
import re
from pathlib import Path

import pytest

from tests.conftest import TINY
from workbench.data.load import load_pairs
from workbench.errors import SettingError
from workbench.evaluation.retrieval.search import PictureIndex
from workbench.models.loading import load_dual_encoder
from workbench.reports.search_page import model_facts, write_search_page

WORDS = ["a red apple", "a <b>dog</b>", "a dog's 'bone'", " "]


def test_it_holds_the_answers_of_every_model(tmp_path: Path) -> None:
    pairs = load_pairs("scenes", "val").select(range(9))
    model = load_dual_encoder(str(TINY))
    indexes = {"teacher": PictureIndex(model, pairs), "student": PictureIndex(model, pairs)}
    facts = {"teacher": model_facts(model), "student": "small & quick"}
    path = write_search_page(indexes, WORDS, tmp_path / "page.html", facts)
    text = path.read_text()
    data = json.loads(re.search(r"id=data>(.*?)</script>", text, re.DOTALL)[1])
    assert data["words"] == WORDS[:3] and len(data["answers"]) == 2
    for query, rows in zip(WORDS[:3], data["answers"]["model0"], strict=True):
        assert rows == [row for row, _ in indexes["teacher"].words(query, best=6)]
        assert all(data["pictures"][str(row)].startswith("data:image/jpeg") for row in rows)
    assert "small &amp; quick" in text and re.search(r"million parameters \(\d+\.\d MB\), \d+\.\d ms", text)
    assert "<b>dog" not in text and "http" not in text
    with pytest.raises(SettingError, match="nothing to search for"):
        write_search_page(indexes, [" "], path, facts)
