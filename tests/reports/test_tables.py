"""Tables with their words to the left."""

from pandas import DataFrame

from workbench.reports.tables import words_left


def test_columns_of_words_are_left_aligned_with_their_headings_and_numbers_are_not() -> None:
    table = DataFrame(
        {"n": [1, 2], "verdict": ["fit", ""], "interval": ["1.0 to 2.0", "-"]}, index=["a", "b"]
    )
    style = words_left(table).to_html()
    left = style.partition("</style>")[0]
    assert "th.col1.col_heading" in left and "td.col1" in left and "row_heading" in left
    assert "col0" not in left
    assert "text-align: left" in left
