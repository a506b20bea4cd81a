"""The report page: whole in itself, plotly once, users' text escaped, nobody's folders in it."""

import re

import pytest

from tests.fake_runs import write_run
from workbench.errors import SettingError
from workbench.reports.html import write_report


def test_a_page_stands_alone_and_escapes_what_users_wrote(tmp_path):
    runs = [
        write_run(tmp_path / "alone", "task_only_demo", splits={"test": 0.0}),
        write_run(tmp_path / "distilled", splits={"test": 0.5}),
    ]
    page = write_report(runs, tmp_path / "out" / "report.html", [("A <b> heading", "<p>section</p>")])
    text = page.read_text(encoding="utf-8")
    assert page == tmp_path / "out" / "report.html"
    # plotly.js itself holds addresses as text; what the page would load is what matters.
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=[\"']?https?:", text)
    assert text.count("plotly.js v") == 1
    assert "A &lt;b&gt; heading" in text and "<p>section</p>" in text
    assert text.count("plotly-graph-div") == 3  # the comparison and both runs' curves
    assert "objectives.fd" in text and str(tmp_path) not in text
    for start, end in (
        ("trained on<td>train<td>8,000<td>40,000<td>", "<td>aaaaaaaaaaaaaaaa<td>all"),
        ("evaluated on<td>test<td>60<td>300<td>", "<td>dddddddddddddddd<td>all"),
    ):
        assert re.search(re.escape(start) + "[^\\n]*" + re.escape(end), text), start


def test_runs_that_were_not_evaluated_have_a_page_too(tmp_path):
    page = write_report([write_run(tmp_path / "run")], tmp_path / "report.html")
    assert page.read_text(encoding="utf-8").count("plotly-graph-div") == 1


def test_runs_that_cannot_be_compared_are_named(tmp_path):
    evaluated = [write_run(tmp_path / name, seed=n, splits={"test": 0.0}) for n, name in enumerate("ab")]
    page = write_report([*evaluated, write_run(tmp_path / "bare")], tmp_path / "report.html").read_text()
    assert "Not evaluated: bare." in page and page.count("plotly-graph-div") == 4
    other = write_run(tmp_path / "other", seed=2, splits={"test": 0.0}, data="e" * 64)
    page = write_report([evaluated[0], other], tmp_path / "report.html").read_text()
    assert "These runs cannot be compared: their results on test are from different data." in page


@pytest.mark.parametrize("name", ["data.json", "versions.json"])
@pytest.mark.parametrize("content", ["{\n", "[3]\n", "\xff\n"])
def test_a_damaged_file_is_named(name, content, tmp_path):
    run = write_run(tmp_path / "run")
    (run / name).write_text(content, encoding="latin-1")
    with pytest.raises(SettingError, match=name):
        write_report([run], tmp_path / "report.html")
    with pytest.raises(SettingError, match="it is a folder"):
        write_report([run], tmp_path)
